"""Counts operations during the ordinary test pass and estimates their energy."""

from __future__ import annotations

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

    Only sums per position are taken from each batch: no second pass over the test set.
    """

    block = "energy"

    def __init__(self) -> None:
        self._meter: ActivityMeter | DeployError | None = None

    def on_test_epoch_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Listen."""
        assert isinstance(pl_module, Classifier)
        try:
            self._meter = ActivityMeter(pl_module.network)
            self._meter.attach()
        except DeployError as error:
            self._meter = error

    def on_test_end(self, trainer: Any, pl_module: Any) -> None:
        """Stop listening."""
        if isinstance(self._meter, ActivityMeter):
            self._meter.detach()

    def found(self, name: str) -> Energy | dict[str, str]:
        """Count and estimate; where a layer cannot be counted, the reason."""
        try:
            if not isinstance(self._meter, ActivityMeter):
                raise self._meter or EnergyError("nothing was tested")
            return estimate(self._meter, name)
        except (DeployError, EnergyError) as error:
            return {"checkpoint": name, "skipped": str(error)}
