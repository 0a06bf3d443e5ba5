"""Norms over merged time and batch. All fold into the weights before them."""

from __future__ import annotations

import math
from collections.abc import Callable

from torch import Tensor, nn

BatchNorm = nn.BatchNorm1d | nn.BatchNorm2d


class TDBatchNorm(nn.BatchNorm2d):
    """Threshold-dependent batch norm (Zheng et al., arXiv 2011.05280): y = (γ·α·V_th)·x̂ + β over T·B.

    v_th: a constant, never the learned Δ. fan_in: number of branches that are summed before the neuron; α = 1/√fan_in.
    Input ``[T·B, C, H, W]``.
    """

    def __init__(self, channels: int, v_th: float = 1.0, fan_in: int = 1) -> None:
        super().__init__(channels)
        self.gain = v_th / math.sqrt(fan_in)

    def forward(self, x: Tensor) -> Tensor:
        """Normalise, with γ scaled by the constant gain."""
        track = self.training and self.track_running_stats
        if track and self.num_batches_tracked is not None:
            self.num_batches_tracked.add_(1)
        return nn.functional.batch_norm(
            x,
            self.running_mean,
            self.running_var,
            self.weight * self.gain,
            self.bias,
            track,
            self.momentum or 0.0,
            self.eps,
        )


def batch_norm(channels: int, dim: int, fan_in: int, v_th: float) -> BatchNorm:
    """Batch norm over T·B; ``dim`` is 1 for linear and 2 for convolutional layers."""
    return nn.BatchNorm1d(channels) if dim == 1 else nn.BatchNorm2d(channels)


def td_batch_norm(channels: int, dim: int, fan_in: int, v_th: float) -> BatchNorm:
    """tdBN in convolutional layers; linear layers have no branch to balance and take batch norm."""
    return nn.BatchNorm1d(channels) if dim == 1 else TDBatchNorm(channels, v_th, fan_in)


NORMS: dict[str, Callable[[int, int, int, float], BatchNorm]] = {"bn": batch_norm, "tdbn": td_batch_norm}


def affine(norm: BatchNorm) -> tuple[Tensor, Tensor, float, Tensor, Tensor]:
    """(mean, variance, ε, γ, β) of a norm in evaluation mode, as :func:`qbsnn.functional.fold.fold_norm` takes them."""
    assert norm.running_mean is not None and norm.running_var is not None
    gamma = norm.weight * norm.gain if isinstance(norm, TDBatchNorm) else norm.weight
    return norm.running_mean, norm.running_var, norm.eps, gamma, norm.bias
