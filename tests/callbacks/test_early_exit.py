import json

import pytest
import torch

from qbsnn.callbacks import EarlyExit
from qbsnn.energy.spending import Spending, StepSpending, Synapses
from qbsnn.errors import ArgumentError, SettingsError
from qbsnn.functional.early_exit import choose_margin, leave, means, running_sum
from qbsnn.models import vgg
from qbsnn.neurons import QBLIF
from tests.tool import TINY


def test_samples_leave_by_hand():
    logits = torch.tensor([[[2.0, 0.0, 1.0]], [[0.0, 5.0, 0.0]], [[0.0, 0.0, 9.0]]])
    # means: (2, 0, 1), (1, 2.5, .5), (2/3, 5/3, 10/3): margins 1, 1.5, 5/3
    assert [tuple(int(part) for part in leave(means(logits), margin)) for margin in (0.5, 1.2, 1.6, 9)] == [
        (1, 0), (2, 1), (3, 2), (3, 2)]  # fmt: skip
    # sums: (2, 0, 1), (2, 5, 1), (2, 5, 10): margins 1, 3, 5
    assert [tuple(int(part) for part in leave(running_sum(logits), margin)) for margin in (0.5, 2.9, 3.1, 9)] == [
        (1, 0), (2, 1), (3, 2), (3, 2)]  # fmt: skip


def test_a_score_that_there_is_not():
    with pytest.raises(ArgumentError, match="score must be one of mean, sum, got 'max'"):
        EarlyExit(score="max")


def test_the_margin_keeps_the_accuracy_and_saves_most_steps():
    # six sure samples from the first step on, two that turn right in the last one, with small margins until then
    sure = torch.tensor([[4.0, 0.0]]).expand(3, 6, 2)
    late = torch.stack([torch.tensor([[0.5, 0.0]] * 2), torch.tensor([[0.5, 0.0]] * 2), torch.tensor([[0.0, 9.0]] * 2)])
    logits, labels = means(torch.cat([sure, late], 1)), torch.tensor([0] * 6 + [1] * 2)
    margin = choose_margin(logits, labels, 0.0)
    steps, classes = leave(logits, margin)
    assert steps.tolist() == [1] * 6 + [3] * 2 and torch.equal(classes, labels)
    assert leave(logits, choose_margin(logits, labels, 0.25))[0].tolist() == [1] * 8


def test_a_margin_that_keeps_the_accuracy_by_chance_is_not_taken():
    # the first sample leaves wrong at a margin of 3, the second one leaves right at a margin of 1 and stays wrong
    scores = torch.tensor([[[0.0, 3.0], [1.0, 0.0]], [[9.0, 0.0], [0.0, 9.0]]])
    labels = torch.tensor([0, 0])
    assert [int((leave(scores, margin)[1] == labels).sum()) for margin in (9, 3, 1)] == [1, 0, 1]
    assert choose_margin(scores, labels, 0.0) == float("inf")
    assert choose_margin(scores, labels, 0.5) == 1.0


@pytest.mark.parametrize("right", [8, 7, 4, 3])
def test_a_margin_that_costs_exactly_what_is_allowed_is_taken(right):
    # of 10 samples one is wrong after the first step alone: 0.8 − 0.1 is not 0.7 in floating point
    scores, labels = torch.zeros(2, 10, 2), torch.zeros(10, dtype=torch.int64)
    scores[0, :, 0], scores[1, :, 0] = 3.0, 5.0
    scores[0, 0] = torch.tensor([0.0, 3.0])
    labels[right:] = 1
    assert choose_margin(scores, labels, 0.1) == 3.0
    assert choose_margin(scores, labels, 0.0999) == float("inf")


def test_steps_and_samples_sum_to_the_whole():
    torch.manual_seed(0)
    network = vgg(lambda: QBLIF(delta=0.05), name="vgg5", width=0.1, in_shape=(1, 8, 8), num_classes=4, mean=(0.5,),
                  std=(0.5,), T=3).eval()  # fmt: skip
    pixels, whole, each = torch.rand(5, 1, 8, 8), Spending(Synapses(network)), StepSpending(Synapses(network))
    with torch.no_grad():
        network(pixels, whole)
        network(pixels, each)
    assert each.steps.shape == (3, 5) and each.steps.sum() > 0
    assert float(each.steps.sum()) / 5 == pytest.approx(float(sum(whole.accumulates.values())), rel=1e-5)


def test_a_network_that_cannot_leave_early_says_why(tool, capsys):
    early = ["callbacks=early_exit", "deploy.exit_loss=0.5", "model.decision=max"]
    tool.trained(*TINY, *early, "report=false")
    shown = capsys.readouterr().out
    assert "early exit: skipped, the decision is the max over time; steps can only be left out of a mean" in shown
    assert "no early exit of the integer network: readout: QB-INT 1 adds up the logits of all steps" in shown


@pytest.mark.parametrize("score", ["mean", "sum"])
def test_a_run_says_how_early_its_images_leave(tool, capsys, score):
    early = ["callbacks=early_exit", f"callbacks.exit.score={score}", "callbacks.exit.loss=0.5", "deploy.exit_loss=0.5"]
    tool.trained(*TINY, *early, "report=false")
    result = tool.result()
    found = result["early_exit"]
    assert sum(found["steps"]) == found["images"] == 64 and len(found["steps"]) == 4
    assert found["right_whole"] == round(64 * result["metrics"]["best"]["test/acc"])
    assert 0 < found["acs"] <= found["acs_whole"]
    assert found["acs_whole"] == sum(layer["acs"] for layer in result["energy"]["layers"])
    integer = result["integer"]["exit"]
    assert sum(integer["steps"]) == integer["images"] == 64 and integer["steps"][0] > 0
    assert integer["mismatches"] == 0 and integer["right_whole"] == round(64 * result["integer"]["acc"])
    assert 0 < integer["acs"] < integer["acs_whole"]
    out = capsys.readouterr().out
    assert "time steps with early exit" in out and "integer accumulates with early exit" in out
    checkpoint = tool.runs()[-1] / "checkpoints/best.ckpt"
    assert tool("scripts/export.py", f"ckpt={checkpoint}", "format=bundle", f"out={tool.folder / 'bundle'}") == 0
    manifest = json.loads((tool.folder / "bundle/manifest.json").read_text())
    assert manifest["exit_margin"] == integer["margin"] and manifest["version"] == 2


def test_other_decisions_have_nothing_to_leave_out(tool):
    tool.trained(*TINY, "callbacks=early_exit", "model.decision=max", "report=false")
    assert "max over time" in tool.result()["early_exit"]["skipped"]


def test_bad_values(tool, capsys):
    assert tool("train.py", *TINY, "callbacks=early_exit", "callbacks.exit.loss=2") == 1
    assert "callbacks.exit.loss must be" in capsys.readouterr().err
    with pytest.raises(SettingsError):
        from qbsnn.callbacks import EarlyExit

        EarlyExit(loss=-0.1)
