"""``metrics.csv``: one row per epoch, kept in every checkpoint, so that rows and weights always belong together."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any

import lightning
from lightning.pytorch.callbacks import Callback
from torch import Tensor

from qbsnn.results.files import CURVE_FILE, write_atomically


class Curves(Callback):
    """Writes the metrics of every epoch, and puts the rows of a checkpoint back when a run goes on from it.

    Args:
        folder: the run directory.
    """

    def __init__(self, folder: str | Path) -> None:
        self.path = Path(folder) / CURVE_FILE
        self.rows: list[dict[str, float]] = []
        self._before: dict[str, Tensor] = {}
        self._within: dict[str, float] = {}

    def on_fit_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Write the rows that the run begins with, in place of what later steps of a stopped process left."""
        self._write(trainer)

    def on_train_epoch_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Remember what earlier epochs logged: Lightning keeps it where an epoch logs nothing new."""
        self._before, self._within = dict(trainer.callback_metrics), {}

    def on_validation_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Note what a validation within an epoch logged, for a run that goes on behind it."""
        if not trainer.sanity_checking:
            self._within |= self._new(trainer)

    def on_train_epoch_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Add the row of the epoch."""
        row: dict[str, float] = {"epoch": trainer.current_epoch, "step": trainer.global_step - 1}
        self.rows.append(row | self._within | self._new(trainer))
        self._within = {}
        self._write(trainer)

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint keeps."""
        return {"rows": self.rows, "within": self._within}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over the rows of a checkpoint."""
        self.rows, self._within = list(state_dict["rows"]), state_dict.get("within", {})

    def _new(self, trainer: lightning.Trainer) -> dict[str, float]:
        """What this epoch has logged so far, in this process."""
        found = {name: value for name, value in trainer.callback_metrics.items() if "/" in name or name == "lr"}
        return {name: float(value) for name, value in found.items() if value is not self._before.get(name)}

    def _write(self, trainer: lightning.Trainer) -> None:
        if not trainer.is_global_zero:
            return
        names = sorted({name for row in self.rows for name in row} | {"epoch", "step"}, key=_order)
        text = io.StringIO()
        writer = csv.DictWriter(text, names, restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows(self.rows)
        write_atomically(self.path, text.getvalue().encode())


def _order(name: str) -> tuple[bool, str]:
    return name not in ("epoch", "step"), name
