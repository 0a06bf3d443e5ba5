"""What the fast recipes add: whitening, fewer steps at first, an average of the weights."""

import json
import shutil

import pytest
import torch
from lightning.pytorch.callbacks import Callback, WeightAveraging

from qbsnn.callbacks import StepSchedule
from qbsnn.callbacks.whitening import whitening
from qbsnn.energy.spending import Spending, Synapses
from qbsnn.errors import DataError, SettingsError
from qbsnn.training.module import Classifier
from qbsnn.training.setup import build
from tests.sweeps import sweeping
from tests.test_configs import composed

FAST = ("model=fast", "model.channels=[8,8]", "optim=one_cycle", "callbacks=fast", "data.padding=reflect",
        "data.crop=1", "data.flip=alternate", "budget=energy", "T=2", "report=false", "data.limit_train=256",
        "data.limit_val=64", "data.limit_test=64", "data.batch_size=32", "callbacks.whiten.images=128")  # fmt: skip


def test_responses_are_uncorrelated():
    torch.manual_seed(0)
    pixels = torch.nn.functional.avg_pool2d(torch.rand(64, 3, 18, 18), 3, 1)  # neighbours resemble each other
    filters = whitening(pixels, (2, 2), 1e-9)
    responses = torch.nn.functional.conv2d(pixels, filters).transpose(0, 1).flatten(1)
    assert torch.allclose(torch.cov(responses), torch.eye(12), atol=1e-2)


def test_filters_stay_and_the_average_is_kept(tool):
    tool.trained(*FAST, "trainer.max_epochs=2", "hydra.run.dir=outputs/a")
    tool.trained(*FAST, "trainer.max_epochs=1", "optim.optimizer.lr=0.001")
    read = [torch.load(run / "checkpoints/last.ckpt", weights_only=True) for run in tool.runs()]
    name = "network.stages.stem.branches.0.weight.weight"
    torch.testing.assert_close(read[0]["state_dict"][name], read[1]["state_dict"][name])
    other = "network.stages.conv1a.branches.0.weight.weight"
    assert not torch.equal(read[0]["state_dict"][other], read[0]["current_model_state"][other])


def test_a_run_that_begins_with_weights_keeps_the_filters_they_learned_with(tool):
    few = [*FAST, "trainer.max_epochs=1", "test=false"]
    other = [*few, "data.split_seed=1"]
    for words in ([*few, "hydra.run.dir=outputs/a"], [*other, "init_from=outputs/a"], other):
        assert tool("train.py", *words) == 0
    name = "network.stages.stem.branches.0.weight.weight"
    first, second, third = (
        torch.load(run / "checkpoints/last.ckpt", weights_only=True)["state_dict"][name] for run in tool.runs()
    )
    torch.testing.assert_close(first, second)  # an average of equal numbers is rounded
    assert (first - third).abs().max() > 1e-3


def test_an_average_that_is_the_best_epoch_is_tested_once(tool, monkeypatch):
    tests = []
    monkeypatch.setattr(Classifier, "on_test_start", lambda self: tests.append(1), raising=False)
    tool.trained(*FAST, "trainer.max_epochs=1")
    assert len(tests) == 1


def test_a_killed_run_ends_as_one_that_was_not(tool, monkeypatch):
    """Whitening, average, norms, schedules per step, budget: all go on where they stopped, within the third epoch.

    What lies on the disk at a step is what a kill there leaves.
    """
    more = ["+callbacks.steps._target_=qbsnn.callbacks.StepSchedule", "+callbacks.steps.schedule=[[0,1],[0.5,2]]",
            "+callbacks.norms._target_=qbsnn.callbacks.PreciseNorms", "+callbacks.norms.images=64",
            "callbacks.integer=null", "callbacks.absorption=null"]  # fmt: skip
    whole, parts = "hydra.run.dir=outputs/whole", "hydra.run.dir=outputs/parts"
    assert tool("train.py", *FAST, *more, "trainer.max_epochs=4", whole) == 0
    run, left, honest = tool.folder / "outputs/parts", tool.folder / "left", Classifier.training_step

    def step(self, batch, batch_idx):
        if self.trainer.global_step == 18:
            shutil.copytree(run, left)
            raise DataError("stopped by the test")
        return honest(self, batch, batch_idx)

    monkeypatch.setattr(Classifier, "training_step", step)
    assert tool("train.py", *FAST, *more, "trainer.max_epochs=4", parts) == 1
    monkeypatch.setattr(Classifier, "training_step", honest)
    shutil.rmtree(run)
    left.rename(run)
    assert json.loads((run / "result.json").read_text())["status"] == "running"
    assert tool("train.py", *FAST, *more, "trainer.max_epochs=4", parts) == 0
    states = [torch.load(tool.folder / f"outputs/{name}/checkpoints/last.ckpt", weights_only=True)["state_dict"]
              for name in ("whole", "parts")]  # fmt: skip
    assert all(torch.equal(value, states[1][key]) for key, value in states[0].items() if torch.is_tensor(value))
    assert sweeping.steps(run) == [[(0, 0), (1, 8), (2, 16), (2, 16), (3, 24)]]


def test_norms_have_the_statistics_of_the_weights_that_are_kept(tmp_path):
    """They are an average that no step had; the first layer's statistics are worked out in float64."""
    more = ["+callbacks.ema._target_=lightning.pytorch.callbacks.EMAWeightAveraging", "+callbacks.ema.decay=0.9",
            "+callbacks.norms._target_=qbsnn.callbacks.PreciseNorms", "+callbacks.norms.images=64", "T=2", "model=mlp",
            "model.hidden=[16,16]", "data.limit_train=256", "data.limit_val=16", "data.batch_size=32",
            "trainer.max_epochs=2", "callbacks.checkpoint=null", "callbacks.progress=null", "~logger",
            "trainer.enable_checkpointing=false", "compile=none", "trainer.accelerator=cpu"]  # fmt: skip
    parts = build(composed(tmp_path, *more))
    parts.trainer.fit(parts.module, datamodule=parts.data)
    network, loader = parts.module.network, iter(parts.data.train_dataloader())
    batches = [next(loader)[0] for _ in range(2)]
    first, second = (network.stages[name].parts[0] for name in ("fc1", "fc2"))
    assert first.norm.momentum == 0.1
    weight = first.weight.weight.detach().double().numpy()
    currents = [network.encoder(pixels)[0].flatten(1).double().numpy() @ weight.T for pixels in batches]
    mean = sum(current.mean(0) for current in currents) / 2
    variance = sum(current.var(0, ddof=1) for current in currents) / 2
    assert abs(first.norm.running_mean.numpy() - mean).max() < 1e-5
    assert abs(first.norm.running_var.numpy() / variance - 1).max() < 1e-2  # an image is one sample of T equal ones
    found = second.norm.running_mean.clone()
    second.norm.reset_running_stats()
    second.norm.momentum = None
    network.train()
    for pixels in batches:
        network(pixels)
    assert torch.allclose(second.norm.running_mean, found, atol=1e-6)


def test_an_average_that_has_not_begun_keeps_the_statistics_that_were_validated(tmp_path):
    class Watch(Callback):
        def on_validation_batch_start(self, trainer, pl_module, *given):
            validated.append(norm(pl_module).running_mean.clone())

        def on_train_epoch_end(self, trainer, pl_module):
            (average,) = (one._average_model for one in trainer.callbacks if isinstance(one, WeightAveraging))
            assert average.n_averaged == 0
            kept.append(norm(average.module).running_mean.clone())
            current.append(norm(pl_module).running_mean.clone())
            trainer.should_stop = trainer.current_epoch == 1

    def norm(module):
        return module.network.stages["fc1"].parts[0].norm

    validated, kept, current = [], [], []
    more = ["+callbacks.ema._target_=lightning.pytorch.callbacks.EMAWeightAveraging",
            "+callbacks.ema.update_starting_at_step=20", "+callbacks.norms._target_=qbsnn.callbacks.PreciseNorms",
            "T=2", "model=mlp", "model.hidden=[16]", "data.limit_train=256", "data.limit_val=16", "data.batch_size=32",
            "trainer.max_epochs=4", "callbacks.checkpoint=null", "callbacks.progress=null", "~logger",
            "trainer.enable_checkpointing=false", "compile=none", "trainer.accelerator=cpu",
            "trainer.num_sanity_val_steps=0"]  # fmt: skip
    parts = build(composed(tmp_path, *more), [Watch()])
    parts.trainer.fit(parts.module, datamodule=parts.data)
    assert len(kept) == len(validated) == 2
    for found, right, other in zip(kept, validated, current, strict=True):
        assert torch.equal(found, right) and not torch.equal(found, other)


def test_norms_are_measured_anew_when_the_steps_change(tmp_path):
    """Weights stand still and all batches are one, so the statistics of T = 2 are those of a single pass."""
    more = ["+callbacks.steps._target_=qbsnn.callbacks.StepSchedule", "+callbacks.steps.schedule=[[0,1],[0.5,2]]",
            "+callbacks.steps.batches=2", "T=2", "model=mlp", "model.hidden=[16,16]", "optim.optimizer.lr=0.0",
            "optim.optimizer.weight_decay=0.0", "data.limit_train=64", "data.limit_val=16", "data.batch_size=64",
            "trainer.max_epochs=8", "callbacks.checkpoint=null", "callbacks.progress=null", "~logger",
            "trainer.enable_checkpointing=false", "compile=none", "trainer.accelerator=cpu"]  # fmt: skip
    parts = build(composed(tmp_path, *more))
    parts.trainer.fit(parts.module, datamodule=parts.data)
    norm = parts.module.network.stages["fc2"].parts[0].norm
    mean, variance = norm.running_mean.clone(), norm.running_var.clone()
    assert norm.momentum == 0.1
    pixels, _ = next(iter(parts.data.train_dataloader()))
    for steps, equal in ((1, False), (2, True)):
        norm.momentum, parts.module.network.T = 1.0, steps
        parts.module.network.train()(pixels)
        assert torch.allclose(norm.running_mean, mean, atol=1e-5) == equal
        assert torch.allclose(norm.running_var, variance, atol=1e-5) == equal


def test_an_epoch_of_fewer_steps_is_judged_by_what_all_steps_spend(tmp_path):
    """Weights stand still. One step spends less than the target and two spend more, and two are deployed."""
    more = ["+callbacks.steps._target_=qbsnn.callbacks.StepSchedule", "+callbacks.steps.schedule=[[0,1],[0.5,2]]",
            "T=2", "model=mlp", "model.hidden=[16,16]", "model.norm=none", "neuron.delta=0.05", "budget=energy",
            "budget.quantity=accumulates",
            "budget.weight=0", "budget.every=1", "budget.begin=0", "optim.optimizer.lr=0.0", "data.limit_train=64",
            "optim.optimizer.weight_decay=0.0", "data.limit_val=16", "data.batch_size=64", "trainer.max_epochs=4",
            "callbacks.progress=null", "~logger", "compile=none", "trainer.accelerator=cpu"]  # fmt: skip
    parts = build(composed(tmp_path, *more))
    network, budget = parts.module.network.train(), parts.module.budget
    parts.data.prepare_data()
    parts.data.setup("fit")
    pixels, _ = next(iter(parts.data.train_dataloader()))
    spent = []
    for network.T in (1, 2):
        spending = Spending(Synapses(network))
        network(pixels, spending)
        spent.append(float(spending.per_synapse().detach()))
    budget.target = 1.1 * spent[0]
    assert spent[1] > 1.2 * budget.target
    parts.trainer.fit(parts.module, datamodule=parts.data)
    excesses = {row["val/excess"] for row in parts.curves.rows}
    assert len(parts.curves.rows) == 4 and len(excesses) == 1 and excesses.pop() > 0.1
    assert budget.spent == pytest.approx(spent[1], rel=0.02)
    assert budget.start > 1.5 * spent[0]  # the fall begins at what two steps would spend


def test_a_graph_of_one_T_has_no_schedule(tmp_path):
    module = build(composed(tmp_path, "T=2", "model=mlp", "compile=none", "~logger")).module
    module.config = {**module.config, "compile": "model"}
    with pytest.raises(SettingsError, match="compile=model is of one T: use compile=block"):
        StepSchedule([[0, 1], [0.5, 2]]).on_fit_start(None, module)


@pytest.mark.parametrize("schedule", [[], [[0.5, 1]], [[0, 1], [0, 2]], [[0, 0]], [[0, 1], [2, 2]]])
def test_bad_schedules(schedule):
    with pytest.raises(SettingsError, match="schedule must"):
        StepSchedule(schedule)


@pytest.mark.parametrize("schedule", [3, None, "0,1", [0, 1], [[0, 1, 2]], {"a": 1}])
def test_a_schedule_is_a_list_of_pairs(schedule):
    with pytest.raises(SettingsError, match=r"schedule must list pairs \[share, steps\], as \[\[0, 1\]"):
        StepSchedule(schedule)


def test_the_first_layer_must_have_room_for_whitening(tool, capsys):
    vgg = [argument for argument in FAST if not argument.startswith("model.")]
    assert tool("train.py", *vgg, "model=vgg5") == 1
    assert "whitening gives at most 18 filters" in capsys.readouterr().err


def test_schedule_that_does_not_end_with_T(tool, capsys):
    more = ["+callbacks.steps._target_=qbsnn.callbacks.StepSchedule", "+callbacks.steps.schedule=[[0,1]]"]
    assert tool("train.py", *FAST, *more) == 1
    assert "schedule must end with T = 2, got 1" in capsys.readouterr().err
    assert not [run for run in tool.runs() if json.loads((run / "result.json").read_text())["status"] == "finished"]
