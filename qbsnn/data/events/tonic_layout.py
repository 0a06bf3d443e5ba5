"""Recorded event sets in Tonic's layout below ``<root>/<Tonic's class>``."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from qbsnn.data import folders
from qbsnn.data.events.events import Events, Sensor
from qbsnn.data.events.module import EventDataModule
from qbsnn.data.events.readers import Convention, read
from qbsnn.data.events.recordings import Recordings
from qbsnn.data.folders import Archive
from qbsnn.data.shards import stamps
from qbsnn.errors import DataError


class FileRecordings(Recordings):
    """Recordings in files of their own, ``paths`` in their order, which leave ``convention`` open."""

    def __init__(
        self, paths: Sequence[Path], labels: NDArray[np.int64], sensor: Sensor, convention: Convention | None = None
    ) -> None:
        super().__init__([str(path) for path in paths], labels, sensor)
        self.paths, self.convention = list(paths), convention

    def read(self, index: int) -> Events:
        """Read one file."""
        return read(self.paths[index], self.convention).events

    def fingerprint(self) -> Any:
        """Path, size and time of change of each file."""
        return stamps(self.paths)


class TonicEvents(EventDataModule):
    """A set that Tonic can download; its archives may lie in ``folder`` still packed.

    verify: also compare the number of recordings with the published one, so that a half-extracted archive is noticed.
    """

    folder_name: ClassVar[str]  # Tonic's class
    recordings: ClassVar[dict[bool, int]]  # published number, of training and of test recordings
    note: ClassVar[str] = ""

    @property
    def folder(self) -> Path:
        """``<root>/<Tonic's class>``."""
        return self.root / self.folder_name

    @abstractmethod
    def archives(self) -> list[Archive]:
        """The published archives."""

    def prepare_data(self) -> None:
        """Unpack or download what is absent; raises DataError with the steps to do by hand.

        Without ``verify`` a set that is there in part is used as it is, and nothing is downloaded.
        """
        archives = self.archives()
        if not self.verify and not all(archive.missing(self.folder) for archive in archives):
            archives = [archive for archive in archives if (self.folder / archive.name).is_file()]
        folders.provide(self.folder, archives, self.name, self.download, self.verify, folders.tonic_download, self.note)

    def tonic(self) -> Any:
        """Tonic's class of this set."""
        from tonic import datasets  # here: it brings librosa and numba, and takes seconds

        return getattr(datasets, self.folder_name)

    def steps(self) -> str:
        """What to do by hand."""
        return folders.steps(self.folder, self.archives()) + self.note

    def complete(self, names: Sequence[str], labels: NDArray[np.int64], wanted: int, where: Path) -> None:
        """Raise DataError where a class has no recording, or with ``verify`` where recordings are too few or many."""
        absent = np.setdiff1d(np.arange(self.num_classes), labels)
        if len(absent):
            raise DataError(
                f"{self.name}: {where} has no recording of class {absent[0]} ({self.class_names[absent[0]]})"
                f"{f' and {len(absent) - 1} others' if len(absent) > 1 else ''}. By hand: {self.steps()}"
            )
        if self.verify and len(names) != wanted:
            raise DataError(
                f"{self.name}: {where} holds {len(names):,} of {wanted:,} recordings, as if the archive were extracted "
                f"only in part. Delete it and start again, or set data.verify=false to use it as it is"
            )


class FileEvents(TonicEvents):
    """A set with one file per recording, whose class is in its path."""

    suffix: ClassVar[str]
    convention: ClassVar[Convention | None] = None  # what its files leave open

    @abstractmethod
    def label(self, path: Path) -> int | None:
        """The class of a recording, or ``None`` where the path names none."""

    def place(self, train: bool) -> Path:
        """The folder with the training or the test recordings."""
        return self.folder / self.archives()[0 if train else 1].content[0]

    def open(self, train: bool) -> tuple[Recordings, NDArray[np.int64], NDArray[np.int64]]:
        """List the files of one part, sorted by path."""
        paths, labels = self.files(self.place(train), self.recordings[train])
        made = FileRecordings(paths, labels, self.sensor, self.convention)
        return made, labels, np.arange(len(paths))

    def files(self, place: Path, wanted: int) -> tuple[list[Path], NDArray[np.int64]]:
        """The files below ``place`` and their classes, checked to be ``wanted`` and of every class."""
        if not place.is_dir():
            raise DataError(f"{self.name}: {place} is missing. By hand: {self.steps()}")
        paths = folders.listed(place, self.suffix, self.name)
        labels = [self.label(path) for path in paths]
        for path, label in zip(paths, labels, strict=True):
            if label is None or not 0 <= label < self.num_classes:
                raise DataError(
                    f"{self.name}: {path} is of no class from 0 to {self.num_classes - 1}; the path tells it"
                )
        found = np.array(labels, np.int64)
        self.complete([str(path) for path in paths], found, wanted, place)
        return paths, found
