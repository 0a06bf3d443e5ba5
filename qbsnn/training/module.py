"""The LightningModule around a network."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import lightning
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from torchmetrics import MeanMetric
from torchmetrics.classification import MulticlassAccuracy

from qbsnn import __version__
from qbsnn.models.network import SpikingNetwork
from qbsnn.report.schema import Result
from qbsnn.training.optim import parameter_groups

Batch = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class Tuned:
    """Weights after extra epochs: of the grid network, and of the float network that it is compared with.

    kept: whether the grid network is better than post-training quantisation on validation images.
    """

    grid: dict[str, Tensor]
    floating: dict[str, Tensor]
    kept: bool


def hard(labels: Tensor) -> Tensor:
    """Classes int64 ``[B]``: of mixed samples, whose labels are shares ``[B, classes]``, the largest share's."""
    return labels if labels.dim() == 1 else labels.argmax(1)


class Classifier(lightning.LightningModule):
    """Trains a network on batches (inputs ``[B, ...]``, labels ``[B]``, or shares ``[B, classes]`` of mixed samples).

    network: gives logits ``[T, B, classes]``. loss: (logits, labels) -> scalar. optimizer: parameter groups ->
    optimiser. scheduler: optimiser -> schedule, stepped once per epoch, or ``None``. config: plain containers that
    describe the run; they travel in every checkpoint. result: where callbacks leave what they found.

    ``verify_as`` is the name of the checkpoint that a test run measures, set by whoever calls ``trainer.test``; the
    post-training callbacks act only when it is set. ``tuned`` is what fine-tuning on the grid left for that network
    (:mod:`qbsnn.training.finetune`).
    """

    def __init__(
        self,
        network: SpikingNetwork,
        num_classes: int,
        loss: Callable[[Tensor, Tensor], Tensor],
        optimizer: Callable[..., Optimizer],
        scheduler: Callable[[Optimizer], LRScheduler] | None,
        config: dict[str, Any],
        result: Result,
    ) -> None:
        super().__init__()
        self.network, self.loss = network, loss
        self.make_optimizer, self.make_scheduler = optimizer, scheduler
        self.config, self.result = config, result
        self.verify_as: str | None = None
        self.tuned: Tuned | None = None
        # means of their own: Lightning divides the summed losses by a number of samples that it averages as an integer
        for part in ("train", "val", "test"):
            setattr(self, f"{part}_loss", MeanMetric(nan_strategy="disable"))  # a loss that is no number stays one
        self.train_accuracy = MulticlassAccuracy(num_classes, average="micro")
        self.val_accuracy = MulticlassAccuracy(num_classes, average="micro")
        self.test_accuracy = MulticlassAccuracy(num_classes, average="micro")

    def forward(self, pixels: Tensor) -> Tensor:
        """The logits that are compared, ``[B, classes]``."""
        return self.network.decide(self.network(pixels))

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Loss of one batch."""
        found = self._step("train", batch)
        right = (found["predicted"] == hard(batch[1])).float().mean()
        live = {"batch/loss": found["loss"].detach(), "batch/acc": right}
        self.log_dict(live, on_step=True, on_epoch=False, prog_bar=True, logger=False)
        return found["loss"]

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Metrics of one validation batch."""
        self._step("val", batch)

    def test_step(self, batch: Batch, batch_idx: int) -> dict[str, Any]:
        """Metrics of one test batch; returns the predicted classes ``[B]`` for callbacks."""
        return self._step("test", batch)

    def configure_optimizers(self) -> Any:
        """Optimiser with the schedule per epoch."""
        optimizer = self.make_optimizer(parameter_groups(self.network))
        if self.make_scheduler is None:
            return optimizer
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": self.make_scheduler(optimizer), "interval": "epoch"},
        }

    def on_train_epoch_start(self) -> None:
        """Log the learning rate that this epoch uses."""
        optimizer = self.optimizers()
        self.log("lr", optimizer.param_groups[0]["lr"], on_step=False, on_epoch=True, sync_dist=True)  # type: ignore[union-attr]

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Put the resolved configuration into the checkpoint, so that evaluation needs nothing else."""
        checkpoint["qbsnn"] = {"version": __version__, "config": self.config}

    def _step(self, part: str, batch: Batch) -> dict[str, Any]:
        pixels, labels = batch
        logits = self.network(pixels)
        loss = self.loss(logits, labels)
        metric: MulticlassAccuracy = getattr(self, f"{part}_accuracy")
        decided = self.network.decide(logits.detach())
        metric(decided, hard(labels))
        mean: MeanMetric = getattr(self, f"{part}_loss")
        mean.update(loss.detach(), len(labels))
        both: dict[str, Any] = {f"{part}/loss": mean, f"{part}/acc": metric}
        self.log_dict(both, on_step=False, on_epoch=True, batch_size=len(labels), prog_bar=part != "test")
        return {"loss": loss, "predicted": decided.argmax(1), "classes": decided.shape[1]}
