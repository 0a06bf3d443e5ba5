"""The story of a run: fit -> last and best weights -> absorb -> quantise (-> tune) -> verify -> test, energy, page."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from omegaconf import DictConfig

from qbsnn.checks import named
from qbsnn.data import trained_on
from qbsnn.deploy.convert.quantized import Quantized
from qbsnn.energy.budget import missed
from qbsnn.errors import SettingsError
from qbsnn.functional.exact import full_float32
from qbsnn.models.execution import uncompiled
from qbsnn.models.network import SpikingNetwork
from qbsnn.models.weights import load_network, load_weights
from qbsnn.results.files import from_here
from qbsnn.results.fingerprint import fingerprint
from qbsnn.results.schema import Metrics, Result, Timing
from qbsnn.training import checkpoints, fine_tuning
from qbsnn.training.building import build_all
from qbsnn.training.deployment import Listener, Tuned, convert, frozen, prove, tuned_grid
from qbsnn.training.devices import processes
from qbsnn.training.devices.signals import SIGNALS
from qbsnn.training.record import Record, claim, continued, held, recorded
from qbsnn.training.resume import out_of_time, unfinished
from qbsnn.training.settings import deploy_settings, identify, validate
from qbsnn.training.setup import Parts, build, build_trainer, check_share_of_tests, of_training, quieten
from qbsnn.training.teacher import Teacher

log = logging.getLogger(__name__)

Tune = Callable[[SpikingNetwork, Quantized], "Tuned | None"]


@dataclass(frozen=True)
class Fitted:
    """What training left: fields of the result, and the metrics of the last and of the best epoch."""

    timing: Timing
    execution: str
    checkpoints: dict[str, str]
    metrics: Metrics


def train(cfg: DictConfig, callbacks: Sequence[Callback] = (), again: bool = True) -> Result | None:
    """Run composed settings; everything is written into ``paths.run``.

    A run directory with checkpoints of the same experiment is gone on with (:mod:`qbsnn.training.resume`). With several
    devices one process per device is started and trains; the first of them goes on alone after training.

    Args:
        cfg: what Hydra composed.
        callbacks: more than the settings name, for a run in this process.
        again: whether a run that is finished is gone on with, or raises BusyError, since another process finished it.

    Returns:
        The result; ``None`` in a process that was started from outside and is not the first.

    Raises:
        SettingsError: before anything is written.
        QBSNNError: after a ``result.json`` of status ``failed`` was written.
    """
    settings = validate(cfg)
    quieten()
    count = processes.to_start(settings)
    return run_here(settings, callbacks, again) if count == 1 else processes.start(settings, count, again)


def run_here(settings: dict[str, Any], callbacks: Sequence[Callback] = (), again: bool = True) -> Result | None:
    """:func:`train` for validated settings, in this process or as one of several that run it."""
    teacher = Teacher.asked(settings)
    parts = build(settings, callbacks)
    parts.module.teacher = teacher
    identity = identify(parts.settings)
    with SIGNALS.listening(), _recorded(parts, again, identity=identity, cell=fingerprint(identity)) as record:
        fitted = fit(parts)
        record.keep(**vars(fitted))
        if why := shortfall(parts, fitted):
            record.keep(status="incomplete", error=why)
        if parts.trainer.world_size > 1:
            first = parts.trainer.is_global_zero
            processes.leave_group()
            if not first:
                return None
            parts = alone(parts)
        if settings.get("test", True):
            measure_last_and_best(parts, fitted, record)
            _say_missed(record.result)
    return record.result


def evaluate(checkpoint: Path, cfg: DictConfig, contents: dict[str, Any]) -> Result:
    """Test one checkpoint, all verification included.

    Args:
        checkpoint: its file.
        cfg: the configuration that it carries.
        contents: of the file.
    """
    settings = validate(cfg)
    parts = build({**settings, "trainer": processes.one_process(settings["trainer"])})
    trained_on.check(contents, checkpoint, parts.data)
    with SIGNALS.listening(), _recorded(parts, checkpoints={"best": str(checkpoint)}) as record:
        load_weights(parts.module, contents, checkpoint)
        tested, blocks = measure(parts, str(checkpoint), partial(_stored, parts, checkpoint))
        record.keep(metrics=Metrics(best=tested), **blocks)
        _say_missed(record.result)
    return record.result


def fit(parts: Parts) -> Fitted:
    """Train, going on from the newest checkpoint in the run directory if there is one."""
    settings, trainer, result = parts.settings, parts.trainer, parts.result
    facts = f"{result.params:,} parameters, T = {settings['T']}, {result.precision}"
    log.info("%s: %s, on %s", settings["name"], facts, result.host.device)
    log.info("folder: %s", from_here(parts.folder.resolve()))
    checkpoint = unfinished(settings, trainer.is_global_zero)
    if checkpoint is not None:
        log.info("going on from %s", checkpoint)
    elif settings.get("init_from"):
        first = Path(settings["init_from"])
        with named("init_from"):
            load_network(parts.module.network, checkpoints.load(first), first, what="this network")
    check_share_of_tests(parts)
    started = time.perf_counter()
    with _plain_words():
        trainer.fit(parts.module, datamodule=parts.data, ckpt_path=checkpoint)
    if checkpoint is not None and parts.resumption.idle:
        # The average of weights takes their place at the end of training, which an earlier process saw.
        load_weights(parts.module, checkpoints.load(checkpoint), checkpoint)
        log.info("all epochs had been trained before; the network is tested again")
    seconds = parts.resumption.seconds + time.perf_counter() - started
    progress: Any = trainer.fit_loop
    in_batch = min(parts.data.batch_size, parts.data.split_sizes()["train"])
    images = progress.epoch_loop.batch_progress.total.ready * in_batch
    epochs = progress.epoch_progress.current.processed
    metrics = Metrics(last=_numbers(next(reversed(parts.curves.rows), {}), ("train/", "val/")))
    paths: dict[str, str] = {}
    saver = trainer.checkpoint_callback
    if isinstance(saver, ModelCheckpoint) and saver.best_model_path:
        # Relative to the run directory, so that it can be moved. Lightning has followed the links in its paths.
        files, folder = {"last": saver.last_model_path, "best": saver.best_model_path}, os.path.realpath(parts.folder)
        paths = {name: os.path.relpath(os.path.realpath(path), folder) for name, path in files.items() if path}
        if saver.best_model_score is not None and saver.monitor:
            metrics = replace(metrics, best={saver.monitor: float(saver.best_model_score)})
    return Fitted(Timing(seconds, 0.0, epochs, images / seconds), str(parts.execution), paths, metrics)


def shortfall(parts: Parts, fitted: Fitted) -> str | None:
    """Why training is less than what was asked for; ``None`` where it is not."""
    trainer = parts.trainer
    late = out_of_time(trainer)
    enough = trainer.should_stop and not late  # early stopping
    enough |= 0 < trainer.max_steps <= trainer.global_step
    if not trainer.global_step:
        return "no step was trained"
    if fitted.timing.epochs < (trainer.max_epochs or 0) and not enough:
        return f"{fitted.timing.epochs} of {trainer.max_epochs} epochs were trained" + (
            f": trainer.max_time = {parts.settings['trainer']['max_time']} was over; resume=RUN with a longer one "
            "trains the rest"
            if late
            else ""
        )
    if trainer.checkpoint_callback is not None and not fitted.checkpoints:
        return "no epoch was validated, so no weights could be selected"
    return None


def alone(parts: Parts) -> Parts:
    """The parts of this process alone, for all that follows training."""
    settings = {**processes.one_process(parts.settings["trainer"]), "precision": parts.result.precision}
    callbacks = of_training(build_all(parts.settings.get("callbacks"), "callbacks"))
    trainer = build_trainer(settings, parts.trainer.loggers, callbacks)
    parts.data.trainer = trainer
    return replace(parts, trainer=trainer)


def measure_last_and_best(parts: Parts, fitted: Fitted, record: Record) -> None:
    """Test the weights as they are (``last``) and those of the best validation epoch; prove the latter."""
    best = fitted.checkpoints.get("best")
    path = parts.folder / (best or "checkpoints/last")
    tune = partial(_tuned, parts, path.with_name(fine_tuning.FILE))
    if best is None:  # there are no other weights
        tested, blocks = measure(parts, "last", tune)
        last = fitted.metrics.last | tested
        record.keep(metrics=Metrics(last, dict(last)), **blocks)
        return
    contents = checkpoints.load(path)
    last = fitted.metrics.last
    unchanged = holds(parts.module, contents)  # the last epoch is the best one: one test is enough
    if not unchanged:
        last = last | test(parts)
        record.keep(metrics=replace(fitted.metrics, last=last))
    load_weights(parts.module, contents, path)
    tested, blocks = measure(parts, best, tune)
    last = last | tested if unchanged else last
    record.keep(metrics=Metrics(last, {**fitted.metrics.best, "epoch": contents["epoch"], **tested}), **blocks)


def holds(module: torch.nn.Module, contents: dict[str, Any]) -> bool:
    """Whether a module has the weights of a checkpoint; what is no tensor, such as the state of a budget, is none."""
    state, kept = ({key: value for key, value in one.items() if isinstance(value, torch.Tensor)}
                   for one in (module.state_dict(), contents["state_dict"]))  # fmt: skip
    return state.keys() == kept.keys() and all(torch.equal(value.cpu(), kept[key]) for key, value in state.items())


@full_float32()
def measure(parts: Parts, name: str, tune: Tune) -> tuple[dict[str, float], dict[str, Any]]:
    """Absorb, quantise, verify and test the weights that the module holds.

    Args:
        parts: of the run.
        name: of the checkpoint that the weights come from.
        tune: gives what training on the grid gained.

    Returns:
        The test metrics, and blocks of the result by name.
    """
    blocks: dict[str, Any] = {}
    parts.data.trainer = parts.trainer
    if parts.checks or parts.settings.get("deploy", {}).get("mode") == "qat":
        parts.data.prepare_data()
        parts.data.setup("test")
        network = frozen(parts.module.network, parts.trainer.strategy.root_device)
        converted = convert(network, deploy_settings(parts.settings), parts.data, tune)
        blocks |= prove(parts.checks, converted, parts.data.test_dataloader, name)
        for listener in parts.listeners:
            listener.grid = tuned_grid(converted)
    tested = test(parts, parts.listeners)
    return tested, blocks | {listener.block: listener.found(name) for listener in parts.listeners}


@full_float32()  # what is measured is the float32 network that is deployed
def test(parts: Parts, listeners: Sequence[Listener] = ()) -> dict[str, float]:
    """The test metrics of the weights that the module holds, while ``listeners`` are present."""
    uncompiled(parts.module.network)  # a graph of the whole network has no place for listeners
    callbacks: list[Callback] = parts.trainer.callbacks  # type: ignore[attr-defined]
    parts.trainer.callbacks = [*callbacks, *listeners]  # type: ignore[attr-defined]
    try:
        with _plain_words():
            (metrics,) = parts.trainer.test(parts.module, datamodule=parts.data, verbose=False)
    finally:
        parts.trainer.callbacks = callbacks  # type: ignore[attr-defined]
    return _numbers(metrics, ("test/",))


@contextmanager
def _plain_words() -> Iterator[None]:
    """Turn what Lightning refuses once it has seen the data, such as a limit below one batch, into an error of ours."""
    try:
        yield
    except (MisconfigurationException, ValueError) as error:
        if isinstance(error, ValueError) and "`val_check_interval`" not in str(error):
            raise
        raise SettingsError(f"trainer: {str(error).strip()}") from error


def _say_missed(result: Result) -> None:
    if why := missed(result):
        log.warning(why)


def _tuned(parts: Parts, path: Path, network: SpikingNetwork, quantized: Quantized) -> Tuned:
    return fine_tuning.fine_tune(network, quantized, parts.settings, parts.result.precision, parts.data, path)


def _stored(parts: Parts, checkpoint: Path, network: SpikingNetwork, quantized: Quantized) -> Tuned:
    return fine_tuning.stored(network, deploy_settings(parts.settings), checkpoint)


@contextmanager
def _recorded(parts: Parts, again: bool = True, **fields: Any) -> Iterator[Record]:
    """The record of a run, which the first of its processes writes while it holds the run directory."""
    result = replace(parts.result, **fields)
    if not parts.trainer.is_global_zero:
        yield Record(result, parts.folder)
        return
    with held(parts.folder):
        asked = {key: parts.settings.get(key, False) for key in ("overwrite", "resume")}
        result = continued(result, claim(parts.folder, result.identity, again=again, **asked))
        seconds = lambda: parts.resumption.seconds  # noqa: E731
        with recorded(result, parts.folder, parts.trainer.loggers, parts.data.describe, seconds) as record:
            yield record


def _numbers(metrics: Mapping[str, Any], prefixes: tuple[str, ...]) -> dict[str, float]:
    return {name: float(value) for name, value in sorted(metrics.items()) if name.startswith(prefixes)}
