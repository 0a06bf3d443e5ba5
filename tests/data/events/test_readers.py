"""Each reader against a file that a writer here makes event by event, from the published description of its format."""

import io
import re
import struct
import time
from pathlib import Path

import numpy as np
import pytest

from qbsnn.data.events.events import Sensor, check_events
from qbsnn.data.events.readers import READERS, Convention, prophesee, read, recording
from qbsnn.errors import DataError
from tests.data.events.tiny_events import aedat4, some_events

SENSOR = Sensor(128, 128, 2)


def rows(events: np.ndarray) -> list[tuple[int, int, int, int]]:
    return [(int(e["x"]), int(e["y"]), int(e["t"]), int(e["p"])) for e in events]


def write_bin(events) -> bytes:
    """Five bytes; an event with y = 240 stands for 8192 µs more."""
    out, wraps = b"", 0
    for x, y, t, p in rows(events):
        while t - 8192 * wraps >= 1 << 23:
            out += bytes([0, 240, 0, 0, 0])
            wraps += 1
        t -= 8192 * wraps
        out += bytes([x, y, p << 7 | t >> 16, t >> 8 & 255, t & 255])
    return out


def write_dvs128(events) -> bytes:
    out = b"#!AER-DAT2.0\r\n# AEChip: ch.unizh.ini.jaer.chip.retina.DVS128\r\n"
    for x, y, t, p in rows(events):
        out += struct.pack(">II", (127 - y) << 8 | (127 - x) << 1 | (1 - p), t)
    return out + struct.pack(">II", 1 << 15, 0)  # a synchronisation mark


def write_davis(events) -> bytes:
    out = b"#!AER-DAT2.0\r\n# AEChip: eu.seebetter.ini.chips.davis.DAVIS240C\r\n"
    for x, y, t, p in rows(events):
        out += struct.pack(">II", (179 - y) << 22 | (239 - x) << 12 | p << 11, t)
    return out + struct.pack(">IIII", 1 << 31 | 99, 0, 1 << 10, 0)  # a pixel of a frame, a sample of the gyroscope


def write_aedat31(events) -> bytes:
    """Two packets of polarity events with a packet of another kind between, one invalid event, spare capacity."""
    out = b"#!AER-DAT3.1\r\n#Format: RAW\r\n#Source 1: DVS128\r\n#!END-HEADER\r\n"
    half = len(events) // 2
    for part in (events[:half], events[half:]):
        body = b"".join(struct.pack("<Ii", x << 17 | y << 2 | p << 1 | 1, t) for x, y, t, p in rows(part))
        body += struct.pack("<Ii", 5 << 17, 0)  # not valid
        n = len(part) + 1
        out += struct.pack("<hhiiiiii", 1, 1, 8, 4, 0, n + 1, n, n - 1) + body + bytes(8)
        out += struct.pack("<hhiiiiii", 0, 1, 8, 4, 0, 1, 1, 1) + struct.pack("<Ii", 3, 7)  # a special event
    return out


def write_evt2(events) -> bytes:
    words, high = [], -1
    for x, y, t, p in rows(events):
        if t >> 6 != high:
            high = t >> 6
            words.append(8 << 28 | high & 0xFFFFFFF)
        words.append(p << 28 | (t & 63) << 22 | x << 11 | y)
    words.insert(3, 0xA << 28 | 5)  # a trigger
    return b"% evt 2.0\n% geometry 128x128\n% end\n" + struct.pack(f"<{len(words)}I", *words)


def write_evt3(events, vectors: bool = False) -> bytes:
    words: list[int] = []
    last_y = last_low = last_high = -1
    for x, y, t, p in rows(events):
        high, low = t >> 12, t & 4095
        if high != last_high:
            words += [8 << 12 | high & 4095]
            last_high, last_low = high, 0
        if low != last_low:
            words += [6 << 12 | low]
            last_low = low
        if y != last_y:
            words += [y]
            last_y = y
        if vectors and x >= 20:  # the second of two vectors
            words += [3 << 12 | p << 11 | x - 20, 4 << 12, 5 << 12, 3 << 12 | p << 11 | x - 12]
            words += [4 << 12, 5 << 12 | 1]
        else:
            words += [2 << 12 | p << 11 | x]
        words += [8 << 12 | high & 4095]  # said again
    return b"% format EVT3;height=128;width=128\n% end\n" + struct.pack(f"<{len(words)}H", *words)


def write_dat(events) -> bytes:
    out = b"% Data file containing CD events.\n% Version 2\n% Width 128\n% Height 128\n" + bytes([0, 8])
    return out + b"".join(struct.pack("<II", t, p << 28 | y << 14 | x) for x, y, t, p in rows(events))


def write_npy(events) -> bytes:
    out = io.BytesIO()
    np.save(out, events)
    return out.getvalue()


def write_npz(events) -> bytes:
    out = io.BytesIO()
    np.savez(out, xs=events["x"], ys=events["y"], ts=events["t"] / 1e6, ps=2.0 * events["p"] - 1)
    return out.getvalue()


def write_rows(events) -> bytes:
    """Numbers [N, 4] without names."""
    out = io.BytesIO()
    np.save(out, np.stack([events[name].astype(np.int64) for name in "xypt"], 1))
    return out.getvalue()


def write_hdf5(events) -> bytes:
    import h5py

    out = io.BytesIO()
    with h5py.File(out, "w") as file:
        file["events/x"], file["events/y"] = events["x"], events["y"]
        file["events/t"], file["events/p"] = events["t"], events["p"].astype(np.int8)
        file["ms_to_idx"] = np.arange(5)
    return out.getvalue()


def write_table(events) -> bytes:
    import h5py

    out = io.BytesIO()
    with h5py.File(out, "w") as file:
        file["CD/events"] = events
    return out.getvalue()


def write_text(events) -> bytes:
    return "".join(f"{t / 1e6:.6f} {x} {y} {p}\n" for x, y, t, p in rows(events)).encode()


def write_unnamed(events) -> bytes:
    return "".join(f"{x} {y} {t} {p}\n" for x, y, t, p in rows(events)).encode()


def write_csv(events) -> bytes:
    lines = [f"{x},{y},{p},{t}\n" for x, y, t, p in rows(events)]
    return "".join(["# made here\n", "x, y, polarity, timestamp\n", *lines]).encode()


WRITERS = {
    "nmnist.bin": (write_bin, None),
    "dvs.aedat": (write_dvs128, (128, 128)),
    "davis.aedat": (write_davis, (240, 180)),
    "three.aedat": (write_aedat31, None),
    "four.aedat4": (aedat4, (128, 128)),
    "two.raw": (write_evt2, (128, 128)),
    "three.raw": (write_evt3, (128, 128)),
    "vectors.raw": (lambda events: write_evt3(events, vectors=True), (128, 128)),
    "one.dat": (write_dat, (128, 128)),
    "one.npy": (write_npy, None),
    "rows.npy": (write_rows, None),
    "one.npz": (write_npz, None),
    "one.h5": (write_hdf5, None),
    "table.hdf5": (write_table, None),
    "one.txt": (write_text, None),
    "rows.txt": (write_unnamed, None),
    "one.csv": (write_csv, None),
}


def written(name: str, folder: Path, events: np.ndarray) -> Path:
    if name.endswith("aedat4"):
        pytest.importorskip("aedat")
        pytest.importorskip("flatbuffers")
    path = folder / name
    path.write_bytes(WRITERS[name][0](events))
    return path


@pytest.mark.parametrize("name", WRITERS)
def test_events_are_read_as_they_were_written(name, tmp_path):
    events = some_events(300, SENSOR, 3, duration=20_000_000)  # longer than 23 bits of µs, and than 24 of EVT 3.0
    found = read(written(name, tmp_path, events))
    assert found.size == WRITERS[name][1]
    for field in ("x", "y", "t", "p"):
        assert np.array_equal(found.events[field], events[field]), field
    check_events(found.events, SENSOR, name)


def test_every_suffix_has_a_reader_that_is_tested():
    assert {Path(name).suffix for name in WRITERS} == set(READERS)


@pytest.mark.parametrize("name", ["two.raw", "three.raw", "vectors.raw", "one.dat", "dvs.aedat", "davis.aedat"])
def test_a_file_in_blocks_is_the_same(name, tmp_path, monkeypatch):
    events = some_events(200, SENSOR, 4, duration=40_000_000)
    path = written(name, tmp_path, events)
    for block in (1, 2, 7, 64):
        monkeypatch.setattr(recording, "BLOCK", block)
        assert np.array_equal(read(path).events, events)


def test_evt2_overflows_between_and_within_blocks(monkeypatch):
    high = np.array([2**28 - 2, 2**28 - 1, 0, 1, 2**28 - 1, 0])  # the time has 34 bits
    words = np.stack([8 << 28 | high, np.full(len(high), 1 << 28 | 5 << 22)], 1).astype(np.uint32).ravel()
    wraps = np.array([0, 0, 1, 1, 1, 2])
    for block in (1, 2, 3, 64):
        monkeypatch.setattr(recording, "BLOCK", block)
        assert np.array_equal(prophesee.evt2(words)["t"], (wraps * 2**28 + high) * 64 + 5)


def test_evt3_vectors_move_on_by_their_length():
    words = [0x8001, 0x6002, 7, 0x3000 | 1 << 11 | 30, 0x4000 | 0b1001, 0x5000 | 0b11, 0x5000 | 0b1]
    found = prophesee.evt3(np.array(words, np.uint16))
    assert found["x"].tolist() == [30, 33, 42, 43, 50] and set(found["y"]) == {7} and found["p"].all()
    assert set(found["t"]) == {4098}
    assert len(prophesee.evt3(np.array(words[2:], np.uint16))) == 0  # before the first time nothing has one


@pytest.mark.parametrize("name", WRITERS)
def test_a_folder_in_the_place_of_a_file_is_named(name, tmp_path):
    (tmp_path / name).mkdir()
    with pytest.raises(DataError, match=re.escape(f"{tmp_path / name}: ")):
        read(tmp_path / name)


@pytest.mark.parametrize("suffix", [".mp4", ""])
def test_an_unknown_suffix_is_refused(suffix, tmp_path):
    with pytest.raises(DataError, match=r"no reader for .*; there are \.bin, \.npy"):
        read(tmp_path / f"film{suffix}")


@pytest.mark.parametrize("order", ["xypt", "xytp", "txyp", "pxyt"])
def test_the_order_of_columns_is_found_out(order, tmp_path):
    events = some_events(300, SENSOR, 5)
    for change in (lambda p: p, lambda p: 2 * p - 1):
        columns = {"x": events["x"], "y": events["y"], "t": events["t"], "p": change(events["p"].astype(int))}
        np.save(tmp_path / "a.npy", np.stack([columns[name] for name in order], 1).astype(np.int64))
        found = read(tmp_path / "a.npy").events
        for field in ("x", "y", "t", "p"):
            assert np.array_equal(found[field], events[field])


@pytest.mark.parametrize(("unit", "factor"), [("s", 1e-6), ("ms", 1e-3), ("us", 1), ("ns", 1000)])
def test_units_of_time(unit, factor, tmp_path):
    events = some_events(50, SENSOR, 5)
    np.savez(tmp_path / "a.npz", x=events["x"], y=events["y"], p=events["p"], t=events["t"] * factor)
    found = read(tmp_path / "a.npz", Convention(time_unit=unit)).events
    assert np.array_equal(found["t"], events["t"])


def columns(**changed) -> dict:
    return {"x": np.arange(4), "y": np.arange(4), "t": np.arange(4), "p": np.arange(4) % 2} | changed


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        (
            columns(t=np.array([0.0, 1, 2, 3])),
            r"unit of its times \(0 to 3\) cannot be told; set data\.time_unit to one of",
        ),
        (columns(t=np.array([0.5, 1, 2, 500])), r"unit of its times"),
        (columns(t=np.array([0.5, 1, 2, np.nan])), "t must be finite numbers"),
        (columns(p=np.array([0, 1, 2, 1])), "polarities must be 0 and 1, or -1 and 1, got 0, 1, 2"),
        (columns(x=np.array([0, 1, 70000, 1])), "x must be integers from 0 to 32767, but event 2 has 70000"),
        (columns(y=np.array([0, 1.5, 2, 1])), r"y must be integers from 0 to 32767, but event 1 has 1\.5"),
        (columns(x=np.arange(3)), "columns must be of one length, got x 3, y 4"),
        (columns(x=np.array(["a"] * 4)), "x must be numbers"),
        (columns(t=np.array([2**64 - 1] * 4, np.uint64)), r"times must be below 2\^63"),
        ({"x": np.arange(4), "y": np.arange(4)}, r"no column t \(or ts, .*it has: x, y"),
        ({"a": np.zeros((4, 3))}, r"must be numbers \[N, 4\] or have named columns, got \[4, 3\]"),
        ({"a": np.zeros((4, 4))}, r"which of its 4 columns is the time .* set data\.columns"),
        ({"a": np.zeros((0, 4))}, "it holds no events"),
        ({"a": np.array(["x"])}, "events must be numbers, got <U1"),
    ],
)
def test_odd_columns_are_named(arrays, words, tmp_path):
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(DataError, match=rf"a\.npz: .*{words}"):
        read(tmp_path / "a.npz")


def test_objects_are_never_unpickled(tmp_path):
    np.save(tmp_path / "a.npy", np.array([{"x": 1}], object), allow_pickle=True)
    with pytest.raises(DataError, match=r"a\.npy: is damaged: ValueError: Object arrays cannot be loaded"):
        read(tmp_path / "a.npy")


def test_ten_million_events_within_seconds_and_memory(tmp_path):
    """EVT 3.0, the format with the most state: 10^7 events, one word of time for each hundred."""
    count = 10_000_000
    words = np.full(count, 0x2000, np.uint16) | (np.arange(count) % 128).astype(np.uint16)
    words[::100] = 0x6000 | (np.arange(count // 100) % 4096).astype(np.uint16)
    words[::409_600] = 0x8000 | np.arange(len(words[::409_600])).astype(np.uint16)
    words[1] = 5
    (tmp_path / "long.raw").write_bytes(b"% evt 3.0\n% end\n" + words.tobytes())
    start = time.monotonic()
    found = read(tmp_path / "long.raw").events
    assert len(found) > 9_800_000 and (np.diff(found["t"]) >= 0).all()
    assert time.monotonic() - start < 60


@pytest.mark.parametrize("kind", [np.int32, np.uint16, np.uint32, np.uint64])
def test_columns_without_a_sign_are_told_apart(kind, tmp_path):
    events = some_events(50, SENSOR, 1, duration=5_000)
    np.save(tmp_path / "a.npy", np.stack([events[name] for name in "xytp"], 1).astype(kind))
    assert np.array_equal(read(tmp_path / "a.npy").events, events)
