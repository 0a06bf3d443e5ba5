"""A user's own files: which of them are for training, validation and test, and of which class each one is."""

from __future__ import annotations

import csv
import logging
import os
from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from qbsnn.data.split import hold_out
from qbsnn.errors import DataError

log = logging.getLogger(__name__)

PARTS = ("train", "val", "test")
HIDDEN_CACHE = ".cache"
"""Below the root, where folders are classes; a hidden one is none."""


@dataclass(frozen=True)
class Labelled:
    """Files of one part.

    Args:
        paths: the N files, sorted.
        labels: their classes, int64 ``[N]``.
    """

    paths: list[Path]
    labels: NDArray[np.int64]

    def __add__(self, other: Labelled) -> Labelled:
        """Both, one after the other."""
        return Labelled(self.paths + other.paths, np.concatenate([self.labels, other.labels]))

    def take(self, mask: NDArray[np.bool_]) -> Labelled:
        """The files where ``mask`` ``[N]`` is true."""
        return Labelled([self.paths[i] for i in np.flatnonzero(mask)], self.labels[mask])


@dataclass(frozen=True)
class Listing:
    """The files of a user's set.

    Args:
        classes: names of the classes; a label is a position in them.
        parts: the files of ``train``, and of ``val`` and ``test`` where the user has them.
    """

    classes: tuple[str, ...]
    parts: dict[str, Labelled]


def class_names(root: Path, table: Path | None, name: str) -> tuple[str, ...]:
    """The classes of a set, sorted: the folders of its training files, or what its table names.

    Args:
        root: holds ``train/<class>``, or the folders of the classes themselves.
        table: a CSV file, see :func:`read_table`; ``None`` for folders.
        name: of the set, for messages.

    Raises:
        DataError: for a folder or a table that is absent or names fewer than two classes.
    """
    if table is None:
        place = root / "train" if (root / "train").is_dir() else root
        found = _folders(place, name)
        if place == root and not set(found).isdisjoint(PARTS):
            raise DataError(f"{name}: {root} has the folders {', '.join(found)}, but no train")
    else:
        found = sorted({label for _, label, _ in read_table(table, name)})
        place = table
    if len(found) < 2:
        raise DataError(
            f"{name}: {place} must have at least two classes, got {len(found)}. It must be a folder with "
            "train/<class>/ (and val/<class>/, test/<class>/ if you have them), or <class>/, or a CSV of path,label"
        )
    return tuple(found)


def list_files(root: Path, table: Path | None, suffixes: Collection[str], name: str) -> Listing:
    """All files of a set.

    Args:
        root: holds ``{train,val,test}/<class>/**`` or ``<class>/**``.
        table: a CSV file that takes the place of the folders; its paths are relative to ``root``.
        suffixes: of the files to take, in lower case; capital letters make no difference.
        name: of the set, for messages.

    Raises:
        DataError: for an absent folder or file, a class without training files, a class that training does not have.
    """
    classes = class_names(root, table, name)
    if table is not None:
        return Listing(classes, _parts_of_table(root, table, classes, suffixes, name))
    if not (root / "train").is_dir():
        return Listing(classes, {"train": _labelled(root, classes, suffixes, name)})
    present = [part for part in PARTS if (root / part).is_dir()]
    return Listing(classes, {part: _labelled(root / part, classes, suffixes, name) for part in present})


def divide(listing: Listing, val_fraction: float, test_fraction: float, seed: int, name: str) -> dict[str, Labelled]:
    """The files of ``train``, ``val`` and ``test``; what the user does not have is held out of the training files.

    Args:
        listing: the user's files.
        val_fraction: share of the training files held out for validation, after those for the test.
        test_fraction: share of the training files held out for the test.
        seed: decides which; each class gives in proportion to its size.
        name: of the set, for messages.

    >>> files = Labelled([Path(f"{i}.png") for i in range(20)], np.arange(20) % 2)
    >>> parts = divide(Listing(("a", "b"), {"train": files}), 0.25, 0.2, 0, "twenty")
    >>> {part: len(found.paths) for part, found in parts.items()}
    {'train': 12, 'val': 4, 'test': 4}
    """
    parts = dict(listing.parts)
    for part, fraction in (("test", test_fraction), ("val", val_fraction)):
        if part not in parts:
            held = hold_out(parts["train"].labels, fraction, seed, name, f"{part}_fraction")
            parts[part], parts["train"] = parts["train"].take(held), parts["train"].take(~held)
            log.info(
                "%s has no %s files of its own: %s of the training files are held out for it (data.%s_fraction=%g, "
                "data.split_seed=%d)",
                name, part, f"{held.sum():,}", part, fraction, seed,
            )  # fmt: skip
    return {part: parts[part] for part in PARTS}


def read_table(path: Path, name: str) -> list[tuple[str, str, str]]:
    """Rows of a CSV file with the columns ``path``, ``label`` and, if there is one, ``part``: train, val or test.

    Raises:
        DataError: for a file that cannot be read, other columns, an incomplete row.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            columns = reader.fieldnames or []
            if not {"path", "label"} <= set(columns):
                raise DataError(f"{name}: {path} must have the columns path and label, got {', '.join(columns)}")
            rows = [(reader.line_num, row) for row in reader]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{name}: {path} cannot be read: {error}") from error
    found = []
    for line, row in rows:
        part = (row.get("part") or "train").strip()
        if not row["path"] or not row["label"] or part not in PARTS:
            raise DataError(
                f"{name}: {path}, line {line} must have a path, a label and one of {', '.join(PARTS)} as part, got "
                f"{row['path']!r}, {row['label']!r} and {part!r}"
            )
        found.append((row["path"].strip(), row["label"].strip(), part))
    return found


def _parts_of_table(
    root: Path, table: Path, classes: tuple[str, ...], suffixes: Collection[str], name: str
) -> dict[str, Labelled]:
    rows = sorted(read_table(table, name))
    parts = {}
    for part in PARTS:
        chosen = [(root / path, classes.index(label)) for path, label, where in rows if where == part]
        for path, _ in chosen:
            if path.suffix.lower() not in suffixes:
                raise DataError(f"{name}: {table} names {path}, whose suffix is none of {', '.join(sorted(suffixes))}")
        if chosen:
            parts[part] = Labelled([path for path, _ in chosen], np.array([label for _, label in chosen], np.int64))
    _check_classes(parts.get("train", Labelled([], np.zeros(0, np.int64))), classes, table, name)
    return parts


def _labelled(place: Path, classes: tuple[str, ...], suffixes: Collection[str], name: str) -> Labelled:
    foreign = sorted(set(_folders(place, name)) - set(classes))
    if foreign:
        raise DataError(f"{name}: {place / foreign[0]} is of a class that the training files do not have")
    paths, labels = [], []
    ignored: Counter[str] = Counter()
    for label, folder in enumerate(classes):
        for path in _walk(place / folder, name):
            if path.suffix.lower() in suffixes:
                paths.append(path)
                labels.append(label)
            else:
                ignored[path.suffix.lower() or "none"] += 1
    if ignored:
        log.warning("%s: files of other kinds in %s are left out: %s", name, place, dict(ignored))
    found = Labelled(paths, np.array(labels, np.int64))
    if place.name != "val" and place.name != "test":
        _check_classes(found, classes, place, name)
    if not paths:
        raise DataError(f"{name}: {place} holds no file that ends in {', '.join(sorted(suffixes))}")
    return found


def _check_classes(train: Labelled, classes: tuple[str, ...], where: Path, name: str) -> None:
    absent = sorted(set(range(len(classes))) - set(train.labels.tolist()))
    if absent:
        raise DataError(f"{name}: {where} has no training file of the class {classes[absent[0]]}")


def _folders(place: Path, name: str) -> list[str]:
    try:
        return sorted(entry.name for entry in os.scandir(place) if entry.is_dir() and not entry.name.startswith("."))
    except OSError as error:
        raise DataError(f"{name}: cannot list {place}: {error.strerror}. Point data.root at your folder") from error


def _walk(folder: Path, name: str) -> list[Path]:
    """All files below a folder that may be absent, sorted, without hidden ones."""
    if not folder.is_dir():
        return []

    def refuse(error: OSError) -> None:
        raise DataError(f"{name}: cannot list {error.filename}: {error.strerror}") from error

    found = []
    for path, _, files in os.walk(folder, onerror=refuse):
        found += [Path(path, file) for file in files if not file.startswith(".")]
    return sorted(found)
