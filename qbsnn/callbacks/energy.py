"""Counts operations during the ordinary test pass and leaves energy estimates in the result."""

from __future__ import annotations

from typing import Any

import lightning
from lightning.pytorch.callbacks import Callback

from qbsnn.energy import ActivityMeter, estimate
from qbsnn.errors import DeployError, EnergyError
from qbsnn.training.module import Classifier


class EnergyEstimate(Callback):
    """Fills in ``result.energy``, see :mod:`qbsnn.energy`, when a checkpoint is tested (``verify_as`` is set).

    Only sums per position are taken from each batch: no second pass over the test set. Where a layer cannot be counted
    the block holds the reason.
    """

    def __init__(self) -> None:
        self._meter: ActivityMeter | None = None

    def on_test_epoch_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Listen (later than on_test_start, where other callbacks copy and run the network)."""
        assert isinstance(pl_module, Classifier)
        if pl_module.verify_as is None:
            return
        try:
            self._meter = ActivityMeter(pl_module.network)
            self._meter.attach()
        except DeployError as error:
            pl_module.result.energy = {"checkpoint": pl_module.verify_as, "skipped": str(error)}

    def on_test_end(self, trainer: Any, pl_module: Any) -> None:
        """Stop listening, count, estimate."""
        if self._meter is None:
            return
        self._meter.detach()
        try:
            pl_module.result.energy = estimate(self._meter, pl_module.verify_as)
        except EnergyError as error:
            pl_module.result.energy = {"checkpoint": pl_module.verify_as, "skipped": str(error)}
        self._meter = None
