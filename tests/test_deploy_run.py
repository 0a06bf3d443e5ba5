"""Deployment from the command line: fine-tuning on the grid, evaluation of what it left, engines compared by script."""

import json

import numpy as np
import pytest
import torch

from qbsnn.deploy.verify import agreement as equality
from qbsnn.training import checkpoints, fine_tuning
from tests.tool import Tool, one_paragraph

SMALL = ("experiment=digits_smoke", "data.limit_test=64", "data.limit_train=512", "model.width=0.25", "report=false")


@pytest.fixture(scope="module")
def tuned(tmp_path_factory):
    """A run with deploy=qat at 4 bits: (its folder, its result)."""
    with pytest.MonkeyPatch.context() as patch:
        tool = Tool(patch, tmp_path_factory.mktemp("qat"))
        assert tool("train.py", *SMALL, "deploy=qat", "deploy.bits=4", "deploy.epochs=2", "deploy.lr=0.001") == 0
        return tool.runs()[-1], tool.result()


def test_the_trained_grid_network_is_the_deployed_one(tuned):
    run, result = tuned
    block = result["integer"]
    assert block["passed"] and block["images"] == block["onnxruntime_images"] == 64
    assert block["grid_mismatches"] == block["spike_mismatches"] == block["membrane_mismatches"] == 0
    assert block["onnxruntime_mismatches"] == block["logit_mismatches"] == block["overflows"] == 0
    assert block["weight_bits"] == 4 and block["theta"] == "integer" and block["multiplying_layers"] == []
    assert block["mode"] in ("ptq", "qat")
    assert block["acc"] == block[f"{block['mode']}_acc"]
    assert 0.5 < block["float_comparator_acc"] <= 1 and 0.5 < block["qat_acc"] <= 1
    contents = checkpoints.load(run / "checkpoints/qat.ckpt")
    assert contents["kept"] == (block["mode"] == "qat")
    best = checkpoints.load(run / "checkpoints/best.ckpt")["state_dict"]
    moved = [not torch.equal(value, best[f"network.{name}"]) for name, value in contents["float"].items()]
    assert any(moved)


def test_evaluation_finds_the_same_block(tuned, tool):
    run, result = tuned
    assert tool("evaluate.py", f"ckpt={run / 'checkpoints/best.ckpt'}") == 0
    again, before = tool.result()["integer"], dict(result["integer"])
    assert again.pop("checkpoint") != before.pop("checkpoint")
    assert again == before


def test_a_float64_run_is_evaluated_to_the_same_numbers(tool):
    words = ["trainer.max_epochs=1", "data.limit_train=128", "deploy=qat", "deploy.epochs=1"]
    assert tool("train.py", *SMALL, *words, "trainer.precision=64-true") == 0
    run, before = tool.runs()[-1], tool.result()
    weights = checkpoints.load(run / "checkpoints/best.ckpt")["state_dict"].values()
    assert any(not torch.equal(value, value.float()) for value in weights)  # they have more digits than float32
    assert tool("evaluate.py", f"ckpt={run / 'checkpoints/best.ckpt'}") == 0
    again = tool.result()
    assert again["integer"].pop("checkpoint") != before["integer"].pop("checkpoint")
    assert again["integer"] == before["integer"]
    assert again["metrics"]["best"]["test/loss"] == before["metrics"]["best"]["test/loss"]


def test_evaluation_can_convert_anew(tuned, tool):
    run, result = tuned
    checkpoint = f"ckpt={run / 'checkpoints/best.ckpt'}"
    arguments = ["deploy.mode=ptq", "deploy.bits=2", "deploy.profile=generic-fpga"]
    assert tool("evaluate.py", checkpoint, *arguments) == 0
    block = tool.result()["integer"]
    assert block["passed"] and block["mode"] == "ptq" and block["qat_acc"] is None
    assert block["weight_bits"] == 2 and block["overflow"] == "saturate" and block["register_bits"] == 24
    assert block["weight_bytes"] == -(-result["integer"]["weight_bytes"] // 2)


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda folder, contents: (folder / "qat.ckpt").unlink(), "qat.ckpt does not exist; it holds what deploy=qat"),
        (
            lambda folder, contents: checkpoints.AtomicCheckpointIO().save_checkpoint(
                {**contents, "base": "0"}, folder / "qat.ckpt"
            ),
            "made from other weights",
        ),
        (lambda folder, contents: (folder / "qat.ckpt").write_bytes(b"PK"), "qat.ckpt is cut short"),
    ],
)
def test_a_missing_or_foreign_file_is_named(tuned, tool, capsys, damage, words):
    run, _ = tuned
    folder = tool.folder / "copy"
    folder.mkdir()
    for name in ("best.ckpt", "qat.ckpt"):
        (folder / name).write_bytes((run / "checkpoints" / name).read_bytes())
    damage(folder, checkpoints.load(folder / "qat.ckpt"))
    assert tool("evaluate.py", f"ckpt={folder / 'best.ckpt'}", "report=false") == 1
    assert words in one_paragraph(capsys.readouterr().err)


def test_other_settings_need_their_own_fine_tuning(tuned, tool, capsys):
    run, _ = tuned
    assert tool("evaluate.py", f"ckpt={run / 'checkpoints/best.ckpt'}", "deploy.bits=8") == 1
    assert "made with deploy.bits = 4, got 8; use deploy.mode=ptq" in one_paragraph(capsys.readouterr().err)


def test_a_network_without_integer_form_is_not_tuned(tool, caplog):
    arguments = [*SMALL, "neuron=relu", "deploy=qat", "trainer.max_epochs=1", "data.limit_train=128"]
    assert tool("train.py", *arguments) == 0
    assert "ReLU puts out real numbers" in tool.result()["integer"]["skipped"]
    assert not (tool.runs()[-1] / "checkpoints/qat.ckpt").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["deploy=nope"], "deploy=nope: no such deploy; there are: ptq, qat"),
        (["deploy.bits=9"], "deploy.bits must be an integer from 2 to 8, got 9"),
        (["deploy.profile=tpu"], "deploy.profile must be one of generic-fpga"),
        (["deploy.epochs=0"], "deploy.epochs"),
        (["deploy.lr=0"], "deploy.lr"),
        (["deploy.mode=both"], "deploy.mode"),
        (["+deploy.speed=1"], "speed is not a setting"),
    ],
)
def test_bad_settings_are_one_paragraph(tool, capsys, arguments, words):
    assert tool("train.py", *arguments) == 1
    assert words in one_paragraph(capsys.readouterr().err)
    assert tool.left_behind() == []


def verify(tool, run, *arguments):
    return tool("scripts/verify.py", f"ckpt={run / 'checkpoints/best.ckpt'}", *arguments)


def test_the_script_prints_zeros_for_every_engine_and_layer(tuned, tool, capsys):
    run, _ = tuned
    assert verify(tool, run, "scalar=2") == 0
    lines = capsys.readouterr().out.splitlines()
    header, *rows = [line.split() for line in lines if line.split()[0] in ("layer", "logits", "conv1", "conv2", "fc1")]
    assert {"grid", "torch", "scalar"} <= set(header)
    assert [row[0] for row in rows] == ["conv1", "conv2", "fc1", "logits"]
    assert all(set(row[1:-1]) == {"0+0"} for row in rows)
    (overflows,) = [line.split() for line in lines if line.startswith("overflows")]
    assert overflows[1:-1] == ["0+0"] * 3  # of torch, int8 and scalar
    assert lines[-1] == "all engines agree"


def test_the_script_says_what_does_not_fit_the_profile(tuned, tool, capsys):
    run, _ = tuned
    assert verify(tool, run, "images=20", "scalar=0", "deploy.mode=ptq", "neuron.s_max=64", "deploy.profile=xylo") == 0
    assert "\nwarning: does not fit xylo: conv1: burst 64, allowed: at most 31\n" in capsys.readouterr().out


def test_the_script_names_the_first_difference(tuned, tool, capsys, monkeypatch):
    run, _ = tuned
    from qbsnn.deploy.verify.traces import flip_weight

    class Flipped(equality.TorchEngine):
        def run(self, current):
            honest = super().run(current)
            return equality.reference.run(flip_weight(self.net, honest), current)

    monkeypatch.setattr(equality, "TorchEngine", Flipped)
    assert verify(tool, run, "images=20", "scalar=0") == 1
    captured = capsys.readouterr()
    assert "engines differ: torch, fc1: " in one_paragraph(captured.err)
    assert "step" in captured.err and "neuron (" in captured.err
    flipped = next(line.split() for line in captured.out.splitlines() if line.startswith("fc1"))
    assert flipped[1] == "0+0" and flipped[2] != "0+0"


def test_a_provoked_overflow_is_named_or_handled_alike(tuned, tool, capsys):
    run, _ = tuned
    # Trained for bursts of 8 and cut to single spikes, the membranes run full.
    setting = ["neuron.s_max=1", "deploy.mode=ptq", "deploy.membrane_bits=8"]
    narrow = [*setting, "images=20", "scalar=1"]
    assert verify(tool, run, *narrow) == 1
    message = one_paragraph(capsys.readouterr().err)
    assert "a value does not fit 8 bits: conv" in message and "step 0, sample" in message
    for policy in ("saturate", "wrap"):
        assert verify(tool, run, *narrow, f"deploy.overflow={policy}") == 0
        assert "conv2" in capsys.readouterr().out
    assert tool("evaluate.py", f"ckpt={run / 'checkpoints/best.ckpt'}", *setting, "report=false") == 1
    assert "first: conv" in one_paragraph(capsys.readouterr().err)
    block = tool.result()["integer"]
    assert block["overflows"] > 0 and not block["passed"] and block["first_overflow"].startswith("conv")


@pytest.mark.parametrize("arguments", [[], ["images=x"], ["ckpt"]])
def test_the_script_says_how_it_is_used(tool, capsys, tuned, arguments):
    run, _ = tuned
    given = [f"ckpt={run / 'checkpoints/best.ckpt'}", *arguments] if arguments == ["images=x"] else arguments
    assert tool("scripts/verify.py", *given) == 1
    message = one_paragraph(capsys.readouterr().err)
    assert "write ckpt=PATH" in message or "ckpt=VALUE" in message or "images must be an integer" in message


def test_the_result_can_be_read_back(tuned):
    from qbsnn.results.reading import read_result

    run, result = tuned
    block = read_result(run / "result.json").integer
    assert block.mode == result["integer"]["mode"] and block.findings == []
    assert np.isclose(block.qat_acc, json.loads((run / "result.json").read_text())["integer"]["qat_acc"])


@pytest.mark.slow
@pytest.mark.parametrize("model", ["resnet19", "vgg16"])
def test_deep_networks_pass_all_of_it(tool, capsys, model):
    """Trained, fine-tuned on the grid at 4 bits, proven in every engine, layer by layer, and evaluated again."""
    settings = ["data.limit_train=256", "data.limit_test=32", "trainer.max_epochs=2", "optim.optimizer.lr=0.003"]
    arguments = [f"model={model}", "model.width=0.125", "neuron.s_max=4", "T=2", "report=false", *settings]
    assert tool("train.py", *arguments, "deploy=qat", "deploy.bits=4", "deploy.epochs=1") == 0
    run, result = tool.runs()[-1], tool.result()
    block = result["integer"]
    assert len(block["layers"]) >= 13 and block["passed"]
    assert block["grid_mismatches"] == block["onnxruntime_mismatches"] == 0 and block["onnxruntime_images"] == 32
    capsys.readouterr()
    assert verify(tool, run, "images=16") == 0
    assert "logits" in capsys.readouterr().out
    assert tool("evaluate.py", f"ckpt={run / 'checkpoints/best.ckpt'}") == 0
    again = tool.result()["integer"]
    assert {k: v for k, v in again.items() if k != "checkpoint"} == {
        k: v for k, v in block.items() if k != "checkpoint"
    }


def test_every_epoch_of_fine_tuning_is_validated_however_training_was(tool, monkeypatch):
    honest, seen = fine_tuning._Best.on_validation_end, []

    def validated(self, trainer, module):
        seen.append(trainer.state.fn)
        honest(self, trainer, module)

    monkeypatch.setattr(fine_tuning._Best, "on_validation_end", validated)
    few = ["+trainer.check_val_every_n_epoch=2", "trainer.max_epochs=2", "deploy=qat", "deploy.epochs=1",
           "trainer.num_sanity_val_steps=1"]  # fmt: skip
    assert tool("train.py", *SMALL, *few) == 0
    assert len(seen) == 2 * 2  # the start and one epoch, of the network on the grid and of the float network


def test_fine_tuning_keeps_the_budget_and_the_filters_and_the_energy_is_the_deployed_networks(tool):
    words = ["model=fast", "model.channels=[16,16]", "optim=one_cycle", "callbacks=fast", "callbacks.whiten.images=128",
             "callbacks.ema.decay=0.8", "callbacks.absorption=null", "callbacks.integer.onnx_images=0", "T=2",
             "budget=energy", "budget.every=1", "deploy=qat", "deploy.bits=4", "deploy.epochs=3", "deploy.lr=0.01",
             "data.limit_train=512", "data.limit_test=128", "trainer.max_epochs=6", "report=false"]  # fmt: skip
    assert tool("train.py", *words) == 0
    result, folder = tool.result(), tool.runs()[-1] / "checkpoints"
    block, energy = result["integer"], result["energy"]
    assert block["mode"] == energy["mode"] == "qat"
    assert energy["mean_rate"] == pytest.approx(block["spikes"] / block["positions"], rel=1e-12)
    assert energy["relative_synapses"] < 0.19
    stem = "stages.stem.branches.0.weight.weight"
    kept = checkpoints.load(folder / "best.ckpt")["state_dict"][f"network.{stem}"]
    shares = (checkpoints.load(folder / "qat.ckpt")["grid"][stem] / kept).flatten(1)
    torch.testing.assert_close(shares, shares[:, :1].expand_as(shares))  # absorption scales each filter, no more
