"""What every setting is when nobody sets it: the defaults of the classes and functions that settings build."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, get_args, get_type_hints

from qbsnn.training.building import locate

EMPTY = inspect.Parameter.empty


def arguments(target: Any) -> dict[str, Any]:
    """The arguments of a class or function with their defaults, those of a typed ``**options`` included.

    Args:
        target: a class or a function.

    Returns:
        Name -> default; ``inspect.Parameter.empty`` where there is none.

    >>> def build(a, b=2): ...
    >>> arguments(build)["b"], arguments(build)["a"] is EMPTY
    (2, True)
    """
    found: dict[str, Any] = {}
    for name, parameter in inspect.signature(target).parameters.items():
        if parameter.kind is not inspect.Parameter.VAR_KEYWORD:
            found[name] = parameter.default
        elif options := get_args(_hints(target).get(name)):
            defaults = _of_options(target, options[0])
            found |= {key: defaults.get(key, EMPTY) for key in options[0].__annotations__}
    return found


def _of_options(target: Any, options: Any) -> Mapping[str, Any]:
    """Defaults of a typed ``**options``: of a class, those of its parents; else ``DEFAULTS`` beside the type."""
    if inspect.isclass(target):
        return {key: value for parent in reversed(target.__mro__[1:-1]) for key, value in arguments(parent).items()}
    return getattr(sys.modules[options.__module__], "DEFAULTS", {})


def _hints(target: Any) -> dict[str, Any]:
    return get_type_hints(target.__init__ if inspect.isclass(target) else target, include_extras=True)


def defaults(node: Mapping[str, Any], trust: Sequence[str] = (), where: str = "") -> Iterator[tuple[str, Any]]:
    """The defaults of what the ``_target_`` entries of settings build.

    Args:
        node: settings, or a node of them.
        trust: packages that may be built besides those of this project.
        where: the node's place, empty for all settings.

    Yields:
        Dotted keys with their defaults.

    Raises:
        SettingsError: a ``_target_`` may not be built.
    """
    prefix = f"{where}." if where else ""
    if (target := node.get("_target_")) is not None:
        for name, value in arguments(locate(where, target, trust)).items():
            if value is not EMPTY:
                yield prefix + name, value
    for key, below in node.items():
        if isinstance(below, Mapping):
            yield from defaults(below, trust, prefix + str(key))
