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
        batches: over which the norms' running statistics are taken anew after a change of steps, as their plain mean;
            then they move by the momentum of the norm again.

    Raises:
        ArgumentError: for a bad value, and for a network whose input or norms are made for T steps.
    """

    def __init__(self, schedule: Sequence[Sequence[float]], batches: int = 50) -> None:
        if not _pairs(schedule):
            raise ArgumentError(f"schedule must list pairs [share, steps], as [[0, 1], [0.6, 2]], got {schedule!r}")
        self.schedule = [(checks.number("schedule", share, 0, 1), checks.integer("schedule", steps, 1))
                         for share, steps in schedule]  # fmt: skip
        shares = [share for share, _ in self.schedule]
        if not shares or shares[0] != 0 or shares != sorted(set(shares)):
            raise ArgumentError(f"schedule must begin with share 0 and rise, as [[0, 1], [0.6, 2]], got {schedule}")
        self._whole = self.schedule[-1][1]
        self.batches = checks.integer("batches", batches, 1)
        self._part, self._since = 0, self.batches
        self._norms: list[tuple[Any, float | None]] = []

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
        if pl_module.config.get("compile") == "model":
            raise ArgumentError("schedule changes T, but the graph of compile=model is of one T: use compile=block")
        pl_module.trained_steps = self.schedule[self._part][1]
        norms: list[Any] = [part.norm for _, stage in network.named_stages() for part in stage.parts]
        self._norms = [(norm, norm.momentum) for norm in norms if hasattr(norm, "running_mean")]

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        """Choose the steps of this batch; the k-th one after a change moves running statistics by 1/k."""
        part = sum(share <= pl_module.progress() for share, _ in self.schedule) - 1
        if part != self._part:
            self._part, self._since = part, 0
        pl_module.network.T = pl_module.trained_steps = self.schedule[part][1]
        if self._since < self.batches:
            self._since += 1
            for norm, _ in self._norms:
                norm.momentum = 1 / self._since

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """All steps and the momentum again, for whatever comes between two batches."""
        pl_module.network.T = self._whole
        for norm, momentum in self._norms:
            norm.momentum = momentum

    def state_dict(self) -> dict[str, Any]:
        """The part of the schedule, and the batches since it began."""
        return {"part": self._part, "since": self._since}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on within it."""
        self._part, self._since = state_dict["part"], state_dict["since"]


def _pairs(schedule: object) -> bool:
    return isinstance(schedule, (list, tuple)) and all(
        isinstance(pair, (list, tuple)) and len(pair) == 2 for pair in schedule
    )
