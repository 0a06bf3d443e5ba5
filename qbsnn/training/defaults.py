"""What settings leave unsaid: the defaults of what they build, and the digests of the checkpoints that they name."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, get_args, get_type_hints

from qbsnn.checks import named
from qbsnn.errors import SettingsError
from qbsnn.results.files import checkpoint_of
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


CHECKPOINTS = ("teacher", "init_from")
"""Settings that name a checkpoint; ``KEY_digest`` is what it is known by."""


def with_digests(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings with the digest of every checkpoint that they name, and without those of checkpoints that they do not.

    The folder of a run stands for its best checkpoint. Where the file of a stored configuration is gone, what it said
    of it stays.

    Raises:
        CheckpointError: a file cannot be read, or names no digest.
        SettingsError: a path is empty, or there is no such file.
    """
    found = dict(settings)
    for key in CHECKPOINTS:
        path, known = settings.get(key), found.pop(f"{key}_digest", None)
        if path is None:
            continue
        if not path.strip():
            raise SettingsError(f"{key} must be the path of a checkpoint, or null for none, got {path!r}")
        if not known and not Path(path).exists():
            raise SettingsError(f"{key}: checkpoint {path} does not exist")
        if Path(path).is_dir():
            with named(key):
                path = found[key] = str(checkpoint_of(path))
        if not known or Path(path).exists():
            from qbsnn.training.checkpoints import digest  # imports PyTorch, which nothing else needs at this stage

            with named(key):
                known = digest(path)
        found[f"{key}_digest"] = known
    return found
