"""The settings of a run, validated once after composition and before anything is built or read.

Bounds of a neuron, a network or a data set are checked by its own constructor, which runs right after this.
"""

from __future__ import annotations

import inspect
from dataclasses import fields
from pathlib import Path
from typing import Any, Literal, get_args, get_type_hints

from hydra.utils import get_object
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from qbsnn.checks import nearest, place
from qbsnn.deploy.convert.settings import DeploySettings
from qbsnn.errors import CheckpointError, SettingsError


class TrainerSettings(BaseModel):
    """The keys of Lightning's Trainer that a run relies on; others pass through."""

    model_config = ConfigDict(extra="allow", strict=True)

    max_epochs: int = Field(ge=1)
    gradient_clip_val: float | int | None = Field(default=None, ge=0)
    default_root_dir: str


class OptimSettings(BaseModel):
    """Optimiser, schedule and loss: each a ``_target_`` with its arguments."""

    model_config = ConfigDict(extra="forbid")

    optimizer: dict[str, Any]
    scheduler: dict[str, Any] | None = None
    loss: dict[str, Any]


class PathSettings(BaseModel):
    """Where data is read and runs are written."""

    model_config = ConfigDict(extra="forbid", strict=True)

    data: str
    outputs: str
    run: str


class DeployGroup(BaseModel):
    """How the network becomes integers; ``DeploySettings`` holds the bounds of the fields that it knows.

    mode: ``ptq`` (rounded after training) or ``qat`` (then fine-tuned on the grid). epochs, lr: of fine-tuning.
    calibration_images: training images that a search for thresholds looks at; 0: it looks at the weights only.
    """

    model_config = ConfigDict(extra="forbid", strict=True)

    mode: Literal["ptq", "qat"] = "ptq"
    bits: int = 8
    theta: str = "pow2"
    leak: str = "auto"
    membrane_bits: int = 32
    overflow: str = "error"
    profile: str | None = None
    first_layer: str = "float"
    epochs: int = Field(default=4, ge=1)
    lr: float = Field(default=1e-4, gt=0)
    calibration_images: int = Field(default=256, ge=0)

    def conversion(self) -> DeploySettings:
        """The part that a conversion takes."""
        if self.mode == "qat" and self.first_layer == "integer":
            raise SettingsError("deploy.first_layer=integer goes with deploy.mode=ptq; fine-tuning keeps it in float")
        own = {field.name for field in fields(DeploySettings)}
        return DeploySettings(**self.model_dump(include=own))


class Settings(BaseModel):
    """A composed configuration."""

    model_config = ConfigDict(extra="forbid", strict=True)

    name: str = Field(min_length=1, pattern=r"^[\w.\-]+$")
    seed: int = Field(ge=0, lt=2**32)
    T: int = Field(ge=1, le=1024)
    report: bool
    test: bool = True
    compile: Literal["auto", "none", "neuron", "block", "model"] = "auto"
    memory: Literal["none", "packed", "checkpoint"] = "none"
    neuron: dict[str, Any]
    model: dict[str, Any]
    data: dict[str, Any]
    optim: OptimSettings
    trainer: TrainerSettings
    callbacks: dict[str, dict[str, Any] | None] | None = None
    logger: dict[str, dict[str, Any] | None] | None = None
    deploy: DeployGroup = DeployGroup()
    paths: PathSettings


def validate(cfg: DictConfig) -> dict[str, Any]:
    """The resolved configuration as plain containers. Raises SettingsError naming every bad key and its value.

    A sweep file is no setting of a run and left out.
    """
    try:
        plain: dict[str, Any] = OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True)  # type: ignore[assignment]
    except OmegaConfBaseException as error:
        raise SettingsError(f"the settings do not resolve: {' '.join(str(error).split())}") from error
    plain.pop("sweep", None)
    try:
        deploy = Settings.model_validate(plain).deploy
    except ValidationError as error:
        raise SettingsError("; ".join(_explain(item) for item in error.errors())) from error
    with place("deploy"):
        deploy.conversion()
    groups = {group: plain[group] for group in ("neuron", "model", "data")}
    groups |= {f"model.neurons.{stage}": node for stage, node in (plain["model"].get("neurons") or {}).items()}
    for group, node in groups.items():
        _check_keys(group, node)
    return plain


def deploy_group(plain: dict[str, Any]) -> DeployGroup:
    """The deployment settings of a validated configuration; the defaults where it has none."""
    return DeployGroup.model_validate(plain.get("deploy", {}))


def stored_config(
    contents: dict[str, Any], checkpoint: Path, overrides: list[str], run: Path, loggers: dict[str, Any] | None = None
) -> DictConfig:
    """The configuration that a checkpoint carries, with ``key=value`` overrides, for a new run directory ``run``.

    ``loggers`` takes the place of the loggers that the run had.
    Raises CheckpointError when there is none, SettingsError for a key that it does not have.
    """
    stored = contents.get("qbsnn")
    if not isinstance(stored, dict) or "config" not in stored:
        raise CheckpointError(f"{checkpoint} carries no qbsnn configuration; it was not written by train.py")
    old = stored["config"]["paths"]["run"]
    cfg = OmegaConf.create(_relocate(stored["config"], old, str(run.resolve())))
    cfg.logger = loggers
    OmegaConf.set_struct(cfg, True)
    for override in overrides:
        key, value = override.split("=", 1)
        parent, _, last = key.rpartition(".")
        node = OmegaConf.select(cfg, parent) if parent else cfg
        if not isinstance(node, DictConfig) or last not in node:
            raise SettingsError(
                f"{key} is not a setting of this checkpoint: "
                + nearest(last, [str(k) for k in node] if isinstance(node, DictConfig) else [str(k) for k in cfg])
            )
        OmegaConf.update(cfg, key, OmegaConf.from_dotlist([f"value={value}"]).value)
    return cfg


def _relocate(node: Any, old: str, new: str) -> Any:
    """Replace the run directory in every path of a configuration."""
    if isinstance(node, dict):
        return {key: _relocate(value, old, new) for key, value in node.items()}
    if isinstance(node, list):
        return [_relocate(value, old, new) for value in node]
    return new + node[len(old) :] if isinstance(node, str) and node.startswith(old) else node


def _check_keys(group: str, node: dict[str, Any]) -> None:
    """Refuse keys that the ``_target_`` of a group does not take."""
    target = node.get("_target_")
    if not isinstance(target, str):
        raise SettingsError(f"{group} needs a _target_, the class or function to build; got {target!r}")
    try:
        takes = _arguments(get_object(target))
    except Exception as error:
        raise SettingsError(f"{group}._target_ {target!r} cannot be imported: {error}") from error
    unknown = [key for key in node if not key.startswith("_") and key not in takes]
    if unknown:
        raise SettingsError(f"{group}.{unknown[0]} is not a setting of {target}: {nearest(unknown[0], takes)}")


def _arguments(target: Any) -> list[str]:
    """Names of the arguments of a class or function, those of a typed ``**options`` included."""
    names = []
    for name, parameter in inspect.signature(target).parameters.items():
        if parameter.kind is not inspect.Parameter.VAR_KEYWORD:
            names.append(name)
        elif options := get_args(_hints(target).get(name)):
            names += list(options[0].__annotations__)
    return names


def _hints(target: Any) -> dict[str, Any]:
    return get_type_hints(target.__init__ if inspect.isclass(target) else target, include_extras=True)


def _explain(item: Any) -> str:
    where = ".".join(str(part) for part in item["loc"])
    if item["type"] == "extra_forbidden":
        return f"{where} is not a setting: {nearest(str(item['loc'][-1]), Settings.model_fields)}"
    return f"{where}: {item['msg'][0].lower()}{item['msg'][1:]}, got {item['input']!r}"
