"""Going on with a run that was stopped, so that it ends with the numbers of one that was not.

Every epoch ends with a checkpoint, ``last.ckpt``; within an epoch there may be ``resume.ckpt``, which is newer. Besides
what Lightning puts into a checkpoint, a run needs what :class:`Resumption` adds. Steps after the newest checkpoint are
the only ones that are made again; ``steps.jsonl`` in the run directory has a line for every start of an epoch, and for
every start within one, so that this can be seen.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import time
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import lightning
import torch
from lightning.pytorch.callbacks import Callback, Timer

from qbsnn.errors import CheckpointError, SettingsError
from qbsnn.results.files import BEST, LAST, RESUME
from qbsnn.results.fingerprint import EPOCHS
from qbsnn.training import checkpoints
from qbsnn.training.module import Classifier
from qbsnn.training.settings import identify

log = logging.getLogger(__name__)

STEPS = "steps.jsonl"


class Resumption(Callback):
    """Keeps, in every checkpoint, what a resumed run needs, and puts it back; writes ``steps.jsonl``.

    Kept: the state of torch's generators in every process (data and encoding need none: they draw from seed, epoch and
    sample), the position within the epoch and the sums of its metrics, the metrics of the epoch, the seconds of
    training so far, and whether the fit was about to stop early.

    Args:
        folder: the run directory.

    Attributes:
        seconds: of earlier processes.
    """

    def __init__(self, folder: str | Path) -> None:
        self.steps = Path(folder) / STEPS
        self.seconds = 0.0
        self._began = 0.0
        self._loaded: dict[str, Any] | None = None

    @property
    def idle(self) -> bool:
        """Whether a checkpoint was loaded and no step was made after it."""
        return self._loaded is not None

    def setup(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, stage: str) -> None:
        """Have epochs count, also under ``max_steps``: Lightning would take one that has ended for one that has not."""
        trainer.fit_loop._iteration_based_training = lambda: False  # type: ignore[method-assign]

    def on_fit_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Start the clock; a fit that had decided to stop does nothing more."""
        self._began = time.perf_counter()
        if self._loaded is not None and self._loaded["stop"]:
            trainer.should_stop = True

    def on_train_epoch_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Put the random state back before the first epoch of a resumed fit draws from it; log where it begins."""
        self._restore(trainer, pl_module)
        if trainer.is_global_zero:
            for logger in trainer.loggers:
                logger.save()  # what the epochs before logged, which a kill would take
            self._log(trainer)

    def on_train_batch_start(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """The same in a fit that goes on within an epoch, whose start was in an earlier process."""
        if self._loaded is not None:
            self._restore(trainer, pl_module)
            if trainer.is_global_zero:
                self._log(trainer)

    def on_save_checkpoint(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Add what is kept."""
        assert isinstance(pl_module, Classifier)
        progress = trainer.fit_loop.epoch_loop.batch_progress
        within = not progress.is_last_batch
        random = {
            "cpu": torch.get_rng_state(),
            "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        }
        checkpoint["resumption"] = {
            "random": _of_all_processes(random),
            "seconds": self.seconds + time.perf_counter() - self._began,
            "stop": trainer.should_stop and not out_of_time(trainer),
            "batches": progress.current.ready if within else 0,
            "sums": _of_all_processes(pl_module.sums()) if within else [],
        }

    def on_load_checkpoint(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Take it back."""
        kept = checkpoint["resumption"]
        self._loaded, self.seconds = kept, kept["seconds"]
        trainer.datamodule.batches_done = kept["batches"]  # type: ignore[attr-defined]

    def _restore(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        if self._loaded is None:
            return
        assert isinstance(pl_module, Classifier)
        kept, self._loaded = self._loaded, None
        rank = trainer.global_rank
        random = kept["random"][rank]
        torch.set_rng_state(random["cpu"])
        if torch.cuda.is_available() and random["cuda"]:
            torch.cuda.set_rng_state_all(random["cuda"])
        if kept["sums"]:
            pl_module.take_sums(kept["sums"][rank])

    def _log(self, trainer: lightning.Trainer) -> None:
        """One line, appended in one write."""
        now = datetime.now(timezone.utc).isoformat(timespec="milliseconds")
        line = {"epoch": trainer.current_epoch, "step": trainer.global_step, "pid": os.getpid(), "time": now}
        self.steps.parent.mkdir(parents=True, exist_ok=True)
        with self.steps.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")


def out_of_time(trainer: lightning.Trainer) -> bool:
    """Whether a fit has trained for ``trainer.max_time``, the time of earlier processes included."""
    callbacks: list[Callback] = trainer.callbacks  # type: ignore[attr-defined]
    remaining = [callback.time_remaining() for callback in callbacks if isinstance(callback, Timer)]
    return any(seconds is not None and seconds <= 0 for seconds in remaining)


def unfinished(settings: dict[str, Any], first: bool = True) -> Path | None:
    """The checkpoint that a run with these settings goes on from: the newest whole one in its run directory, if any.

    A kill between the two files of an epoch's end leaves an older ``last.ckpt`` beside a newer ``best.ckpt``, whose
    weights are those of the last epoch too: it takes the place of the older one. A run whose best epoch is lost starts
    over, as it cannot end with it.

    Args:
        settings: of the run, validated.
        first: whether this is the first of several processes, which alone changes files.

    Raises:
        CheckpointError: with ``resume`` the best epoch is absent or damaged.
    """
    saver = (settings.get("callbacks") or {}).get("checkpoint")
    if not saver or settings.get("overwrite"):  # which removes what is there, while other processes would still see it
        return None
    folder, grows = Path(saver["dirpath"]), settings.get("resume", False)
    identity = _without_epochs(settings) if grows else identify(settings)
    found: dict[Path, dict[str, Any]] = {}
    for name in (LAST, BEST, RESUME):
        if not (folder / name).exists():
            continue
        try:
            contents = checkpoints.load(folder / name)
            there = (_without_epochs if grows else identify)(
                {**checkpoints.stored(contents, folder / name), "trust": settings.get("trust")}
            )
        except (CheckpointError, SettingsError) as error:
            log.warning("%s", error)
            continue
        if "resumption" in contents and there == identity:
            found[name] = {"step": contents["global_step"], "best": _best_of(contents)}
    if not found:
        return None
    name = max(found, key=lambda name: (found[name]["step"], name == LAST, name == BEST))
    if found[name]["best"] and BEST not in found:
        lost = f"{folder / BEST}, the best epoch so far, is absent or damaged"
        if grows:
            raise CheckpointError(f"{lost}: put it back, or start the run over, by its command with overwrite=true")
        log.warning("%s: the run starts over", lost)
        return None
    if name == BEST:
        if first:
            part = folder / f".{LAST}.part"
            shutil.copyfile(folder / BEST, part)
            part.replace(folder / LAST)
        return folder / BEST
    return folder / name


def _without_epochs(settings: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in identify(settings).items() if key != EPOCHS}


def _best_of(contents: dict[str, Any]) -> str:
    """The path of the best checkpoint as a checkpoint knows it; empty where no epoch had ended yet."""
    states = contents.get("callbacks", {}).values()
    return next((str(state["best_model_path"]) for state in states if "best_model_path" in state), "")


def _of_all_processes(value: Any) -> list[Any]:
    """The value of every process, in the order of their ranks."""
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return [value]
    values: list[Any] = [None] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(values, value)
    return values
