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

from qbsnn.layers.norm import affine


class _Sum(torch.autograd.Function):
    """The sum over processes. A process's share of a statistic acts on the losses of all of them."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        total = x.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:  # type: ignore[override]
        total = grad.contiguous().clone()
        dist.all_reduce(total)
        return total


class _Synced:
    """Put before a batch norm's own class: in training mode the statistics are reduced over the processes."""

    def forward(self, x: Tensor) -> Tensor:
        """Normalise ``[B, C, ...]`` over all samples of all processes and all places."""
        if not self.training:  # type: ignore[attr-defined]
            return super().forward(x)  # type: ignore[misc]
        running_mean, running_var, eps, gamma, beta = affine(self)  # type: ignore[arg-type]
        over = [dim for dim in range(x.dim()) if dim != 1]
        shape = (1, -1, *[1] * (x.dim() - 2))
        share = torch.full_like(running_mean, x.numel() / x.shape[1])
        count, total = _Sum.apply(torch.stack([share, x.sum(over)]))
        mean = total / count
        centred = x - mean.view(shape)
        var = _Sum.apply(centred.square().sum(over)) / count
        with torch.no_grad():
            self.num_batches_tracked.add_(1)  # type: ignore[attr-defined]
            momentum = self.momentum  # type: ignore[attr-defined]
            if momentum is None:
                momentum = 1 / float(self.num_batches_tracked)  # type: ignore[attr-defined]
            running_mean.lerp_(mean, momentum)
            running_var.lerp_(var * count / (count - 1), momentum)
        return centred * (gamma * torch.rsqrt(var + eps)).view(shape) + beta.view(shape)


class SyncNorm(LayerSync):
    """Lightning's hook: wraps the batch norms of a network for the time of a fit with several processes."""

    def apply(self, model: nn.Module) -> nn.Module:
        """Change the class of every batch norm."""
        for norm in _norms(model):
            own = type(norm)
            norm.__class__ = type(f"Synced{own.__name__}", (_Synced, own), {})
        return model

    def revert(self, model: nn.Module) -> nn.Module:
        """Give every batch norm its own class back."""
        for norm in _norms(model):
            if isinstance(norm, _Synced):
                norm.__class__ = type(norm).__bases__[1]
        return model


def _norms(model: nn.Module) -> list[nn.Module]:
    return [m for m in model.modules() if isinstance(m, (nn.BatchNorm1d, nn.BatchNorm2d))]
