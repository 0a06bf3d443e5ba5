import contextlib
import json
import os
import tarfile
import tempfile
from itertools import takewhile
from pathlib import Path

import numpy as np
import pytest
import torch

from qbsnn.data import CIFAR10DVS, NMNIST, SHD, DVS128Gesture, SimulatedDigitsDVS
from qbsnn.data.events.frames import Framing
from qbsnn.data.events.readers import read
from qbsnn.errors import DataError, SettingsError
from tests.data.events.tiny_events import (
    nmnist_bytes,
    some_events,
    write_cifar10dvs,
    write_gesture,
    write_nmnist,
    write_shd,
)
from tests.data.test_loading import epoch_of, same

pytestmark = [
    # Python 3.12 and later about forking; the workers only read files
    pytest.mark.filterwarnings("ignore:This process.*is multi-threaded:DeprecationWarning"),
]

SETS = {
    "dvs128_gesture": (DVS128Gesture, write_gesture, (2, 128, 128), {}),
    "nmnist": (NMNIST, write_nmnist, (2, 34, 34), {}),
    "cifar10dvs": (CIFAR10DVS, write_cifar10dvs, (2, 128, 128), {}),
    "shd": (SHD, write_shd, (1, 1, 700), {}),
}


def made(name: str, root: Path, write: bool = True, **options):
    """The set with a tiny copy of its files; the copies are too small for the published numbers."""
    cls, writer, _, _ = SETS[name]
    if name == "cifar10dvs":
        pytest.importorskip("aedat")
        pytest.importorskip("flatbuffers")
    if write:
        writer(root)
    settings = {"root": root, "download": False, "verify": False, "val_fraction": 0.2, "batch_size": 5, "T": 4}
    return cls(**settings | options)


@contextlib.contextmanager
def without_rights(path: Path):
    """``path`` cannot be read, not even by root, who is another user for a while."""
    mode, user = path.stat().st_mode, os.geteuid()
    path.chmod(0)
    if user == 0:
        os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(user)
        path.chmod(mode)


@pytest.mark.parametrize("name", SETS)
def test_true_layout_through_the_datamodule(name, tmp_path):
    data = made(name, tmp_path)
    data.prepare_data()
    data.setup()
    sizes = data.split_sizes()
    assert sizes["train"] == 4 * sizes["val"] or abs(sizes["train"] - 4 * sizes["val"]) <= 4
    frames, labels = next(iter(data.train_dataloader()))
    assert frames.shape == (5, 4, *SETS[name][2]) and frames.dtype == torch.float32
    assert labels.shape == (5,) and labels.dtype == torch.int64
    assert data.on_before_batch_transfer((frames, labels), 0)[0] is frames
    labels = torch.cat([y for _, y in data.test_dataloader()])
    assert labels.bincount(minlength=data.num_classes).min() > 0
    events = data._splits["test"].recordings.events(0)
    frames = data._splits["test"][0][0]
    assert frames.sum() == len(events)


@pytest.mark.parametrize("name", SETS)
def test_files_are_read_as_tonic_reads_them(name, tmp_path, monkeypatch):
    data = made(name, tmp_path)
    theirs = data.tonic()
    monkeypatch.setattr(theirs, "_check_exists", lambda self: True)  # it counts files; the copy is tiny
    split = {} if name == "cifar10dvs" else {"train": False}
    source = theirs(save_to=str(tmp_path), **split)
    recordings, labels, ids = data.open(False)
    # Tonic's order is that of the file system for some sets
    order = np.argsort(source.data, kind="stable") if name != "shd" else np.arange(len(source))
    for mine, index in enumerate(ids):
        events, label = source[order[index]]
        found = recordings.events(mine)
        assert labels[mine] == label and found.dtype.names is not None
        for field in set(found.dtype.names):
            assert np.array_equal(found[field], events[field])
        expected = tonic_frames(events, data.sensor)
        frames = Framing(data.sensor, 4, keep_tail=False)(found)[0]
        assert np.array_equal(frames.reshape(expected.shape), expected) and frames.sum() > 0


def tonic_frames(events, sensor):
    from tonic.transforms import ToFrame

    return ToFrame(sensor_size=tuple(sensor), n_time_bins=4)(events.copy())


def test_an_overflow_of_the_time_is_read_as_tonic_reads_it(tmp_path):
    from tonic.io import read_mnist_file

    path, events = tmp_path / "a.bin", nmnist_bytes(some_events(20, NMNIST.sensor))
    path.write_bytes(events[:25] + bytes([0, 240, 0, 0, 0]) + events[25:])
    found, expected = read(path).events, read_mnist_file(str(path), np.dtype([(name, int) for name in "xytp"]))
    assert len(found) == 20 and all(np.array_equal(found[name], expected[name]) for name in "xytp")


@pytest.mark.parametrize("name", SETS)
def test_class_names_and_sensor_are_tonics(name, tmp_path):
    data = made(name, tmp_path, write=False)
    theirs = data.tonic()
    assert tuple(data.sensor) == theirs.sensor_size
    if name == "nmnist":
        assert [text[0] for text in theirs.classes] == list(data.class_names)
    elif name != "shd":  # whose names are in its file
        assert list(theirs.classes) == list(data.class_names)


def test_archives_are_unpacked(tmp_path, monkeypatch):
    write_nmnist(tmp_path, packed=True)
    data = made("nmnist", tmp_path, write=False)
    data.prepare_data()
    data.setup()
    assert data.split_sizes()["test"] == 30
    assert sorted(path.name for path in (tmp_path / "NMNIST").iterdir()) == ["Test", "Train", "test.zip", "train.zip"]


def test_a_gesture_archive_is_unpacked_and_a_cut_one_is_refused(tmp_path):
    folder = write_gesture(tmp_path)
    for part in ("Train", "Test"):
        with tarfile.open(folder / f"ibmGesture{part}.tar.gz", "w:gz") as archive:
            archive.add(folder / f"ibmGesture{part}", f"ibmGesture{part}")
        (folder / f"ibmGesture{part}").rename(tmp_path / part)
    data = made("dvs128_gesture", tmp_path, write=False)
    data.prepare_data()
    data.setup("test")
    assert data.split_sizes() == {"test": 22}
    packed = folder / "ibmGestureTest.tar.gz"
    (folder / "ibmGestureTest").rename(tmp_path / "again")
    packed.write_bytes(packed.read_bytes()[:-2000])
    with pytest.raises(DataError, match=r"ibmGestureTest\.tar\.gz cannot be unpacked: "):
        made("dvs128_gesture", tmp_path, write=False).prepare_data()
    assert not (folder / "ibmGestureTest").exists()
    with pytest.raises(DataError, match=r"is damaged or another file: its MD5 checksum is .* instead of 56070e45"):
        made("dvs128_gesture", tmp_path, write=False, verify=True).prepare_data()


@pytest.mark.parametrize("name", SETS)
def test_absent_files_are_explained(name, tmp_path):
    data = made(name, tmp_path, write=False)
    with pytest.raises(
        DataError, match=r"is missing from .*data\.download is false\. By hand: save .*https?://\S+ (as|in) "
    ):
        data.prepare_data()
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(DataError, match="missing"):
        data.setup()


def test_a_failed_download_gives_the_steps(tmp_path, monkeypatch):
    data = made("dvs128_gesture", tmp_path, write=False, download=True)
    for part in ("train_url", "test_url"):
        monkeypatch.setattr(data.tonic(), part, f"http://127.0.0.1:9/{part}")
    with pytest.raises(DataError, match=r"the download failed \(.*refused.*\)\. By hand: save http.* in .*DVSGesture"):
        data.prepare_data()
    assert list(tmp_path.iterdir()) == []


def test_half_an_archive_is_noticed(tmp_path):
    write_nmnist(tmp_path)
    data = made("nmnist", tmp_path, write=False, verify=True)
    with pytest.raises(DataError, match=r"Train holds 30 of 60,000 recordings, as if .* extracted only in part"):
        data.setup()


def test_a_missing_class_folder(tmp_path):
    write_nmnist(tmp_path)
    (tmp_path / "NMNIST/Train/7").rename(tmp_path / "elsewhere")
    with pytest.raises(DataError, match=r"Train has no recording of class 7 \(7\)\. By hand: save"):
        made("nmnist", tmp_path, write=False).setup()


def test_a_label_that_is_no_class(tmp_path):
    folder = write_gesture(tmp_path) / "ibmGestureTrain/user01_fluorescent_led"
    (folder / "3.npy").rename(folder / "11.npy")
    with pytest.raises(DataError, match=r"11\.npy is of no class from 0 to 10"):
        made("dvs128_gesture", tmp_path, write=False).setup()
    (folder / "11.npy").rename(folder / "three.npy")
    with pytest.raises(DataError, match=r"three\.npy is of no class"):
        made("dvs128_gesture", tmp_path, write=False).setup()


def test_a_wrong_label_in_hdf5(tmp_path):
    import h5py

    with h5py.File(write_shd(tmp_path) / "shd_train.h5", "a") as file:
        file["labels"][5] = 20
    with pytest.raises(DataError, match="labels must be from 0 to 19, but 1 are not; the first is 20, of sample 5"):
        made("shd", tmp_path, write=False).setup()


def gesture_rows(**changes) -> np.ndarray:
    rows = np.array([[5, 6, 1, 0], [7, 8, 0, 10], [9, 9, 1, 20], [9, 9, 1, 40]], float)
    for name, (row, value) in changes.items():
        rows[row, "xypt".index(name)] = value
    return rows


BAD_GESTURES = {
    "nan": (gesture_rows(t=(1, np.nan)), "t must be finite numbers"),
    "times": (gesture_rows(t=(1, 30)), "times must not run backwards, but event 2 has t = 20000 µs after 30000 µs"),
    "negative": (gesture_rows(t=(0, -1)), "times must not be negative, but event 0 has t = -1000 µs"),
    "outside": (gesture_rows(x=(2, 128)), "x must be from 0 to 127, but event 2 has 128"),
    "far": (gesture_rows(x=(2, 70_000)), "x must be integers from 0 to 32767, but event 2 has 70000"),
    "polarity": (gesture_rows(p=(0, 2)), "polarities must be 0 and 1, or -1 and 1, got 0, 1, 2"),
    "none": (np.zeros((0, 4)), "it holds no events"),
    "shape": (np.zeros((4, 3)), r"events must be numbers \[N, 4\] or have named columns, got \[4, 3\]"),
    "text": (np.array([["a"] * 4]), r"events must be numbers, got <U1 \[1, 4\]"),
    "objects": (np.array([[{}] * 4], object), "is damaged: ValueError: "),
}


@pytest.mark.parametrize("fault", [*BAD_GESTURES, "truncated", "empty file", "no permission"])
@pytest.mark.parametrize("cache", ["disk", "none"])
def test_a_bad_recording_is_named_or_skipped_and_counted(fault, cache, tmp_path, caplog):
    path = write_gesture(tmp_path) / "ibmGestureTest/user24_fluorescent_led/4.npy"
    rights = contextlib.nullcontext()
    message = "the file is empty, 0 bytes" if fault == "empty file" else "is damaged: ValueError: "
    if fault in BAD_GESTURES:
        rows, message = BAD_GESTURES[fault]
        np.save(path, rows)
    elif fault == "no permission":
        rights, message = without_rights(path), "cannot be read: Permission denied"
    else:
        path.write_bytes(path.read_bytes()[: 1000 if fault == "truncated" else 0])

    def run(on_bad_sample: str):
        data = made("dvs128_gesture", tmp_path, write=False, cache=cache, on_bad_sample=on_bad_sample)
        data.setup("test")
        return data, list(data.test_dataloader())

    tmp_path.chmod(0o777)  # so that the user of without_rights may write the cache
    for parent in takewhile(lambda folder: folder != Path(tempfile.gettempdir()), tmp_path.parents):
        parent.chmod(0o755)
    with rights:
        with pytest.raises(DataError, match=f"4.npy: {message}"):
            run("raise")
        data, batches = run("skip")
    assert sum(len(labels) for _, labels in batches) == 21
    assert all(frames.flatten(2).sum(2).all() for frames, _ in batches)  # no frame is empty
    assert data.describe()["skipped"] == {"test": [str(path)]}
    data.teardown("test")
    assert "dvs128_gesture: 1 test samples were skipped as they cannot be read" in caplog.text
    assert data.split_sizes() == {"test": 21 if cache == "disk" else 22}
    if cache == "disk" and fault != "no permission":
        with pytest.raises(DataError, match=r"4\.npy"):  # the reason is in the cache
            run("raise")


@pytest.mark.parametrize("cut", [3, -3])
def test_a_truncated_binary_file(cut, tmp_path):
    path = write_nmnist(tmp_path) / "Test/5/00016.bin"
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(DataError, match=r"00016\.bin: [\d,]+ bytes are no whole number of events of 5 bytes"):
        made("nmnist", tmp_path, write=False).setup("test")
    path.write_bytes(b"")
    with pytest.raises(DataError, match=r"00016\.bin: the file is empty, 0 bytes"):
        made("nmnist", tmp_path, write=False).setup("test")
    events = some_events(20, NMNIST.sensor)
    events["x"][3] = 40
    path.write_bytes(nmnist_bytes(events))
    with pytest.raises(DataError, match=r"00016\.bin: x must be from 0 to 33, but event 3 has 40"):
        made("nmnist", tmp_path, write=False).setup("test")


def test_a_truncated_hdf5_file(tmp_path):
    path = write_shd(tmp_path) / "shd_test.h5"
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(DataError, match=r"shd_test\.h5 is damaged: .*Delete it"):
        made("shd", tmp_path, write=False).setup("test")


def test_a_truncated_aedat4_file(tmp_path):
    data = made("cifar10dvs", tmp_path)
    path = tmp_path / "CIFAR10DVS/cat/cifar10_cat_0.aedat4"
    path.write_bytes(path.read_bytes()[:700])
    with pytest.raises(DataError, match=r"cifar10_cat_0\.aedat4: it is truncated or damaged: "):
        data.setup()


def test_a_set_without_official_split_stores_its_own(tmp_path):
    data = made("cifar10dvs", tmp_path)
    data.setup()
    assert data.split_sizes()["test"] == 10
    assert torch.cat([labels for _, labels in data.test_dataloader()]).tolist() == list(range(10))
    parts = {part: set(ids.tolist()) for part, ids in data.indices.items()}
    assert set.union(*parts.values()) == set(range(100)) and sum(map(len, parts.values())) == 100
    stored = tmp_path / "CIFAR10DVS/split.json"
    before = stored.read_text()
    again = made("cifar10dvs", tmp_path, write=False, split_seed=5)
    again.setup()
    assert stored.read_text() == before and torch.equal(again.indices["test"], data.indices["test"])
    assert not torch.equal(again.indices["val"], data.indices["val"])
    stored.write_text(before.replace("cat_", "dog_"))
    with pytest.raises(DataError, match="is the split of other files"):
        made("cifar10dvs", tmp_path, write=False).setup()
    stored.write_text(json.dumps({"test": json.loads(before)["test"][:3]}))
    with pytest.raises(
        DataError, match="must hold out a tenth of 100 samples, 10, got 3: it was made where files were"
    ):
        made("cifar10dvs", tmp_path, write=False).setup()
    stored.write_text("[")
    with pytest.raises(DataError, match="is no stored split"):
        made("cifar10dvs", tmp_path, write=False).setup()


def test_what_determines_the_frames_makes_another_cache(tmp_path):
    write_nmnist(tmp_path)

    def misses(**options):
        data = made("nmnist", tmp_path, write=False, **options)
        data.setup("test")
        return data.describe()["cache"]["test"]["misses"]

    assert misses() == 30 and misses() == 0 and misses(value="log", num_workers=1, seed=5) == 0
    for options in ({"T": 5}, {"slice_by": "count"}, {"keep_tail": False}, {"size": 17}, {"polarity": "on"},
                    {"slice_by": "duration", "window_ms": 50.0}, {"frames": 8}):  # fmt: skip
        assert misses(**options) == 30
    path = tmp_path / "NMNIST/Test/5/00016.bin"
    path.write_bytes(nmnist_bytes(some_events(99, NMNIST.sensor)))
    assert misses() == 30


EVERYTHING = {"flip": True, "roll": 3, "rotate": 10.0, "shear": 10.0, "cutout": 5, "frames": 6}
EVENTS = {"drop_events": 0.2, "jitter": 1.0, "time_jitter_ms": 2.0, "reverse": 0.5}


@pytest.mark.parametrize(
    ("options", "cache"),
    [(EVERYTHING, "disk"), (EVERYTHING | {"mix": "eventmix"}, "memory"), (EVERYTHING | EVENTS, "none")],
    ids=["frames", "mix", "events"],
)
def test_batches_do_not_depend_on_workers_or_the_cache(options, cache, tmp_path):
    runs = []
    for workers, kind in ((0, "none"), (0, cache), (1, cache), (2, cache)):
        data = SimulatedDigitsDVS(
            root=tmp_path, num_workers=workers, limit_train=24, limit_val=4, batch_size=8, seed=4, cache=kind, **options
        )
        data.setup("fit")
        loader = data.train_dataloader()
        runs.append([epoch_of(loader, epoch) for epoch in (0, 1, 0)])
    for epochs in runs:
        assert all(same(one, two) for one, two in zip(epochs, runs[0], strict=True))
    first, second, again = runs[0]
    assert same(first, again) and not same(first, second)


def test_a_choice_of_frames(tmp_path):
    data = SimulatedDigitsDVS(root=tmp_path, T=3, frames=9, limit_train=40, limit_test=5, batch_size=40)
    data.setup()
    whole = SimulatedDigitsDVS(root=tmp_path, T=9, limit_train=40, limit_test=5, batch_size=40)
    whole.setup()
    (frames, _), (all_frames, _) = next(iter(data.test_dataloader())), next(iter(whole.test_dataloader()))
    assert torch.equal(frames, all_frames[:, [1, 4, 7]])
    ((frames, labels),), ((all_frames, same_labels),) = (epoch_of(d.train_dataloader(), 2) for d in (data, whole))
    assert torch.equal(labels, same_labels)
    chosen = (frames[:, :, None] == all_frames[:, None]).flatten(3).all(3)  # [B, 3, 9]
    assert (chosen.sum(2) >= 1).all()
    where = chosen.float().argmax(2)
    assert (where.diff(dim=1) > 0).all() and len(where.unique(dim=0)) > 20


def test_values(tmp_path):
    found = {}
    for value in ("count", "binary", "log"):
        data = SimulatedDigitsDVS(root=tmp_path, limit_test=6, value=value)
        data.setup("test")
        found[value] = next(iter(data.test_dataloader()))[0]
    assert torch.equal(found["binary"], (found["count"] > 0).float()) and found["count"].max() > 1
    assert torch.equal(found["log"], torch.log1p(found["count"]))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"T": 0}, "T must be an integer from 1 to 1024, got 0"),
        ({"T": 4, "frames": 3}, "frames must be an integer of at least 4, got 3"),
        ({"value": "sign"}, "value must be one of count, binary, log, got 'sign'"),
        ({"cache": "ram"}, "cache must be one of none, memory, disk, got 'ram'"),
        ({"on_bad_sample": "zero"}, "on_bad_sample must be one of raise, skip, got 'zero'"),
        ({"drop_events": 1.0}, "drop_events must be a number of at least 0 and at most 0.9, got 1.0"),
        ({"reverse": -1}, "reverse must be a number"),
        ({"roll": 21}, "roll must be an integer from 0 to 20, got 21"),
        ({"flip": 1}, "flip must be true or false, got 1"),
        ({"mix": "mixup"}, "mix must be one of eventmix, got 'mixup'"),
    ],
)
def test_bad_settings(options, message):
    with pytest.raises(SettingsError, match=message):
        SimulatedDigitsDVS(**options)


def test_a_line_has_no_rotation(tmp_path):
    with pytest.raises(SettingsError, match=r"jitter, rotate and shear must be 0 for shd, whose sensor is a line"):
        made("shd", tmp_path, write=False, rotate=5.0)


@pytest.mark.parametrize("bad", [float("nan"), -1.0, 256.0])
def test_counts_are_checked(bad):
    frames = torch.full((2, 3, 2, 4, 4), 255.0)
    SimulatedDigitsDVS(cache="none").check(frames, "a batch")
    frames[1, 2, 0, 1, 1] = bad
    with pytest.raises(DataError, match=r"counts must be numbers from 0 to 255, but 1 of 192 is not.*in sample 1"):
        SimulatedDigitsDVS(cache="none").check(frames, "a batch")
