import json
import math

import pytest
import torch

from qbsnn.energy.budget import QUANTITIES, EnergyBudget
from qbsnn.errors import ArgumentError, SettingsError
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
    budget = EnergyBudget(target=0.1, weight=3.0, begin=0.0, end=0.5, every=2, floor=0.0)
    assert float(budget.penalty(Spent(0.4), 0.0).detach()) == 0  # the target begins at what is spent
    spent = Spent(0.3)
    penalty = budget.penalty(spent, 0.25)  # the target is √(0.4·0.1) = 0.2: 2·3·(0.3/0.2 − 1)² = 1.5
    penalty.backward()
    assert float(penalty.detach()) == pytest.approx(1.5)
    assert float(spent.value.grad) == pytest.approx(2 * 3 * 2 * 0.5 / 0.2)
    assert float(budget.penalty(Spent(0.05), 1.0).detach()) == 0  # below the target nothing is asked


def test_what_fewer_steps_spend_chooses_no_epoch_and_is_in_no_mean_with_what_all_spend(plain):
    budget = EnergyBudget(target=0.1, every=1)
    assert budget.excess() == 0 or math.isnan(budget.spent)
    budget.penalty(Spent(0.05, times=2.0), 0.0)
    assert budget.excess() == math.inf
    again = EnergyBudget(target=0.1, every=1)
    again.set_extra_state(budget.get_extra_state())
    again.penalty(Spent(0.2), 0.5)
    assert again.spent == pytest.approx(0.2) and again.excess() == pytest.approx(1.0)


def test_a_layer_near_silence_is_pushed_up(plain):
    budget = EnergyBudget(floor=0.01, weight=1.0, every=1)
    spent = Spent(0.05, rate=0.005)
    penalty = budget.penalty(spent, 0.0)
    penalty.backward()
    assert float(penalty.detach()) == pytest.approx(0.25) and float(spent.rates["a"].grad) < 0


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
    assert "no spikes to save" in capsys.readouterr().out


def test_weights_of_another_run_are_the_start(tool, capsys):
    assert tool("train.py", *TINY, "report=false", "hydra.run.dir=outputs/a") in (0, 1)
    best = tool.folder / "outputs/a/checkpoints/best.ckpt"
    capsys.readouterr()
    more = [*TINY, "report=false", f"init_from={best}", "optim.optimizer.lr=0.0", "callbacks.delta=null"]
    assert tool("train.py", *more, "model.norm=bn", "hydra.run.dir=outputs/b") in (0, 1)
    ours = torch.load(tool.folder / "outputs/b/checkpoints/best.ckpt", weights_only=True)["state_dict"]
    theirs = torch.load(best, weights_only=True)["state_dict"]
    name = "network.stages.conv1.branches.0.weight.weight"
    assert torch.equal(ours[name], theirs[name])
    assert tool("train.py", *TINY, f"init_from={best}", "model.width=0.5") == 1
    assert "does not fit this network" in capsys.readouterr().err
    assert json.loads((tool.folder / "outputs/b/result.json").read_text())["config"]["init_from"] == str(best)


def test_an_experiment_with_a_budget_runs_without_it(tool):
    assert tool("train.py", "experiment=digits_energy", "budget=none", *SMALL[:-1], "trainer.max_epochs=1") == 0
    assert "train/energy" not in (tool.runs()[-1] / "metrics.csv").read_text()


def test_a_network_in_one_graph_has_no_budget(tool, capsys):
    assert tool("train.py", *SMALL, "compile=model") == 1
    assert "compile=model cannot be used with a budget of energy: use compile=block" in capsys.readouterr().err
    assert not tool.runs()
