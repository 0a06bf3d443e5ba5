"""One run: from validated settings to ``result.json``."""

from __future__ import annotations

import logging
import os
import shlex
import signal
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import lightning
import torch
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger, Logger
from lightning.pytorch.utilities.exceptions import SIGTERMException
from omegaconf import DictConfig

from qbsnn.checks import place
from qbsnn.data import DataModule
from qbsnn.errors import SettingsError
from qbsnn.models.execution import prepare
from qbsnn.models.network import SpikingNetwork
from qbsnn.report.run.page import build as build_report
from qbsnn.results.fingerprint import fingerprint
from qbsnn.results.schema import Result
from qbsnn.tracking import runs as tracking
from qbsnn.tracking.loggers import close_loggers
from qbsnn.training import checkpoints as checkpoint_io
from qbsnn.training import fine_tuning as finetune
from qbsnn.training.autocompile import AutoCompile
from qbsnn.training.building import build_all, build_object
from qbsnn.training.devices import precision, processes
from qbsnn.training.devices.allocator import keep_freed_memory
from qbsnn.training.devices.host import git_state, host_info
from qbsnn.training.devices.sync_norm import SyncNorm
from qbsnn.training.module import Classifier
from qbsnn.training.proof import require_proof
from qbsnn.training.quiet import quieten
from qbsnn.training.resume import Resumption, unfinished
from qbsnn.training.settings import validate

log = logging.getLogger(__name__)


@dataclass
class Parts:
    """What a configuration is built into."""

    data: DataModule
    module: Classifier
    trainer: lightning.Trainer
    result: Result
    resumption: Resumption


def train(cfg: DictConfig, callbacks: Sequence[Callback] = ()) -> Result | None:
    """Fit, test the last and the best weights, verify, write ``result.json`` and ``report.html`` into ``paths.run``.

    A run directory with checkpoints of the same experiment is gone on with (:mod:`qbsnn.training.resume`).
    With several devices one process per device is started and trains; the first of them goes on alone after training.
    ``None`` in a process that was started from outside and is not the first. callbacks: more than the settings name,
    for a run in this process.

    Raises SettingsError before anything is written; other errors after a ``result.json`` of status ``failed`` was.
    """
    plain = validate(cfg)
    quieten()
    count = processes.to_start(plain)
    return run_here(plain, callbacks) if count == 1 else processes.start(plain, count)


def run_here(plain: dict[str, Any], callbacks: Sequence[Callback] = ()) -> Result | None:
    """:func:`train` for validated settings, in this process or as one of several that run it."""
    parts = build(plain)
    parts.result.cell = fingerprint(plain)
    parts.trainer.callbacks += callbacks  # type: ignore[attr-defined]
    with _recorded(parts, plain):
        host = parts.result.host
        where = host.gpu or f"{host.cpu}, {host.cores} cores"
        facts = f"{parts.result.params:,} parameters, T = {plain['T']}, {parts.result.precision}"
        log.info("%s: %s, on %s", plain["name"], facts, where)
        checkpoint = unfinished(plain, parts.trainer.is_global_zero)
        if checkpoint is not None:
            log.info("going on from %s", checkpoint)
        started = time.perf_counter()
        parts.trainer.fit(parts.module, datamodule=parts.data, ckpt_path=checkpoint)
        _finish_fit(parts, parts.resumption.seconds + time.perf_counter() - started)
        if parts.trainer.world_size > 1:
            first = parts.trainer.is_global_zero
            processes.leave_group()
            if not first:
                return None
            _go_on_alone(parts, plain)
        if plain.get("test", True):
            _test_last_and_best(parts)
    return parts.result


def evaluate(checkpoint: Path, cfg: DictConfig, contents: dict[str, Any]) -> Result:
    """Test one checkpoint with the configuration it carries (``contents`` as loaded), all verification included."""
    plain = validate(cfg)
    plain["trainer"] = processes.one_process(plain["trainer"])
    parts = build(plain)
    with _recorded(parts, plain):
        parts.result.checkpoints = {"best": str(checkpoint)}
        load_weights(parts.module, contents, checkpoint)
        parts.module.tuned = finetune.stored(parts.module, checkpoint)
        parts.result.metrics.best = _test(parts, str(checkpoint))
    return parts.result


def build(plain: dict[str, Any]) -> Parts:
    """Build data module, network, LightningModule and trainer from validated settings. Reads no data."""
    quieten()
    keep_freed_memory()
    lightning.seed_everything(plain["seed"], workers=True, verbose=False)
    # Filling every fresh tensor would slow all allocations; nothing here reads memory that it did not write.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    data: DataModule = build_object(plain["data"], "data")
    with place("model"):
        plain["model"]["encoding"] = data.encoding(plain["model"].get("encoding"))
    single = plain["model"].get("neurons") or {}
    network: SpikingNetwork = build_object(
        {**plain["model"], "neurons": None},
        "model",
        neuron=build_object(plain["neuron"], "neuron"),
        neurons={stage: build_object(node, f"model.neurons.{stage}") for stage, node in single.items()},
        in_shape=data.in_shape,
        num_classes=data.num_classes,
        mean=data.mean,
        std=data.std,
    )
    compile, memory = plain["compile"], plain["memory"]
    prepare(network, "none" if compile == "auto" else compile, memory)
    (commit, dirty), host = git_state(Path(__file__).parent), host_info()
    wanted, accelerator = plain["trainer"].get("precision"), plain["trainer"].get("accelerator", "auto")
    result = Result(
        command=shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]),
        config=plain,
        seed=plain["seed"],
        host=host,
        precision=precision.choose(wanted, accelerator, host.isa),
        git_commit=commit,
        git_dirty=dirty,
        started=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        params=sum(p.numel() for p in network.parameters()),
        execution=f"compile={compile}, memory={memory}",
    )
    module = Classifier(
        network,
        data.num_classes,
        loss=build_object(plain["optim"]["loss"], "optim.loss"),
        optimizer=build_object(plain["optim"]["optimizer"], "optim.optimizer"),
        scheduler=build_object(plain["optim"]["scheduler"], "optim.scheduler") if plain["optim"]["scheduler"] else None,
        config=plain,
        result=result,
    )
    resumption = Resumption(plain["paths"]["run"])
    auto = [AutoCompile(memory)] if compile == "auto" else []
    settings = {**plain["trainer"], "precision": result.precision}
    trainer = build_trainer(plain, settings, build_all(plain.get("logger"), "logger"), resumption, *auto)
    tracking.open_loggers(_online(trainer), plain)
    return Parts(data, module, trainer, result, resumption)


def build_trainer(
    plain: dict[str, Any], settings: Mapping[str, Any], loggers: list[Any], *callbacks: Callback
) -> lightning.Trainer:
    """A trainer of the run ``plain`` with these settings; ``sync_batchnorm`` becomes our own plugin."""
    norms = [SyncNorm()] if settings.get("sync_batchnorm") else []
    trainer: lightning.Trainer = build_object(
        {**settings, "sync_batchnorm": False},
        "trainer",
        callbacks=[*build_all(plain.get("callbacks"), "callbacks"), *callbacks],
        logger=loggers or False,
        plugins=[checkpoint_io.AtomicCheckpointIO(), *norms],
        use_distributed_sampler=False,  # the data module's loaders share out the batches
    )
    return trainer


def load_weights(module: Classifier, contents: dict[str, Any], path: Path) -> None:
    """Load the weights of a checkpoint's ``contents`` into the module."""
    try:
        module.load_state_dict(contents["state_dict"])
    except (KeyError, RuntimeError) as error:
        first = str(error).strip().splitlines()[0]
        raise SettingsError(f"checkpoint {path} does not fit the network of its configuration: {first}") from error


def _finish_fit(parts: Parts, seconds: float) -> None:
    """Timing, validation metrics and the paths of the two checkpoints."""
    trainer, result = parts.trainer, parts.result
    result.timing.fit_seconds = seconds
    result.timing.epochs = trainer.fit_loop.epoch_progress.current.processed  # type: ignore[attr-defined]
    images = trainer.global_step * (parts.data.batch_size or 0)
    result.timing.train_images_per_second = images / seconds
    # A fit whose last epoch was trained by an earlier process has no metrics of its own.
    result.metrics.last = _numbers({**parts.resumption.metrics, **trainer.callback_metrics}, ("train/", "val/"))
    saver = trainer.checkpoint_callback
    if isinstance(saver, ModelCheckpoint) and saver.best_model_path:
        run = Path(result.config["paths"]["run"])
        paths = {"last": saver.last_model_path, "best": saver.best_model_path}
        # Relative to the run directory, so that it can be moved.
        result.checkpoints = {name: os.path.relpath(path, run) for name, path in paths.items()}
        if saver.best_model_score is not None and saver.monitor:
            result.metrics.best[saver.monitor] = float(saver.best_model_score)


def _go_on_alone(parts: Parts, plain: dict[str, Any]) -> None:
    """A trainer of this process alone for all that follows training."""
    settings = {**processes.one_process(plain["trainer"]), "precision": parts.result.precision}
    parts.trainer = build_trainer(plain, settings, parts.trainer.loggers)
    parts.data.trainer = parts.trainer


def _test_last_and_best(parts: Parts) -> None:
    """Test the weights as they are (``last``), then those of the best validation epoch, which are verified too."""
    result = parts.result
    best = result.checkpoints.get("best")
    run = Path(result.config["paths"]["run"])
    if best is None:
        parts.module.tuned = finetune.fine_tune(parts.module, parts.data, run / "checkpoints" / finetune.FILE)
        result.metrics.last |= _test(parts, "last")
        result.metrics.best = dict(result.metrics.last)
        return
    result.metrics.last |= _test(parts, None)
    path = run / best
    contents = checkpoint_io.load(path)
    load_weights(parts.module, contents, path)
    result.metrics.best["epoch"] = contents["epoch"]
    parts.module.tuned = finetune.fine_tune(parts.module, parts.data, path.with_name(finetune.FILE))
    result.metrics.best |= _test(parts, best)


def _test(parts: Parts, verify_as: str | None) -> dict[str, float]:
    parts.module.verify_as = verify_as
    (metrics,) = parts.trainer.test(parts.module, datamodule=parts.data, verbose=False)
    return _numbers(metrics, ("test/",))


def _online(trainer: lightning.Trainer) -> list[Logger]:
    """The loggers that keep settings and final numbers; the CSV file has ``result.json`` beside it for that."""
    return [logger for logger in trainer.loggers if not isinstance(logger, CSVLogger)]


@contextmanager
def _recorded(parts: Parts, plain: dict[str, Any]) -> Iterator[None]:
    """Write ``result.json`` at the start, and with the report when the body ends, with its error; close all loggers."""
    if not parts.trainer.is_global_zero:
        yield
        return
    folder = Path(plain["paths"]["run"])
    folder.mkdir(parents=True, exist_ok=True)
    result = parts.result
    result.write(folder / "result.json")  # with status running, so that the page over all runs shows it
    started = time.perf_counter()
    failed = True
    try:
        try:
            yield
            for logger in _online(parts.trainer):
                logger.log_metrics(tracking.final_metrics(result))
            require_proof(result)
            result.status, failed = "finished", False
        except BaseException as error:
            # Lightning turns Ctrl-C into SystemExit once it has shut down.
            stopped = isinstance(error, (KeyboardInterrupt, SystemExit))
            result.status = "failed"
            result.error = "interrupted" if stopped else f"{type(error).__name__}: {error}"
            if isinstance(error, SIGTERMException):  # which would exit with 0
                raise SystemExit(128 + signal.SIGTERM) from error
            raise
    finally:
        result.timing.total_seconds = parts.resumption.seconds + time.perf_counter() - started
        result.data = parts.data.describe()
        try:
            result.write(folder / "result.json")
            if plain["report"]:
                build_report(folder)
        finally:
            tracking.log_files(_online(parts.trainer), folder, result)
            close_loggers(failed)


def _numbers(metrics: Mapping[str, Any], prefixes: tuple[str, ...]) -> dict[str, float]:
    return {name: float(value) for name, value in sorted(metrics.items()) if name.startswith(prefixes)}
