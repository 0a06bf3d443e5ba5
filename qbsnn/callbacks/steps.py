"""Fewer time steps in the first part of training."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import lightning
from lightning.pytorch.callbacks import Callback

from qbsnn import checks
from qbsnn.errors import ArgumentError
from qbsnn.training.module import Classifier


class StepSchedule(Callback):
    """Trains with another number of time steps in each part of the fit; what is measured always has all T.

    Args:
        schedule: pairs (share of training, steps); the first share is 0, shares rise, the last number is T.

    Raises:
        ArgumentError: for a bad schedule, and for a network whose input or norms are made for T steps.
    """

    def __init__(self, schedule: Sequence[Sequence[float]]) -> None:
        self.schedule = [(checks.number("schedule", share, 0, 1), checks.integer("schedule", steps, 1))
                         for share, steps in schedule]  # fmt: skip
        shares = [share for share, _ in self.schedule]
        if not shares or shares[0] != 0 or shares != sorted(set(shares)):
            raise ArgumentError(f"schedule must begin with share 0 and rise, as [[0, 1], [0.6, 2]], got {schedule}")
        self._whole = self.schedule[-1][1]

    def on_fit_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Look at the network."""
        assert isinstance(pl_module, Classifier)
        network = pl_module.network
        if self._whole != network.T:
            raise ArgumentError(f"schedule must end with T = {network.T}, got {self._whole}")
        if network.encoder.coding != "direct":
            raise ArgumentError(f"schedule needs encoding direct, got {network.encoder.coding}: its input has T steps")
        if any(part.temporal is not None for _, stage in network.named_stages() for part in stage.parts):
            raise ArgumentError("schedule needs a norm without weights per step, got tebn")

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        """Choose the steps of this batch."""
        progress = pl_module.progress()
        pl_module.network.T = [steps for share, steps in self.schedule if share <= progress][-1]

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """All steps again, for whatever comes between two batches."""
        pl_module.network.T = self._whole
