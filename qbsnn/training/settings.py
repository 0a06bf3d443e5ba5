"""The settings of a run, validated once after composition and before anything is built or read.

:func:`screen` is the first stage: it imports nothing that settings name, so it answers most of what is wrong in a
second. :func:`validate` also imports what they name, and checks that it takes their keys. Choices from a registry and
bounds that depend on other values are left to the constructors, which run right after this.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from pydantic import ConfigDict, Field

from qbsnn.bounds import BOUNDS, check_target
from qbsnn.checked import Checked
from qbsnn.checks import nearest, place
from qbsnn.deploy.convert.settings import DeploySettings
from qbsnn.errors import SettingsError
from qbsnn.results.fingerprint import identity, origin
from qbsnn.training.building import check, check_names, check_outputs, locate, within
from qbsnn.training.defaults import arguments, defaults, with_digests

Node = dict[str, Any]
Package = Annotated[str, Field(pattern=r"^[A-Za-z]\w*(\.\w+)*$")]


class TrainerSettings(Checked):
    """The keys of Lightning's Trainer that a run relies on; others pass through."""

    model_config = ConfigDict(extra="allow", strict=True, frozen=True)

    max_epochs: int = Field(ge=1)
    max_steps: int = Field(default=-1, ge=-1)
    max_time: str | dict[str, int] | None = None
    gradient_clip_val: float | int | None = Field(default=None, ge=0)
    gradient_clip_algorithm: Literal["norm", "value"] | None = None
    accumulate_grad_batches: int = Field(default=1, ge=1)
    accelerator: str = "auto"
    devices: int | str | list[int]
    num_nodes: int = Field(default=1, ge=1)
    precision: int | str | None = None
    limit_train_batches: int | float | None = Field(default=None, ge=0)
    limit_val_batches: int | float | None = Field(default=None, ge=0)
    limit_test_batches: int | float | None = Field(default=None, ge=0)
    val_check_interval: int | float | None = Field(default=None, gt=0)
    check_val_every_n_epoch: int | None = Field(default=1, ge=1)
    num_sanity_val_steps: int | None = Field(default=None, ge=-1)
    log_every_n_steps: int | None = Field(default=None, ge=1)
    deterministic: bool | Literal["warn"] | None = None
    benchmark: bool | None = None
    detect_anomaly: bool = False
    enable_checkpointing: bool | None = None
    enable_progress_bar: bool | None = None
    enable_model_summary: bool | None = None
    sync_batchnorm: bool = False
    default_root_dir: str
    # What a run passes to the Trainer itself.
    callbacks: None = None
    logger: None = None
    plugins: None = None
    use_distributed_sampler: None = None


class OptimSettings(Checked):
    """Optimiser, schedule and loss: each a ``_target_`` with its arguments."""

    optimizer: Node
    scheduler: Node | None = None
    loss: Node


class PathSettings(Checked):
    """Where data is read and runs are written."""

    data: str
    outputs: str
    run: str


class RunSettings(Checked):
    """A composed configuration. The groups are checked by the classes in ``GROUPS`` and by what they build."""

    name: str = Field(min_length=1, pattern=r"^[\w.\-]+$")
    seed: int = Field(ge=0, le=2**32 - 1)
    T: int = Field(ge=1, le=1024)
    report: bool = True
    test: bool = True
    overwrite: bool = False
    resume: bool = False
    trust: Package | list[Package] | None = None
    compile: Literal["auto", "none", "neuron", "block", "model"] = "auto"
    channels_last: bool = False
    memory: Literal["auto", "none", "packed", "checkpoint"] = "none"
    neuron: Node
    model: Node
    data: Node
    optim: Node
    trainer: Node
    callbacks: dict[str, Node | None] | None = None
    logger: dict[str, Node | None] | None = None
    budget: Node = Field(default_factory=dict)
    init_from: str | None = None
    init_from_digest: str | None = None
    teacher: str | None = None
    teacher_digest: str | None = None
    distillation: Node = Field(default_factory=dict)
    deploy: Node = Field(default_factory=dict)
    paths: Node


class DistillationSettings(Checked):
    """How a network learns from its ``teacher``: (1 − share)·loss + share·τ²·KL, τ the ``temperature``."""

    share: float = Field(default=0.5, ge=0, le=1)
    temperature: float = Field(default=4.0, gt=0)


GROUPS = {
    "optim": OptimSettings,
    "trainer": TrainerSettings,
    "deploy": DeploySettings,
    "paths": PathSettings,
    "distillation": DistillationSettings,
}


def screen(cfg: DictConfig) -> dict[str, Any]:
    """Check of a composed configuration what can be checked before PyTorch is imported.

    Args:
        cfg: what Hydra composed. A sweep file in it is no setting of a run and left out.

    Returns:
        The resolved configuration as plain containers; ``trust`` is a list of packages, or absent, and
        ``teacher_digest`` and ``init_from_digest`` are those of the checkpoints that are named.

    Raises:
        SettingsError: naming every bad key, its value and what would be right.
    """
    try:
        plain: dict[str, Any] = OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True)  # type: ignore[assignment]
    except OmegaConfBaseException as error:
        raise SettingsError(f"the settings do not resolve: {' '.join(str(error).split())}") from error
    plain.pop("sweep", None)
    for name, node in (plain.get("callbacks") or {}).items():
        if isinstance(node, dict) and node.get("_target_", "") is None:  # off, whatever is said of it besides
            plain["callbacks"][name] = None
    RunSettings(**plain)
    for name in ("compile", "memory"):
        plain.setdefault(name, RunSettings.model_fields[name].default)
    trust = plain.pop("trust", None) or []
    trust = [trust] if isinstance(trust, str) else trust
    _check_finite(plain)
    if isinstance(single := plain["model"].get("neurons"), Mapping):
        plain["model"]["neurons"] = {stage: _neuron_alone(node) for stage, node in single.items()}
    check_names(plain, trust)
    for group, model in GROUPS.items():
        with place(group):
            model(**plain.get(group, {}))
    single = plain["model"].get("neurons") or {}
    if not isinstance(single, Mapping) or not all(isinstance(node, Mapping) for node in single.values()):
        raise SettingsError(f"model.neurons must give stages their neurons, {{STAGE: {{_target_: ...}}}}, got {single}")
    _check_bounds(plain, trust)
    if isinstance(target := plain.get("budget", {}).get("target"), int | float):
        with place("budget"):
            check_target(target, plain["budget"].get("quantity", "energy"))
    _check_root(plain["data"], OmegaConf.to_container(cfg.data, resolve=False))
    check_outputs(plain)
    _check_together(plain)
    plain = with_digests(plain)
    return {**plain, "trust": trust} if trust else plain


def _check_root(data: Node, written: Any) -> None:
    """Refuse to take the folder of all sets for the user's own files, unless it looks like that."""
    own = data.get("_target_") in ("qbsnn.data.ImageFolder", "qbsnn.data.EventFolder") and not data.get("table")
    root = Path(data["root"])
    if own and written.get("root") == "${paths.data}" and root.is_dir() and not any(root.glob("[Tt]rain")):
        raise SettingsError("data.root is not set: write data.root=FOLDER, the folder that holds train/<class>/")


def _check_together(plain: Node) -> None:
    """Refuse settings that only make sense apart."""
    trainer = plain["trainer"]
    for group in ("model", "data"):
        if (steps := plain[group].get("T", plain["T"])) != plain["T"]:
            raise SettingsError(f"{group}.T follows T, which is {plain['T']}, got {steps}: write T={steps} instead")
    if plain.get("deploy", {}).get("mode") == "qat" and trainer.get("limit_val_batches") == 0:
        raise SettingsError("deploy=qat chooses its epoch by validation: trainer.limit_val_batches must not be 0")
    if plain.get("test", True) and trainer.get("limit_test_batches") == 0:
        raise SettingsError("trainer.limit_test_batches must not be 0: to test nothing, set test=false")
    each, check = trainer.get("accumulate_grad_batches", 1), trainer.get("val_check_interval")
    if each > 1 and check not in (None, 1.0) and (isinstance(check, float) or check % each):
        raise SettingsError(
            f"trainer.val_check_interval must be a multiple of trainer.accumulate_grad_batches={each}, got {check}: "
            "what is saved within it would lack gradients"
        )


def validate(cfg: DictConfig) -> dict[str, Any]:
    """Check a composed configuration: :func:`screen` it, then import what it names and check the keys of that.

    Args, Returns, Raises: as of :func:`screen`.
    """
    plain = screen(cfg)
    trust = plain.get("trust", ())
    check(plain, trust)
    groups = {group: plain[group] for group in ("neuron", "model", "data")}
    if plain.get("budget", {}).get("_target_"):
        groups["budget"] = plain["budget"]
    groups |= {f"model.neurons.{stage}": node for stage, node in (plain["model"].get("neurons") or {}).items()}
    for group, node in groups.items():
        _check_keys(group, node, trust)
    return plain


def for_files(settings: Mapping[str, Any]) -> dict[str, Any]:
    """What is written into files of validated settings: all but whom the user trusts, which no file may say."""
    return {key: value for key, value in settings.items() if key != "trust"}


def _neuron_alone(node: Any) -> Any:
    """The neuron of a single stage, where its file sets the network's T beside it (``relu``): that T is left out."""
    if not isinstance(node, Mapping) or not isinstance(node.get("neuron"), Mapping):
        return node
    return {**node["neuron"], **{key: value for key, value in node.items() if key not in ("T", "neuron")}}


def _check_finite(node: Any, where: str = "") -> None:
    """Refuse numbers that are infinite or none; only an infinite τ means something, no leak."""
    if isinstance(node, float) and not math.isfinite(node) and not (where.endswith(".tau") and node == math.inf):
        raise SettingsError(f"{where} must be a finite number, got {node}")
    items = node.items() if isinstance(node, Mapping) else enumerate(node) if isinstance(node, list) else ()
    for key, value in items:
        _check_finite(value, f"{where}.{key}" if where else str(key))


def _check_bounds(plain: Node, trust: Sequence[str]) -> None:
    """Refuse arguments out of bounds, except of what the user's own packages define, whose bounds are their own."""
    stages = {f"model.neurons.{stage}": "neuron" for stage in plain["model"].get("neurons") or {}}
    for where, group in ({group: group for group in BOUNDS} | stages).items():
        node: Any = plain
        for key in where.split(".", 2):
            node = (node or {}).get(key) or {}
        if not within(str(node.get("_target_")), trust):
            with place(where):
                BOUNDS[group].check_known(node)


def deploy_settings(settings: dict[str, Any]) -> DeploySettings:
    """How a validated configuration has its network deployed; the defaults where it does not say."""
    return DeploySettings(**settings.get("deploy", {}))


def identify(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The identity of a run with these validated settings, see :func:`qbsnn.results.fingerprint.identity`.

    ``trainer.precision=auto`` counts as what it is on this machine, for it changes numbers.
    """
    settings = _with_precision(settings)
    known = dict(defaults(settings, settings.get("trust") or ()))
    groups = (("", RunSettings), ("deploy.", DeploySettings), ("distillation.", DistillationSettings))
    for prefix, model in groups:
        fields = model.model_fields.items()
        known |= {
            prefix + name: field.get_default(call_default_factory=True)
            for name, field in fields
            if not field.is_required()
        }
    found = identity(settings, known)
    if (target := settings.get("data", {}).get("_target_")) is not None:
        own = getattr(locate("data", target, settings.get("trust") or ()), "own_files", False)
        found |= origin(settings["data"], own, (settings.get("paths") or {}).get("outputs"))
    return found


def _with_precision(settings: Mapping[str, Any]) -> Mapping[str, Any]:
    trainer = settings.get("trainer") or {}
    if trainer.get("precision") != "auto":
        return settings
    from qbsnn.training.devices import host, precision  # imports PyTorch, which knows the graphics cards

    chosen = precision.choose("auto", trainer.get("accelerator", "auto"), host.extensions())
    return {**settings, "trainer": {**trainer, "precision": chosen}}


def _check_keys(group: str, node: Node, trust: Sequence[str]) -> None:
    """Refuse keys that the ``_target_`` of a group does not take."""
    target = node.get("_target_")
    if not isinstance(target, str):
        raise SettingsError(f"{group} needs a _target_, the class or function to build; got {target!r}")
    takes = arguments(locate(group, target, trust))
    unknown = [key for key in node if not key.startswith("_") and key not in takes]
    if unknown:
        raise SettingsError(f"{group}.{unknown[0]} is not a setting of {target}: {nearest(unknown[0], takes)}")
