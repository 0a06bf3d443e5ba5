"""Every experiment trains a batch on files in the true layout and is proven; a table has one recipe for all neurons."""

import inspect
import re

import pytest
import torch

from qbsnn.data import CIFAR10, CIFAR100, FashionMNIST
from qbsnn.deploy.convert.absorb import absorb
from qbsnn.deploy.convert.quantize import quantize
from qbsnn.deploy.verify.absorption import check_absorption
from qbsnn.deploy.verify.integer import check_integer
from qbsnn.errors import DeployError
from qbsnn.functional.surrogate import relsg_et
from qbsnn.training.setup import build
from tests.data.events.tiny_events import write_gesture
from tests.data.images.test_imagenet import imagenet  # noqa: F401  a fixture
from tests.data.images.test_torchvision_sets import WRITERS
from tests.test_configs import composed, options

TABLES = ["cifar100", "cifar10", "dvs128_gesture", "imagenet", "fashion_mnist", "digits_dvs", "digits"]
ROWS = options("experiment")
QUICK = {"cifar10_qb_t4", "cifar10_ann", "digits", "digits_dvs", "fashion_mnist", "digits_smoke"}
SMALL = {
    "cifar10": ["model.width=0.0625"],
    "cifar100": ["model.width=0.0625"],
    "dvs128_gesture": ["model.width=0.125", "data.size=32"],
    "imagenet": ["model.width=0.0625", "data.size=64", "data.limit_train=16", "data.limit_val=8", "data.num_workers=0"],
    "fashion_mnist": ["model.width=0.25"],
    "digits_dvs": ["data.limit_train=32", "data.limit_val=8"],
    "digits": [],
}
ONE_BATCH = ["trainer.accelerator=cpu", "trainer.enable_checkpointing=false", "trainer.limit_train_batches=1",
             "trainer.limit_val_batches=1", "trainer.max_epochs=1", "callbacks.checkpoint=null", "~logger",
             "data.download=false", "data.batch_size=8", "data.val_fraction=0.2", "data.limit_test=8"]  # fmt: skip


def table_of(experiment: str) -> str:
    return next(name for name in TABLES if experiment.startswith(name))


@pytest.fixture
def files(request, tmp_path, monkeypatch):
    """Writes a tiny copy of a set in its true layout; gives the overrides that make a run read it."""

    def write(table: str) -> list[str]:
        if table == "imagenet":
            return [f"data.root={request.getfixturevalue('imagenet')}", "data.verify=false"]
        if table == "dvs128_gesture":
            write_gesture(tmp_path)
            return [f"data.root={tmp_path}", "data.verify=false"]
        sets = {"cifar10": CIFAR10, "cifar100": CIFAR100, "fashion_mnist": FashionMNIST}
        if table in sets:
            monkeypatch.setattr(sets[table], "source", WRITERS[sets[table]](root=tmp_path))
        return [f"data.root={tmp_path}"]

    return write


@pytest.mark.filterwarnings("ignore:This process.*is multi-threaded:DeprecationWarning")
@pytest.mark.parametrize(
    "experiment", [pytest.param(name, marks=[] if name in QUICK else pytest.mark.slow) for name in ROWS]
)
def test_every_experiment_trains_a_batch_and_is_proven(experiment, tmp_path, files):
    table = table_of(experiment)
    plain = composed(tmp_path, f"experiment={experiment}", *ONE_BATCH, *SMALL[table], *files(table))
    parts = build(plain)
    parts.trainer.fit(parts.module, datamodule=parts.data)
    assert parts.trainer.global_step == 1
    parts.data.setup("test")
    network = parts.module.network.float()
    pixels, labels = next(iter(parts.data.test_dataloader()))
    with torch.no_grad():
        for _ in range(60):  # one batch leaves the running statistics near their start, where deep layers are silent
            network(pixels)
    network.eval()
    if plain["neuron"]["_target_"].endswith(".ReLU"):
        with pytest.raises(DeployError, match="ReLU puts out real numbers"):
            absorb(network)
        return
    absorbed = absorb(network)
    found = check_absorption(network, absorbed, [(pixels, labels)])
    assert found.passed and all(layer.spikes for layer in found.layers), found
    integer = check_integer(quantize(absorbed), [(pixels, labels)], onnx_images=0)
    assert integer.passed and all(layer.spikes for layer in integer.layers), integer


@pytest.mark.parametrize(
    ("experiment", "neuron", "steps"),
    [
        ("cifar10_ann", "ReLU", 1), ("cifar10_lif_t4", "LIF", 4), ("cifar10_lif_t8", "LIF", 8),
        ("cifar10_qb_t4", "QBLIF", 4), ("cifar10_qb_t8", "QBLIF", 8), ("cifar100_lif_t4", "LIF", 4),
        ("cifar100_qb_t4", "QBLIF", 4), ("cifar100_lif_t8", "LIF", 8), ("cifar100_qb_t8", "QBLIF", 8),
        ("dvs128_gesture_lif_t20", "LIF", 20), ("dvs128_gesture_qb_t10", "QBLIF", 10),
        ("imagenet_lif_t6", "LIF", 6), ("imagenet_qb_t6", "QBLIF", 6),
    ],
)  # fmt: skip
def test_the_rows_are_those_of_the_document(experiment, neuron, steps, tmp_path):
    plain = composed(tmp_path, f"experiment={experiment}")
    assert (plain["neuron"]["_target_"], plain["T"], plain["model"]["T"]) == (f"qbsnn.neurons.{neuron}", steps, steps)
    assert plain["data"]["_target_"].rpartition(".")[2].lower() == table_of(experiment).replace("_", "")


@pytest.mark.parametrize("table", ["cifar10", "cifar100", "dvs128_gesture", "imagenet"])
def test_a_tables_recipe_is_the_same_for_every_neuron(table, tmp_path):
    rows = [name for name in ROWS if re.fullmatch(rf"{table}_(ann|(lif|qb)_t\d+)", name)]
    recipes = []
    for name in rows:
        plain = composed(tmp_path, f"experiment={name}")
        recipe = {group: plain[group] for group in ("data", "model", "optim", "trainer", "deploy")}
        recipe["data"].pop("T", None)  # frames
        recipe["model"].pop("T")
        recipes.append(recipe)
    assert len(recipes) >= 2 and all(recipe == recipes[0] for recipe in recipes)


def test_the_documents_own_settings(tmp_path):
    for table in ("cifar10", "cifar100", "imagenet", "dvs128_gesture"):
        plain = composed(tmp_path, f"experiment={table}_document")
        optimizer, trainer = plain["optim"]["optimizer"], plain["trainer"]
        assert (optimizer["_target_"], optimizer["lr"], optimizer["weight_decay"]) == ("torch.optim.AdamW", 1e-3, 1e-4)
        assert (trainer["max_epochs"], trainer["gradient_clip_val"]) == (100, 1.0)
        assert plain["optim"]["scheduler"]["T_max"] == 100
        neuron = {key: plain["neuron"][key] for key in ("tau", "s_max", "delta", "alpha", "beta", "tail")}
        assert inspect.signature(relsg_et).parameters["alpha"].default == 0.5
        assert neuron == {"tau": 2.0, "s_max": 8, "delta": 0.5, "alpha": None, "beta": 3.0, "tail": "document"}
        assert plain["model"]["encoding"] == (None if table == "dvs128_gesture" else "rate")
        assert plain["data"].get("autoaugment") is None and not plain["data"]["flip"]


def test_the_recipe_of_cifar_reaches_the_batches(tmp_path, files):
    plain = composed(tmp_path, "experiment=cifar10_qb_t4", *ONE_BATCH, *SMALL["cifar10"], *files("cifar10"))
    parts = build(plain)
    optimizer = parts.module.configure_optimizers()["optimizer"]
    assert type(optimizer) is torch.optim.SGD and optimizer.defaults["nesterov"]
    parts.data.setup("fit")
    pixels, _ = next(iter(parts.data.train_dataloader()))
    black = (pixels == 0).all(1)  # cutout of 16x16, at least a quarter of it inside the picture
    assert pixels.shape == (8, 3, 32, 32) and bool((black.flatten(1).sum(1) >= 64).all())
