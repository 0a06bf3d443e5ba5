"""The names of the classes that a checkpoint's network tells apart, which data must have that it is used on."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from qbsnn.data.base import DataModule
from qbsnn.errors import CheckpointError, SettingsError

SHOWN = 12
"""So many names are listed in a message."""


def known(data: DataModule) -> list[str] | None:
    """The names of a set's classes in their order; ``None`` where they are in files that were not read yet."""
    return [str(name) for name in data.class_names] if data.names_known else None


def check(contents: Mapping[str, Any], path: Path, data: DataModule) -> None:
    """See that a checkpoint's network learned the classes of a set.

    Args:
        contents: of the checkpoint. Of one that does not name its classes nothing is said.
        path: its file.
        data: the set.

    Raises:
        CheckpointError: its classes are no list of names.
        SettingsError: it learned others, or the same in another order.
    """
    about = contents.get("qbsnn")
    theirs = about.get("classes") if isinstance(about, Mapping) else None
    if theirs is not None and not (isinstance(theirs, list) and all(isinstance(name, str) for name in theirs)):
        raise CheckpointError(f"checkpoint {path}: its classes must be a list of names, got {theirs!r}")
    ours = known(data)
    if theirs is None or ours is None or theirs == ours:
        return
    pairs = enumerate(zip(theirs, ours, strict=False))
    first = next((f"; class {i} is {a} there and {b} here" for i, (a, b) in pairs if a != b), "")
    raise SettingsError(
        f"checkpoint {path} learned the classes {_listed(theirs)}; {data.name} has {_listed(ours)}{first}. It must "
        "be used on data with the same classes in the same order"
    )


def _listed(names: list[str]) -> str:
    rest = len(names) - SHOWN
    return ", ".join(names[:SHOWN]) + (f" and {rest} more" if rest > 0 else "")
