import struct
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch

from qbsnn.data import DVS128Gesture, folders
from qbsnn.data.events.events import Sensor
from qbsnn.errors import DataError
from tests.data.events.tiny_events import class_events

SENSOR = Sensor(128, 128, 2)
GAP = 400_000


def take(seed: int) -> list[tuple[int, int, np.ndarray]]:
    """Gestures of a take, in the order they were made: start, class, events that begin at 0. One is made twice."""
    made = []
    for place, label in enumerate([0, 1, 2, 7, 3, 4, 5, 6, 7, 8, 9, 10]):
        made.append((1_000_000 + place * GAP, label, class_events(label, SENSOR, 100 * seed + place, 60)))
    return made


def aedat31(gestures: list[tuple[int, int, np.ndarray]]) -> bytes:
    data = b"#!AER-DAT3.1\r\n#Format: RAW\r\n#!END-HEADER\r\n"
    for start, _, events in gestures:
        rows = [
            struct.pack("<Ii", int(e["x"]) << 17 | int(e["y"]) << 2 | int(e["p"]) << 1 | 1, int(e["t"]) + start)
            for e in events
        ]
        data += struct.pack("<hhiiiiii", 1, 0, 8, 4, 0, len(rows), len(rows), len(rows)) + b"".join(rows)
        data += struct.pack("<hhiiiiii", 1, 0, 8, 4, 0, 1, 1, 1)  # between gestures there are events too
        data += struct.pack("<Ii", 9 << 17 | 1, start + 350_000)
    return data


def write_both(root: Path) -> tuple[Path, Path]:
    """The same takes as IBM and as Tonic publish them, below ``root/ibm`` and ``root/tonic``."""
    ibm, tonic = root / "ibm/DvsGesture", root / "tonic/DVSGesture"
    ibm.mkdir(parents=True)
    for train, users in ((True, (1, 2, 3)), (False, (24,))):
        names = []
        for user in users:
            name, gestures = f"user{user:02d}_led", take(user)
            names.append(f"{name}.aedat")
            (ibm / names[-1]).write_bytes(aedat31(gestures))
            rows = [f"{label + 1},{start},{start + 300_001}" for start, label, _ in gestures]
            text = "class,startTime_usec,endTime_usec\n" + "\n".join(rows) + "\n"
            (ibm / f"{name}_labels.csv").write_text(text)
            folder = tonic / f"ibmGesture{'Train' if train else 'Test'}" / name
            folder.mkdir(parents=True)
            for _, label, events in gestures:  # the second gesture of a class takes the place of the first
                columns = [events["x"], events["y"], events["p"], events["t"] / 1000]
                np.save(folder / f"{label}.npy", np.stack(columns, 1).astype(float))
        (ibm / f"trials_to_{'train' if train else 'test'}.txt").write_text("\n".join(names) + "\n")
    return ibm.parent, tonic.parent


def made(root: Path, **options) -> DVS128Gesture:
    settings = {"root": root, "download": False, "verify": False, "val_fraction": 0.3, "T": 4, "cache": "none"}
    data = DVS128Gesture(**settings | options)
    data.prepare_data()
    return data


def test_both_archives_give_equal_samples(tmp_path, caplog):
    caplog.set_level("INFO")
    ibm, tonic = map(made, write_both(tmp_path))
    for data in (ibm, tonic):
        data.setup()
    assert "IBM's own takes, in " in caplog.text and "Tonic's version, in " in caplog.text
    assert ibm.split_sizes() == tonic.split_sizes() == {"train": 23, "val": 10, "test": 11}
    for part in ("train", "val", "test"):
        one, other = ibm._splits[part], tonic._splits[part]
        assert torch.equal(one.labels, other.labels) and torch.equal(ibm.indices[part], tonic.indices[part])
        for i in range(len(one)):
            a, b = ibm.events(part, i), tonic.events(part, i)
            assert all(np.array_equal(a[field], b[field]) for field in ("x", "y", "t", "p"))
    frames = [torch.cat([x for x, _ in data.test_dataloader()]) for data in (ibm, tonic)]
    assert torch.equal(*frames) and frames[0].sum() == 11 * 60


@pytest.mark.parametrize("place", [".", "DVSGesture"])
def test_ibms_archive_is_unpacked_and_tonics_folders_come_first(tmp_path, place, caplog):
    caplog.set_level("INFO")
    ibm, tonic = write_both(tmp_path)
    root = tmp_path / "packed"
    (root / place).mkdir(parents=True)
    with tarfile.open(root / place / "DvsGesture.tar.gz", "w:gz") as packed:
        packed.add(ibm / "DvsGesture", "DvsGesture")
    with pytest.raises(DataError, match=r"DvsGesture\.tar\.gz is damaged or another file: its MD5"):
        made(root, verify=True)
    data = made(root)
    data.setup("test")
    assert data.split_sizes() == {"test": 11} and "IBM's own takes" in caplog.text
    caplog.clear()
    (tonic / "DVSGesture").rename(root / "tonic")
    for part in ("Train", "Test"):
        (root / "DVSGesture").mkdir(exist_ok=True)
        (root / f"tonic/ibmGesture{part}").rename(root / f"DVSGesture/ibmGesture{part}")
    made(root).setup("test")
    assert "Tonic's version" in caplog.text and "IBM" not in caplog.text


def test_the_published_counts_are_explained(tmp_path):
    ibm, tonic = write_both(tmp_path)
    with pytest.raises(DataError, match=r"names 1 takes instead of 24 \(98 for training and 24 .*1,077 and 264 rec"):
        made(ibm, verify=True).setup("test")
    with pytest.raises(DataError, match="holds 11 of 264 recordings"):
        made(tonic, verify=True).setup("test")


@pytest.mark.parametrize(
    ("file", "content", "words"),
    [
        ("trials_to_test.txt", None, r"trials_to_test\.txt cannot be read: .*IBM's archive DvsGesture\.tar\.gz"),
        ("user24_led.aedat", None, r"user24_led\.aedat is missing"),
        ("user24_led_labels.csv", None, r"user24_led_labels\.csv is no list of gestures: FileNotFoundError"),
        ("user24_led_labels.csv", "a,b\n1,2\n", r"is no list of gestures: KeyError"),
        ("user24_led_labels.csv", "class,startTime_usec,endTime_usec\n1,x,2\n", "is no list of gestures: ValueError"),
        ("user24_led_labels.csv", "class,startTime_usec,endTime_usec\n1,5,2\n", "class 1 ends at 2 µs and starts at 5"),
        ("user24_led_labels.csv", "class,startTime_usec,endTime_usec\n1,1,2\n", "has no recording of class 1"),
        (
            "user24_led.aedat",
            b"#!AER-DAT3.1\r\n#!END-HEADER\r\n123",
            r"led\.aedat: it is truncated inside the h",
        ),
        ("user24_led.aedat", b"RIFF", r"user24_led\.aedat: it must begin with #!AER-DAT"),
    ],
)
def test_a_damaged_archive_is_named(tmp_path, file, content, words):
    root, _ = write_both(tmp_path)
    path = root / "DvsGesture" / file
    if content is None:
        path.unlink()
    elif isinstance(content, bytes):
        path.write_bytes(content)
    else:
        path.write_text(content)
    with pytest.raises(DataError, match=words):
        data = made(root)
        data.setup("test")
        list(data.test_dataloader())


def test_the_training_half_alone_is_used_as_it_is_without_verify(tmp_path, monkeypatch):
    def download(archive, target):
        raise AssertionError(f"wants to download {archive.name}")

    monkeypatch.setattr(folders, "tonic_download", download)
    events = np.array([[5.0, 6.0, 1.0, 0.0], [7.0, 8.0, 0.0, 40.0]])  # x, y, p, t in ms
    for user in range(4):
        folder = tmp_path / f"DVSGesture/ibmGestureTrain/user{user:02d}_led"
        folder.mkdir(parents=True)
        for label in range(11):
            np.save(folder / f"{label}.npy", events)
    half = DVS128Gesture(root=tmp_path, T=2, verify=False, download=True)
    half.prepare_data()
    half.setup("fit")
    assert sum(half.split_sizes().values()) == 44
    with pytest.raises(DataError, match="ibmGestureTest"):
        half.setup("test")
    with pytest.raises(AssertionError, match=r"wants to download ibmGestureTest"):
        DVS128Gesture(root=tmp_path, T=2, verify=True, download=True).prepare_data()
