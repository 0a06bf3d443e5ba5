"""``train.py`` and ``evaluate.py`` from the command line to the files they leave."""

import json
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from qbsnn.results.reading import read_result
from qbsnn.training import checkpoints
from qbsnn.training.checkpoints import AtomicCheckpointIO
from qbsnn.training.setup import build
from tests.data.images.tiny import write_tiny_cifar10
from tests.test_configs import composed
from tests.tool import ROOT, TINY, one_paragraph


def same_metrics(a: dict, b: dict) -> bool:
    keys = ("metrics", "layers", "params")
    return all(a[key] == b[key] for key in keys) and [block(a) for block in (absorption, integer)] == [
        block(b) for block in (absorption, integer)
    ]


def absorption(result: dict) -> dict:
    return {key: value for key, value in result["absorption"].items() if key != "checkpoint"}


def integer(result: dict) -> dict:
    return {key: value for key, value in result["integer"].items() if key != "checkpoint"}


def test_a_run_leaves_all_it_promises(tool, capsys):
    assert tool("train.py", "experiment=digits_smoke", "data.limit_test=64", "seed=3") == 0
    run = tool.runs()[-1]
    result = tool.result()
    assert result["status"] == "finished" and result["error"] is None
    assert result["seed"] == 3 and result["config"]["neuron"]["s_max"] == 8
    assert result["command"] == "train.py experiment=digits_smoke data.limit_test=64 seed=3"
    for weights in ("last", "best"):
        assert 0.5 < result["metrics"][weights]["test/acc"] <= 1
    for name in ("absorption", "integer"):
        block = result[name]
        assert block["passed"] and block["spikes"] > 0 and block["spike_mismatches"] == 0
        assert block["images"] == 64
        assert all(layer["spikes"] > 0 for layer in block["layers"])
        assert run / block["checkpoint"] == run / "checkpoints/best.ckpt"
    assert result["integer"]["membrane_mismatches"] == result["integer"]["overflows"] == 0
    assert result["integer"]["onnxruntime_mismatches"] in (0, None)
    assert result["integer"]["weight_bits"] == 8
    assert 8 < result["integer"]["accumulator_bits"] <= 32 and 8 < result["integer"]["membrane_bits"] <= 32
    assert result["timing"]["total_seconds"] >= result["timing"]["fit_seconds"] > 0
    assert [layer["name"] for layer in result["layers"]] == ["conv1", "conv2", "conv3", "fc1"]
    assert len({layer["delta"] for layer in result["layers"]}) == 4
    assert result["metrics"]["best"]["test/acc"] == pytest.approx(result["absorption"]["trained_acc"], abs=1e-6)
    assert (run / "report.html").stat().st_size > 100_000
    assert {path.name for path in (run / "figures").iterdir()} >= {
        "curves.png",
        "delta.png",
        "bursts.png",
        "raster.png",
    }
    read_result(run / "result.json")
    shown, warned = capsys.readouterr()
    assert "saturates" not in shown + warned and "silent" not in shown + warned
    assert "epoch 2/2" in shown and "test accuracy" in shown and "0 spike and 0 membrane mismatches" in shown
    assert "\x1b[" not in shown

    # evaluate.py needs nothing but the checkpoint, and finds the same.
    assert tool("evaluate.py", f"ckpt={run / 'checkpoints/best.ckpt'}") == 0
    again = tool.result()
    assert tool.runs()[-1] != run
    assert again["metrics"]["best"]["test/acc"] == result["metrics"]["best"]["test/acc"]
    assert integer(again) == integer(result) and absorption(again) == absorption(result)
    assert again["layers"] == result["layers"]
    assert json.loads((run / "result.json").read_text()) == result


def test_a_run_made_to_saturate_is_told_so(tool, capsys):
    settings = [
        "neuron.s_max=2",
        "neuron.delta=0.001",
        "neuron.learn_delta=false",
        "callbacks.bursts.warn_saturation=0.3",
    ]
    assert tool("train.py", *TINY, *settings, "callbacks=default", "report=false") == 0
    assert "conv1 saturates: " in "".join(capsys.readouterr())


def test_one_seed_gives_one_result_and_another_seed_another(tool):
    for seed in (1, 1, 2):
        assert tool("train.py", *TINY, f"seed={seed}", "report=false", "data.crop=1") == 0
    first, second, third = (json.loads((run / "result.json").read_text()) for run in tool.runs())
    assert same_metrics(first, second)
    assert not same_metrics(first, third)


@pytest.mark.parametrize("neuron", ["lif", "relu"])
def test_other_neurons_and_losses(tool, neuron):
    more = ["neuron.v_th=0.2"] if neuron == "lif" else []  # two batches teach it nothing: let every layer fire
    assert tool("train.py", *TINY, f"neuron={neuron}", *more, "optim/loss=tet", "optim=sgd", "report=false") == 0
    result = tool.result()
    if neuron == "relu":
        assert "ReLU puts out real numbers" in result["integer"]["skipped"]
        assert result["config"]["T"] == 1
    else:
        assert result["integer"]["spike_mismatches"] == result["integer"]["membrane_mismatches"] == 0


def test_post_training_checks_can_be_switched_off(tool):
    assert tool("train.py", *TINY, "callbacks=no_deploy", "report=false", "~debug", "trainer.max_epochs=1") == 0
    assert tool.result()["absorption"] is None and tool.result()["integer"] is None


def test_multirun_trains_every_cell_and_survives_a_bad_one(tool, capsys):
    code = tool("train.py", "-m", *TINY, "neuron.s_max=1,0,4", "T=2", "report=false")
    assert code == 1
    assert "neuron.s_max must be an integer from 1 to 127, got 0" in one_paragraph(capsys.readouterr().err)
    results = [json.loads((run / "result.json").read_text()) for run in tool.runs()]
    assert [result["config"]["neuron"]["s_max"] for result in results] == [1, 4]
    assert all(result["config"]["model"]["T"] == 2 for result in results)


def test_resnet19_on_cifar10_files_in_the_true_layout(tool):
    root = tool.folder / "files"
    write_tiny_cifar10(root)
    arguments = ["model=resnet19", "data=cifar10", "neuron.s_max=8", f"data.root={root}", "data.verify=false"]
    assert tool("train.py", *arguments, "data.limit_test=4", "data.batch_size=4", "debug=tiny", "report=false") == 0
    result = tool.result()
    assert result["config"]["data"]["_target_"] == "qbsnn.data.CIFAR10"
    assert len(result["layers"]) == 18
    for block in (result["absorption"], result["integer"]):
        assert block["spike_mismatches"] == 0 and block["images"] == 4


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["neuron.s_max=0"], "neuron.s_max must be an integer from 1 to 127, got 0"),
        (["+neuron.burst=4"], "neuron.burst is not a setting of qbsnn.neurons.QBLIF"),
        (["model=resnet118"], "did you mean resnet18?"),
        (["data.val_fraction=2"], "data.val_fraction"),
        (["neuron.alpha=[1]"], "neuron.alpha"),
        (["seed=${nowhere}"], "the settings do not resolve"),
        (["deploy=qat", "trainer.limit_val_batches=0"], "deploy=qat chooses its epoch by validation"),
        (["callbacks=early_stopping", "trainer.limit_val_batches=0"], "callbacks.early_stopping needs validation"),
        (
            ["callbacks=early_stopping", "callbacks.early_stopping.monitor=val/loss"],
            "callbacks.early_stopping.mode must be min for monitor=val/loss, got max",
        ),
        (
            [
                "callbacks=early_stopping",
                "callbacks.early_stopping.monitor=train/loss",
                "callbacks.early_stopping.mode=min",
                "+trainer.val_check_interval=0.5",
            ],
            "callbacks.early_stopping.monitor=train/loss is logged at the end of an epoch, but looked at after each",
        ),
        (
            [
                "callbacks=early_stopping",
                "callbacks.early_stopping.monitor=val/excess",
                "neuron=relu",
                "callbacks.early_stopping.mode=min",
                "budget=energy",
            ],
            "'val/excess' is not logged by a network without spikes, which has no budget",
        ),
        (["teacher=nowhere.ckpt"], "teacher: checkpoint nowhere.ckpt does not exist"),
        (["T=(("], ""),
    ],
)
def test_bad_settings_are_one_paragraph_and_leave_nothing(tool, capsys, arguments, words):
    assert tool("train.py", *arguments) == 1
    assert words in one_paragraph(capsys.readouterr().err)
    assert tool.left_behind() == []


def test_absent_data_is_explained_and_recorded(tool, capsys):
    assert tool("train.py", "data=cifar10", "data.download=false", "report=false") == 1
    message = one_paragraph(capsys.readouterr().err)
    assert "cifar-10-batches-py" in message and str(tool.folder / "data") in message
    assert tool.result()["status"] == "failed" and "cifar" in tool.result()["error"]
    assert not (tool.folder / "data").exists()


def test_a_pixel_that_is_no_number_stops_the_run(tool, capsys, monkeypatch):
    from qbsnn.data.images.resident import ImageSplit

    honest = ImageSplit.__getitems__

    def broken(self, keys):
        x, y = honest(self, keys)
        x[3, 0, 2, 2] = float("nan")
        return x, y

    monkeypatch.setattr(ImageSplit, "__getitems__", broken)
    assert tool("train.py", *TINY, "report=false") == 1
    message = one_paragraph(capsys.readouterr().err)
    assert "pixels must be numbers from 0 to 1, but 1 of" in message and "sample 3" in message
    assert tool.result()["status"] == "failed"
    assert not list(tool.folder.rglob("*.ckpt"))


def test_checkpoints_carry_plain_settings_and_damaged_ones_are_refused(tool, capsys):
    assert tool("train.py", *TINY, "report=false") == 0
    config = checkpoints.load(tool.runs()[-1] / "checkpoints/last.ckpt")["qbsnn"]["config"]
    assert type(config) is dict and type(config["neuron"]) is dict
    assert config == tool.result()["config"]
    capsys.readouterr()
    good = tool.runs()[-1] / "checkpoints/best.ckpt"
    before = len(tool.left_behind())
    half = tool.folder / "half.ckpt"
    half.write_bytes(good.read_bytes()[: good.stat().st_size // 2])
    foreign = tool.folder / "foreign.ckpt"
    AtomicCheckpointIO().save_checkpoint({"state_dict": {}}, foreign)
    damaged = {half: "half.ckpt", foreign: "carries no qbsnn configuration", Path("no.ckpt"): "no.ckpt"}
    for path, words in damaged.items():
        assert tool("evaluate.py", f"ckpt={path}") == 1
        assert words in one_paragraph(capsys.readouterr().err)
    assert tool("evaluate.py", f"ckpt={good}", "data.rooot=/tmp") == 1
    assert "did you mean data.root?" in one_paragraph(capsys.readouterr().err)
    assert tool("evaluate.py") == 1
    assert "ckpt is missing: write ckpt=PATH; --help shows all keys" in one_paragraph(capsys.readouterr().err)
    assert len(tool.left_behind()) == before + 2
    nan, contents = tool.folder / "nan.ckpt", checkpoints.load(good)
    next(iter(contents["state_dict"].values())).view(-1)[0] = float("nan")
    AtomicCheckpointIO().save_checkpoint(contents, nan)
    assert tool("evaluate.py", f"ckpt={nan}") == 1
    assert "nan.ckpt: 1 of " in one_paragraph(capsys.readouterr().err)


def test_a_full_disk_is_told_in_a_paragraph_that_names_the_last_good_checkpoint(tool, capsys, monkeypatch):
    save, saved = AtomicCheckpointIO.save_checkpoint, []

    def full(self, checkpoint, path, storage_options=None):
        if len(saved) == 1:
            monkeypatch.setattr("qbsnn.training.checkpoints._HashingWriter.write", no_space)
        saved.append(path)
        save(self, checkpoint, path, storage_options)

    def no_space(self, data):
        self.error = OSError(28, "No space left on device")
        raise self.error

    monkeypatch.setattr(AtomicCheckpointIO, "save_checkpoint", full)
    assert tool("train.py", *TINY, "report=false", "hydra.run.dir=outputs/run") == 1
    message = one_paragraph(capsys.readouterr().err)
    assert "No space left on device" in message and "goes on" in message
    assert "The last good checkpoint is " in message and "checkpoints/best.ckpt; the same" in message
    result = tool.result()
    assert result["status"] == "failed" and result["error"].startswith("EnvironmentFault: checkpoint ")


def test_a_run_directory_that_cannot_be_made_is_told_in_a_paragraph(tool, capsys, monkeypatch):
    def refuse(self, *given, **options):
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(Path, "mkdir", refuse)
    assert tool("train.py", *TINY, "hydra.run.dir=outputs/run") == 1
    assert "error: there is no permission: " in one_paragraph(capsys.readouterr().err)
    monkeypatch.setenv("QBSNN_TRACE", "1")
    assert tool("train.py", *TINY, "hydra.run.dir=outputs/run") == 1
    shown = capsys.readouterr().err
    assert "Traceback" in shown and "PermissionError" in shown and "error: there is no permission: " in shown


def test_a_disagreement_fails_the_run(tool, capsys, monkeypatch):
    from qbsnn.deploy.verify import integer as verify_integer

    honest = verify_integer.reference.run

    def off_by_one(net, current):
        trace = honest(net, current)
        trace.spikes[0][0, 0].flat[0] += 1
        return trace

    monkeypatch.setattr(verify_integer.reference, "run", off_by_one)
    assert tool("train.py", *TINY, "report=false") == 1
    assert "integer check failed: " in one_paragraph(capsys.readouterr().err)
    assert tool.result()["status"] == "failed" and not tool.result()["integer"]["passed"]


@pytest.mark.slow
def test_two_simultaneous_starts_do_not_collide(tmp_path):
    command = [sys.executable, str(ROOT / "train.py"), *TINY, "report=false"]
    both = [subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.DEVNULL) for _ in range(2)]
    assert [process.wait(300) for process in both] == [0, 0]
    assert len(list(tmp_path.glob("outputs/runs/*/result.json"))) == 2


def test_ctrl_c_leaves_a_result_that_says_so(tmp_path):
    command = [sys.executable, str(ROOT / "train.py"), "report=false", "trainer.max_epochs=200"]
    # A child inherits an ignored signal, which is how background jobs start; one that is handled becomes the default.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        process = subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    finally:
        signal.signal(signal.SIGINT, before)
    with process:
        for line in process.stdout:
            if line.startswith("epoch 2/200"):
                (path,) = tmp_path.glob("outputs/runs/*/result.json")
                assert json.loads(path.read_text())["status"] == "running"
                process.send_signal(signal.SIGINT)
    assert process.returncode != 0
    (result,) = (json.loads(path.read_text()) for path in tmp_path.glob("outputs/runs/*/result.json"))
    assert result["status"] == "interrupted" and result["error"] == "stopped by a signal"


def test_best_is_chosen_by_accuracy_then_loss(tmp_path):
    from types import SimpleNamespace

    from qbsnn.callbacks import BestByValidation

    saver = BestByValidation(str(tmp_path))
    epochs = [(0.9, 0.3), (0.9, 0.2), (0.9, 0.25), (0.95, 0.9), (0.95, 0.9), (0.94, 0.1)]
    kept = []
    for accuracy, loss in epochs:
        score = torch.tensor(accuracy)
        trainer = SimpleNamespace(
            callback_metrics={"val/loss": torch.tensor(loss)}, strategy=SimpleNamespace(reduce_boolean_decision=bool)
        )
        better = saver.check_monitor_top_k(trainer, score)
        if better:
            saver.best_model_score = saver.kth_value = score
            saver.best_k_models = {"best.ckpt": score}
            saver.kth_best_model_path = "best.ckpt"
        kept.append(bool(better))
    assert kept == [True, True, False, True, False, False]
    assert np.isclose(saver.state_dict()["best_loss"], 0.9)


def test_a_burst_neuron_without_leak_and_a_monitor_of_the_budget(tool):
    words = ["neuron.tau=inf", "budget=energy", "budget.every=1", "callbacks=early_stopping"]
    words += ["callbacks.early_stopping.monitor=val/excess", "callbacks.early_stopping.mode=min", "report=false"]
    assert tool("train.py", *TINY, *words) == 0
    assert tool.result()["config"]["neuron"]["tau"] == "inf"


def test_a_budget_without_its_quantity_is_one_of_energy(tmp_path):
    parts = build(composed(tmp_path, "budget=energy", "~budget.quantity", "trainer.accelerator=cpu"))
    assert parts.module.budget.quantity == "energy"


def test_validations_further_apart_than_an_epoch_are_refused_before_training(tool, capsys):
    assert tool("train.py", *TINY, "report=false", "+trainer.val_check_interval=1000") == 1
    message = one_paragraph(capsys.readouterr().err)
    assert "trainer: `val_check_interval` (1000) must be less than or equal to the number of" in message
    assert tool.result()["status"] == "failed" and not tool.result()["timing"]["epochs"]


def test_a_saver_of_the_best_epoch_alone_leaves_that_one(tool):
    saver = ["~callbacks.checkpoint", "+callbacks.checkpoint._target_=lightning.pytorch.callbacks.ModelCheckpoint",
             "+callbacks.checkpoint.dirpath=${paths.run}/checkpoints", "+callbacks.checkpoint.monitor=val/loss",
             "+callbacks.checkpoint.mode=min", "+callbacks.checkpoint.filename=best"]  # fmt: skip
    assert tool("train.py", *TINY, "report=false", *saver) == 0
    assert tool.result()["checkpoints"] == {"best": "checkpoints/best.ckpt"}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of the compiler's own
def test_a_network_compiled_as_a_whole_is_trained_and_tested_like_any_other(tool):
    small = ["model=mlp", "model.hidden=[16]", *(word for word in TINY if "width" not in word), "report=false"]
    assert tool("train.py", *small, "compile=model") == 0
    result = tool.result()
    assert result["status"] == "finished" and result["integer"]["spike_mismatches"] == 0
    # what listens to the layers in the test heard them
    assert result["energy"]["layers"][0]["spikes"] > 0 and result["layers"][0]["mean_burst"] > 0
