"""Batch norms whose statistics are those of the whole batch, not of one process's share; on CPUs too.

torch's SyncBatchNorm refuses CPU tensors, and converting to it and back, as Lightning does, turns every subclass of a
batch norm into a plain one.
"""

from __future__ import annotations

from typing import Any

import torch
from lightning.pytorch.plugins import LayerSync
from torch import Tensor, nn
from torch import distributed as dist

from qbsnn.functional.norm import normalise
from qbsnn.functional.scan import HALF
from qbsnn.layers.norm import Normalising


class _Sum(torch.autograd.Function):
    """The sum over processes. A process's share of a statistic acts on the losses of all of them."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        total = x.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        total = grad.contiguous().clone()
        dist.all_reduce(total)
        return total


class _Synced(nn.Module):
    """What a norm is for the time of a fit. No :class:`Normalising`: the stage must not normalise in its place."""

    running_mean: Tensor | None
    running_var: Tensor | None
    num_batches_tracked: Tensor | None
    weight: Tensor | None
    bias: Tensor | None
    eps: float
    momentum: float | None
    gain: float
    own: type[Normalising]

    def forward(self, y: Tensor) -> Tensor:
        """The normalised y ``[N, C, ...]``, equations (B1) and (B2) over all processes in training."""
        if not self.training:
            return normalise(y, Normalising.normal(self, y))  # type: ignore[arg-type]
        over = [dim for dim in range(y.dim()) if dim != 1]
        shape = (1, -1, *[1] * (y.dim() - 2))
        wide = y.float() if y.dtype in HALF else y
        values = wide.new_full(y.shape[1:2], y.numel() / y.shape[1])
        count, total = _Sum.apply(torch.stack([values, wide.sum(over)]))
        mean = total / count
        centred = wide - mean.view(shape)
        variance = _Sum.apply(centred.square().sum(over)) / count
        if self.running_mean is not None and self.running_var is not None:
            share = Normalising.share(self)  # type: ignore[arg-type]
            with torch.no_grad():
                self.running_mean.lerp_(mean, share)
                self.running_var.lerp_(variance * count / (count - 1), share)
        scaled = centred * (self.gain * torch.rsqrt(variance + self.eps)).view(shape)
        if self.weight is not None:
            scaled = scaled * self.weight.view(shape) + self.bias.view(shape)  # type: ignore[union-attr]
        return scaled.to(y.dtype)


class SyncNorm(LayerSync):
    """Lightning's hook: changes the class of every batch norm for a fit with several processes, and back after it."""

    def apply(self, model: nn.Module) -> nn.Module:
        """Reduce the statistics from now on."""
        for norm in [module for module in model.modules() if isinstance(module, Normalising)]:
            own = type(norm)
            norm.__class__ = type(f"Synced{own.__name__}", (_Synced,), {"gain": own.gain, "own": own})
        return model

    def revert(self, model: nn.Module) -> nn.Module:
        """Give every norm its own class back."""
        for norm in [module for module in model.modules() if isinstance(module, _Synced)]:
            norm.__class__ = norm.own  # type: ignore[assignment]
        return model
