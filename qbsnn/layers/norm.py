"""Norms over merged time and batch, and the map of each in evaluation mode."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from qbsnn.errors import SettingsError
from qbsnn.functional.norm import Normal, batch_statistics, normalise

BatchNorm = nn.BatchNorm1d | nn.BatchNorm2d
Affine = tuple[Tensor, Tensor, float, Tensor, Tensor]


class Normalising(_BatchNorm):
    """Batch norm split into what is measured (:meth:`normal`) and a map per channel, which a neuron can take over."""

    gain = 1.0

    def normal(self, y: Tensor, frozen: bool = False) -> Normal:
        """Statistics and parameters for y ``[N, C, ...]``.

        As torch's norms: running statistics move in training by ``momentum``, or with ``momentum=None`` to the mean
        over all batches so far; without running statistics the batch's own serve in evaluation too.

        Args:
            y: What is to be normalised.
            frozen: Leave the running statistics alone, for a pass that repeats another.
        """
        batch = self.training or self.running_mean is None or self.running_var is None
        if batch:
            if y.numel() == y.shape[1]:
                raise SettingsError(
                    f"batch norm in training needs more than one value per channel, got {list(y.shape)}: raise "
                    "data.batch_size"
                )
            share = 0.0 if frozen or not self.training else self.share()
            mean, variance = batch_statistics(y, self.running_mean, self.running_var, share)
        else:
            assert self.running_mean is not None and self.running_var is not None
            mean, variance = self.running_mean.clone(), self.running_var
        gamma, beta = (self.weight, self.bias) if self.affine else (torch.ones_like(mean), torch.zeros_like(mean))
        gamma = gamma if self.gain == 1 else gamma * self.gain
        return Normal(gamma, beta, mean, (variance + self.eps).rsqrt(), self.eps, batch)

    def share(self) -> float:
        """The share by which running statistics move towards those of this batch, which is counted."""
        if self.num_batches_tracked is None:
            return 0.0
        self.num_batches_tracked.add_(1)
        return 1.0 / float(self.num_batches_tracked) if self.momentum is None else self.momentum

    def forward(self, y: Tensor) -> Tensor:
        """The normalised y ``[N, C, ...]``."""
        return normalise(y, self.normal(y))


class BatchNorm1d(Normalising, nn.BatchNorm1d):
    """Batch norm of ``[N, C]``, equations (B1) and (B2) of :mod:`qbsnn.functional.norm`."""


class BatchNorm2d(Normalising, nn.BatchNorm2d):
    """Batch norm of ``[N, C, H, W]``, equations (B1) and (B2) of :mod:`qbsnn.functional.norm`."""


class TDBatchNorm(BatchNorm2d):
    """Threshold-dependent batch norm (Zheng et al., arXiv 2011.05280): y = (γ·α·V_th)·x̂ + β over T·B.

    v_th: a constant, never the learned Δ. fan_in: number of branches that are summed before the neuron; α = 1/√fan_in.
    Input ``[T·B, C, H, W]``.
    """

    def __init__(self, channels: int, v_th: float = 1.0, fan_in: int = 1) -> None:
        super().__init__(channels)
        self.gain = v_th / math.sqrt(fan_in)


class TemporalScale(nn.Module):
    """The part of TEBN (Duan et al., NeurIPS 2022) after its batch norm: y_t = p_t·x_t, p learned per step from 1."""

    def __init__(self, steps: int) -> None:
        super().__init__()
        self.p = nn.Parameter(torch.ones(steps))

    def forward(self, x: Tensor) -> Tensor:
        """x ``[T or 1, B, ...]`` to ``[T, B, ...]``."""
        return x * self.p.view(-1, *[1] * (x.dim() - 1))


def _batch(channels: int, dim: int, fan_in: int, v_th: float) -> nn.Module:
    return BatchNorm1d(channels) if dim == 1 else BatchNorm2d(channels)


def _threshold_dependent(channels: int, dim: int, fan_in: int, v_th: float) -> nn.Module:
    # linear layers have no branch to balance and take batch norm
    return BatchNorm1d(channels) if dim == 1 else TDBatchNorm(channels, v_th, fan_in)


def _layer(channels: int, dim: int, fan_in: int, v_th: float) -> nn.Module:
    return nn.GroupNorm(1, channels)  # one group is layer norm over (C, H, W), for every sample and step


NORMS: dict[str, Callable[[int, int, int, float], nn.Module] | None] = {
    "bn": _batch,
    "tdbn": _threshold_dependent,
    "tebn": _batch,  # and a TemporalScale behind it
    "layer": _layer,
    "none": None,
}
"""Norms by the names that settings use: (channels, 1 linear or 2 convolution, branches of the stage, v_th) -> norm."""


def affine(norm: BatchNorm) -> Affine:
    """(mean, variance, ε, γ, β) of a norm in evaluation mode, as :func:`qbsnn.functional.fold.fold_norm` takes them."""
    assert norm.running_mean is not None and norm.running_var is not None
    gamma = norm.weight * norm.gain if isinstance(norm, Normalising) else norm.weight
    return norm.running_mean, norm.running_var, norm.eps, gamma, norm.bias
