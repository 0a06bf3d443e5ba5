"""Event sets from the command line to the proof of the integer network."""

import json
import runpy
import sys

import pytest

from qbsnn.data.events.events import Sensor
from tests.data.events.test_readers import written
from tests.data.events.tiny_events import class_events, write_cifar10dvs, write_gesture, write_nmnist, write_shd
from tests.tool import ROOT, one_paragraph

# One short epoch from the default scale would leave layers silent, and these prove nothing; a small delta fires.
QUIET = ("debug=tiny", "report=false", "data.verify=false", "data.download=false")


def proven(result: dict, name: str, images: int) -> None:
    assert result["status"] == "finished" and result["data"]["name"] == name
    assert result["config"]["model"]["encoding"] == "events"
    for block in (result["absorption"], result["integer"]):
        assert block["spike_mismatches"] == 0 and block["images"] == images
    assert result["integer"]["membrane_mismatches"] == result["integer"]["overflows"] == 0
    assert result["integer"]["onnxruntime_mismatches"] in (0, None)


def test_vgg11_on_gestures(tool):
    root = tool.folder / "files"
    write_gesture(root)
    command = ["data=dvs128_gesture", "model=vgg11", "neuron.delta=0.05", "T=10", "model.width=0.125"]
    small = ["data.batch_size=2", "data.val_fraction=0.3", "callbacks.integer.onnx_images=2", f"data.root={root}"]
    assert tool("train.py", *command, *small, *QUIET) == 0
    result = tool.result()
    proven(result, "dvs128_gesture", 4)
    assert result["data"]["samples"] == {"train": 15, "val": 7, "test": 22}
    assert result["data"]["cache"]["train"]["misses"] == 15


def test_an_mlp_on_spoken_digits_and_a_vgg_on_written_ones(tool):
    write_shd(tool.folder / "data")
    assert tool("train.py", "data=shd", "model=mlp", "neuron.delta=0.05", "T=12", "data.val_fraction=0.4", *QUIET) == 0
    proven(tool.result(), "shd", 60)
    write_nmnist(tool.folder / "data")
    assert tool("train.py", "data=nmnist", "neuron.delta=0.1", "model.width=0.25", "data.val_fraction=0.4", *QUIET) == 0
    proven(tool.result(), "nmnist", 30)


def test_a_vgg_on_recorded_pictures(tool):
    pytest.importorskip("aedat", reason="needs the aedat extra")
    write_cifar10dvs(tool.folder / "data")
    small = ["neuron.delta=0.1", "model.width=0.25", "data.batch_size=8", "data.val_fraction=0.2"]
    assert tool("train.py", "data=cifar10dvs", "T=4", *small, *QUIET) == 0
    proven(tool.result(), "cifar10dvs", 10)


def test_a_folder_of_three_formats_whole(tool):
    pytest.importorskip("aedat", reason="needs the aedat extra")
    sensor, root = Sensor(128, 128, 2), tool.folder / "waves"
    for part, each in (("train", 8), ("test", 3)):
        for label, kind in enumerate(("left", "right")):
            folder = root / part / kind
            folder.mkdir(parents=True)
            for name in ("four.aedat4", "dvs.aedat", "three.aedat", "two.raw", "three.raw"):
                for i in range(each):
                    file = written(name, folder, class_events(label, sensor, 10 * i + label))
                    file.rename(folder / f"{i}_{name}")
    small = ["data.size=16", "data.batch_size=16", "model.width=0.25", "neuron.delta=0.05", "T=4"]
    # 0_dvs.aedat is the first file, and says the sensor
    assert tool("train.py", "data=event_folder", f"data.root={root}", *small, "debug=tiny") == 0
    result = tool.result()
    proven(result, "event_folder", 30)
    assert result["data"]["samples"] == {"train": 72, "val": 8, "test": 30}
    assert result["data"]["sensor"] == [128, 128] and result["data"]["classes"] == ["left", "right"]
    assert result["energy"]["images"] == 30
    assert "event_folder" in (tool.runs()[-1] / "report.html").read_text()


def test_simulated_digits_are_labelled(tool, capsys):
    command = ["data=digits_dvs", "data.limit_train=64", "data.limit_val=16", "data.limit_test=32", "model.width=0.25"]
    mixed = ["data.mix=eventmix", "optim/loss=tet", "data.flip=true", "data.drop_events=0.1"]
    assert tool("train.py", *command, *mixed, "debug=tiny") == 0
    shown = capsys.readouterr().out
    assert "digits_dvs (simulated events): 64 train, 16 val, 32 test" in shown
    proven(tool.result(), "digits_dvs", 32)
    assert tool.result()["data"]["simulated"]
    assert "SimulatedDigitsDVS" in (tool.runs()[-1] / "report.html").read_text()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["data=digits_dvs", "model.encoding=rate"], "model.encoding must be null or one of events for digits_dvs"),
        (
            ["model.encoding=events"],
            "model.encoding must be null or one of direct, rate, latency for digits, got 'events'",
        ),
        (["data=digits_dvs", "data.slice=count"], "did you mean data.slice_by?"),
        (
            ["data=digits_dvs", "data.pixel.threshold=0"],
            "data.pixel.threshold must be a number of at least 0.01, got 0",
        ),
    ],
)
def test_bad_settings(tool, capsys, arguments, words):
    assert tool("train.py", *arguments) == 1
    assert words in one_paragraph(capsys.readouterr().err)
    assert tool.left_behind() == []


def test_absent_gestures_are_explained(tool, capsys):
    assert tool("train.py", "data=dvs128_gesture", "data.download=false", "report=false", "model.width=0.1") == 1
    message = one_paragraph(capsys.readouterr().err)
    assert "ibmGestureTrain is missing from" in message and "By hand: save https://figshare.com" in message


@pytest.mark.slow
def test_the_benchmark_runs(tool, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["data.py", "small=true", "rounds=1", f"out={tool.folder / 'data.json'}"])
    runpy.run_path(str(ROOT / "benchmarks/data.py"), run_name="__main__")
    result = json.loads((tool.folder / "data.json").read_text())
    assert all(row["cache_share"] < 1 / 8 for row in result["epochs"])
