"""The LightningModule around a network."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from typing import Any

import lightning
import torch
from lightning.pytorch.strategies import DDPStrategy, SingleDeviceStrategy
from torch import Tensor
from torch.nn.utils import clip_grads_with_norm_, get_total_norm
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from qbsnn import __version__
from qbsnn.data import trained_on
from qbsnn.energy.budget import EnergyBudget
from qbsnn.energy.spending import Spending, Synapses
from qbsnn.functional.scan import HALF
from qbsnn.models.network import SpikingNetwork
from qbsnn.tracking.tally import Tally
from qbsnn.tracking.wandb_logger import OfflineCapableWandbLogger
from qbsnn.training.building import build_object
from qbsnn.training.checkpoints import VERSION
from qbsnn.training.optim import fit_steps, make_optimizer, parameter_groups
from qbsnn.training.settings import for_files

log = logging.getLogger(__name__)
Batch = tuple[Tensor, Tensor]


class Classifier(lightning.LightningModule):
    """Trains a network on batches (inputs ``[B, ...]``, labels ``[B]``, or shares ``[B, classes]`` of mixed samples).

    network: gives logits ``[T, B, classes]``. loss: (logits, labels) -> scalar. optimizer: parameter groups ->
    optimiser. scheduler: optimiser -> schedule, stepped once per epoch, or ``None``; one that takes ``steps`` is told
    the number of optimiser steps of the fit and stepped in each. config: plain containers that describe the run; they
    travel in every checkpoint. budget: adds its penalty to the loss that is minimised, not to the one that is shown.
    teacher: (loss, inputs, decided logits) -> loss that is minimised in its place, if not ``None``.
    """

    def __init__(
        self,
        network: SpikingNetwork,
        num_classes: int,
        loss: Callable[[Tensor, Tensor], Tensor],
        optimizer: Callable[..., Optimizer],
        scheduler: Callable[..., LRScheduler] | None,
        config: dict[str, Any],
        budget: EnergyBudget | None = None,
    ) -> None:
        super().__init__()
        self.network, self.loss, self.budget = network, loss, budget
        self._synapses = None if budget is None else Synapses(network)
        self._steps = network.T
        self.trained_steps = network.T  # of the last training batch, where a schedule has fewer
        self.teacher: Callable[[Tensor, Tensor, Tensor], Tensor] | None = None
        self.make_optimizer, self.make_scheduler = optimizer, scheduler
        self.config, self.num_classes = config, num_classes
        self._tallies = {part: Tally() for part in ("train", "val", "test")}
        self._batch = Tally()
        self._gradient_norm: Tensor | None = None
        self._rate = 0.0

    def forward(self, pixels: Tensor) -> Tensor:
        """The logits that are compared, ``[B, classes]``."""
        return self.network.decide(self.network(pixels))

    def on_train_start(self) -> None:
        """Say where the budget cannot act."""
        if self.budget is not None and self.trainer.is_global_zero:
            batches = fit_steps(self.trainer) * self.trainer.accumulate_grad_batches
            if why := self.budget.idle(batches):
                log.warning(why)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Loss of one batch."""
        return self._step("train", batch)["loss"]

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Metrics of one validation batch."""
        self._step("val", batch)

    def test_step(self, batch: Batch, batch_idx: int) -> dict[str, Any]:
        """Metrics of one test batch; returns the predicted classes ``[B]`` for callbacks."""
        return self._step("test", batch)

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Log the epoch's metrics with its last batch: logging in every step costs more than many a layer."""
        trainer = self.trainer
        if trainer.is_last_batch or trainer.should_stop or 0 <= trainer.max_steps <= trainer.global_step:
            self.log_training()

    def log_training(self) -> None:
        """Log what is known of the training samples of this epoch, unless that was done after its last batch.

        A validation within an epoch may end training: then no batch of the epoch was known to be its last one.
        """
        if not self._tallies["train"].samples:
            return
        self._log("train")
        self.log("lr", self._rate, on_step=False, on_epoch=True, sync_dist=True)
        if self.budget is not None:
            spent = f"train/{self.budget.quantity}"
            self.log(spent, self.budget.spent, on_step=False, on_epoch=True, sync_dist=True)
            self.log("train/budget", self.budget.allowed(self.progress()), on_step=False, on_epoch=True)

    def on_validation_epoch_end(self) -> None:
        """Log the metrics of the validation samples, and by how much the budget is exceeded on them."""
        spent = self._log("val")
        if self.budget is not None:
            self.log("val/excess", self.budget.excess(float(spent)), sync_dist=True)

    def on_test_epoch_end(self) -> None:
        """Log the metrics of the test samples."""
        self._log("test")

    def sums(self) -> dict[str, Any]:
        """What the metrics of the epoch have summed up so far, as plain numbers."""
        tally = self._tallies["train"]
        return {"loss": float(tally.loss), "right": int(tally.right), "samples": tally.samples, "rate": self._rate}

    def take_sums(self, sums: dict[str, Any]) -> None:
        """Go on from the sums of an earlier process."""
        tally = self._tallies["train"]
        tally.loss = torch.tensor(sums["loss"], device=self.device, dtype=self.dtype)  # type: ignore[arg-type]
        tally.right = torch.tensor(sums["right"], device=self.device)
        tally.samples, self._rate = sums["samples"], sums["rate"]

    def live(self) -> dict[str, float]:
        """``loss`` and ``acc`` of the last training batch; reading them waits for the device."""
        return {name: float(value) for name, value in self._batch.means().items()}

    def on_after_backward(self) -> None:
        """The gradients are new."""
        self.forget_gradient_norm()

    def forget_gradient_norm(self) -> None:
        """To be called by whoever changes gradients before an optimiser step."""
        self._gradient_norm = None

    def gradient_norm(self, optimizer: Optimizer) -> Tensor:
        """The 2-norm of all gradients before clipping, a scalar on their device, computed once in a step."""
        if self._gradient_norm is None:
            self._gradient_norm = get_total_norm([p.grad for p in _parameters(optimizer) if p.grad is not None])
        return self._gradient_norm

    def configure_gradient_clipping(
        self,
        optimizer: Optimizer,
        gradient_clip_val: int | float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clip as Lightning does, with the norm that the safeguards have already looked at."""
        local = isinstance(self.trainer.strategy, (SingleDeviceStrategy, DDPStrategy))
        if not gradient_clip_val or not local or gradient_clip_algorithm == "value":
            super().configure_gradient_clipping(optimizer, gradient_clip_val, gradient_clip_algorithm)
            return
        clip_grads_with_norm_(_parameters(optimizer), gradient_clip_val, self.gradient_norm(optimizer))

    def configure_optimizers(self) -> Any:
        """Optimiser with its schedule, per step or per epoch."""
        optimizer = make_optimizer(self.make_optimizer, parameter_groups(self.network))
        schedule, interval = self.schedule(optimizer, lambda: fit_steps(self.trainer))
        if schedule is None:
            return optimizer
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": interval}}

    def schedule(self, optimizer: Optimizer, steps: Callable[[], int]) -> tuple[LRScheduler | None, str]:
        """The schedule of an optimiser, if there is one, and whether it moves per ``step`` or ``epoch``.

        Args:
            optimizer: whose rates it changes.
            steps: gives the steps of the whole fit.
        """
        if self.make_scheduler is None:
            return None, "epoch"
        if "steps" in inspect.signature(self.make_scheduler).parameters:
            return self.make_scheduler(optimizer, steps=steps()), "step"
        return self.make_scheduler(optimizer), "epoch"

    def on_train_epoch_start(self) -> None:
        """Begin the sums of the epoch, and note the learning rate that it begins with."""
        self._tallies["train"].reset()
        self._rate = self.trainer.optimizers[0].param_groups[0]["lr"]

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Put in what evaluation needs: the resolved configuration, what is known of the data, the W&B id."""
        checkpoint["qbsnn"] = {"version": VERSION, "package": __version__, "config": self.config}
        if (data := getattr(self.trainer, "datamodule", None)) is not None:
            checkpoint["qbsnn"] |= trained_on.known(data)
        for logger in self.trainer.loggers:
            if isinstance(logger, OfflineCapableWandbLogger):
                checkpoint["qbsnn"]["wandb_id"] = logger.version

    def _step(self, part: str, batch: Batch) -> dict[str, Any]:
        """Mixed precision is for training; what is measured is the float32 network that is deployed."""
        pixels, labels = batch
        whole = nullcontext() if part == "train" else torch.autocast(pixels.device.type, enabled=False)
        spending = self._listener(part)
        self.network.encoder.epoch = self.current_epoch
        with whole:
            logits = self.network(pixels, spending)
        if logits.dtype in HALF:
            logits = logits.float()
        if labels.is_floating_point():
            labels = labels.to(logits.dtype)
        loss = self.loss(logits, labels)
        decided = self.network.decide(logits.detach())
        predicted = decided.argmax(1)
        classes = labels if labels.dim() == 1 else labels.argmax(1)  # of mixed samples, those with the largest share
        found = loss.detach(), (predicted == classes).sum(), len(labels)
        self._tallies[part].add(*found)
        if part == "train":
            self._batch.reset()
            self._batch.add(*found)
        if part == "train" and self.teacher is not None:
            loss = self.teacher(loss, pixels, self.network.decide(logits))
        if self.budget is not None and spending is not None and spending.accumulates:
            if part == "val":
                self._tallies[part].charge(self.budget.spending(spending), len(labels))
            else:
                mean = partial(self.trainer.strategy.reduce, reduce_op="mean")
                loss = loss + self.budget.penalty(spending, self.progress(), mean)
        return {"loss": loss, "predicted": predicted, "classes": decided.shape[1]}

    def _listener(self, part: str) -> Spending | None:
        """What hears how much a pass spends, where a budget asks: when it is charged, and in every validation."""
        if self.budget is None or self._synapses is None or part == "test":
            return None
        if part == "train" and not self.budget.due(self.trainer.fit_loop.total_batch_idx):
            return None
        return Spending(self._synapses, self._steps / self.network.T)  # T is smaller where a schedule says so

    def progress(self) -> float:
        """The share of the fit's optimiser steps that are done."""
        return self.trainer.global_step / max(fit_steps(self.trainer), 1)

    def before_final_target(self) -> bool:
        """Whether there is a budget of energy whose target still falls: nobody has to keep the final one yet."""
        return self.budget is not None and self.progress() < self.budget.end

    def _log(self, part: str) -> Tensor:
        """Log loss and accuracy of a part; returns what a sample of it spent of the budget in the mean: a scalar."""
        # Summed over processes here: Lightning would divide by a number of samples that it averages as an integer.
        tally = self._tallies[part]
        loss, right, spent, samples = self.trainer.strategy.reduce(tally.sums(self.device), reduce_op="sum")
        means = {f"{part}/loss": loss / samples, f"{part}/acc": right / samples}
        self.log_dict(means, on_step=False, on_epoch=True, batch_size=1, prog_bar=part != "test", sync_dist=True)
        tally.reset()
        return spent / samples


def classifier(
    network: SpikingNetwork,
    classes: int,
    settings: dict[str, Any],
    scheduler: Callable[..., LRScheduler] | None = None,
    budget: EnergyBudget | None = None,
) -> Classifier:
    """A network with loss, optimiser and schedule of validated settings; ``scheduler`` takes the place of theirs."""
    optim = settings["optim"]
    return Classifier(
        network,
        classes,
        loss=build_object(optim["loss"], "optim.loss"),
        optimizer=build_object(optim["optimizer"], "optim.optimizer"),
        scheduler=scheduler
        or (build_object(optim["scheduler"], "optim.scheduler") if optim.get("scheduler") else None),
        config=for_files(settings),
        budget=budget,
    )


def _parameters(optimizer: Optimizer) -> list[Tensor]:
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]
