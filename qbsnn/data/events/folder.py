"""A user's own recordings of events: a folder per class, or a table of paths and labels."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from qbsnn import checks
from qbsnn.data.class_folders import Labelled, OwnFiles
from qbsnn.data.events.events import Events, Sensor, check_events, naming
from qbsnn.data.events.module import EventDataModule
from qbsnn.data.events.readers import READERS, Convention, read
from qbsnn.data.events.readers.recording import UNITS
from qbsnn.data.events.recordings import Recordings
from qbsnn.data.shards import stamps
from qbsnn.data.signatures import with_settings
from qbsnn.errors import ArgumentError, DataError

log = logging.getLogger(__name__)


class Window(NamedTuple):
    """A sample: the events of a file from ``start`` until ``end`` µs; ``end`` ``None`` is the whole file."""

    file: int
    start: int = 0
    end: int | None = None


class FolderRecordings(Recordings):
    """Windows of files of one sensor.

    Args:
        files: with their labels.
        windows: the N samples, in the order of the files.
        sensor: that all files are of.
        convention: what formats leave open.
    """

    def __init__(self, files: Labelled, windows: Sequence[Window], sensor: Sensor, convention: Convention) -> None:
        names = [
            str(files.paths[w.file]) + (f", {w.start / 1000:g} to {w.end / 1000:g} ms" if w.end is not None else "")
            for w in windows
        ]
        self.file_of = np.array([w.file for w in windows], np.int64)
        super().__init__(names, files.labels[self.file_of], sensor)
        self.files, self.windows, self.convention = files, list(windows), convention

    def read(self, index: int) -> Events:
        """The events of one window."""
        window = self.windows[index]
        events = read_checked(self.files.paths[window.file], self.sensor, self.convention)
        if window.end is None:
            return events
        first, last = np.searchsorted(events["t"], [window.start, window.end])
        return events[first:last]

    def fingerprint(self) -> Any:
        """Path, size and time of change of each file, its windows, and how it is read."""
        windows = [list(window) for window in self.windows]
        return [stamps(self.files.paths), windows, self.convention.time_unit, self.convention.columns]


def read_checked(path: Path, sensor: Sensor, convention: Convention) -> Events:
    """The events of a file, checked; the last file is kept, since its windows follow each other.

    Raises:
        DataError: for a file that cannot be read, is of another sensor, or has events that cannot be.
    """
    with naming(str(path)):
        changed = path.stat().st_mtime_ns
    return _read_checked(path, changed, sensor, convention)


@lru_cache(maxsize=1)
def _read_checked(path: Path, changed: int, sensor: Sensor, convention: Convention) -> Events:
    found = read(path, convention)
    if found.size is not None and found.size != (sensor.width, sensor.height):
        raise DataError(
            f"{path}: its sensor has {found.size[0]}x{found.size[1]} pixels, that of the others {sensor.width}x"
            f"{sensor.height} (data.sensor)"
        )
    return check_events(found.events, sensor, str(path))


def windows_of(t: NDArray[np.int64], sample: int, stride: int, events: int = 2, span: int = 1) -> list[tuple[int, int]]:
    """Start and end in µs of the windows of a recording, from the first event on.

    Only whole windows count, and of those the ones with enough events to make frames. A recording that is shorter than
    a window is one.

    Args:
        t: times ``[N]`` in µs, sorted.
        sample: length of a window in µs.
        stride: from the start of a window to that of the next, in µs.
        events: how many a window must have.
        span: µs that must lie between its first and its last event.

    >>> windows_of(np.array([5, 20, 90, 100, 111]), sample=50, stride=25)
    [(5, 55), (55, 105)]
    """
    start, after = int(t[0]), t - t[0]
    most = (int(after[-1]) + 1 - sample) // stride
    if most < 1:
        return [(start, start + sample)]
    # Which windows each event is in, and so which have any: one stray time makes the span of all windows huge.
    first, last = np.maximum((after - sample) // stride + 1, 0), np.minimum(after // stride, most)
    first, last = first[first <= last], last[first <= last]
    gaps = np.flatnonzero(first[1:] > last[:-1] + 1) + 1
    runs = zip(first[[0, *gaps]], last[[*(gaps - 1), -1]], strict=True)
    starts = start + stride * np.concatenate([np.arange(low, high + 1) for low, high in runs])
    begin, end = np.searchsorted(t, np.stack([starts, starts + sample]))
    enough = (end - begin >= events) & (t[end - 1] - t[begin] >= span)
    return [(int(each), int(each) + sample) for each in starts[enough]]


@with_settings
class EventFolder(OwnFiles, EventDataModule):
    """Your own recordings of one sensor: ``root/{train,val,test}/<class>/*``, in any format of ``readers.READERS``.

    Without ``val`` or ``test``, and where ``root`` holds the classes themselves, parts are held out of the training
    files. Windows of one file are all in one part. Classes are numbered in alphabetical order.

    Args:
        sensor: width and height; ``None`` takes them from the first file, where its format has them. With
            ``on_bad_sample="skip"`` that is the first file that can be read.
        polarities: 2, or 1 for a sensor that knows no off events.
        sample_ms: cut files into samples of so many ms; ``None`` takes a file as a sample.
        stride_ms: from the start of a sample to that of the next; ``None`` is ``sample_ms``.
        time_unit: of numpy's files, HDF5 and text, see ``Convention``.
        columns: of such files, see ``Convention``.
        test_fraction: share of the training files that are for the test where there is no folder ``test``.
        table: a CSV file with the columns path, label and, if you like, part (train, val or test) that takes the place
            of the folders; it and its paths are relative to ``root``.
        settings: see ``EventDataModule``; ``cache_dir`` is ``<root>/.cache`` by default.

    Raises:
        ArgumentError: for a bad value.
        DataError: for an absent folder or one without classes, a first file that does not say its sensor.
    """

    name = "event_folder"
    own_files = True

    def __init__(
        self,
        *,
        root: str | Path = "data",
        sensor: Sequence[int] | None = None,
        polarities: int = 2,
        sample_ms: float | None = None,
        stride_ms: float | None = None,
        time_unit: str | None = None,
        columns: str | None = None,
        test_fraction: float = 0.1,
        table: str | Path | None = None,
        **settings: Any,
    ) -> None:
        if time_unit is not None:
            checks.choice("time_unit", time_unit, UNITS)
        if columns is not None and sorted(str(columns)) != sorted("xypt"):
            raise ArgumentError(f"columns must name x, y, p and t in their order, such as xypt, got {columns!r}")
        for key, value in (("sample_ms", sample_ms), ("stride_ms", stride_ms)):
            if value is not None:
                checks.number(key, value, 0.001)
        if stride_ms is not None and sample_ms is None:
            raise ArgumentError(f"stride_ms must be null where sample_ms is null, got {stride_ms!r}")
        self.sample_us = round(sample_ms * 1000) if sample_ms is not None else None
        self.stride_us = round(stride_ms * 1000) if stride_ms is not None else self.sample_us
        checks.integer("polarities", polarities, 1, 2)
        self.convention = Convention(time_unit, columns)
        cache = self.look(root, table, READERS, test_fraction)
        if sensor is None:
            sensor = self._said(settings.get("on_bad_sample") == "skip")
        if not isinstance(sensor, Sequence) or len(sensor) != 2:
            raise ArgumentError(f"sensor must be [width, height] in pixels, got {sensor!r}")
        width, height = (checks.integer("sensor", side, 1, 2**15) for side in sensor)
        self.sensor = Sensor(width, height, polarities)
        settings["cache_dir"] = settings.get("cache_dir") or cache
        super().__init__(root=root, **settings)

    def _said(self, skip: bool) -> tuple[int, int]:
        """Width and height of the sensor in the first file of the training part; with ``skip`` the first readable."""
        paths = self.own.given["train"].paths
        for path in paths:
            try:
                size = read(path, self.convention).size
            except DataError:
                if not skip or path == paths[-1]:
                    raise
                continue
            if size is None:
                raise DataError(f"{self.name}: {path} does not say its sensor: set data.sensor=[width,height]")
            log.info("%s: the sensor has %dx%d pixels, as %s says", self.name, *size, path)
            return size
        raise AssertionError("there are training files")

    def open(self, train: bool) -> tuple[FolderRecordings, NDArray[np.int64], NDArray[np.int64]]:
        """The training files and behind them those for validation, or the test files; cut where that is wanted."""
        files = self.official(train)
        windows = self._windows(files)
        made = FolderRecordings(files, windows, self.sensor, self.convention)
        return made, made.labels, np.arange(len(windows))

    def describe(self) -> dict[str, Any]:
        """As every folder, and the sensor."""
        return super().describe() | {"sensor": list(self.sensor[:2])}

    def _windows(self, files: Labelled) -> list[Window]:
        """The samples of some files; a file that cannot be read is one sample, to be skipped later."""
        if self.sample_us is None or self.stride_us is None:
            return [Window(file) for file in range(len(files.paths))]
        found: list[Window] = []
        quiet: list[int] = []
        for file, path in enumerate(files.paths):
            try:
                t = read_checked(path, self.sensor, self.convention)["t"]
            except DataError:
                if not self.skip:
                    raise
                found.append(Window(file))
                continue
            windows = windows_of(t, self.sample_us, self.stride_us, *self.framing.least())
            found += [Window(file, *window) for window in windows]
            if not windows:
                quiet.append(file)
        if quiet:
            self._tell_quiet(files, quiet)
        log.info("%s: %s files are cut into %s samples", self.name, f"{len(files.paths):,}", f"{len(found):,}")
        return found

    def _tell_quiet(self, files: Labelled, quiet: Sequence[int]) -> None:
        """Refuse a class all of whose files are without a window; name the first of the other such files."""
        lost = np.setdiff1d(files.labels, np.delete(files.labels, quiet))
        events, span = self.framing.least()
        first = files.paths[next(file for file in quiet if not len(lost) or files.labels[file] == lost[0])]
        told = (
            f"have no window of data.sample_ms with {events} events over {span} µs, as frames need, {first} among them"
        )
        if len(lost):
            raise DataError(f"{self.name}: the files of the class {self.class_names[lost[0]]} {told}")
        log.warning("%s: %d of %d files %s", self.name, len(quiet), len(files.paths), told)
