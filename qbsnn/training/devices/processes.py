"""A run of several processes on one machine: who starts them, how they report, and how one of them goes on alone.

Lightning's own launcher runs the command line again, which in a multirun starts the whole multirun, and gives each
process another run directory. Here the composed settings are handed to PyTorch's elastic agent, which starts one
process per device and ends all of them when one fails. Processes that srun or torchrun started are left as they are.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import signal
import sys
import tempfile
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import lightning
import torch
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from lightning.fabric.plugins.environments import LightningEnvironment
from lightning.pytorch.strategies import ParallelStrategy
from omegaconf import OmegaConf
from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs
from torch.distributed.elastic.multiprocessing.api import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError, ProcessFailure
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from qbsnn import errors
from qbsnn.checks import place
from qbsnn.data.loading import Share
from qbsnn.errors import SettingsError
from qbsnn.results.reading import read_result
from qbsnn.results.schema import Result
from qbsnn.training.building import build_object
from qbsnn.training.devices.signals import CODE

log = logging.getLogger(__name__)


def to_start(plain: dict[str, Any]) -> int:
    """How many processes this run needs and does not have yet; 1 where it runs in this one.

    Raises SettingsError for processes that cannot be had, or that would not share one run directory.
    """
    settings = plain["trainer"]
    if (settings["devices"], settings.get("num_nodes", 1), settings.get("strategy", "auto")) == (1, 1, "auto"):
        return 1
    quiet: dict[str, Any] = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    # This trainer only counts. A precision may be `auto`, which Lightning does not know.
    quiet |= {"sync_batchnorm": False, "precision": None}
    trainer: lightning.Trainer = build_object({**settings, **quiet}, "trainer")
    strategy = trainer.strategy
    world = trainer.num_devices * trainer.num_nodes  # slurm would say how many tasks there are
    if not isinstance(strategy, ParallelStrategy) or world == 1:
        return 1
    with place("data"):
        Share(0, world).of_batch(plain["data"]["batch_size"])
    if settings.get("sync_batchnorm") and plain.get("memory") == "checkpoint":
        raise SettingsError(
            "memory=checkpoint computes norms again, which trainer.sync_batchnorm=true would count twice: "
            "use memory=packed, or trainer.sync_batchnorm=false with statistics of each process's share"
        )
    environment = strategy.cluster_environment
    tasks = os.environ.get("SLURM_NTASKS")
    if isinstance(environment, LightningEnvironment) or (not _torchrun() and tasks == "1"):
        if trainer.num_nodes > 1:
            raise SettingsError(
                f"trainer.num_nodes={trainer.num_nodes} needs one process per device started by srun or torchrun on "
                "every machine; only those of one machine are started here. See docs/scale.md"
            )
        return trainer.num_devices
    if HydraConfig.initialized() and HydraConfig.get().mode == RunMode.RUN:
        given = HydraConfig.get().overrides.hydra
        if not any(override.startswith("hydra.run.dir=") for override in given):
            raise SettingsError(
                f"{world} processes were started from outside and each would make a run directory of its "
                "own: give all of them one, hydra.run.dir=outputs/runs/NAME"
            )
    return 1


def start(plain: dict[str, Any], count: int, again: bool = True) -> Result:
    """Run validated settings in ``count`` new processes; returns what the first of them left in ``result.json``.

    Raises what made the first process fail that failed: an error of :mod:`qbsnn.errors`, else RuntimeError. A run
    whose first process could not say so is marked as failed in ``result.json``, unless that is another process's.
    ``again``: see :func:`qbsnn.training.run.train`.
    """
    file = Path(plain["paths"]["run"]) / "result.json"
    with tempfile.TemporaryDirectory(prefix="qbsnn-") as folder:
        job = Path(folder) / "job.json"
        given = {"settings": plain, "argv": sys.argv, "logging": _logging(), "parent": os.getpid(), "again": again}
        job.write_text(json.dumps(given), encoding="utf-8")
        config = LaunchConfig(
            min_nodes=1,
            max_nodes=1,
            nproc_per_node=count,
            run_id=uuid.uuid4().hex,
            rdzv_backend="c10d",
            rdzv_endpoint="localhost:0",
            local_addr="localhost",
            max_restarts=0,
            logs_specs=DefaultLogsSpecs(log_dir=folder),
        )
        log.info("starting %d processes", count)
        try:
            with _imports_as_here(), _quiet_agent():
                elastic_launch(config, sys.executable)("-m", "qbsnn.training.devices.worker", str(job))
        except SignalException as stopped:
            if stopped.sigval == signal.SIGINT:
                raise KeyboardInterrupt from None
            raise SystemExit(CODE) from None
        except ChildFailedError as failed:
            if any(failure.exitcode == CODE for failure in failed.failures.values()):
                raise SystemExit(CODE) from None  # a signal to one of the processes ended all of them
            error = _cause(failed.failures)
            if not isinstance(error, errors.BusyError):
                _mark_failed(file, error)
            raise error from None
    return read_result(file)


def one_process(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Trainer settings for the first of the devices alone."""
    devices = settings["devices"]
    if isinstance(devices, str) and "," in devices:
        devices = [int(device) for device in devices.split(",") if device.strip()]
    first = devices[:1] if isinstance(devices, list) else 1
    return {**settings, "devices": first, "num_nodes": 1, "strategy": "auto", "sync_batchnorm": False}


def leave_group() -> None:
    """End the process group: what follows is the first process's own."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def _torchrun() -> bool:
    return torch.distributed.is_available() and torch.distributed.is_torchelastic_launched()


def _logging() -> dict[str, Any] | None:
    """Hydra's logging of this job, its file included; ``None`` where this process shows nothing on its console."""
    here = [handler for handler in logging.getLogger().handlers if type(handler) is logging.StreamHandler]
    if not HydraConfig.initialized() or all(handler.level > logging.WARNING for handler in here):
        return None
    found = OmegaConf.to_container(HydraConfig.get().job_logging, resolve=True)
    assert isinstance(found, dict)
    return {str(key): value for key, value in found.items()}


@contextlib.contextmanager
def _imports_as_here() -> Iterator[None]:
    """New processes find the modules that this one finds, a neuron beside the user's script among them."""
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join(path for path in sys.path if path)
    try:
        yield
    finally:
        if before is None:
            del os.environ["PYTHONPATH"]
        else:
            os.environ["PYTHONPATH"] = before


@contextlib.contextmanager
def _quiet_agent() -> Iterator[None]:
    """The agent's own account of a failure, with stack traces, is kept off the screen: the cause is raised instead."""
    agent = logging.getLogger("torch.distributed.elastic")
    level = agent.level
    agent.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        agent.setLevel(level)


def _cause(failures: Mapping[int, ProcessFailure]) -> Exception:
    """What failed first; an error of ours before what the other processes made of the loss of their peer."""
    known = [error for rank in sorted(failures) if (error := _own(failures[rank])) is not None]
    if known:
        return known[0]
    first = min(failures.values(), key=lambda failure: failure.timestamp)
    return RuntimeError(f"process {first.local_rank} of the run failed: {_message(first)}")


def _message(failure: ProcessFailure) -> str:
    """``Type: text`` of what a process raised, or what is known of one that was killed."""
    found: Any = failure.message
    return str(found["message"] if isinstance(found, dict) else found)


def _own(failure: ProcessFailure) -> Exception | None:
    name, _, message = _message(failure).partition(": ")
    kind = getattr(errors, name, None)
    return kind(message) if isinstance(kind, type) and issubclass(kind, errors.QBSNNError) else None


def _mark_failed(file: Path, error: Exception) -> None:
    """Put the cause into the result of the first process, which may know nothing but that a peer was gone."""
    if file.is_file() and (result := read_result(file)).status != "finished":  # else of a run that was to be replaced
        result.status, result.error = "failed", f"{type(error).__name__}: {error}"
        result.write(file)
