import json
import math
import re

import pytest
import torch
from lightning.pytorch.callbacks import Callback

from qbsnn.energy.activity import ActivityMeter
from qbsnn.energy.budget import QUANTITIES, EnergyBudget, missed
from qbsnn.energy.estimate import estimate
from qbsnn.energy.spending import Spending, Synapses
from qbsnn.errors import ArgumentError, SettingsError
from qbsnn.models import mlp
from qbsnn.neurons import QBLIF
from qbsnn.results.quantities import values
from qbsnn.results.schema import Metrics
from qbsnn.training.setup import build
from tests.report.samples import make_energy, make_result
from tests.test_configs import composed
from tests.tool import TINY

SMALL = ("report=false", "data.limit_train=256", "data.limit_val=64", "data.limit_test=64", "callbacks.integer=null",
         "callbacks.absorption=null", "model.width=0.25", "budget=energy")  # fmt: skip


class Spent:
    """A forward pass that spent a given amount; ``relative`` is what ``Spending`` has."""

    def __init__(self, value: float, rate: float = 0.5, times: float = 1.0) -> None:
        self.times = times
        self.value = torch.tensor(value, requires_grad=True)
        self.rates = {"a": torch.tensor(rate, requires_grad=True)}


@pytest.fixture
def plain(monkeypatch):
    monkeypatch.setitem(QUANTITIES, "energy", lambda spent: spent.value)


def test_the_penalty_by_hand(plain):
    budget = EnergyBudget(target=0.1, weight=3.0, begin=0.2, end=0.6, every=2, floor=0.0)
    assert float(budget.penalty(Spent(0.9), 0.1).detach()) == 0 and budget.allowed(0.1) == math.inf
    assert float(budget.penalty(Spent(0.4), 0.2).detach()) == 0  # the target begins at what is spent
    spent = Spent(0.3)
    penalty = budget.penalty(spent, 0.4)  # the target is √(0.4·0.1) = 0.2: 2·3·(0.3/0.2 − 1)² = 1.5
    penalty.backward()
    assert float(penalty.detach()) == pytest.approx(1.5)
    assert float(spent.value.grad) == pytest.approx(2 * 3 * 2 * 0.5 / 0.2)
    assert float(budget.penalty(Spent(0.05), 1.0).detach()) == 0  # below the target nothing is asked


def test_what_fewer_steps_spend_is_in_no_mean_with_what_all_spend(plain):
    budget = EnergyBudget(target=0.1, every=1)
    budget.penalty(Spent(0.05, times=2.0), 0.0)
    assert budget.estimated
    again = EnergyBudget(target=0.1, every=1)
    again.set_extra_state(budget.get_extra_state())
    again.penalty(Spent(0.2), 0.5)
    assert again.spent == pytest.approx(0.2) and not again.estimated


def test_an_excess_is_a_share_of_the_target_and_5_percent_are_none():
    budget = EnergyBudget(target=0.1)
    assert [budget.excess(spent) for spent in (0.0, 0.1, 0.1049)] == [0, 0, 0]
    assert budget.excess(0.1051) == pytest.approx(0.051) and budget.excess(0.3) == pytest.approx(2.0)


class Metered(Callback):
    """Counts what the network spends that is validated, with the meter of the tables."""

    def on_validation_start(self, trainer, pl_module):
        self.meter = ActivityMeter(pl_module.network)
        self.meter.attach()

    def on_validation_end(self, trainer, pl_module):
        self.meter.detach()
        self.spent = estimate(self.meter, "last")


@pytest.mark.parametrize("quantity", ["energy", "accumulates"])
def test_an_epoch_is_judged_by_what_its_validated_weights_spend_on_validation_images(tmp_path, quantity):
    """They are the average of the weights, in float32, not those of the last training batches."""
    words = (f"budget.quantity={quantity}", "budget.target=0.001", "trainer.max_epochs=2", "optim.optimizer.lr=0.01")
    ema = ("+callbacks.ema._target_=lightning.pytorch.callbacks.EMAWeightAveraging", "+callbacks.ema.decay=0.9")
    parts = build(composed(tmp_path, *SMALL, *words, *ema))
    metered = Metered()
    parts.trainer.callbacks.append(metered)
    for act in (parts.trainer.validate, parts.trainer.fit):  # validated first: what it keeps must serve training too
        act(parts.module, datamodule=parts.data)
        if act == parts.trainer.fit:
            assert parts.module.budget.spent > 0
        spent = metered.spent.relative_synapses if quantity == "energy" else metered.spent.spikes_per_synapse
        assert float(parts.trainer.callback_metrics["val/excess"]) == pytest.approx(spent / 0.001 - 1, rel=1e-5)


def test_a_layer_near_silence_is_pushed_up(plain):
    budget = EnergyBudget(floor=0.01, weight=1.0, every=1)
    spent = Spent(0.05, rate=0.005)
    penalty = budget.penalty(spent, 0.0)
    penalty.backward()
    assert float(penalty.detach()) == pytest.approx(0.25) and float(spent.rates["a"].grad) < 0


def test_the_input_is_no_layer_that_is_pushed_up_or_has_a_target():
    network = mlp(QBLIF, (1, 4, 4), 3, [0.5], [0.5], hidden=(8,), encoding="rate", T=2)
    spending = Spending(Synapses(network))
    network(torch.full((4, 1, 4, 4), 0.001), spending)
    assert list(spending.rates) == ["fc1"] and "input" in spending.accumulates
    spending.rates = {name: torch.ones(()) for name in spending.rates}
    assert float(EnergyBudget(floor=0.01).penalty(spending, 0.0)) == 0
    with pytest.raises(ArgumentError, match=r"^layers\.input is no stage whose spikes are read: fc1"):
        EnergyBudget(layers={"input": 1e-6}).penalty(spending, 0.0)


def test_a_layer_has_a_target_of_its_own(plain):
    budget = EnergyBudget(layers={"a": 0.25}, weight=1.0, every=1, floor=0.0)
    assert float(budget.penalty(Spent(0.05), 0.0).detach()) == pytest.approx(1.0)
    with pytest.raises(ArgumentError, match=r"layers\.b is no stage whose spikes are read: a"):
        EnergyBudget(layers={"b": 0.25}).penalty(Spent(0.05), 0.0)


@pytest.mark.parametrize(
    "bad", [{"target": 0}, {"weight": -1}, {"begin": 0.7}, {"every": 0}, {"quantity": "watts"}, {"layers": {"a": 0}}]
)
def test_bad_values(bad):
    with pytest.raises(SettingsError):
        EnergyBudget(**bad)


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        ({"target": 15}, "target must be a share of at most 2 of the dense ReLU network's energy, as 0.15 for 15 %"),
        ({"layers": [1]}, "layers must give stages their largest mean burst, as {conv1: 0.2}, got [1]"),
        ({"layers": {1: 0.2}}, "layers must give stages their largest mean burst, as {conv1: 0.2}, got {1: 0.2}"),
        ({"layers": "conv1"}, "layers must give stages"),
    ],
)
def test_bad_values_are_told_what_would_be_right(bad, words):
    with pytest.raises(ArgumentError) as refused:
        EnergyBudget(**bad)
    assert words in str(refused.value)


def test_accumulates_may_be_more_than_the_energy_of_a_dense_network():
    assert EnergyBudget(target=15, quantity="accumulates").target == 15


def test_a_target_that_never_acts_says_so():
    assert EnergyBudget(every=4).idle(100) is None and EnergyBudget(every=1, begin=0).idle(2) is None
    why = EnergyBudget(every=50, begin=0.5).idle(100)
    assert why is not None and "applied to 1 batch after 50 % of training, and it needs at least 2" in why
    assert EnergyBudget(every=1000).idle(100) is not None and EnergyBudget(begin=1, end=1).idle(100) is not None


def test_a_stage_that_is_none_is_refused_before_training(tmp_path):
    settings = composed(tmp_path, *SMALL, "budget.layers={nolayer: 0.2}", "compile=none")
    with pytest.raises(SettingsError, match=r"^budget\.layers\.nolayer is no stage whose spikes are read: conv1"):
        build(settings)


def spent(budget, **energy):
    """A result with this budget whose chosen network spent this."""
    config = {"budget": budget}
    return make_result(config=config, energy=make_energy(**energy))


def test_a_budget_that_is_missed_is_said_with_both_numbers():
    energy, accumulates = {"quantity": "energy", "target": 0.15}, {"quantity": "accumulates", "target": 0.5}
    assert "spends 16.0% of the dense ReLU network's energy on test images, and budget.target allows 15.0%" in missed(
        spent(energy, relative_synapses=0.16, mean_rate=0.1)
    )
    assert missed(spent(energy, relative_synapses=0.157, mean_rate=0.1)) is None
    assert "0.6 accumulates per synapse on test images, and budget.target allows 0.5" in missed(
        spent(accumulates, spikes_per_synapse=0.6, mean_rate=0.1)
    )
    assert missed(spent({}, relative_synapses=3.0)) is None


def test_a_budget_that_was_left_out_is_in_no_table():
    budget = {"quantity": "energy", "target": 0.15}
    assert values(spent(budget, mean_rate=0.1))["energy_budget"] == 0.15
    assert "energy_budget" not in values(spent(budget, mean_rate=None, spikes_per_synapse=None))
    assert missed(spent(budget, mean_rate=None, relative_synapses=1.0)) is None
    blind = make_result(config={"budget": budget}, energy=None, metrics=Metrics(last={"train/acc": 0.5}))
    assert "energy_budget" not in values(blind)
    assert values(spent({"quantity": "accumulates", "target": 0.5}, mean_rate=0.1))["accumulates_budget"] == 0.5


def test_a_run_keeps_its_budget_and_the_best_epoch_does_too(tool):
    many = ["trainer.max_epochs=8", "optim=one_cycle", "data.batch_size=32"]
    some = ["budget.every=1", "budget.target=0.3", "budget.begin=0.1", "budget.end=0.4"]
    assert tool("train.py", *SMALL, *many, *some) == 0
    result = tool.result()
    assert result["energy"]["relative_synapses"] < 0.3 * 1.15
    assert "train/energy" in (tool.runs()[-1] / "metrics.csv").read_text().splitlines()[0]
    assert tool("train.py", *SMALL, *many) == 0
    assert tool.result()["cell"] != result["cell"]


def test_a_network_without_spikes_has_no_budget(tool, capsys):
    assert tool("train.py", *SMALL, "neuron=relu", "trainer.max_epochs=1") == 0
    shown = capsys.readouterr().out
    assert "no spikes to save" in shown and "energy budget" not in shown


def test_accumulates_are_called_so_and_a_late_or_missed_budget_is_said(tool, capsys, caplog):
    some = ["budget.quantity=accumulates", "budget.target=1e-6", "budget.every=1000", "trainer.max_epochs=1"]
    assert tool("train.py", *SMALL, *some) == 0
    shown, errors = capsys.readouterr()
    assert "accumulates per synapse " in shown and not re.search(r"energy \d", shown)
    assert "budget of accumulates" in shown
    assert "never acts: it is applied to 0 batches after 15 % of training, and it needs at least 2" in shown + errors
    assert "the budget is not kept: the chosen network spends" in shown + errors
    assert "train/accumulates" in (tool.runs()[-1] / "metrics.csv").read_text().splitlines()[0]
    caplog.clear()
    assert tool("evaluate.py", f"ckpt={tool.runs()[-1]}") == 0
    assert "the budget is not kept: the chosen network spends" in caplog.text


def test_weights_of_another_run_are_the_start(tool, capsys):
    tool.trained(*TINY, "report=false", "hydra.run.dir=outputs/a")
    best = tool.folder / "outputs/a/checkpoints/best.ckpt"
    capsys.readouterr()
    more = [*TINY, "report=false", f"init_from={best}", "optim.optimizer.lr=0.0", "callbacks.delta=null"]
    tool.trained(*more, "model.norm=bn", "hydra.run.dir=outputs/b")
    ours = torch.load(tool.folder / "outputs/b/checkpoints/best.ckpt", weights_only=True)["state_dict"]
    theirs = torch.load(best, weights_only=True)["state_dict"]
    name = "network.stages.conv1.branches.0.weight.weight"
    assert torch.equal(ours[name], theirs[name])
    assert tool("train.py", *TINY, f"init_from={best}", "model.width=0.5") == 1
    told = capsys.readouterr().err
    assert f"error: init_from: checkpoint {best} does not fit this network: network.stages.conv1.branches" in told
    assert re.search(r"weight has the shape \[\d+, 1, 3, 3\] here and \[\d+, 1, 3, 3\] there", told)
    assert "The settings of model, neuron, data and T must be those of the checkpoint" in told
    assert tool("train.py", *TINY, f"init_from={best}", "neuron=lif") == 1
    assert re.search(r"does not fit this network: \S+( \[.*?\])? is (missing|only) there\.", capsys.readouterr().err)
    assert json.loads((tool.folder / "outputs/b/result.json").read_text())["config"]["init_from"] == str(best)


def test_an_experiment_with_a_budget_runs_without_it(tool):
    assert tool("train.py", "experiment=digits_energy", "budget=none", *SMALL[:-1], "trainer.max_epochs=1") == 0
    assert "train/energy" not in (tool.runs()[-1] / "metrics.csv").read_text()


def test_a_network_in_one_graph_has_no_budget(tool, capsys):
    assert tool("train.py", *SMALL, "compile=model") == 1
    assert "compile=model cannot be used with a budget of energy: use compile=block" in capsys.readouterr().err
    assert not tool.runs()
