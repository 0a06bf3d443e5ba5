"""Parameter groups, optimisers with fused kernels, how many steps they make, and averages of weights."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import lightning
import torch
from lightning.pytorch.callbacks import Callback, WeightAveraging
from torch import nn
from torch.optim import Optimizer

from qbsnn.errors import SettingsError


def parameter_groups(network: nn.Module) -> list[dict[str, Any]]:
    """Two groups: weights of layers, with the optimiser's weight decay; and Δ, norms and biases, without.

    Weights of layers are the parameters of two or more dimensions.
    """
    decayed = [p for p in network.parameters() if p.requires_grad and p.dim() >= 2]
    free = [p for p in network.parameters() if p.requires_grad and p.dim() < 2]
    return [{"params": decayed}, {"params": free, "weight_decay": 0.0}]


def make_optimizer(make: Callable[..., Optimizer], groups: list[dict[str, Any]]) -> Optimizer:
    """``make(groups)``, with ``fused=True`` where the optimiser has it, the device too and the settings leave it open.

    A gradient scaler for float16 then unscales before the step, as for any optimiser: fused ones would do it inside,
    where gradients can no longer be clipped.
    """
    optimizer = make(groups, fused=True) if _can_fuse(make, groups) else make(groups)
    if getattr(optimizer, "_step_supports_amp_scaling", False):
        optimizer._step_supports_amp_scaling = False  # type: ignore[attr-defined]
    return optimizer


def _can_fuse(make: Callable[..., Optimizer], groups: list[dict[str, Any]]) -> bool:
    chosen = getattr(make, "keywords", {})
    if chosen.get("fused") is not None or chosen.get("foreach") or "fused" not in inspect.signature(make).parameters:
        return False
    kinds = {(p.device, p.dtype) for group in groups for p in group["params"]}
    tried = [nn.Parameter(torch.zeros(1, device=device, dtype=dtype)) for device, dtype in kinds]
    for parameter in tried:
        parameter.grad = torch.zeros_like(parameter)
    try:
        make([{"params": tried}], fused=True).step()  # some optimisers find out no earlier
    except RuntimeError:  # torch's word for a device, a dtype or another argument that has no fused kernel
        return False
    return True


def fit_steps(trainer: lightning.Trainer) -> int:
    """The optimiser steps of a whole fit, known once the training samples are read.

    Lightning's own estimate makes a loader, which a fit that goes on within an epoch could not use again.
    """
    data: Any = trainer.datamodule  # type: ignore[attr-defined]
    batches = data.train_batches()
    limit = trainer.limit_train_batches
    batches = min(batches, limit) if isinstance(limit, int) else int(batches * (1.0 if limit is None else limit))
    epochs = trainer.max_epochs or 1
    steps = epochs * -(-batches // trainer.accumulate_grad_batches)
    return min(steps, trainer.max_steps) if trainer.max_steps >= 0 else steps


class AverageFollows(Callback):
    """Has an average of weights follow the current ones until its first update: Lightning's keeps the initial ones.

    Args:
        name: of the average among the callbacks.
        average: Lightning's callback.
    """

    def __init__(self, name: str, average: WeightAveraging) -> None:
        self.name, self.average = name, average
        self._validated = -1  # the step after which the average was last validated

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Bring the average to the device of the module: Lightning makes it where the module was before, on the CPU.

        An average whose ``device`` is given stays there.

        Raises:
            SettingsError: An average by epochs, which is made after validation, or one without updates.
        """
        if self.average._average_model is not None and self.average._device is None:
            self.average._average_model.module.to(pl_module.device)  # its counter is read at every step: on the CPU
        steps, epochs, due = fit_steps(trainer), trainer.max_epochs or 1, self.average.should_update
        keys = ("update_every_n_steps", "update_starting_at_step", "update_starting_at_epoch")
        given = ", ".join(f"{key}={getattr(self.average, key, None)}" for key in keys)
        if any(due(epoch_idx=i) for i in range(epochs)):
            raise SettingsError(
                f"callbacks.{self.name} averages at the end of epochs with {given}, which is after their validation: "
                "weights would be kept that were never validated. update_starting_at_epoch must be null; average by "
                "steps, with update_every_n_steps of at least 1 and update_starting_at_step"
            )
        if not any(due(step_idx=i) for i in range(steps)):
            raise SettingsError(
                f"callbacks.{self.name} averages nothing in {steps} steps with {given}: update_every_n_steps must be "
                f"at least 1 and have a multiple from update_starting_at_step to {steps - 1}"
            )

    def on_validation_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Follow before the average is validated."""
        self._follow(pl_module)
        self._validated = trainer.global_step

    def on_train_epoch_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Follow where no validation comes before the average is saved, or takes the place of the current weights.

        What was validated stays as it was: its norms may have statistics that the current ones lack.
        """
        if self._validated != trainer.global_step:
            self._follow(pl_module)

    def _follow(self, pl_module: lightning.LightningModule) -> None:
        average = self.average._average_model
        if average is not None and not average.n_averaged:
            average.module.load_state_dict(pl_module.state_dict())
