"""The values of ``conf/`` are the defaults of what they build: what a user reads and what Python does cannot drift."""

import inspect
from pathlib import Path

import pytest
import yaml
from hydra.utils import get_object

from qbsnn.data import EventDataModule, FileDataModule, ImageDataModule
from qbsnn.deploy.convert.settings import DeploySettings
from qbsnn.models import vgg
from qbsnn.training.defaults import EMPTY, arguments
from qbsnn.training.settings import identify, validate
from tests.test_configs import CONF, composed, options

BASES = {
    "model/_base.yaml": vgg,
    "data/_shared.yaml": ImageDataModule,
    "data/_base.yaml": ImageDataModule,
    "data/_files.yaml": FileDataModule,
    "data/_events.yaml": EventDataModule,
}
"""Files without a ``_target_``, and one of the things that take their keys."""

DIFFERENT = {
    ("data/_files.yaml", "num_workers"): "a module that somebody makes in Python starts no processes by itself",
    ("neuron/quant_relu.yaml", "neuron.init"): "a percentile needs a batch, which a layer by itself does not have",
}
"""The only values that differ from the default, and why."""

GROUPS = ("neuron", "model", "data", "callbacks", "logger", "optim/loss")
FILES = [f"{group}/{path.name}" for group in GROUPS for path in sorted((CONF / group).glob("*.yaml"))]


def read(file: str) -> dict:
    return yaml.safe_load((CONF / file).read_text(encoding="utf-8"))


def built(node: dict, prefix: str = ""):
    """Every node with a ``_target_`` of this project, and its place."""
    if str(node.get("_target_", "")).startswith("qbsnn."):
        yield prefix, node
    for key, below in node.items():
        if isinstance(below, dict):
            yield from built(below, f"{prefix}{key}.")


def based_on(file: str) -> set[str]:
    """The keys of the files that a file's defaults list names: restating one of them is what makes an option."""
    names = [name for name in read(file).get("defaults", []) if isinstance(name, str) and name != "_self_"]
    files = [f"{Path(file).parent}/{name}.yaml" for name in names]
    return {key for name in files for key in [*read(name), *based_on(name)]}


@pytest.mark.parametrize("file", [*FILES, "deploy/ptq.yaml"])
def test_values_are_defaults(file):
    content, restated = read(file), based_on(file) | {"name"}
    nodes = [("", content)] if file in BASES or file == "deploy/ptq.yaml" else list(built(content))
    for place, node in nodes:
        known = known_defaults(file, node)
        for key, value in node.items():
            free = key.startswith("_") or key == "defaults" or (not place and key in restated)
            if free or isinstance(value, dict) or "${" in str(value) or (file, place + key) in DIFFERENT:
                continue
            if key not in known and takes_more(node):
                continue
            assert key in known, f"{file}: {place}{key} is no argument"
            default = known[key]
            assert default is not EMPTY and type(value) is type(default), f"{file}: {place}{key}"
            assert value == default, f"{file}: {place}{key} is {value!r}, the default is {default!r}"


def takes_more(node: dict) -> bool:
    """Whether what is built hands other arguments on to a library."""
    parameters = inspect.signature(get_object(node["_target_"])).parameters.values()
    return any(parameter.annotation == "Any" and parameter.kind is parameter.VAR_KEYWORD for parameter in parameters)


def known_defaults(file: str, node: dict) -> dict:
    if file == "deploy/ptq.yaml":
        return {name: field.default for name, field in DeploySettings.model_fields.items()}
    found = arguments(BASES.get(file) or get_object(node["_target_"]))
    return {key: list(value) if isinstance(value, tuple) else value for key, value in found.items()}


@pytest.mark.parametrize("file", DIFFERENT)
def test_no_exception_is_out_of_date(file):
    name, key = file
    place, _, last = key.rpartition(".")
    node = read(name)[place] if place else read(name)
    assert node[last] != known_defaults(name, node)[last]


def test_options_of_deploy_say_what_they_change():
    for option in options("deploy"):
        if option != "ptq":
            fields = {key: value for key, value in read(f"deploy/{option}.yaml").items() if key != "defaults"}
            assert all(value != DeploySettings.model_fields[key].default for key, value in fields.items())


def test_a_new_setting_with_a_neutral_default_is_the_same_experiment(tmp_path, monkeypatch):
    """As if a later version had given QB-LIF one more argument."""
    from qbsnn.neurons import QBLIF

    before = composed(tmp_path)
    old, honest = identify(before), QBLIF.__init__

    def later(self, *args, shiny: float = 0.5, **options):
        honest(self, *args, **options)

    later.__signature__ = _with(honest, "shiny", 0.5)
    monkeypatch.setattr(QBLIF, "__init__", later)
    neutral, other = ({**before, "neuron": {**before["neuron"], "shiny": value}} for value in (0.5, 0.25))
    assert validate_again(neutral) == neutral and identify(neutral) == old == identify(before)
    assert identify(other) == {**old, "neuron.shiny": 0.25}


def _with(function, name, default):
    signature = inspect.signature(function)
    new = inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default)
    return signature.replace(parameters=[*signature.parameters.values(), new])


def validate_again(settings: dict) -> dict:
    from omegaconf import OmegaConf

    return validate(OmegaConf.create(settings))
