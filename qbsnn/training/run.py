"""One run: from validated settings to ``result.json``."""

from __future__ import annotations

import logging
import os
import shlex
import signal
import sys
import time
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import lightning
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger, Logger
from lightning.pytorch.utilities.exceptions import SIGTERMException
from omegaconf import DictConfig

from qbsnn.data import DataModule
from qbsnn.errors import SettingsError, VerificationError
from qbsnn.models.network import SpikingNetwork
from qbsnn.neurons.base import compile_neurons
from qbsnn.report import build as build_report
from qbsnn.report.cells import fingerprint
from qbsnn.report.schema import Absorption, Integer, Result
from qbsnn.training import checkpoint_io, finetune
from qbsnn.training.allocator import keep_freed_memory
from qbsnn.training.host import git_state, host_info
from qbsnn.training.loggers import close_loggers
from qbsnn.training.module import Classifier
from qbsnn.training.objects import build_all, build_object
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


def train(cfg: DictConfig) -> Result:
    """Fit, test the last and the best weights, verify, write ``result.json`` and ``report.html`` into ``paths.run``.

    A run directory with checkpoints of the same experiment is gone on with (:mod:`qbsnn.training.resume`).

    Raises QBSNNError for what a user can mend: SettingsError before anything is written; DataError, CheckpointError or
    VerificationError after a ``result.json`` with status ``failed`` was written.
    """
    plain = validate(cfg)
    parts = build(plain)
    parts.result.cell = fingerprint(plain)
    with _recorded(parts, plain):
        host = parts.result.host
        where = host.gpu or f"{host.cpu}, {host.cores} cores"
        log.info("%s: %s parameters, T = %d, on %s", plain["name"], f"{parts.result.params:,}", plain["T"], where)
        checkpoint = unfinished(plain)
        if checkpoint is not None:
            log.info("going on from %s", checkpoint)
        started = time.perf_counter()
        parts.trainer.fit(parts.module, datamodule=parts.data, ckpt_path=checkpoint)
        _finish_fit(parts, parts.resumption.seconds + time.perf_counter() - started)
        _test_last_and_best(parts)
    return parts.result


def evaluate(checkpoint: Path, cfg: DictConfig, contents: dict[str, Any]) -> Result:
    """Test one checkpoint with the configuration it carries (``contents`` as loaded), all verification included."""
    plain = validate(cfg)
    parts = build(plain)
    with _recorded(parts, plain):
        parts.result.checkpoints = {"best": str(checkpoint)}
        load_weights(parts.module, contents, checkpoint)
        parts.module.tuned = finetune.stored(parts.module, checkpoint)
        parts.result.metrics.best = _test(parts, str(checkpoint))
    return parts.result


def build(plain: dict[str, Any]) -> Parts:
    """Build data module, network, LightningModule and trainer from validated settings. Reads no data."""
    _quieten()
    keep_freed_memory()
    lightning.seed_everything(plain["seed"], workers=True, verbose=False)
    # Filling every fresh tensor would slow all allocations; nothing here reads memory that it did not write.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    data: DataModule = build_object(plain["data"], "data")
    plain["model"]["encoding"] = data.encoding(plain["model"].get("encoding"))
    network: SpikingNetwork = build_object(
        plain["model"],
        "model",
        neuron=build_object(plain["neuron"], "neuron"),
        in_shape=data.in_shape,
        num_classes=data.num_classes,
        mean=data.mean,
        std=data.std,
    )
    if plain.get("compile") == "neuron":
        compile_neurons(network)
    commit, dirty = git_state(Path(__file__).parent)
    result = Result(
        command=shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]),
        config=plain,
        seed=plain["seed"],
        host=host_info(),
        git_commit=commit,
        git_dirty=dirty,
        started=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        params=sum(p.numel() for p in network.parameters()),
    )
    optim = plain["optim"]
    module = Classifier(
        network,
        data.num_classes,
        loss=build_object(optim["loss"], "optim.loss"),
        optimizer=build_object(optim["optimizer"], "optim.optimizer"),
        scheduler=build_object(optim["scheduler"], "optim.scheduler") if optim["scheduler"] else None,
        config=plain,
        result=result,
    )
    resumption = Resumption(plain["paths"]["run"])
    trainer: lightning.Trainer = build_object(
        plain["trainer"],
        "trainer",
        callbacks=[*build_all(plain.get("callbacks"), "callbacks"), resumption],
        logger=build_all(plain.get("logger"), "logger") or False,
        plugins=[checkpoint_io.AtomicCheckpointIO()],
    )
    for logger in _online(trainer):
        logger.log_hyperparams(plain)
    return Parts(data, module, trainer, result, resumption)


def load_weights(module: Classifier, contents: dict[str, Any], path: Path) -> None:
    """Load the weights of a checkpoint's ``contents`` into the module."""
    try:
        module.load_state_dict(contents["state_dict"])
    except (KeyError, RuntimeError) as error:
        first = str(error).strip().splitlines()[0]
        raise SettingsError(f"checkpoint {path} does not fit the network of its configuration: {first}") from error


def _quieten() -> None:
    """Keep what Lightning says of itself off the screen; its warnings about a run stay."""
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    known = [
        r".*isinstance\(treespec, LeafSpec\)",  # Lightning 2.6 with torch 2.13
        "The number of training batches .* is smaller than the logging interval",  # curves are logged per epoch
        "The 'train_dataloader' does not have many workers",  # the data is in memory
        "The 'val_dataloader' does not have many workers",
        "The 'test_dataloader' does not have many workers",
        "Checkpoint directory .* exists and is not empty",  # of a run that goes on
    ]
    for message in known:
        warnings.filterwarnings("ignore", message=message)


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


def _final_metrics(result: Result) -> dict[str, float]:
    """The numbers a dashboard compares runs by."""
    final = {f"final/{name}": value for name, value in result.metrics.best.items()}
    final |= {f"final/last/{name}": value for name, value in result.metrics.last.items()}
    for name in ("absorption", "integer"):
        block = getattr(result, name)
        for key in ("acc", "spike_mismatches", "membrane_mismatches", "ties"):
            if hasattr(block, key):
                final[f"final/{name}/{key}"] = float(getattr(block, key))
    return final


@contextmanager
def _recorded(parts: Parts, plain: dict[str, Any]) -> Iterator[None]:
    """Write ``result.json`` and the report when the body ends, with the error when it fails; close all loggers."""
    folder = Path(plain["paths"]["run"])
    folder.mkdir(parents=True, exist_ok=True)
    result = parts.result
    started = time.perf_counter()
    failed = True
    try:
        try:
            yield
            for logger in _online(parts.trainer):
                logger.log_metrics(_final_metrics(result))
            _require_proof(result)
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
        close_loggers(failed)
        result.write(folder / "result.json")
        if plain["report"]:
            build_report(folder)


def _require_proof(result: Result) -> None:
    """Fail a run whose engines disagree. A silent layer proves nothing, which is a warning and not a disagreement."""
    for name in ("absorption", "integer"):
        block: Absorption | Integer | dict[str, str] | None = getattr(result, name)
        if block is None or isinstance(block, dict):
            continue
        silent = [layer.name for layer in block.layers if not layer.spikes]
        if silent:
            log.warning("%s proves nothing: no spikes in %s", name, ", ".join(silent))
        elif not block.passed:
            raise VerificationError(f"{name} check failed: {_disagreement(block)}; see result.json for every layer")


def _disagreement(block: Absorption | Integer) -> str:
    facts = [f"{block.spike_mismatches} of {block.positions} spikes differ"]
    if isinstance(block, Integer):
        facts += [
            f"{block.membrane_mismatches} membranes differ",
            f"{block.logit_mismatches} logits differ",
            f"{block.onnxruntime_mismatches} values differ in onnxruntime",
            f"{block.grid_mismatches} values differ in the grid network",
            f"{block.overflows} overflows" + (f", the first: {block.first_overflow}" if block.first_overflow else ""),
            f"a flipped weight gave {block.flip_mismatches} differences",
        ]
    return ", ".join(facts)


def _numbers(metrics: Mapping[str, Any], prefixes: tuple[str, ...]) -> dict[str, float]:
    return {name: float(value) for name, value in sorted(metrics.items()) if name.startswith(prefixes)}
