"""What settings are built into: data module, network, LightningModule, trainer, callbacks."""

from __future__ import annotations

import logging
import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning
import torch
from lightning.pytorch.callbacks import Callback, LambdaCallback, ModelCheckpoint, Timer, WeightAveraging
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

from qbsnn.checks import place
from qbsnn.data import DataModule
from qbsnn.energy.activity import spikes
from qbsnn.energy.budget import EnergyBudget
from qbsnn.energy.spending import Synapses
from qbsnn.errors import QBSNNError, SettingsError
from qbsnn.models.execution import channels_last
from qbsnn.models.network import SpikingNetwork
from qbsnn.results.schema import Result
from qbsnn.tracking.curves import Curves
from qbsnn.tracking.monitored import check_monitors
from qbsnn.training import checkpoints
from qbsnn.training.building import build_all, build_object
from qbsnn.training.deployment import Check, Listener
from qbsnn.training.devices import precision
from qbsnn.training.devices.allocator import keep_freed_memory
from qbsnn.training.devices.auto import Execution
from qbsnn.training.devices.host import host_info
from qbsnn.training.devices.sync_norm import SyncNorm
from qbsnn.training.module import Classifier, classifier
from qbsnn.training.optim import AverageFollows, make_optimizer, parameter_groups
from qbsnn.training.record import begin
from qbsnn.training.resume import Resumption

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Parts:
    """What settings are built into.

    Attributes:
        settings: validated, with the input encoding that the data chose.
        data: the data module.
        module: network, loss and optimiser.
        trainer: Lightning's, with the callbacks of training.
        checks: post-training callbacks, which see the chosen weights.
        listeners: callbacks that are present when the chosen weights are tested.
        resumption: what a resumed run needs.
        curves: the rows of metrics.csv.
        execution: decides what is compiled and kept, where the settings do not.
        result: what is known before training.
    """

    settings: dict[str, Any]
    data: DataModule
    module: Classifier
    trainer: lightning.Trainer
    checks: Sequence[Check]
    listeners: Sequence[Listener]
    resumption: Resumption
    curves: Curves
    execution: Execution
    result: Result

    @property
    def folder(self) -> Path:
        """The run directory."""
        return Path(self.settings["paths"]["run"])


def build(settings: dict[str, Any], callbacks: Sequence[Callback] = ()) -> Parts:
    """Build data module, network, LightningModule and trainer from validated settings. Reads no data."""
    quieten()
    keep_freed_memory()
    lightning.seed_everything(settings["seed"], workers=True, verbose=False)
    # Filling every fresh tensor would slow all allocations; nothing here reads memory that it did not write.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    data: DataModule = build_object(settings["data"], "data")
    with place("model"):
        encoding = data.encoding(settings["model"].get("encoding"))
    settings = {**settings, "model": {**settings["model"], "encoding": encoding}}
    network = build_network(settings, data)
    budget = build_budget(settings, network)
    host, wanted = host_info(), settings["trainer"]
    if settings.get("channels_last"):
        channels_last(network, host.isa)
    execution = Execution(settings["compile"], settings["memory"], network, not wanted.get("sync_batchnorm"))
    chosen = precision.choose(wanted.get("precision"), wanted.get("accelerator", "auto"), host.isa)
    module = classifier(network, data.num_classes, settings, budget=budget)
    rehearse(module, settings)
    resumption, curves = Resumption(settings["paths"]["run"]), Curves(settings["paths"]["run"])
    built = build_all(settings.get("callbacks"), "callbacks")
    named = _by_name(built, settings)
    check_monitors(named, settings, budget)
    follow = [AverageFollows(*item) for item in named.items() if isinstance(item[1], WeightAveraging)]
    checks = [callback for callback in built if isinstance(callback, Check)]
    listeners = [callback for callback in built if isinstance(callback, Listener)]
    trainer = build_trainer(
        {**wanted, "precision": chosen},
        build_all(settings.get("logger"), "logger"),
        [_log_the_rest(), *of_training(built), *follow, curves, resumption, execution, *callbacks],
    )
    trainer.precision_plugin.convert_module(module)  # or float64 weights of a checkpoint would be rounded on their way
    result = begin(
        settings,
        host,
        precision=chosen,
        params=sum(parameter.numel() for parameter in network.parameters()),
        execution=str(execution),
    )
    return Parts(settings, data, module, trainer, checks, listeners, resumption, curves, execution, result)


def _by_name(built: Sequence[Any], settings: dict[str, Any]) -> dict[str, Any]:
    """The callbacks of a run by name. Raises SettingsError where an entry of the settings is none."""
    names = [name for name, node in (settings.get("callbacks") or {}).items() if node]
    named = dict(zip(names, built, strict=True))
    for name, callback in named.items():
        if not isinstance(callback, (Callback, Check, Listener)):
            raise SettingsError(f"callbacks.{name} is no callback, but a {type(callback).__name__}")
    return named


def _log_the_rest() -> Callback:
    """Logs training's metrics where an epoch ends within, before any other callback asks for them."""
    return LambdaCallback(on_train_epoch_end=lambda trainer, module: module.log_training())


def rehearse(module: Classifier, settings: dict[str, Any]) -> None:
    """Build the optimiser, walk through the schedule, compute the loss of logits that are 0; change nothing.

    Raises:
        SettingsError: one of them cannot be built or used, or a learning rate is no number of at least 0.
    """
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that the schedule moves before the optimiser, among others
        with _named("optim.optimizer"):
            optimizer = make_optimizer(module.make_optimizer, parameter_groups(module.network))
        with _named("optim.scheduler"):
            schedule, _ = module.schedule(optimizer, lambda: settings["trainer"]["max_epochs"])
            if isinstance(schedule, ReduceLROnPlateau) or not isinstance(schedule, LRScheduler | None):
                raise ValueError("a schedule depends on the epoch alone")
            for epoch in range(settings["trainer"]["max_epochs"]):
                _check_rates(optimizer, epoch)
                if schedule is not None:
                    schedule.step()
        with _named("optim.loss"):
            loss = module.loss(torch.zeros(settings["T"], 2, module.num_classes), torch.zeros(2, dtype=torch.int64))
            if loss.dim() or not bool(torch.isfinite(loss)):
                raise ValueError(f"the loss of logits that are 0 must be a finite scalar, got {loss}")


def _check_rates(optimizer: torch.optim.Optimizer, epoch: int) -> None:
    for group in optimizer.param_groups:
        rate = float(group["lr"])
        if not math.isfinite(rate) or rate < 0:
            raise ValueError(f"the learning rate of epoch {epoch} must be a number of at least 0, got {rate:g}")


@contextmanager
def _named(where: str) -> Iterator[None]:
    """Turn whatever a part of torch raises into an error that names the settings."""
    try:
        yield
    except QBSNNError:
        raise
    except Exception as error:
        raise SettingsError(f"{where} cannot be used: {' '.join(str(error).split())}") from error


def of_training(built: Sequence[Any]) -> list[Callback]:
    """The callbacks that belong into a trainer."""
    return [callback for callback in built if not isinstance(callback, (Check, Listener))]


def build_network(settings: dict[str, Any], data: DataModule) -> SpikingNetwork:
    """The network of validated settings for a data module's samples."""
    single = settings["model"].get("neurons") or {}
    network: SpikingNetwork = build_object(
        {**settings["model"], "neurons": None},
        "model",
        neuron=build_object(settings["neuron"], "neuron"),
        neurons={stage: build_object(node, f"model.neurons.{stage}") for stage, node in single.items()},
        in_shape=data.in_shape,
        num_classes=data.num_classes,
        mean=data.mean,
        std=data.std,
    )
    return network


def network_of(settings: dict[str, Any]) -> tuple[SpikingNetwork, DataModule]:
    """The network of validated settings with fresh weights, and the data module of its samples; reads no data."""
    data: DataModule = build_object(settings["data"], "data")
    model = settings["model"]
    return build_network({**settings, "model": {**model, "encoding": data.encoding(model.get("encoding"))}}, data), data


def build_budget(settings: dict[str, Any], network: SpikingNetwork) -> EnergyBudget | None:
    """The budget of energy of validated settings; none for a network without spikes, which costs what it costs."""
    if not settings.get("budget", {}).get("_target_"):  # budget=none, whatever else an experiment says of it
        return None
    budget: EnergyBudget = build_object(settings["budget"], "budget")
    if not any(spikes(neuron) for *_, neuron in network.spiking_stages()):
        log.info("no budget of energy: the network has no spikes to save")
        return None
    if settings["compile"] == "model":  # one graph that tells of its spikes is more than torch's compiler can make
        raise SettingsError("compile=model cannot be used with a budget of energy: use compile=block")
    with place("budget"):
        budget.check_layers(Synapses(network).senders())
    return budget


def build_trainer(settings: Mapping[str, Any], loggers: list[Any], callbacks: Sequence[Callback]) -> lightning.Trainer:
    """A trainer with these trainer settings; ``sync_batchnorm`` becomes our own plugin.

    ``max_time`` ends training behind a whole epoch, which is validated, saved, and gone on with as any other.
    """
    longest, timers = settings.get("max_time"), list[Callback]()
    if longest is not None:
        with _named("trainer.max_time"):
            timers.append(Timer(longest, interval="epoch"))
    norms = [SyncNorm()] if settings.get("sync_batchnorm") else []
    saves = any(isinstance(callback, ModelCheckpoint) for callback in callbacks)
    trainer: lightning.Trainer = build_object(
        # Lightning would add a ModelCheckpoint of its own.
        {
            **settings,
            "max_time": None,
            "sync_batchnorm": False,
            "enable_checkpointing": settings.get("enable_checkpointing") or saves,
        },
        "trainer",
        callbacks=[*callbacks, *timers],
        logger=loggers or False,
        plugins=[checkpoints.AtomicCheckpointIO(), *norms],
        use_distributed_sampler=False,  # the data module's loaders share out the batches
    )
    return trainer


def check_share_of_tests(parts: Parts) -> None:
    """Refuse before training, not after it, a share of the test batches that is less than one batch.

    Raises:
        SettingsError: naming the least share that is one batch.
    """
    share = parts.trainer.limit_test_batches
    if not parts.settings.get("test", True) or not isinstance(share, float) or not 0 < share < 1:
        return
    parts.data.prepare_data()
    parts.data.setup("test")
    count = len(parts.data.test_dataloader())
    if int(share * count) < 1:
        raise SettingsError(
            f"trainer.limit_test_batches={share} is less than one of {count} batches: give a number of batches, or a "
            f"share of at least {1 / count:.3g}"
        )


def quieten() -> None:
    """Keep what Lightning says of itself off the screen; its warnings about a run stay."""
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    known = [
        r".*isinstance\(treespec, LeafSpec\)",  # Lightning 2.6 with torch 2.13
        "The number of training batches .* is smaller than the logging interval",  # curves are logged per epoch
        "The 'train_dataloader' does not have many workers",  # the data is in memory
        "The 'val_dataloader' does not have many workers",
        "The 'test_dataloader' does not have many workers",
        "You're resuming from a checkpoint that ended before the epoch ended",  # the sampler begins behind its batches
        "Checkpoint directory .* exists and is not empty",  # of a run that goes on
    ]
    for message in known:
        warnings.filterwarnings("ignore", message=message)
