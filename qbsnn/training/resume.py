"""Going on with a run that was stopped, so that it ends with the numbers of one that was not.

Every epoch ends with a checkpoint, ``last.ckpt``. Besides what Lightning puts into it, a run needs what
:class:`Resumption` adds. Steps after the last checkpoint are the only ones that are made again; ``steps.jsonl`` in the
run directory has a line for every start of an epoch, so that this can be seen.
"""

from __future__ import annotations

import csv
import io
import json
import logging
import os
import time
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import lightning
import torch
from lightning.pytorch.callbacks import Callback

from qbsnn.errors import CheckpointError
from qbsnn.results.files import write_atomically
from qbsnn.training import checkpoints
from qbsnn.training.module import Classifier
from qbsnn.training.settings import identify

log = logging.getLogger(__name__)

STEPS = "steps.jsonl"


class Resumption(Callback):
    """Keeps, in every checkpoint, what a resumed run needs, and puts it back; writes ``steps.jsonl`` into ``folder``.

    Kept: the state of torch's generators (the data needs none: it draws from seed, epoch and sample), how often the
    rate encoding has drawn, the metrics of the epoch, the seconds of training so far, and whether the fit was about to
    stop early. ``metrics`` are those of the newest epoch, ``seconds`` those of earlier processes.
    """

    def __init__(self, folder: str | Path) -> None:
        self.steps = Path(folder) / STEPS
        self.metrics: dict[str, float] = {}
        self.seconds = 0.0
        self._began = 0.0
        self._loaded: dict[str, Any] | None = None

    def on_fit_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Start the clock; a fit that had decided to stop does nothing more."""
        self._began = time.perf_counter()
        if self._loaded is not None and self._loaded["stop"]:
            trainer.should_stop = True

    def on_train_epoch_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Put the random state back before the first epoch of a resumed fit draws from it; log where it begins."""
        if self._loaded is not None:
            torch.set_rng_state(self._loaded["cpu"])
            if torch.cuda.is_available() and self._loaded["cuda"]:
                torch.cuda.set_rng_state_all(self._loaded["cuda"])
            self._loaded = None
        if trainer.is_global_zero:
            for logger in trainer.loggers:
                logger.save()  # the rows of the epochs before, which a kill would take
            self._log(trainer)

    def on_save_checkpoint(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Add what is kept."""
        assert isinstance(pl_module, Classifier)
        self.metrics = {name: float(value) for name, value in trainer.callback_metrics.items()}
        checkpoint["resumption"] = {
            "cpu": torch.get_rng_state(),
            "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
            "draws": pl_module.network.encoder.draws,
            "metrics": self.metrics,
            "seconds": self.seconds + time.perf_counter() - self._began,
            "stop": trainer.should_stop,
        }

    def on_load_checkpoint(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Take it back."""
        assert isinstance(pl_module, Classifier)
        kept = checkpoint["resumption"]
        pl_module.network.encoder.draws = kept["draws"]
        self._loaded, self.metrics, self.seconds = kept, kept["metrics"], kept["seconds"]

    def _log(self, trainer: lightning.Trainer) -> None:
        """One line, appended in one write."""
        now = datetime.now(timezone.utc).isoformat(timespec="milliseconds")
        line = {"epoch": trainer.current_epoch, "step": trainer.global_step, "pid": os.getpid(), "time": now}
        self.steps.parent.mkdir(parents=True, exist_ok=True)
        with self.steps.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")


def unfinished(plain: dict[str, Any], first: bool = True) -> Path | None:
    """The checkpoint that a run with these settings goes on from: the newest whole one in its run directory, if any.

    ``last.ckpt`` is that, unless it is damaged; ``best.ckpt`` then, which is as complete. Rows that the curves have
    from later steps are removed, since they will be written again; ``first`` of several processes does that.
    """
    saver = (plain.get("callbacks") or {}).get("checkpoint")
    if not saver:
        return None
    found: dict[str, int] = {}
    for name in ("last.ckpt", "best.ckpt"):
        path = Path(saver["dirpath"]) / name
        if not path.exists():
            continue
        try:
            contents = checkpoints.load(path)
        except CheckpointError as error:
            log.warning("%s", error)
            continue
        stored = contents.get("qbsnn", {}).get("config", {})
        if "resumption" in contents and identify(stored) == identify(plain):
            found[name] = contents["global_step"]
    if "best.ckpt" not in found:  # without it the fit could not end with its best epoch
        return None
    name = max(found, key=lambda name: (found[name], name == "last.ckpt"))
    if first:
        _forget_rows(Path(plain["paths"]["run"]) / "metrics.csv", found[name])
    return Path(saver["dirpath"]) / name


def _forget_rows(path: Path, step: int) -> None:
    """Remove the rows of ``metrics.csv`` that belong to ``step`` (counted from 0) or later."""
    if not path.is_file():
        return
    text = path.read_text(encoding="utf-8")
    rows = list(csv.reader(io.StringIO(text[: text.rfind("\n") + 1])))
    if not rows or "step" not in rows[0]:
        return
    column = rows[0].index("step")
    kept = [rows[0], *(row for row in rows[1:] if row[column] and int(row[column]) < step)]
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="\n").writerows(kept)
    write_atomically(path, buffer.getvalue().encode())
