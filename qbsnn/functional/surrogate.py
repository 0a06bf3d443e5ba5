"""Surrogate gradients ∂s/∂u of the burst s = clamp(⌊u⌋, 0, s_max), u = V/Δ.

A surrogate is a function (u, s_max) -> g of the same shape as u. Levels are the integers 1..s_max; k is the level
nearest to u and d = |u − k| the distance to it. Clamping k is what gives the tails below the first and above the last
level: an unclamped k would leave d ≤ 1/2 everywhere.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

Surrogate = Callable[[Tensor, int], Tensor]


def _distance(u: Tensor, s_max: int) -> Tensor:
    """d, a fresh tensor, so that what follows may work in place: new memory costs more than arithmetic on a CPU."""
    return u.round().clamp_(1, s_max).sub_(u).abs_()


def relsg_et(
    u: Tensor,
    s_max: int,
    alpha: float = 0.5,
    beta: float = 3.0,
    tail: str = "document",
) -> Tensor:
    """Rectified-linear surrogate gradient with exponential tails (ReLSG-ET, arXiv 2604.25688).

    Eq. (S1): g = 1 where d ≤ α, else exp(−β·d) (``document``) or exp(−β·(d − α)) (``continuous``: no jump at α).

    >>> u = torch.tensor([0.0, 0.5, 1.2, 2.0, 3.0])
    >>> [round(g, 4) for g in relsg_et(u, s_max=2).tolist()]  # exp(-3) = 0.0498, one level away from both ends
    [0.0498, 1.0, 1.0, 1.0, 0.0498]
    """
    d = _distance(u, s_max)
    if tail == "continuous":
        d.sub_(alpha).clamp_(min=0)
    else:
        torch.threshold_(d, alpha, 0)  # d where d > α, else 0, for which the exponential below is 1
    return d.mul_(-beta).exp_()


def arctan(u: Tensor, s_max: int, alpha: float = 2.0) -> Tensor:
    """Derivative of arctan at the nearest level (Fang et al., arXiv 2007.05785).

    Eq. (S2): g = (α/2) / (1 + (π/2·α·d)²).

    >>> arctan(torch.tensor([1.0]), s_max=1).item()
    1.0
    """
    return _distance(u, s_max).mul_(math.pi / 2 * alpha).square_().add_(1).reciprocal_().mul_(alpha / 2)
