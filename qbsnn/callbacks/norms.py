"""Statistics of the norms that belong to the weights which are validated."""

from __future__ import annotations

from typing import Any

import lightning
import torch
from lightning.pytorch.callbacks import Callback

from qbsnn import checks
from qbsnn.training.module import Classifier


class PreciseNorms(Callback):
    """Takes running statistics anew before each validation, as the mean over training images (arXiv 2105.07576, 3.3).

    Running statistics follow weights that change: they are those of the last steps, and in an average of weights those
    of other weights altogether. A spiking network under a falling budget feels it most, since a threshold in each of T
    steps turns a small shift of the current into other spikes. What is validated, kept and deployed then has statistics
    of its own weights. In the settings it stands behind an average of weights (``callbacks.ema``).

    Args:
        images: training images whose statistics are taken, of all processes.

    Raises:
        ArgumentError: images is no number of at least 2.
    """

    def __init__(self, images: int = 2048) -> None:
        self.images = checks.integer("images", images, 2)

    def on_validation_epoch_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Pass the images forward with the norms alone in training mode."""
        if trainer.sanity_checking or trainer.state.fn != "fit":
            return
        assert isinstance(pl_module, Classifier)
        network = pl_module.network
        norms: list[Any] = [part for part in network.modules() if getattr(part, "running_mean", None) is not None]
        kept = [(norm.momentum, norm.num_batches_tracked.clone()) for norm in norms]
        for norm in norms:
            norm.running_mean.zero_()  # by hand: a norm that several processes share has no method for it
            norm.running_var.fill_(1)
            norm.num_batches_tracked.zero_()
            norm.momentum = None  # the plain mean over batches
            norm.train()
        count = 0
        with torch.no_grad():
            for pixels, _ in trainer.datamodule.train_dataloader():  # type: ignore[attr-defined]
                network(pixels.to(pl_module.device))
                count += len(pixels) * trainer.world_size
                if count >= self.images:
                    break
        for norm, (momentum, tracked) in zip(norms, kept, strict=True):
            norm.eval()
            norm.momentum = momentum
            norm.num_batches_tracked.copy_(tracked)
            for statistic in (norm.running_mean, norm.running_var):
                statistic.copy_(trainer.strategy.reduce(statistic, reduce_op="mean"))
