"""Every reader against every fault that a file can have, cut at any byte, and with ten million events."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from qbsnn.data import EventFolder
from qbsnn.data.events.events import EVENT, Sensor
from qbsnn.data.events.folder import read_checked
from qbsnn.data.events.readers import Convention, read
from qbsnn.errors import DataError
from tests.data.events.test_readers import WRITERS, write_davis, write_dvs128, written
from tests.data.events.tiny_events import aedat4, nmnist_bytes, some_events
from tests.tool import ROOT

PHOTOGRAPH = b"\xff\xd8\xff\xe0 this is a photograph."
PAGE = b"<html>\n<body>a page, no events</body></html>\n" * 9

NUMPY = {"foreign": r"it must begin with \\x93NUMPY as \.npy files do, got", "page": r"must begin with \\x93NUMPY"}
AEDAT = {"foreign": r"it must begin with #!AER-DAT2\.0 or #!AER-DAT3\.1, got b'\\xff", "page": "got b'<html>"}
RAW = dict.fromkeys(("foreign", "page"), r"its header must name the encoding, EVT 2\.0 or EVT 3\.0, got none")
HDF5 = dict.fromkeys(("foreign", "page"), "it is no HDF5 file")
TEXT = {
    "foreign": "it must be text in UTF-8, but byte 0 is 0xff",
    "page": "its lines must have 4 numbers, got '<html>'",
}
ROWS = {"backwards": "the polarity cannot be told, or its times run backwards; set data.columns, such as xypt"}

WORDS: dict[str, dict[str, str]] = {
    "nmnist.bin": {
        "foreign": "26 bytes are no whole number of events of 5 bytes",
        "page": "times must not run backwards",  # its length is a multiple of 5
        "truncated": "no whole number of events of 5 bytes",
    },
    "dvs.aedat": AEDAT | {"truncated": "behind the header are no whole number of events of 8 bytes"},
    "davis.aedat": AEDAT | {"truncated": "behind the header are no whole number of events of 8 bytes"},
    "three.aedat": AEDAT | {"truncated": "truncated inside a packet of 1 events"},
    "four.aedat4": {
        "foreign": r"it must begin with #!AER-DAT4\.0, got b'\\xff",
        "page": r"it must begin with #!AER-DAT4\.0, got b'<html>",
        "truncated": "it is truncated or damaged: failed to fill whole buffer",
    },
    "two.raw": RAW | {"truncated": "behind the header are no whole number of words of 4"},
    "three.raw": RAW | {"truncated": "behind the header are no whole number of words of 2"},
    "vectors.raw": RAW | {"truncated": "behind the header are no whole number of words of 2"},
    "one.dat": {
        "foreign": "it must begin with lines of % and hold the kind of its events, got",
        "page": "it must begin with lines of % and hold the kind of its events, got b'<html>",
        "truncated": "behind the header are no whole number of events of 8 bytes",
    },
    "one.npy": NUMPY | {"truncated": "could only read 299 elements"},
    "rows.npy": NUMPY | ROWS | {"truncated": "could only read 1199 elements"},
    "one.npz": {
        "foreign": "it must be a zip archive of arrays, as numpy's savez writes: it is foreign or truncated",
        "page": "it must be a zip archive of arrays",
        "truncated": "it must be a zip archive of arrays, .* it is foreign or truncated",
    },
    "one.h5": HDF5 | {"truncated": "truncated file: eof = "},
    "table.hdf5": HDF5 | {"truncated": "truncated file: eof = "},
    "one.txt": TEXT | {"truncated": "row 300 must have 4 numbers"},
    "rows.txt": TEXT | ROWS | {"truncated": "row 300 must have 4 numbers"},
    "one.csv": TEXT | {"truncated": "row 300 must have 4 numbers"},
}
"""What the error says where formats differ, a regular expression, by file of ``WRITERS`` and fault."""

COMMON = {
    "empty": "the file is empty, 0 bytes",
    "no events": "it holds no events",
    "backwards": r"times must not run backwards, but event 101 has t = \d+ µs after \d+ µs",
    "outside": "x must be from 0 to 127, but event 7 has 130",
}
FAULTS = (*COMMON, "foreign", "page", "truncated", "other size")
CELLS = [
    (name, fault)
    for name in WRITERS
    for fault in FAULTS
    if (name, fault) != ("dvs.aedat", "outside")  # 7 bits hold no other coordinates
]
NOTHING = {"nmnist.bin": bytes([0, 240, 0, 0, 0]), "one.txt": b"# a comment\n", "rows.txt": b"\n\n"}
"""Files without events, where the format has no head: an overflow of the time, a comment, empty lines."""

LARGER = {b"geometry 128x128": b"geometry 346x128", b"width=128": b"width=346", b"% Width 128": b"% Width 346"} | {
    b'key="sizeX" type="int">128': b'key="sizeX" type="int">346'
}
"""How headers say 128 pixels, and how they say more."""


def sensor_of(name: str) -> Sensor:
    return Sensor(240, 180, 2) if name == "davis.aedat" else Sensor(128, 128, 2)


def with_fault(name: str, fault: str) -> tuple[bytes, str]:
    """The content of a file of 300 events with a fault, and what the error must say."""
    write, sensor = WRITERS[name][0], sensor_of(name)
    events, words = some_events(300, sensor, 1), (COMMON | WORDS[name]).get(fault, "")
    if fault == "backwards":
        events["t"][100:200] = events["t"][100:200][::-1]
    if fault == "outside":
        # DAVIS counts from the right: the address behind the last is −1
        events["x"][7], words = (-1, "x must be from 0 to 239, .* has -1") if name == "davis.aedat" else (130, words)
    if fault == "other size":
        return other_size(name, events)
    if fault in ("empty", "foreign", "page"):
        return {"empty": b"", "foreign": PHOTOGRAPH, "page": PAGE}[fault], words
    if fault == "no events":
        return NOTHING.get(name) or write(events[:0]), words
    data = write(events)
    if fault == "truncated":
        text = name.endswith(("txt", "csv"))
        data = data[: max(data.rindex(mark) for mark in (b" ", b",") if mark in data[-30:])] if text else data[:-1]
    return data, words


def other_size(name: str, events: np.ndarray) -> tuple[bytes, str]:
    """A file of a larger sensor; one that does not say its sensor is known by its coordinates."""
    if name == "dvs.aedat":
        return write_davis(events), "its sensor has 240x180 pixels, that of the others 128x128"
    if name == "davis.aedat":
        return write_dvs128(some_events(9, Sensor(128, 128, 2))), "its sensor has 128x128 pixels, that of the others"
    data = WRITERS[name][0](events)
    if WRITERS[name][1] is not None:
        for said, larger in LARGER.items():
            data = data.replace(said, larger)
        return data, r"its sensor has 346x128 pixels, that of the others 128x128 \(data\.sensor\)"
    return WRITERS[name][0](some_events(300, Sensor(200, 200, 2), 1)), r"x must be from 0 to 127, but event \d+ has 1"


def needs(name: str) -> None:
    if name.endswith("aedat4"):
        pytest.importorskip("aedat")
        pytest.importorskip("flatbuffers")


@pytest.mark.parametrize(("name", "fault"), CELLS)
def test_a_fault_is_named(name, fault, tmp_path):
    needs(name)
    content, words = with_fault(name, fault)
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=f"^{re.escape(str(tmp_path / name))}: .*{words}"):
        read_checked(tmp_path / name, sensor_of(name), Convention())


@pytest.mark.parametrize("sample_ms", [None, 100])
@pytest.mark.parametrize("name", WRITERS)
def test_files_with_a_fault_are_skipped_and_counted(name, sample_ms, tmp_path):
    needs(name)
    events, bad = some_events(300, sensor_of(name), 2), []
    for folder in ("train/left", "train/right", "test/left", "test/right"):
        (tmp_path / folder).mkdir(parents=True)
        for i in range(3):
            written(name, tmp_path / folder, events).rename(tmp_path / folder / f"{i}_{name}")
    for fault in [fault for cell, fault in CELLS if cell == name]:
        bad.append(tmp_path / f"test/right/{fault.replace(' ', '_')}_{name}")
        bad[-1].write_bytes(with_fault(name, fault)[0])
    options = {"T": 4, "batch_size": 4, "size": 16, "cache": "none", "sample_ms": sample_ms}
    data = EventFolder(root=tmp_path, sensor=sensor_of(name)[:2], on_bad_sample="skip", **options)
    data.setup()
    assert sum(len(labels) for _, labels in data.train_dataloader()) > 0
    assert sum(len(labels) for _, labels in data.test_dataloader()) == 6 * (3 if sample_ms else 1)
    assert data.describe()["skipped"] == {"test": sorted(map(str, bad))}


@pytest.mark.parametrize("name", WRITERS)
def test_a_file_cut_anywhere_is_named_or_holds_the_first_events(name, tmp_path):
    """Some formats do not say how long they are: cut between two events, their file is a shorter recording."""
    path = written(name, tmp_path, some_events(100, sensor_of(name), 3))
    data, whole = path.read_bytes(), read(path).events
    for cut in np.unique(np.linspace(1, len(data) - 1, 60).astype(int)):
        path.write_bytes(data[:cut])
        try:
            found = read(path).events
        except DataError as error:
            assert str(error).startswith(f"{path}: ")
            continue
        # a number that has lost its last digits is a number
        sure = len(found) - 1 if name.endswith(("txt", "csv")) else len(found)
        assert np.array_equal(found[:sure], whole[:sure]), cut


@pytest.mark.parametrize("name", WRITERS)
def test_a_file_with_other_bytes_is_named_or_read(name, tmp_path):
    """The package aedat panics at some, which is no Exception, and ends the process at a head that is not UTF-8."""
    path, numbers = written(name, tmp_path, some_events(100, sensor_of(name), 3)), np.random.default_rng(5)
    data = np.fromfile(path, np.uint8)
    for i in range(80):
        damaged, end = data.copy(), len(data) if i % 2 else min(len(data), 700)  # every second time in the head
        damaged[numbers.integers(end, size=4)] = numbers.integers(256, size=4)
        path.write_bytes(damaged.tobytes())
        try:
            read(path)
        except DataError as error:
            assert str(error).startswith(f"{path}: ")


def test_an_aedat_file_of_version_4_asks_for_its_suffix(tmp_path):
    (tmp_path / "a.aedat").write_bytes(b"#!AER-DAT4.0\r\n...")
    with pytest.raises(DataError, match=r"a\.aedat: it is AEDAT 4: rename it to a\.aedat4"):
        read(tmp_path / "a.aedat")


LONG = 10_000_000

BODIES = {
    "dvs.aedat": b"DVS128\r\n",
    "davis.aedat": b"DAVIS240C\r\n",
    "three.aedat": b"#!END-HEADER\r\n",
    "two.raw": b"% end\n",
    "three.raw": b"% end\n",
    "vectors.raw": b"% end\n",
    "one.dat": b"% Height 128\n\0\x08",
    "one.txt": b"",
    "one.csv": b"timestamp\n",
}
"""What ends the head of the files whose writers go event by event: behind it their content may be repeated."""


def lines_at_once(events: np.ndarray) -> bytes:
    import pandas as pd

    table = pd.DataFrame({name: events[name].astype(np.int64) for name in "xytp"})
    return table.to_csv(sep=" ", header=False, index=False).encode()


AT_ONCE: dict[str, Callable[[np.ndarray], bytes]] = {
    "nmnist.bin": nmnist_bytes,
    "four.aedat4": lambda events: aedat4(events, 10_000),
    "rows.txt": lines_at_once,
}
"""Writers that take ten million events, where that of ``WRITERS`` does not."""

BOUNDS = dict.fromkeys(("rows.npy", "one.txt", "rows.txt", "one.csv"), 8)  # four numbers of 8 bytes are read first
"""Memory that reading takes at most, in sizes of the events (13 bytes each), where that is not 4."""

METER = """
import json, os, resource, sys
from pathlib import Path
import h5py, pandas
from qbsnn.data.events.readers import read
for line in sys.stdin:
    child = os.fork()  # its memory begins at what is there now
    if not child:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        try:
            found = len(read(Path(line.strip())).events)
        except Exception as error:
            found = str(error)
        grown = 1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
        print(json.dumps([found, grown]), flush=True)
        os._exit(0)
    os.waitpid(child, 0)
"""
"""For each path on stdin a line: the number of events, and by how many bytes reading made the peak of memory grow."""


@pytest.fixture(scope="module")
def meter() -> Iterator[Callable[[Path], tuple[int, int]]]:
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen([sys.executable, "-c", METER], env=environment, **pipes) as process:

        def measure(path: Path) -> tuple[int, int]:
            process.stdin.write(f"{path}\n")
            process.stdin.flush()
            return tuple(json.loads(process.stdout.readline()))

        yield measure


@pytest.mark.slow
@pytest.mark.parametrize("name", WRITERS)
def test_ten_million_events_in_bounded_memory(name, tmp_path, meter):
    needs(name)
    write, path = WRITERS[name][0], tmp_path / name
    with path.open("wb") as file:
        if name in BODIES:
            data = write(some_events(10_000, sensor_of(name), 4))
            body = data.index(BODIES[name]) + len(BODIES[name])
            file.write(data[:body])
            for _ in range(LONG // 10_000):
                file.write(data[body:])
        else:
            file.write(AT_ONCE.get(name, write)(some_events(LONG, sensor_of(name), 4)))
    found, grown = meter(path)
    path.unlink()
    print(f"{name}: {grown / LONG:.0f} bytes an event")
    assert found == LONG
    assert grown <= BOUNDS.get(name, 4) * EVENT.itemsize * LONG
