"""Tiny event sets in the true on-disk layouts, and events to put into them."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np

from qbsnn.data.events.events import EVENT, Sensor


def some_events(count: int, sensor: Sensor, seed: int = 0, duration: int = 300_000) -> np.ndarray:
    """Random events in Tonic's format, sorted by time; the first at 0 and the last at ``duration`` µs."""
    numbers = np.random.default_rng(seed)
    events = np.zeros(count, EVENT)
    events["x"], events["y"] = numbers.integers(sensor.width, size=count), numbers.integers(sensor.height, size=count)
    events["t"] = np.sort(numbers.integers(duration, size=count))
    events["t"][0], events["t"][-1] = 0, duration
    events["p"] = numbers.random(count) < 0.5
    return events


def class_events(label: int, sensor: Sensor, seed: int, count: int = 400) -> np.ndarray:
    """Events whose rows tell the class."""
    events = some_events(count, sensor, seed)
    events["y"] = (events["y"] % 5 + 7 * label) % sensor.height
    return events


def write_gesture(root: Path, users: int = 2) -> Path:
    """``DVSGesture/ibmGesture{Train,Test}/userNN_lighting/K.npy``: float64 ``[N, 4]`` of x, y, polarity and ms."""
    for part, first in (("Train", 1), ("Test", 24)):
        for user in range(first, first + users):
            folder = root / "DVSGesture" / f"ibmGesture{part}" / f"user{user:02d}_fluorescent_led"
            folder.mkdir(parents=True)
            for label in range(11):
                events = class_events(label, Sensor(128, 128, 2), 100 * user + label)
                columns = [events["x"], events["y"], events["p"], events["t"] // 1000]
                np.save(folder / f"{label}.npy", np.stack(columns, 1).astype(float))
    return root / "DVSGesture"


def nmnist_bytes(events: np.ndarray) -> bytes:
    """x, y, then polarity in the top bit of 23 bits of time in µs, big-endian."""
    t, p = events["t"].astype(np.int64), events["p"].astype(np.int64)
    rows = [events["x"], events["y"], (p << 7) | (t >> 16), (t >> 8) & 255, t & 255]
    return np.stack(rows, 1).astype(np.uint8).tobytes()


def write_nmnist(root: Path, each: int = 3, packed: bool = False) -> Path:
    """``NMNIST/{Train,Test}/<digit>/NNNNN.bin``; ``packed`` leaves train.zip and test.zip only."""
    folder = root / "NMNIST"
    folder.mkdir(parents=True, exist_ok=True)
    for part in ("Train", "Test"):
        files = {}
        for digit in range(10):
            for i in range(each):
                events = class_events(digit, Sensor(34, 34, 2), 1000 * digit + i + 7 * len(part))
                files[f"{part}/{digit}/{digit * each + i + 1:05d}.bin"] = nmnist_bytes(events)
        if packed:
            with zipfile.ZipFile(folder / f"{part.lower()}.zip", "w") as archive:
                for name, data in files.items():
                    archive.writestr(name, data)
        else:
            for name, data in files.items():
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                (folder / name).write_bytes(data)
    return folder


def write_shd(root: Path, each: int = 3) -> Path:
    """``SHD/shd_{train,test}.h5``: ragged spikes/times (float16 s) and spikes/units (uint16), labels, extra."""
    import h5py

    folder = root / "SHD"
    folder.mkdir(parents=True)
    for part in ("train", "test"):
        labels = np.arange(20 * each) % 20
        with h5py.File(folder / f"shd_{part}.h5", "w") as file:
            spikes = file.create_group("spikes")
            times = spikes.create_dataset("times", len(labels), h5py.vlen_dtype(np.float16))
            units = spikes.create_dataset("units", len(labels), h5py.vlen_dtype(np.uint16))
            for i, label in enumerate(labels):
                numbers = np.random.default_rng(i)
                times[i] = np.sort(numbers.random(200)).astype(np.float16)
                units[i] = (numbers.integers(0, 30, 200) + 30 * label).astype(np.uint16)
            file["labels"] = labels.astype(np.uint16)
            file["extra/keys"] = np.array([b"zero", b"one"] * 10)
            file["extra/speaker"] = np.zeros(len(labels), np.uint16)
    return folder


def aedat4(events: np.ndarray, packet: int = 150) -> bytes:
    """An AEDAT 4 file without compression, with one stream of events in packets of so many.

    Layout: version line; size-prefixed flatbuffer IOHeader (1: description, an XML text); per packet stream id and size
    as int32, then a size-prefixed flatbuffer EventPacket of rows (int64 t, int16 x, int16 y, bool p, 3 of padding).
    """
    import flatbuffers

    builder = flatbuffers.Builder(1024)
    xml = builder.CreateString(
        '<dv version="2.0"><node name="outInfo" path="/mainloop/Recorder/outInfo/"><node name="0" '
        'path="/mainloop/Recorder/outInfo/0/"><attr key="compression" type="string">NONE</attr><attr '
        'key="typeIdentifier" type="string">EVTS</attr><node name="info" '
        'path="/mainloop/Recorder/outInfo/0/info/"><attr key="sizeX" '
        'type="int">128</attr><attr key="sizeY" type="int">128</attr></node></node></node></dv>'
    )
    builder.StartObject(3)
    builder.PrependInt32Slot(0, 0, 0)
    builder.PrependInt64Slot(1, -1, 0)
    builder.PrependUOffsetTRelativeSlot(2, xml, 0)
    builder.FinishSizePrefixed(builder.EndObject(), b"IOHE")
    out = b"#!AER-DAT4.0\r\n" + bytes(builder.Output())
    packets = [_aedat4_packet(events[i : i + packet]) for i in range(0, len(events), packet)]
    return out + b"".join(np.array([0, len(made)], "<i4").tobytes() + made for made in packets)


def _aedat4_packet(events: np.ndarray) -> bytes:
    import flatbuffers

    builder = flatbuffers.Builder(1024)
    builder.StartVector(16, len(events), 8)
    row = np.dtype([("t", "<i8"), ("x", "<i2"), ("y", "<i2"), ("p", "?"), ("pad", "V3")])
    rows = np.zeros(len(events), row)
    for name in ("t", "x", "y", "p"):
        rows[name] = events[name]
    data = rows.tobytes()
    builder.head -= len(data)
    builder.Bytes[builder.head : builder.head + len(data)] = data
    vector = builder.EndVector()
    builder.StartObject(1)
    builder.PrependUOffsetTRelativeSlot(0, vector, 0)
    builder.FinishSizePrefixed(builder.EndObject(), b"EVTS")
    return bytes(builder.Output())


def write_cifar10dvs(root: Path, each: int = 10) -> Path:
    """``CIFAR10DVS/<class>/cifar10_<class>_N.aedat4``."""
    from qbsnn.data import CIFAR10DVS

    for label, name in enumerate(CIFAR10DVS.class_names):
        folder = root / "CIFAR10DVS" / name
        folder.mkdir(parents=True)
        for i in range(each):
            events = class_events(label, Sensor(128, 128, 2), 50 * label + i, 150)
            (folder / f"cifar10_{name}_{i}.aedat4").write_bytes(aedat4(events))
    return root / "CIFAR10DVS"
