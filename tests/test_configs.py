"""Every config of every group is composed and built; every model with every neuron trains and is proven."""

import json
from functools import cache
from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from omegaconf import open_dict

from qbsnn.cli.launch import register_resolvers
from qbsnn.deploy.convert.absorb import absorb
from qbsnn.deploy.convert.quantize import quantize
from qbsnn.deploy.verify.absorption import check_absorption
from qbsnn.deploy.verify.integer import check_integer
from qbsnn.errors import DeployError, SettingsError
from qbsnn.tracking.loggers import close_loggers
from qbsnn.training.settings import validate
from qbsnn.training.setup import Parts, build

CONF = Path(__file__).parent.parent / "conf"
ANYWHERE = "/the/folder/of/a/run"


def options(group: str) -> list[str]:
    return sorted(path.stem for path in (CONF / group).glob("*.yaml") if not path.stem.startswith("_"))


def composed(folder: Path, *overrides: str) -> dict:
    """The settings of a run in ``folder``."""
    return json.loads(_composed(overrides).replace(ANYWHERE, str(folder)))


@cache
def _composed(overrides: tuple[str, ...]) -> str:
    """As JSON, for a run in ``ANYWHERE``: a composition takes a quarter of a second, and many tests want the same."""
    register_resolvers()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        cfg = compose("train", [f"paths.run={ANYWHERE}", *overrides], return_hydra_config=True)
    with open_dict(cfg):
        cfg.hydra.runtime.cwd = ANYWHERE
    HydraConfig.instance().set_config(cfg)
    with open_dict(cfg):
        del cfg["hydra"]
    return json.dumps(validate(cfg))


GROUPS = [
    "data",
    "model",
    "neuron",
    "optim",
    "optim/loss",
    "trainer",
    "callbacks",
    "budget",
    "deploy",
    "logger",
    "experiment",
    "debug",
]
ELSEWHERE = {"hydra", "paths", "search", "sweep"}  # test_scale_page.py composes sweeps, sweeps/test_plan.py their cells
FOLDERS = {"image_folder", "event_folder", "imagenette64"}  # their classes are those of a user's folder
EVERY = [(group, option) for group in GROUPS for option in options(group) if option not in FOLDERS]


def test_every_group_of_the_design_is_there():
    groups = {path.name for path in CONF.iterdir() if path.is_dir()}
    assert groups == {group for group in GROUPS if "/" not in group} | ELSEWHERE
    assert all(options(group) for group in groups)


@pytest.mark.parametrize(("group", "option"), EVERY, ids=lambda value: value)
def test_every_config_is_composed_and_built(tmp_path, group, option):
    plain = composed(tmp_path, f"{group}={option}", *(["model.width=0.0625"] if group != "model" else []))
    if option in ("gpu", "ddp") and not torch.cuda.is_available():
        with pytest.raises(SettingsError, match=r"trainer cannot be built: .*gpu"):
            build(plain)
        return
    try:
        parts = build(plain)
    finally:
        close_loggers(failed=False)
    assert isinstance(parts, Parts)
    assert parts.result.params > 0


def test_an_experiment_or_sweep_sets_what_it_says(tmp_path):
    assert composed(tmp_path, "experiment=digits_smoke")["trainer"]["max_epochs"] == 2
    assert composed(tmp_path, "neuron=relu")["T"] == 1
    assert composed(tmp_path, "neuron=relu", "T=3")["model"]["T"] == 3


PAIRS = [("vgg5", neuron) for neuron in options("neuron")]
PAIRS += [(model, "qb_lif") for model in options("model") if model != "vgg5"]
PAIRS += [
    pytest.param(model, neuron, marks=pytest.mark.slow)
    for model in ("mlp", "resnet20")
    for neuron in options("neuron")
    if neuron != "qb_lif"
]
REFUSED = {
    "relu": "ReLU puts out real numbers",
    "adaptive_qb": "AdaptiveQB chooses its largest burst by a small network",
    "multi_compartment": "MultiCompartment has two coupled state variables",
}
FIXED = {"lif", "if", "ilif", "burst_lif"}  # neurons without parameters


@pytest.mark.parametrize(("model", "neuron"), PAIRS)
def test_every_family_with_every_neuron_trains_a_batch_and_is_proven(tmp_path, model, neuron):
    settings = ["trainer.limit_train_batches=1", "trainer.limit_val_batches=1", "trainer.max_epochs=1"]
    quiet = [
        "callbacks.checkpoint=null",
        "~logger",
        "data.batch_size=32",
        "data.limit_test=16",
        "model.width=0.125",
    ]
    plain = composed(tmp_path, f"model={model}", f"neuron={neuron}", "trainer.accelerator=cpu",
                     "trainer.enable_checkpointing=false", *settings, *quiet)  # fmt: skip
    parts = build(plain)
    parts.trainer.fit(parts.module, datamodule=parts.data)
    assert parts.trainer.global_step == 1
    parts.data.setup("test")
    network = parts.module.network
    pixels, labels = next(iter(parts.data.test_dataloader()))
    with torch.no_grad():
        for _ in range(30):  # one batch leaves the running statistics near their start, where deep layers are silent
            network(pixels)
    network.eval()
    if neuron in REFUSED:
        with pytest.raises(DeployError, match=REFUSED[neuron]):
            absorb(network)
        return
    owned = [id(p) for _, _, spiking in network.spiking_stages() for p in spiking.parameters()]
    assert len(set(owned)) == len(owned) == (0 if neuron in FIXED else len(network.stages) - 1)
    absorbed = absorb(network)
    found = check_absorption(network, absorbed, [(pixels, labels)])
    assert found.passed and all(layer.spikes for layer in found.layers), found
    integer = check_integer(quantize(absorbed), [(pixels, labels)], onnx_images=16)
    assert integer.passed and all(layer.spikes for layer in integer.layers), integer


def test_a_stage_may_have_a_neuron_of_its_own(tmp_path):
    plain = composed(tmp_path, "+neuron@model.neurons.fc1=lif", "+neuron@model.neurons.conv2=if", "neuron.s_max=3")
    network = build(plain).module.network
    found = {name: (type(neuron).__name__, neuron.s_max) for name, _, neuron in network.spiking_stages()}
    assert found == {"conv1": ("QBLIF", 3), "conv2": ("IF", 1), "conv3": ("QBLIF", 3), "fc1": ("LIF", 1)}
    with pytest.raises(SettingsError, match=r"model.neurons.fc9 is not a stage with neurons: there are conv1, conv2"):
        build(composed(tmp_path, "+neuron@model.neurons.fc9=lif"))
    with pytest.raises(
        SettingsError, match=r"model.neurons.fc1.taau is not a setting of qbsnn.neurons.LIF: did you mean"
    ):
        composed(tmp_path, "+neuron@model.neurons.fc1=lif", "+model.neurons.fc1.taau=3")


def test_a_stage_may_have_a_neuron_whose_file_sets_steps_for_the_whole_network(tmp_path):
    words = ("+neuron@model.neurons.conv1=relu", "+neuron@model.neurons.fc1=quant_relu", "+model.neurons.fc1.bits=3")
    network = build(composed(tmp_path, *words)).module.network
    found = {name: type(stage.neuron).__name__ for name, stage in network.named_stages() if stage.neuron}
    assert found == {"conv1": "ReLU", "conv2": "QBLIF", "conv3": "QBLIF", "fc1": "QuantReLU"}
    assert network.T == 4 and network.stages["fc1"].neuron.s_max == 7


@pytest.mark.parametrize("norm", ["tdbn", "tebn", "layer", "none"])
@pytest.mark.parametrize("readout", ["current", "membrane", "rate"])
def test_every_norm_and_readout_trains_and_is_absorbed_or_refused(tmp_path, norm, readout):
    plain = composed(tmp_path, f"model.norm={norm}", f"model.readout={readout}", "model.population=3",
                     "model.decision=last", "model.width=0.25")  # fmt: skip
    parts = build(plain)
    network = parts.module.network
    x, y = torch.rand(8, 1, 8, 8), torch.arange(8)
    parts.module.loss(network(x), y).backward()
    assert all(p.grad is not None for p in network.parameters() if p.requires_grad)
    network.eval()
    refusal = {"tebn": "TEBN scales every step", "layer": "layer norm divides"}.get(norm)
    if readout == "membrane" and not refusal:
        refusal = "readout: LeakyIntegrator puts out a real-valued membrane"
    if refusal:
        with pytest.raises(DeployError, match=refusal):
            absorb(network)
        return
    found = check_absorption(network.double(), absorb(network), [(x.double(), y)])
    assert found.spike_mismatches == found.free_running_mismatches == 0
    assert found.spikes > 0
    with pytest.raises(DeployError, match=r"model\.decision=last has no integer form"):
        quantize(absorb(network.float()))
