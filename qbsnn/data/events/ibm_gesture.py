"""DVS128 Gesture as IBM publishes it: whole takes in AEDAT 3.1, and beside each a list of its gestures."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from qbsnn.data.events.events import Events, Sensor
from qbsnn.data.events.readers import read
from qbsnn.data.events.recordings import Recordings
from qbsnn.data.folders import Archive
from qbsnn.errors import DataError

ARCHIVE = Archive(
    "DvsGesture.tar.gz",
    "https://ibm.ent.box.com/s/3hiq58ww1pbbjrinh367ykfdf60xsfm8",
    "8a5c71fb11e24e5ca5b11866ca6c00a1",
    ("DvsGesture",),
)
LISTS = {True: "trials_to_train.txt", False: "trials_to_test.txt"}
TAKES = {True: 98, False: 24}
"""Published number of takes, of training and of test."""


class Gesture(NamedTuple):
    """A gesture in a take: its class from 0, and its first and last µs (the last does not belong to it)."""

    path: Path
    label: int
    start: int
    end: int


def find(places: Sequence[Path]) -> Path | None:
    """The unpacked folder in one of some places."""
    return next((place / ARCHIVE.content[0] for place in places if (place / ARCHIVE.content[0]).is_dir()), None)


def find_packed(places: Sequence[Path]) -> Path | None:
    """The one of some places with the archive."""
    return next((place for place in places if (place / ARCHIVE.name).is_file()), None)


def takes(folder: Path, train: bool) -> list[Path]:
    """The takes that ``trials_to_train.txt`` or ``trials_to_test.txt`` names. Raises DataError for an absent list."""
    path = folder / LISTS[train]
    try:
        names = path.read_text(encoding="utf-8").split()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read: {error}. It belongs to IBM's archive {ARCHIVE.name}") from error
    return [folder / name for name in names]


def gestures(path: Path) -> list[Gesture]:
    """The gestures of a take, one per class; of several of one class the last counts, as in Tonic's version.

    Args:
        path: ``userNN_lighting.aedat``; ``userNN_lighting_labels.csv`` beside it has the columns class (from 1),
            startTime_usec and endTime_usec.

    Raises:
        DataError: for an absent take or list, and rows that are none.
    """
    if not path.is_file():
        raise DataError(f"{path} is missing")
    labels = path.with_name(f"{path.stem}_labels.csv")
    found: dict[int, Gesture] = {}
    try:
        with labels.open(newline="", encoding="utf-8-sig") as file:
            for row in csv.DictReader(file):
                label, start, end = (int(row[key]) for key in ("class", "startTime_usec", "endTime_usec"))
                found[label] = Gesture(path, label - 1, start, end)
                if not start < end:
                    raise ValueError(f"class {label} ends at {end} µs and starts at {start} µs")
    except (OSError, ValueError, KeyError, TypeError, csv.Error) as error:
        raise DataError(f"{labels} is no list of gestures: {type(error).__name__}: {error}") from error
    # in the order of Tonic's files, userNN_lighting/K.npy, so that the same samples are held out
    return sorted(found.values(), key=lambda gesture: f"{gesture.label}.npy")


class IBMRecordings(Recordings):
    """Gestures cut from takes; times begin with the gesture, in µs."""

    def __init__(self, cuts: Sequence[Gesture], sensor: Sensor) -> None:
        names = [f"{cut.path}, gesture {cut.label + 1} from {cut.start} to {cut.end} µs" for cut in cuts]
        super().__init__(names, np.array([cut.label for cut in cuts], np.int64), sensor)
        self.cuts = list(cuts)

    def read(self, index: int) -> Events:
        """The events of one gesture."""
        cut = self.cuts[index]
        events = _take(cut.path, cut.path.stat().st_mtime_ns)
        events = events[(events["t"] >= cut.start) & (events["t"] < cut.end)]
        events["t"] -= cut.start
        return events

    def fingerprint(self) -> Any:
        """Path, size and time of change of each take, and where its gestures are."""
        stats = {path: path.stat() for path in {cut.path for cut in self.cuts}}
        return [[str(c.path), stats[c.path].st_size, stats[c.path].st_mtime_ns, *c[1:]] for c in self.cuts]


@lru_cache(maxsize=1)
def _take(path: Path, changed: int) -> Events:
    """A whole take; the last one is kept, since its gestures follow each other."""
    return read(path).events
