"""Counts operations during the ordinary test pass and estimates their energy."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import lightning

from qbsnn.energy.activity import ActivityMeter
from qbsnn.energy.estimate import estimate
from qbsnn.errors import DeployError, EnergyError
from qbsnn.results.energy_schema import Energy
from qbsnn.training.deployment import Listener
from qbsnn.training.module import Classifier


class EnergyEstimate(Listener):
    """Estimates the energy of the network that is tested, see :mod:`qbsnn.energy`.

    Only sums per position are taken from each batch: no second pass over the test set. Where training on the grid made
    the network that is deployed, it is that one's energy, and each batch passes through it too.
    """

    block = "energy"

    def __init__(self) -> None:
        self._meter: ActivityMeter | DeployError | None = None

    def on_test_epoch_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Listen."""
        assert isinstance(pl_module, Classifier)
        try:
            self._meter = ActivityMeter(pl_module.network if self.grid is None else self.grid)
            self._meter.attach()
        except DeployError as error:
            self._meter = error

    def on_test_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, *given: Any) -> None:
        """Show the meter what the grid network emits."""
        if self.grid is not None and isinstance(self._meter, ActivityMeter):
            self._meter.hear(self.grid.trace(self.grid.encoder(batch[0]))[1])

    def on_test_end(self, trainer: Any, pl_module: Any) -> None:
        """Stop listening."""
        if isinstance(self._meter, ActivityMeter):
            self._meter.detach()

    def found(self, name: str) -> Energy | dict[str, str]:
        """Count and estimate; where a layer cannot be counted, the reason."""
        try:
            if not isinstance(self._meter, ActivityMeter):
                raise self._meter or EnergyError("nothing was tested")
            return replace(estimate(self._meter, name), mode="ptq" if self.grid is None else "qat")
        except (DeployError, EnergyError) as error:
            return {"checkpoint": name, "skipped": str(error)}
