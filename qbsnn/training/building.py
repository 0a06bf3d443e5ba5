"""What settings may build and where that may write, and building it.

A configuration names classes and functions by ``_target_``. Files of settings and checkpoints come from others, so a
name is looked up in ``RULES`` before anything is imported, and what was imported must be of the right kind.
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial, wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.errors import InstantiationException
from hydra.utils import instantiate

from qbsnn.checks import at_home, nearest, place
from qbsnn.errors import ArgumentError, QBSNNError, SettingsError

if TYPE_CHECKING:
    from lightning.pytorch.callbacks import Callback


FOLDERS = ("dirpath", "folder", "save_dir", "default_root_dir", "dir", "root_dir", "log_dir", "output_dir")
"""Names of arguments of callbacks, loggers and the trainer that say where files are written."""
WORDS = ("notes", "tags", "group")
"""Names of those that W&B shows as they are; of a logger's name other loggers make folders."""


@dataclass(frozen=True)
class Rule:
    """What may be built at a place in the settings, and in nodes below it.

    Attributes:
        modules: where its classes are defined; modules below them count.
        bases: one of these a class must be, or be derived from.
        functions: that may be called as well, by their full names.
        partial: whether ``_partial_`` may stand there.
    """

    modules: tuple[str, ...]
    bases: tuple[str, ...]
    functions: tuple[str, ...] = ()
    partial: bool = False


NEURONS = Rule(("qbsnn.neurons",), ("qbsnn.neurons.Neuron",), partial=True)
RULES = {
    "neuron": NEURONS,
    "model.neurons": NEURONS,
    "model": Rule(
        ("qbsnn.models",),
        ("qbsnn.models.SpikingNetwork",),
        ("qbsnn.models.fast", "qbsnn.models.mlp", "qbsnn.models.resnet", "qbsnn.models.vgg"),
    ),
    "data": Rule(("qbsnn.data",), ("qbsnn.data.DataModule", "qbsnn.data.PixelModel")),
    "optim.optimizer": Rule(("torch.optim",), ("torch.optim.Optimizer",), partial=True),
    "optim.scheduler": Rule(
        ("torch.optim.lr_scheduler",),
        ("torch.optim.lr_scheduler.LRScheduler",),
        ("qbsnn.training.schedule.one_cycle", "qbsnn.training.schedule.warmup_cosine"),
        partial=True,
    ),
    "optim.loss": Rule((), (), ("qbsnn.functional.decided_cross_entropy", "qbsnn.functional.tet"), partial=True),
    "budget": Rule(("qbsnn.energy.budget",), ("qbsnn.energy.budget.EnergyBudget",)),
    "trainer": Rule(("lightning", "lightning.pytorch.trainer"), ("lightning.Trainer",)),
    "callbacks": Rule(
        ("qbsnn.callbacks", "lightning.pytorch.callbacks"),
        ("lightning.pytorch.callbacks.Callback", "qbsnn.training.deployment.Check"),
        ("qbsnn.callbacks.progress_bar",),
    ),
    "logger": Rule(
        ("qbsnn.tracking", "lightning.pytorch.loggers"),
        ("lightning.pytorch.loggers.Logger",),
        ("qbsnn.tracking.loggers.wandb_logger",),
    ),
    "search.sampler": Rule(("optuna.samplers",), ("optuna.samplers.BaseSampler",)),
    "search.pruner": Rule(("optuna.pruners",), ("optuna.pruners.BasePruner",)),
}
"""Place in the settings -> what may be built there. Nothing is built anywhere else."""

_NAME = re.compile(r"[A-Za-z]\w*(\.[A-Za-z]\w*)+", re.ASCII)
_HYDRA = ("_partial_", "_args_", "_recursive_", "_convert_")


def check(settings: Any, trust: Sequence[str] = (), where: str = "") -> None:
    """See that settings name nothing but what may be built. Every name is checked before the first is imported.

    Args:
        settings: plain containers.
        trust: packages besides those of ``RULES``, named by the user.
        where: the place of ``settings`` in the whole, empty for the whole.

    Raises:
        SettingsError: naming the place, the name, and what may stand there.
    """
    check_names(settings, trust, where)
    for at, node in _nodes(settings, where):
        if "_target_" in node:
            locate(at, node["_target_"], trust)


def check_names(settings: Any, trust: Sequence[str] = (), where: str = "") -> None:
    """The part of :func:`check` that imports nothing: the names, and that they may stand where they stand.

    >>> check_names({"callbacks": {"x": {"_target_": "os.system", "command": "ls"}}})
    Traceback (most recent call last):
    ...
    qbsnn.errors.SettingsError: callbacks.x._target_ may not be 'os.system': callbacks takes what is defined in \
qbsnn.callbacks or lightning.pytorch.callbacks. If the package is your own, name it on the command line: trust=PACKAGE
    """
    for at, node in _nodes(settings, where):
        for key in _HYDRA:
            rule = _rule(at)[1]
            if key in node and not (key == "_partial_" and rule and rule.partial and type(node[key]) is bool):
                raise SettingsError(f"{at}.{key} is not a setting, got {node[key]!r}")
        if "_target_" in node:
            _named(at, node["_target_"], trust)


def locate(where: str, target: Any, trust: Sequence[str] = ()) -> Any:
    """The class or function that a name stands for.

    Args:
        where: place of the node in the settings, which decides what may stand there.
        target: the node's ``_target_``.
        trust: packages besides those of ``RULES``.

    Raises:
        SettingsError: it may not stand there, or cannot be imported.
    """
    group, rule = _named(where, target, trust)
    module, _, name = target.rpartition(".")
    try:
        found = getattr(importlib.import_module(module), name)
    except Exception as error:  # a module can raise anything
        raise SettingsError(f"{where}._target_ {target!r} cannot be imported: {error}") from error
    defined = str(getattr(found, "__module__", ""))
    if within(module, trust):
        if not callable(found) or inspect.ismodule(found) or not within(defined, trust):
            raise SettingsError(f"{where}._target_ must be a class or function of {', '.join(trust)}, got {target!r}")
        return found
    if target in rule.functions:
        return found
    if not inspect.isclass(found) or not issubclass(found, tuple(map(pkgutil.resolve_name, rule.bases))):
        raise SettingsError(f"{where}._target_ may not be {target!r}: {group} takes a {' or '.join(rule.bases)}")
    if not within(defined, (*rule.modules, *trust)):
        raise SettingsError(f"{where}._target_ may not be {target!r}, which is defined in {defined}")
    return found


def _named(where: str, target: Any, trust: Sequence[str]) -> tuple[str, Rule]:
    """The rule for a name, and the place that it belongs to; imports nothing."""
    group, rule = _rule(where)
    if rule is None:
        raise SettingsError(f"{where}._target_ may not be {target!r}: nothing is built here")
    if not isinstance(target, str) or not _NAME.fullmatch(target):
        raise SettingsError(f"{where}._target_ must be the full name of a class or function, got {target!r}")
    module = target.rpartition(".")[0]
    if target not in rule.functions and not within(module, (*rule.modules, *trust)):
        known = " or ".join(rule.modules or rule.functions)
        raise SettingsError(
            f"{where}._target_ may not be {target!r}: {group} takes what is defined in {known}. If the package is your "
            "own, name it on the command line: trust=PACKAGE"
        )
    return group, rule


def _rule(where: str) -> tuple[str, Rule | None]:
    groups = [group for group in RULES if where == group or where.startswith((f"{group}.", f"{group}["))]
    group = max(groups, key=len, default="")
    return group, RULES.get(group)


def within(module: str, packages: Sequence[str]) -> bool:
    """Whether a module, or a name in it, is one of some packages or lies in one."""
    return any(module == package or module.startswith(f"{package}.") for package in packages)


def _nodes(node: Any, where: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Every mapping in settings, with its place."""
    if isinstance(node, Mapping):
        yield where, node
        for key, below in node.items():
            yield from _nodes(below, f"{where}.{key}" if where else str(key))
    elif isinstance(node, (list, tuple)):
        for index, below in enumerate(node):
            yield from _nodes(below, f"{where}[{index}]")


def build_object(node: Mapping[str, Any], where: str, **extra: Any) -> Any:
    """Build a node that :func:`check` has seen, as Hydra does.

    Args:
        node: ``_target_`` and arguments.
        where: the node's place in the settings. It stands before the name of every argument that is refused, also by
            what a ``_partial_`` node builds later.
        extra: arguments that are no settings.

    Raises:
        SettingsError: the node names nothing to build, or an argument is refused.
    """
    if "_target_" not in node:
        raise SettingsError(f"{where} needs a _target_, the class or function to build; it has {', '.join(node)}")
    try:
        with place(where):
            built = instantiate(dict(node), _convert_="all", **extra)
    except InstantiationException as error:
        cause: BaseException | None = error
        while cause is not None:
            if isinstance(cause, ArgumentError):
                raise SettingsError(f"{where}.{cause}") from error
            if isinstance(cause, QBSNNError):
                raise cause from error
            if isinstance(cause, TypeError) and "unexpected keyword argument" in str(cause):
                key = str(cause).rsplit("'", 2)[-2]
                raise SettingsError(f"{where} does not take {key!r}: {nearest(key, node)}") from error
            last, cause = cause, cause.__cause__
        raise SettingsError(f"{where} cannot be built: {' '.join(str(last).split())}") from error
    return _placed(built, where) if isinstance(built, partial) else built


def _placed(factory: partial[Any], where: str) -> partial[Any]:
    """The factory with its signature and keywords, whose errors name the place."""

    @wraps(factory.func)
    def build(*args: Any, **options: Any) -> Any:
        with place(where):
            return factory.func(*args, **options)

    return partial(build, *factory.args, **factory.keywords)


def build_all(group: Mapping[str, Any] | None, where: str) -> list[Callback]:
    """Build every entry of a group that is not switched off with null."""
    return [build_object(node, f"{where}.{name}") for name, node in (group or {}).items() if node]


def check_outputs(plain: Mapping[str, Any]) -> None:
    """Refuse a callback, logger or trainer that would write outside the run directory.

    Raises:
        SettingsError: naming the key.
    """
    run = Path(plain["paths"]["run"]).resolve()
    for group in ("callbacks", "logger", "trainer"):
        for key, text in _texts(plain.get(group), group):
            path, last = at_home(text), key.rpartition(".")[2]
            leads_out = (path.is_absolute() or ".." in path.parts) and last not in WORDS
            if (leads_out or last in FOLDERS) and not path.resolve().is_relative_to(run):
                raise SettingsError(f"{key} must be a folder in the run directory {run}, got {text}")


def _texts(node: Any, where: str) -> Iterator[tuple[str, str]]:
    """Every text in settings, with its dotted key."""
    if isinstance(node, str):
        yield where, node
    for key, below in node.items() if isinstance(node, dict) else ():
        yield from _texts(below, f"{where}.{key}")
    for below in node if isinstance(node, list) else ():
        yield from _texts(below, where)
