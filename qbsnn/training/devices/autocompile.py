"""``compile=auto``: decides at the start of the fit, when the number of training samples is known."""

from __future__ import annotations

import logging

import lightning
from lightning.pytorch.callbacks import Callback

from qbsnn.models.execution import choose, prepare
from qbsnn.training.module import Classifier

log = logging.getLogger(__name__)


class AutoCompile(Callback):
    """Compiles the blocks of the network if that pays within this fit, and says so; ``chosen`` is what it decided.

    Args:
        memory: as :func:`qbsnn.models.execution.prepare` takes it.
    """

    def __init__(self, memory: str) -> None:
        self.memory = memory
        self.chosen = "auto"

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Decide."""
        assert isinstance(pl_module, Classifier)
        # All epochs, not those that are left: a fit that goes on after a stop must decide as one without.
        epochs = float("inf") if trainer.max_epochs in (None, -1) else trainer.max_epochs
        batch_size = getattr(trainer.datamodule, "batch_size", None) or 1  # type: ignore[attr-defined]
        batches = epochs * trainer.num_training_batches
        self.chosen, reason = choose(pl_module.network, batches, batch_size, pl_module.device)
        prepare(pl_module.network, self.chosen, self.memory)
        log.info("compile=auto chose %s: %s", self.chosen, reason)
