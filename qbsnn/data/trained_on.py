"""What a checkpoint says of the data that it was trained on, and whether a set fits that it is used on."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from qbsnn.data.base import DataModule
from qbsnn.errors import CheckpointError, SettingsError

SHOWN = 12
"""So many names are listed in a message."""


def known(data: DataModule) -> dict[str, Any]:
    """What a checkpoint keeps of its set: the names of the classes, and of the test files that were held out a digest.

    The names are ``None`` where they are in files that were not read yet, the digest where the set has test files.
    """
    return {"classes": _classes(data), "held_test": getattr(data, "held_test", None)}


def _classes(data: DataModule) -> list[str] | None:
    return [str(name) for name in data.class_names] if data.names_known else None


def check(contents: Mapping[str, Any], path: Path, data: DataModule) -> None:
    """See that a checkpoint's network can be tested on a set: it learned its classes, and not its test files.

    Args:
        contents: of the checkpoint. Where it does not name its classes or test files, nothing is said of them.
        path: its file.
        data: the set. Of its test files nothing is said where it lies elsewhere than in training.

    Raises:
        CheckpointError: the classes are no list of names.
        SettingsError: it learned others, or training held out other files of the same folder for the test.
    """
    check_classes(contents, path, data)
    about = contents.get("qbsnn")
    if not isinstance(about, Mapping) or (theirs := about.get("held_test")) is None:
        return
    if (ours := known(data)["held_test"]) is None or ours == theirs:
        return
    root = ((about.get("config") or {}).get("data") or {}).get("root")
    if Path(str(root)).absolute() == data.root:
        raise SettingsError(
            f"checkpoint {path} was trained when other files of {data.root} were held out for the test: files came or "
            "went since, or data.test_fraction, data.val_fraction or data.split_seed changed, so it may have been "
            f"trained on what is held out now. Put test files that it never saw into {data.root / 'test'}"
        )


def check_classes(contents: Mapping[str, Any], path: Path, data: DataModule) -> None:
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
    ours = _classes(data)
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
