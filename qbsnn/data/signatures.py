"""The settings of a data module that hands most of them on to its parent, for whoever checks a configuration."""

from __future__ import annotations

import inspect
from typing import Any


def with_settings(parent: type, **settings: Any) -> inspect.Signature:
    """The signature of ``parent`` with more arguments, or with other defaults.

    >>> class Camera:
    ...     def __init__(self, width=34, height=34): ...
    >>> with_settings(Camera, height=20, lens=None)
    <Signature (width=34, *, height=20, lens=None)>
    """
    kept = [p for name, p in inspect.signature(parent).parameters.items() if name not in settings]
    more = [inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=value) for name, value in settings.items()]
    return inspect.Signature([*kept, *more])
