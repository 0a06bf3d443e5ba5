"""A user's own files: which of them are for training, validation and test, and of which class each one is."""

from __future__ import annotations

import hashlib
import logging
import os
import re
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qbsnn import checks
from qbsnn.data.folders import listed
from qbsnn.data.split import hold_out
from qbsnn.data.table import PARTS, read_table
from qbsnn.errors import DataError

log = logging.getLogger(__name__)

NEARLY = re.compile(r"(val|test)(id|idation|ing|s|set)?(?![a-z])")
"""The beginning of a folder's name, in lower case, that can only mean ``val`` or ``test``: ``valid``, ``test_set``."""
FOR_TRAINING = re.compile(r"train(ing|ed|s|set)?(?![a-z])")
"""The same of ``train``. By itself such a folder may be a class: trains beside cars."""


@dataclass(frozen=True)
class Labelled:
    """Files and their classes.

    Args:
        paths: the N files, sorted.
        labels: their classes, int64 ``[N]``.
    """

    paths: Sequence[Path]
    labels: NDArray[np.int64]

    @property
    def file_of(self) -> NDArray[np.int64]:
        """The number of the file of each sample ``[N]``: a file is a sample."""
        return np.arange(len(self.paths))

    def __add__(self, other: Labelled) -> Labelled:
        """Both, one after the other."""
        return Labelled([*self.paths, *other.paths], np.concatenate([self.labels, other.labels]))

    def take(self, mask: NDArray[np.bool_]) -> Labelled:
        """The files where ``mask`` ``[N]`` is true."""
        return Labelled([self.paths[i] for i in np.flatnonzero(mask).tolist()], self.labels[mask])


class ClassFolders:
    """The files of a user's set, in folders or in a table, which is read once.

    Args:
        root: holds ``train/<class>``, and ``val/<class>`` and ``test/<class>`` if the user has them, or ``<class>``;
            ``Train`` as N-MNIST has it serves as well.
        table: a CSV file in ``root`` that takes the place of the folders, see :func:`read_table`; its paths are
            relative to ``root``.
        suffixes: of the files to take, in lower case; capital letters make no difference.
        name: of the set, for messages.

    Raises:
        DataError: for a folder or a table that is absent or names fewer than two classes.
    """

    def __init__(self, root: Path, table: str | Path | None, suffixes: Collection[str], name: str) -> None:
        self.root, self.suffixes, self.name = root, suffixes, name
        self.table = None if table is None else root / table
        self.rows = [] if self.table is None else sorted(read_table(self.table, root, name))
        self.places: dict[str, Path] = {}
        if self.table is None:
            found = folders_in(root, name)
            for folder in found:
                if folder.lower() in PARTS:
                    part = folder.lower()
                    other = self.places.setdefault(part, root / folder).name
                    if other != folder:
                        raise DataError(f"{name}: {root} has both {other} and {folder}: which is {part}?")
            if self.places and "train" not in self.places:
                raise DataError(f"{name}: {root} has the folders {', '.join(found)}, but no train")
            if self.places:
                _tell_others([folder for folder in found if folder.lower() not in PARTS], root, name)
            else:
                _refuse_parts(found, root, name)
            place = self.places.get("train", root)
            found = folders_in(place, name)
        else:
            place, found = self.table, sorted({label for _, label, _ in self.rows})
        if len(found) < 2:
            raise DataError(
                f"{name}: {place} must have at least two classes, got {len(found)}. It must be a folder with "
                "train/<class>/ (and val/<class>/, test/<class>/ if you have them), or <class>/, or a CSV of path,label"
            )
        #: sorted; a label is a position in them
        self.classes = tuple(found)

    @cached_property
    def given(self) -> dict[str, Labelled]:
        """The files of ``train``, and of ``val`` and ``test`` where the user has them.

        Raises:
            DataError: for a class without training files, a class that training does not have.
        """
        if self.table is not None:
            parts = {part: self._of_table(part) for part in PARTS}
        elif self.places:
            parts = {part: self._below(self.places[part]) for part in PARTS if part in self.places}
        else:
            parts = {"train": self._below(self.root)}
        absent = sorted(set(range(len(self.classes))) - set(parts["train"].labels.tolist()))
        if absent:
            place = self.table or self.places.get("train", self.root)
            raise DataError(f"{self.name}: {place} has no training file of the class {self.classes[absent[0]]}")
        return {part: found for part, found in parts.items() if found.paths}

    def divide(self, val_fraction: float, test_fraction: float, seed: int) -> dict[str, Labelled]:
        """The files of ``train``, ``val`` and ``test``; what the user does not have is held out of the training files.

        Args:
            val_fraction: share of the training files held out for validation, after those for the test.
            test_fraction: share of the training files held out for the test.
            seed: decides which; each class gives in proportion to its size.

        Raises:
            DataError: where a class would be left without training files.
        """
        parts = dict(self.given)
        for part, fraction in (("test", test_fraction), ("val", val_fraction)):
            if part not in parts:
                held = hold_out(parts["train"].labels, fraction, seed, self.name, f"{part}_fraction")
                parts[part], parts["train"] = parts["train"].take(held), parts["train"].take(~held)
                log.info(
                    "%s has no %s files of its own: %s of the training files are held out for it (data.%s_fraction=%g, "
                    "data.split_seed=%d)",
                    self.name, part, f"{held.sum():,}", part, fraction, seed,
                )  # fmt: skip
        lost = sorted(set(range(len(self.classes))) - set(parts["train"].labels.tolist()))
        if lost:
            names = ", ".join(self.classes[label] for label in lost[:5]) + (", ..." if lost[5:] else "")
            raise DataError(
                f"{self.name}: no training file is left of {len(lost)} of {len(self.classes)} classes ({names}), since "
                "files are held out for validation and the test. Give each class more files, lower data.val_fraction "
                "and data.test_fraction, or bring files for val and test of your own"
            )
        return {part: parts[part] for part in PARTS}

    def _of_table(self, part: str) -> Labelled:
        found = [(self.root / path, self.classes.index(label)) for path, label, where in self.rows if where == part]
        for path, _ in found:
            if path.suffix.lower() not in self.suffixes:
                kinds = ", ".join(sorted(self.suffixes))
                raise DataError(f"{self.name}: {self.table} names {path}, whose suffix is none of {kinds}")
        return Labelled([path for path, _ in found], np.array([label for _, label in found], np.int64))

    def _below(self, place: Path) -> Labelled:
        foreign = sorted(set(folders_in(place, self.name)) - set(self.classes))
        if foreign:
            raise DataError(f"{self.name}: {place / foreign[0]} is of a class that the training files do not have")
        paths, labels = [], []
        ignored: Counter[str] = Counter()
        for label, folder in enumerate(self.classes):
            for path in listed(place / folder, "", self.name) if (place / folder).is_dir() else ():
                if path.suffix.lower() in self.suffixes:
                    paths.append(path)
                    labels.append(label)
                else:
                    ignored[path.suffix.lower() or "none"] += 1
        if ignored:
            log.warning("%s: files of other kinds in %s are left out: %s", self.name, place, dict(ignored))
        if not paths:
            raise DataError(f"{self.name}: {place} holds no file that ends in {', '.join(sorted(self.suffixes))}")
        return Labelled(paths, np.array(labels, np.int64))


class OwnFiles:
    """What the data modules of a user's own files share; it stands before the module of their kind of files."""

    name: str
    val_fraction: float
    split_seed: int
    class_names: tuple[str, ...]

    def look(self, root: str | Path, table: str | Path | None, suffixes: Collection[str], test_fraction: float) -> Path:
        """Look which classes there are; returns where a cache goes unless the user says so: no folder of a class."""
        self.test_fraction = checks.number("test_fraction", test_fraction, 0, 0.9, open_low=True)
        folder = checks.path("root", root, "a folder").absolute()
        if table is not None:
            checks.path("table", table, "a CSV file")
        self.own = ClassFolders(folder, table, suffixes, self.name)
        self.class_names = self.own.classes
        return self.own.root / ".cache"

    @cached_property
    def parts(self) -> dict[str, Labelled]:
        """The files of ``train``, ``val`` and ``test``."""
        return self.own.divide(self.val_fraction, self.test_fraction, self.split_seed)

    def official(self, train: bool) -> Labelled:
        """The training files and behind them those for validation, or the test files."""
        return self.parts["train"] + self.parts["val"] if train else self.parts["test"]

    def held_out(self, source: Any, labels: NDArray[np.int64]) -> NDArray[np.bool_]:
        """The samples of the files behind the training files."""
        return np.asarray(source.file_of >= len(self.parts["train"].paths))

    @cached_property
    def held_test(self) -> str | None:
        """A digest of the names of the test files that were held out; ``None`` where the user has test files."""
        return None if "test" in self.own.given else self._digest(map(str, self.parts["test"].paths))

    def describe(self) -> dict[str, Any]:
        """As every set, but with a digest of the names of each part's samples, not of their places, and the classes."""
        found = super().describe()  # type: ignore[misc]
        del found["indices_sha256"]
        parts = self._splits.items()  # type: ignore[attr-defined]
        digests = {part: self._digest([split.names[place] for place in split.kept]) for part, split in parts}
        return found | {"samples_sha256": digests, "classes": list(self.class_names)}

    def _digest(self, names: Iterable[str]) -> str:
        relative = (name.removeprefix(f"{self.own.root}{os.sep}") for name in names)
        return hashlib.sha256("\n".join(relative).encode("utf-8", "surrogateescape")).hexdigest()[:16]


def _tell_others(folders: Sequence[str], root: Path, name: str) -> None:
    """Refuse folders beside ``train`` whose names can only mean ``val`` or ``test``; name those that are left out."""
    for folder in folders:
        meant = NEARLY.match(folder.lower())
        if meant is not None:
            raise DataError(f"{name}: {root / folder} would not be read: rename it to {meant[1]}, or move it elsewhere")
    if folders:
        log.warning("%s: folders beside train are left out: %s", name, ", ".join(folders))


def _refuse_parts(folders: Sequence[str], root: Path, name: str) -> None:
    """Refuse folders that would be classes where their names say that they are parts: Training and Testing."""
    others = [folder for folder in folders if NEARLY.match(folder.lower())]
    train = [folder for folder in folders if FOR_TRAINING.match(folder.lower())]
    if others and (train or len(others) == len(folders)):
        raise DataError(
            f"{name}: {', '.join(sorted(train + others))} in {root} look like parts, not like classes: rename them to "
            f"{', '.join(PARTS)}"
        )


def folders_in(place: Path, name: str, advice: str = "Point data.root at your folder") -> list[str]:
    """Names of the folders in ``place``, sorted, hidden ones aside; raises DataError where it cannot be listed."""
    try:
        return sorted(entry.name for entry in os.scandir(place) if entry.is_dir() and not entry.name.startswith("."))
    except OSError as error:
        raise DataError(f"{name}: cannot list {place}: {error.strerror}. {advice}") from error
