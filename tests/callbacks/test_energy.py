"""The callback in a run: counts agree with another measurement of the same test pass."""

import numpy as np

from qbsnn.results.reading import read_result
from tests.tool import TINY

UNCHECKED = ("callbacks.absorption=null", "callbacks.integer=null")


def test_a_run_counts_its_test_images_once(tool, capsys):
    assert tool("train.py", *TINY, "report=false") == 0
    run = tool.runs()[-1]
    block = read_result(run / "result.json").energy
    assert (block.images, block.checkpoint) == (64, "checkpoints/best.ckpt")
    assert [layer.name for layer in block.layers] == ["conv1", "conv2", "conv3", "fc1", "readout"]
    # The burst histograms were taken from the same pass by other code.
    with np.load(run / "diagnostics.npz") as arrays:
        for layer in block.layers[:-1]:
            histogram = arrays[f"histogram/{layer.name}"]
            assert layer.spikes == int((np.arange(len(histogram)) * histogram).sum()) > 0
            assert layer.neurons * layer.steps * block.images == histogram.sum() == layer.compares
    assert set(block.models) == set(block.totals) == set(block.relative) == {"fp32", "int", "memory"}
    shown = capsys.readouterr().out
    for words in ("relative energy", "energy per image, estimates", "÷ zero-skipping ReLU", "÷ level-matched ReLU"):
        assert words in shown
    assert f"{100 * block.relative_synapses:.1f} %; estimate" in shown and "0.15 to 1.38" in shown

    # evaluate.py makes the same block from the checkpoint alone.
    assert tool("evaluate.py", f"ckpt={run / 'checkpoints/best.ckpt'}", "report=false") == 0
    again = read_result(tool.runs()[-1] / "result.json").energy
    assert (again.layers, again.totals) == (block.layers, block.totals)


def test_a_relu_run_counts_its_own_activations_and_writes_a_page(tool):
    assert tool("train.py", *TINY, "neuron=relu") == 0
    run = tool.runs()[-1]
    block = read_result(run / "result.json").energy
    assert set(block.totals["fp32"]) == {"network", "relu_dense"}
    assert sum(layer.acs for layer in block.layers) == 0 < sum(layer.macs for layer in block.layers)
    assert "ReLU network, zeros not skipped" in (run / "report.html").read_text(encoding="utf-8")


def test_it_can_be_switched_off(tool, capsys):
    assert tool("train.py", *TINY, *UNCHECKED, "callbacks.energy=null", "report=false") == 0
    assert tool.result()["energy"] is None
    assert "energy (estimate)" in capsys.readouterr().out


def test_what_cannot_be_counted_is_a_reason_in_the_result(tool, capsys, monkeypatch):
    from torch import nn

    from qbsnn.models import build

    original = build.Builder.pool

    def uneven(self, name, kind, kernel, stride=None, padding=0):
        original(self, name, kind, kernel, stride, padding)
        self.stages[name].pool = nn.AvgPool2d(kernel, ceil_mode=True)

    monkeypatch.setattr(build.Builder, "pool", uneven)
    assert tool("train.py", *TINY, *UNCHECKED, "report=false") == 0
    reason = tool.result()["energy"]["skipped"]
    assert "conv1: average pooling folds only with a constant divisor" in reason
    assert reason in capsys.readouterr().out
