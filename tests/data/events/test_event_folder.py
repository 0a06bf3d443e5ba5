import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch

from qbsnn.data import EventFolder
from qbsnn.data.events.events import Sensor
from qbsnn.data.events.folder import windows_of
from qbsnn.data.events.readers import READERS
from qbsnn.errors import ArgumentError, DataError
from tests.data.events.test_readers import WRITERS, write_evt3, written
from tests.data.events.tiny_events import class_events, nmnist_bytes, some_events

SENSOR = Sensor(128, 128, 2)
CLASSES = ("left", "right")


def recordings(root: Path, parts: dict[str, int], name: str = "one.dat", duration: int = 300_000) -> Path:
    for part, each in parts.items():
        for label, kind in enumerate(CLASSES):
            folder = root / part / kind
            folder.mkdir(parents=True)
            for i in range(each):
                events = class_events(label, SENSOR, 10 * i + label)
                events["t"] *= duration // 300_000
                written(name, folder, events).rename(folder / f"{i:02d}_{name}")
    return root


def made(root: Path, **options) -> EventFolder:
    return EventFolder(**{"root": root, "T": 4, "batch_size": 2, "size": 16, "cache": "none"} | options)


@pytest.mark.parametrize("name", [name for name in WRITERS if name != "davis.aedat"])
def test_every_format_through_the_datamodule(name, tmp_path):
    root = recordings(tmp_path / "waves", {"train": 5, "test": 2}, name)
    sensor = None if WRITERS[name][1] else [128, 128]
    data = made(root, sensor=sensor, val_fraction=0.2)
    data.setup()
    assert data.split_sizes() == {"train": 8, "val": 2, "test": 4}
    frames, labels = next(iter(data.test_dataloader()))
    assert frames.shape == (2, 4, 2, 16, 16) and labels.tolist() == [0, 0]
    assert frames[0].sum() == 400
    found = data.describe()
    assert found["classes"] == ["left", "right"] and found["sensor"] == [128, 128]
    json.dumps(found)


def test_parts_that_are_absent_are_held_out(tmp_path, caplog):
    caplog.set_level("INFO")
    data = made(recordings(tmp_path / "waves", {".": 10}))
    data.setup()
    assert data.split_sizes() == {"train": 16, "val": 2, "test": 2}
    assert "event_folder has no test files of its own: 2 of the training files" in caplog.text
    assert "the sensor has 128x128 pixels, as " in caplog.text


def test_long_files_are_cut_and_no_file_is_in_two_parts(tmp_path):
    root = recordings(tmp_path / "waves", {".": 10}, duration=900_000)
    data = made(root, sample_ms=300, stride_ms=150, cache="disk")
    data.setup()
    files = {}
    for part, split in data._splits.items():
        names = [split.recordings.names[i] for i in split.chosen]
        files[part] = {name.split(",")[0] for name in names}
        assert len(names) == 5 * len(files[part])
    assert sum(map(len, files.values())) == len(set().union(*files.values())) == 20
    events = data.events("test", 1)
    assert events["t"].min() >= 150_000 and events["t"].max() < 450_000
    assert data._splits["test"].recordings.names[1].endswith("_one.dat, 150 to 450 ms")
    assert data._splits["test"][1][0].sum() == len(events)
    again = made(root, sample_ms=300, stride_ms=150, cache="disk")
    again.setup("test")
    assert again.describe()["cache"]["test"]["misses"] == 0
    other = made(root, sample_ms=300, stride_ms=100, cache="disk")
    other.setup("test")
    assert other.describe()["cache"]["test"]["hits"] == 0


def test_windows():
    t = np.array([10, 20, 30, 1000, 1005, 1010], np.int64)
    assert windows_of(t, 100, 100) == [(10, 110), (910, 1010)]
    assert windows_of(t, 5000, 100) == [(10, 5010)]
    assert windows_of(t[:1], 10, 10) == [(10, 20)]


@pytest.mark.parametrize("sample_ms", [None, 100])
@pytest.mark.parametrize("fault", ["truncated", "empty", "foreign", "backwards", "outside", "other size"])
def test_a_bad_recording_is_named_or_skipped_and_counted(fault, sample_ms, tmp_path):
    root = recordings(tmp_path / "waves", {"train": 5, "test": 3}, "three.raw")
    bad = root / "test/right/01_three.raw"
    events = some_events(300, SENSOR, 1)
    if fault == "backwards":
        events["t"][100:200] = events["t"][100:200][::-1]
    if fault == "outside":
        events["x"][7] = 130
    data = write_evt3(events)
    content = {"truncated": data[:-1], "empty": b"", "foreign": b"GIF89a........"}.get(fault, data)
    bad.write_bytes(content.replace(b"width=128", b"width=346") if fault == "other size" else content)
    words = {
        "truncated": "no whole number of words",
        "empty": "the file is empty, 0 bytes",
        "foreign": "must name the encoding, EVT 2.0 or EVT 3.0, got none",
        "backwards": "times must not run backwards, but event",
        "outside": "x must be from 0 to 127, but event 7 has 130",
        "other size": r"its sensor has 346x128 pixels, that of the others 128x128",
    }[fault]
    with pytest.raises(DataError, match=f"test/right/01_three.raw: .*{words}"):
        strict = made(root, sample_ms=sample_ms, batch_size=1)
        strict.setup("test")
        list(strict.test_dataloader())
    for cache in ("none", "memory", "disk"):
        data = made(root, sample_ms=sample_ms, on_bad_sample="skip", cache=cache, batch_size=32)
        data.setup("test")
        total = sum(len(labels) for _, labels in data.test_dataloader())
        assert total == (5 if sample_ms is None else 15)
        assert data.describe()["skipped"] == {"test": [str(bad)]}


def test_a_recording_that_augmentation_leaves_too_short_is_taken_as_it_is(tmp_path):
    root = recordings(tmp_path / "waves", {"train": 5, "test": 3}, "three.raw")
    plain, cut = made(root, T=2, size=8), made(root, T=2, size=8, drop_events=0.9, jitter=100.0, time_jitter_ms=100.0)
    for data in (plain, cut):
        data.setup("fit")
    split = cut._split("train")
    epochs, indices = np.zeros(len(split), np.int64), np.arange(len(split))
    frames, _ = split.fetch(epochs, indices)
    assert frames.shape == (len(split), 2, 2, 8, 8)
    split.augment_events = lambda events, epoch, index: events[:0]  # nothing is left
    assert torch.equal(split.fetch(epochs, indices)[0], plain._split("train").fetch(epochs, indices)[0])


def test_a_table(tmp_path):
    lines = ["path,label,part"]
    for i in range(8):
        (tmp_path / f"{i}.bin").write_bytes(nmnist_bytes(class_events(i % 2, Sensor(34, 34, 2), i)))
        lines.append(f"{i}.bin,{CLASSES[i % 2]},{'train' if i < 6 else 'test'}")
    (tmp_path / "all.csv").write_text("\n".join(lines))
    data = made(tmp_path, table="all.csv", sensor=[34, 34], val_fraction=0.34)
    data.setup()
    assert data.split_sizes() == {"train": 4, "val": 2, "test": 2}
    assert torch.cat([labels for _, labels in data.test_dataloader()]).tolist() == [0, 1]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"sensor": [128]}, r"sensor must be \[width, height\] in pixels, got \[128\]"),
        ({"sensor": 5}, r"sensor must be \[width, height\] in pixels, got 5"),
        ({"sensor": [128, 0]}, "sensor must be an integer from 1 to 32768, got 0"),
        ({"polarities": 3}, "polarities must be an integer from 1 to 2"),
        ({"stride_ms": 5.0}, "stride_ms must be null where sample_ms is null"),
        ({"sample_ms": 0}, "sample_ms must be a number of at least 0.001"),
        ({"columns": "xyp"}, "columns must name x, y, p and t in their order, such as xypt, got 'xyp'"),
        ({"time_unit": "min"}, "time_unit must be one of s, ms, us, ns, got 'min'"),
    ],
)
def test_bad_settings(options, words, tmp_path):
    root = recordings(tmp_path / "waves", {"train": 2})
    with pytest.raises(ArgumentError, match=words):
        made(root, **options)


def test_a_format_without_a_sensor_asks_for_it(tmp_path):
    root = recordings(tmp_path / "waves", {"train": 2}, "one.npy")
    with pytest.raises(DataError, match=r"00_one\.npy does not say its sensor: set data\.sensor=\[width,height\]"):
        made(root)


def test_a_network_on_a_folder(tool):
    root = recordings(tool.folder / "waves", {"train": 8, "val": 2, "test": 3}, "three.raw")
    command = ["data=event_folder", f"data.root={root}", "data.size=16", "model.width=0.25", "neuron.delta=0.05", "T=4"]
    assert tool("train.py", *command, "data.batch_size=4", "debug=tiny", "report=false") == 0
    result = tool.result()
    assert result["status"] == "finished" and result["data"]["samples"] == {"train": 16, "val": 4, "test": 6}
    assert result["absorption"]["spike_mismatches"] == result["integer"]["spike_mismatches"] == 0


def test_windows_of_one_moment_are_empty_and_a_stray_time_costs_nothing():
    t = np.array([10, 20, 30, 1000, 1000, 2000, 2005, 10**15, 10**15 + 5], np.int64)
    assert windows_of(t, 100, 100) == [(10, 110), (1910, 2010)]
    t[-2:] = t[0] + 10**15, t[0] + 10**15 + 99
    assert windows_of(t, 100, 100)[-1] == (10 + 10**15, 110 + 10**15)
    assert windows_of(np.array([0, 1, 9, 10]), 4, 2) == [(0, 4)]  # the window from 8 on is not whole


@pytest.mark.parametrize("slice_by", ["time", "count"])
def test_windows_too_quiet_for_their_frames_are_left_out(slice_by, tmp_path):
    root = recordings(tmp_path / "waves", {".": 10}, duration=900_000)
    path = sorted((root / "left").iterdir())[0]
    events = class_events(0, SENSOR, 0)
    events["t"] *= 3
    events["t"][(events["t"] >= 400_000) & (events["t"] < 700_000)] = 400_000  # a pause with events of one moment
    events["t"][np.flatnonzero(events["t"] == 400_000)[-1]] = 400_002
    written("one.dat", tmp_path, events).rename(path)
    data = made(root, sample_ms=150, slice_by=slice_by)
    data.setup()
    for part in ("train", "val", "test"):
        list(getattr(data, f"{part}_dataloader")())


def test_a_class_without_a_window_is_named_and_other_files_without_one_are_counted(tmp_path, caplog):
    root = recordings(tmp_path / "waves", {"train": 10, "test": 2}, duration=900_000)
    files = sorted((root / "train/left").iterdir())
    for path in files:
        events = class_events(0, SENSOR, 0)[:6]
        events["t"] = np.arange(6) * 180_000
        written("one.dat", tmp_path, events).rename(path)
        words = (
            r"have no window of data\.sample_ms with 2 events over 4 µs, as frames need, .*left/0._one\.dat among them"
        )
        if path == files[0]:
            made(root, sample_ms=150).setup("fit")
            assert re.search(rf"event_folder: 1 of \d+ files {words}", caplog.text)
    with pytest.raises(DataError, match=f"event_folder: the files of the class left {words}"):
        made(root, sample_ms=150).setup("fit")


def test_the_sensor_is_that_of_the_first_file_that_can_be_read(tmp_path):
    root = recordings(tmp_path / "waves", {"train": 3})
    first, *others = sorted((root / "train/left").iterdir())
    first.write_bytes(b"")
    with pytest.raises(DataError, match=r"00_one\.dat: the file is empty"):
        made(root)
    assert made(root, on_bad_sample="skip").sensor[:2] == (128, 128)
    for path in (*others, *(root / "train/right").iterdir()):
        path.write_bytes(b"")
    with pytest.raises(DataError, match="the file is empty"):
        made(root, on_bad_sample="skip")


def test_a_file_that_could_not_be_read_once_is_read_again(tmp_path, monkeypatch):
    root = recordings(tmp_path / "waves", {"train": 5, "val": 2, "test": 3})
    honest = READERS[".dat"]

    def broken(path, convention):
        if path.parent.name == "right" and path.name.startswith("01"):
            raise OSError(5, "Input/output error")
        return honest(path, convention)

    monkeypatch.setitem(READERS, ".dat", broken)
    data = made(root, on_bad_sample="skip", cache="disk")
    data.setup()
    assert data.describe()["samples"] == {"train": 9, "val": 3, "test": 5}
    monkeypatch.setitem(READERS, ".dat", honest)
    for on_bad_sample in ("skip", "raise"):
        data = made(root, on_bad_sample=on_bad_sample, cache="disk")
        data.setup()
        assert data.describe()["samples"] == {"train": 10, "val": 4, "test": 6}
