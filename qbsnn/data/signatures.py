"""The settings of a data module that hands most of them on to its parent, for whoever checks a configuration."""

from __future__ import annotations

import inspect
from typing import TypeVar

Class = TypeVar("Class", bound=type)


def with_settings(cls: Class) -> Class:
    """Let a class show the arguments of its last parent beside its own keyword-only ones, whose defaults count.

    >>> class Camera:
    ...     def __init__(self, width=34, height=34): ...
    >>> @with_settings
    ... class Small(Camera):
    ...     def __init__(self, *, height=20, lens=None, **settings): ...
    >>> inspect.signature(Small)
    <Signature (width=34, *, height=20, lens=None)>
    """
    own = {name: p for name, p in inspect.signature(cls).parameters.items() if p.kind is p.KEYWORD_ONLY}
    kept = [p for name, p in inspect.signature(cls.__bases__[-1]).parameters.items() if name not in own]
    cls.__signature__ = inspect.Signature([*kept, *own.values()])  # type: ignore[attr-defined]
    return cls
