"""Every option of training with every neuron and every network: it trains, goes on exactly, and is part of the cell."""

from itertools import product

import pytest
import torch
from lightning.pytorch.callbacks import Callback

from qbsnn.energy.activity import spikes
from qbsnn.errors import ArgumentError, DataError
from qbsnn.training import checkpoints
from qbsnn.training.run import run_here
from qbsnn.training.settings import identify
from qbsnn.training.setup import build
from tests.test_configs import composed, options

QUICK = (
    "data.limit_train=64", "data.limit_val=16", "data.limit_test=16", "data.batch_size=32", "trainer.max_epochs=2",
    "trainer.accelerator=cpu", "T=2", "compile=none", "test=false", "report=false", "callbacks.progress=null",
    "callbacks.bursts=null", "~logger",
)  # fmt: skip  # 2 steps in each of 2 epochs
SIZES = {"mlp": "model.hidden=[16,16]", "fast": "model.channels=[8,8]"}  # of the others: a width
WHITEN = ("+callbacks.whiten._target_=qbsnn.callbacks.WhitenFirstLayer", "+callbacks.whiten.images=64")
OPTIONS = {
    "energy": ["budget=energy", "budget.every=1"],
    "accumulates": ["budget=energy", "budget.quantity=accumulates", "budget.target=0.01"],
    "layers": ["budget=energy", "budget.layers={FIRST: 0.01}"],
    "linear": ["optim=one_cycle"],
    "cosine": ["optim=one_cycle", "optim.scheduler.shape=cosine"],
    "whiten": [*WHITEN],
    "ema": ["+callbacks.ema._target_=lightning.pytorch.callbacks.EMAWeightAveraging", "+callbacks.ema.decay=0.9"],
    "norms": ["+callbacks.norms._target_=qbsnn.callbacks.PreciseNorms", "+callbacks.norms.images=32"],
    "steps": ["+callbacks.steps._target_=qbsnn.callbacks.StepSchedule", "+callbacks.steps.schedule=[[0,1],[0.5,2]]"],
    "reflect": ["data.crop=1", "data.padding=reflect"],
    "alternate": ["data.flip=alternate"],
    "channels_last": ["channels_last=true"],
    "init_from": ["init_from=START"],
    "smoothing": ["optim.loss.label_smoothing=0.1"],
    "exit": ["+callbacks.exit._target_=qbsnn.callbacks.EarlyExit"],
    "integer exit": ["deploy.exit_loss=0.01"],
    "teacher": ["teacher=TEACHER"],
}
BUDGETS, SHAPES = ("energy", "accumulates", "layers"), ("linear", "cosine")
MODELS, NEURONS = options("model"), options("neuron")
DIAGONAL = [(MODELS[i % len(MODELS)], NEURONS[i % len(NEURONS)]) for i in range(max(len(MODELS), len(NEURONS)))]
REST = [pair for pair in product(MODELS, NEURONS) if pair not in DIAGONAL]
SINGLE = [(model, "qb_lif") for model in MODELS] + [("vgg5", neuron) for neuron in NEURONS if neuron != "qb_lif"]


@pytest.fixture(scope="module")
def teacher(tmp_path_factory):
    """The checkpoint of a trained ReLU network."""
    folder = tmp_path_factory.mktemp("teacher")
    run_here(composed(folder, *QUICK, "model=mlp", "model.hidden=[16]", "neuron=relu", "T=1"))
    return folder / "checkpoints/best.ckpt"


def settings_of(folder, model, neuron, names, teacher):
    """Settings with these options, whose start is a checkpoint of the same network."""
    chosen = [override for name in names for override in OPTIONS[name]]
    fixed = [*QUICK, f"model={model}", f"neuron={neuron}", SIZES.get(model, "model.width=0.0625")]
    first = "fc1" if model == "mlp" else "conv1" if model.startswith("vgg") else "stem"
    start = folder.parent / f"start-{model}-{neuron}.ckpt"
    if any("START" in override for override in chosen):
        network = build(composed(folder, *fixed, "seed=7")).module.network
        weights = {f"network.{name}": value for name, value in network.state_dict().items()}
        checkpoints.AtomicCheckpointIO().save_checkpoint({"state_dict": weights}, start)
    words = {"FIRST": first, "START": str(start), "TEACHER": str(teacher)}
    for word, value in words.items():
        chosen = [override.replace(word, value) for override in chosen]
    return composed(folder, *fixed, *chosen)


class Stop(Callback):
    """Ends a fit before its fourth step, which is within the second epoch."""

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if trainer.global_step == 3:
            raise DataError("stopped by the test")


def trained(folder):
    state = checkpoints.load(folder / "checkpoints/last.ckpt")
    moments = [value for one in state["optimizer_states"][0]["state"].values() for value in one.values()]
    return state["state_dict"], moments


def compose_all(tmp_path, model, neuron, teacher, turn):
    """All options together but those that cannot be, stopped and gone on with: the same weights as in one go."""
    names = [name for name in OPTIONS if name not in (*BUDGETS, *SHAPES)]
    names += [BUDGETS[turn % len(BUDGETS)], SHAPES[turn % len(SHAPES)]]
    if model == "mlp":
        names.remove("whiten")
    settings = {name: settings_of(tmp_path / name, model, neuron, names, teacher) for name in ("whole", "parts")}
    result = run_here(settings["whole"])
    assert result.status == "finished" and result.timing.epochs == 2
    with pytest.raises(DataError, match="stopped by the test"):
        run_here(settings["parts"], [Stop()])
    assert run_here(settings["parts"]).status == "finished"
    (weights, moments), (other, others) = (trained(tmp_path / name) for name in ("whole", "parts"))
    assert weights.keys() == other.keys() and len(moments) == len(others) > 0
    for name, value in weights.items():
        assert not torch.is_tensor(value) or torch.equal(value, other[name]), name
    assert all(torch.equal(value, found) for value, found in zip(moments, others, strict=True))


@pytest.mark.parametrize(("model", "neuron"), DIAGONAL)
def test_all_options_compose_and_go_on_exactly(tmp_path, teacher, model, neuron):
    compose_all(tmp_path, model, neuron, teacher, DIAGONAL.index((model, neuron)))


@pytest.mark.slow
@pytest.mark.parametrize(("model", "neuron"), REST)
def test_all_options_compose_with_every_pair(tmp_path, teacher, model, neuron):
    compose_all(tmp_path, model, neuron, teacher, REST.index((model, neuron)))


@pytest.mark.slow
@pytest.mark.parametrize(("model", "neuron"), SINGLE)
def test_every_option_by_itself_trains_an_epoch(tmp_path, teacher, model, neuron):
    for name in OPTIONS:
        if (model, name) != ("mlp", "whiten"):
            settings = settings_of(tmp_path / name, model, neuron, [name], teacher)
            settings["trainer"]["max_epochs"] = 1
            assert run_here(settings).status == "finished", name


def test_every_option_is_part_of_the_cell(tmp_path, teacher):
    plain = identify(settings_of(tmp_path / "plain", "vgg5", "qb_lif", [], teacher))
    found = {name: identify(settings_of(tmp_path / name, "vgg5", "qb_lif", [name], teacher)) for name in OPTIONS}
    for name, identity in found.items():
        assert identity != plain, name
        assert sum(identity == other for other in found.values()) == 1, name


def test_what_cannot_be_says_why(tmp_path, teacher, caplog):
    caplog.set_level("INFO")
    with pytest.raises(ArgumentError, match=r"whitening needs pixels .* and a convolution on them, got Linear"):
        run_here(settings_of(tmp_path / "a", "mlp", "qb_lif", ["whiten"], teacher))
    with pytest.raises(ArgumentError, match="schedule needs a norm without weights per step, got tebn"):
        settings = settings_of(tmp_path / "b", "mlp", "qb_lif", ["steps"], teacher)
        run_here({**settings, "model": {**settings["model"], "norm": "tebn"}})
    parts = build(settings_of(tmp_path / "c", "mlp", "relu", ["energy"], teacher))
    assert parts.module.budget is None and "no spikes to save" in caplog.text
    assert not any(spikes(neuron) for *_, neuron in parts.module.network.spiking_stages())
