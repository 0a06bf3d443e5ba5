"""The recorded event sets: DVS128 Gesture, N-MNIST, CIFAR10-DVS and SHD."""

from __future__ import annotations

import importlib.util
import logging
import re
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from qbsnn.data import folders
from qbsnn.data.events import ibm_gesture as ibm
from qbsnn.data.events.events import Events, Sensor
from qbsnn.data.events.readers import Convention
from qbsnn.data.events.recordings import Recordings
from qbsnn.data.events.tonic_layout import FileEvents, FileRecordings, TonicEvents
from qbsnn.data.folders import Archive
from qbsnn.data.shards import stamps
from qbsnn.data.split import stored_test
from qbsnn.errors import DataError

log = logging.getLogger(__name__)


class DVS128Gesture(FileEvents):
    """IBM's 11 hand gestures, 1077 and 264 recordings of 128×128 pixels by other people.

    What lies in ``root`` or ``<root>/DVSGesture`` is taken in this order: Tonic's folders, IBM's folder ``DvsGesture``,
    Tonic's archives, IBM's archive. Where there is none, Tonic's are downloaded. Times of Tonic's version are in ms.
    """

    name = "dvs128_gesture"
    folder_name = "DVSGesture"
    class_names = (
        "Hand clapping", "Right hand wave", "Left hand wave", "Right arm cw", "Right arm ccw", "Left arm cw",
        "Left arm ccw", "Arm roll", "Air drums", "Air guitar", "Other gestures",
    )  # fmt: skip
    sensor = Sensor(128, 128, 2)
    recordings: ClassVar[dict[bool, int]] = {True: 1077, False: 264}
    suffix = ".npy"
    convention = Convention("ms", "xypt")
    note = f" IBM's own archive, {ibm.ARCHIVE.name}, serves as well: save it there ({ibm.ARCHIVE.url})."

    def archives(self) -> list[Archive]:
        """Tonic's two archives of recordings cut by gesture."""
        t = self.tonic()
        return [
            Archive(t.train_filename, t.train_url, t.train_md5, ("ibmGestureTrain",)),
            Archive(t.test_filename, t.test_url, t.test_md5, ("ibmGestureTest",)),
        ]

    def prepare_data(self) -> None:
        """Use IBM's folder or archive where Tonic's are absent."""
        places = (self.root, self.folder)
        if self._whole() or ibm.find(places) is not None:
            return
        packed = ibm.find_packed(places)
        if packed is not None and not any((self.folder / archive.name).is_file() for archive in self.archives()):
            folders.unpack(packed, ibm.ARCHIVE, self.verify)
            return
        super().prepare_data()

    def open(self, train: bool) -> tuple[Recordings, NDArray[np.int64], NDArray[np.int64]]:
        """Tonic's recordings, or gestures cut from IBM's takes: the same samples in the same order."""
        folder = None if self._whole() else ibm.find((self.root, self.folder))
        if folder is None:
            log.info("%s: Tonic's version, in %s", self.name, self.place(train))
            return super().open(train)
        log.info("%s: IBM's own takes, in %s", self.name, folder)
        takes = ibm.takes(folder, train)
        if self.verify and len(takes) != ibm.TAKES[train]:
            raise DataError(
                f"{self.name}: {folder / ibm.LISTS[train]} names {len(takes)} takes instead of {ibm.TAKES[train]} (98 "
                "for training and 24 for the test, with up to 11 gestures each; Tonic's version has 1,077 and 264 "
                "recordings). Unpack the archive again, or set data.verify=false to use it as it is"
            )
        made = ibm.IBMRecordings([cut for path in sorted(takes) for cut in ibm.gestures(path)], self.sensor)
        self.complete(made.names, made.labels, len(made.names), folder)
        return made, made.labels, np.arange(len(made.names))

    def _whole(self) -> bool:
        """Whether both of Tonic's folders are there."""
        return not any(archive.missing(self.folder) for archive in self.archives())

    def label(self, path: Path) -> int | None:
        """``userNN_lighting/K.npy`` is of class K."""
        return int(path.stem) if path.stem.isdecimal() else None


class NMNIST(FileEvents):
    """N-MNIST: the 70,000 digits of MNIST recorded by a camera in three saccades, 34×34 pixels."""

    name = "nmnist"
    folder_name = "NMNIST"
    class_names = tuple("0123456789")
    sensor = Sensor(34, 34, 2)
    recordings: ClassVar[dict[bool, int]] = {True: 60_000, False: 10_000}
    suffix = ".bin"

    def archives(self) -> list[Archive]:
        """The two zip files."""
        t = self.tonic()
        return [
            Archive(t.train_filename, t.train_url, t.train_md5, (t.train_folder,)),
            Archive(t.test_filename, t.test_url, t.test_md5, (t.test_folder,)),
        ]

    def label(self, path: Path) -> int | None:
        """``Train/<digit>/NNNNN.bin``."""
        digit = path.parent.name
        return int(digit) if re.fullmatch("[0-9]", digit) else None


class CIFAR10DVS(FileEvents):
    """CIFAR10-DVS: 10,000 pictures of CIFAR-10 recorded by a camera, 128×128 pixels.

    It has no official split: a fixed tenth of each class is the test set, see ``stored_test``.
    """

    name = "cifar10dvs"
    folder_name = "CIFAR10DVS"
    class_names = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
    sensor = Sensor(128, 128, 2)
    recordings: ClassVar[dict[bool, int]] = {True: 10_000, False: 10_000}
    suffix = ".aedat4"

    def archives(self) -> list[Archive]:
        """One zip file of ten."""
        t = self.tonic()
        return [Archive(t.filename, t.url, t.file_md5, self.class_names)]

    def label(self, path: Path) -> int | None:
        """``<class>/NAME.aedat4``."""
        name = path.parent.name
        return self.class_names.index(name) if name in self.class_names else None

    def place(self, train: bool) -> Path:
        """The folder of all classes."""
        return self.folder

    def open(self, train: bool) -> tuple[Recordings, NDArray[np.int64], NDArray[np.int64]]:
        """List all files and take those of one part."""
        if importlib.util.find_spec("aedat") is None:
            raise DataError(f"{self.name} needs the package aedat to read its files: pip install 'qbsnn[aedat]'")
        paths, labels = self.files(self.folder, self.recordings[train])
        names = [str(path.relative_to(self.folder)) for path in paths]
        test = stored_test(self.folder / "split.json", names, labels, self.name)
        ids = np.flatnonzero(~test if train else test)
        made = FileRecordings([paths[i] for i in ids], labels[ids], self.sensor)
        return made, labels[ids], ids


class SHDRecordings(Recordings):
    """One of the two HDF5 files of SHD, read by ``reader``, an instance of Tonic's class."""

    def __init__(self, path: Path, labels: NDArray[np.int64], sensor: Sensor, reader: Any) -> None:
        super().__init__([f"{path}, recording {i}" for i in range(len(labels))], labels, sensor)
        self.path, self.reader = path, reader

    def read(self, index: int) -> Events:
        """One recording, by time; the file promises no order."""
        events = self.reader[index][0]
        return events[np.argsort(events["t"], kind="stable")]

    def fingerprint(self) -> Any:
        """Path, size and time of change of the file."""
        return stamps([self.path])[0]


class SHD(TonicEvents):
    """Spiking Heidelberg Digits: spoken digits in two languages as spikes of 700 units, a line of 700 pixels."""

    name = "shd"
    folder_name = "SHD"
    class_names = (
        "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine",
        "null", "eins", "zwei", "drei", "vier", "fuenf", "sechs", "sieben", "acht", "neun",
    )  # fmt: skip
    sensor = Sensor(700, 1, 1)
    recordings: ClassVar[dict[bool, int]] = {True: 8156, False: 2264}

    def archives(self) -> list[Archive]:
        """The two zip files."""
        t = self.tonic()
        return [
            Archive(t.train_zip, t.base_url + t.train_zip, t.train_md5, (t.train_zip[:-4],)),
            Archive(t.test_zip, t.base_url + t.test_zip, t.test_md5, (t.test_zip[:-4],)),
        ]

    def open(self, train: bool) -> tuple[Recordings, NDArray[np.int64], NDArray[np.int64]]:
        """Read the labels."""
        import h5py

        path = self.folder / self.archives()[0 if train else 1].content[0]
        if not path.is_file():
            raise DataError(f"{self.name}: {path} is missing. By hand: {self.steps()}")
        try:
            with h5py.File(path) as file:
                labels = file["labels"][()].astype(np.int64)
                counts = {len(file["spikes/times"]), len(file["spikes/units"]), len(labels)}
        except (OSError, KeyError) as error:
            raise DataError(f"{path} is damaged: {folders.one_line(error)}. Delete it and start again") from error
        if len(counts) != 1:
            raise DataError(f"{path} is damaged: times, units and labels are of different length: {sorted(counts)}")
        inside = labels[(labels >= 0) & (labels < self.num_classes)]
        self.complete(labels.tolist(), inside, self.recordings[train], path)
        reader = self.tonic().__new__(self.tonic())
        reader.location_on_system, reader.data_filename = str(self.folder), path.name
        reader.transform = reader.target_transform = None
        return SHDRecordings(path, labels, self.sensor, reader), labels, np.arange(len(labels))
