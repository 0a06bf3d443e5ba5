"""Surrogate gradients ∂s/∂p of the burst s = clamp(⌊p⌋, 0, s_max), p the position of the membrane among the levels.

A surrogate is a function (p, s_max) -> g of the same shape as p, which is V/Δ for bursts that round down (see
:mod:`qbsnn.functional.burst`). Levels are the integers 1..s_max; k is the level nearest to p and d = |p − k| is the
distance to it. Clamping k gives the tails below the first and above the last level, equation (S9): an unclamped k would
leave d ≤ 1/2 everywhere. At s_max = 1, d = |V/Δ − 1|, and the comparison set is that of binary neurons.

In the functions below, p has any shape and ``alpha`` is the width; each returns a fresh tensor of p's shape.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from qbsnn import checks
from qbsnn.errors import ArgumentError

Surrogate = Callable[[Tensor, int], Tensor]
"""(p, s_max) -> g, a fresh tensor of p's shape and type: what asks for it may write into it."""


def _distance(p: Tensor, s_max: int) -> Tensor:
    """d, a fresh tensor, so that what follows may work in place: new memory costs more than arithmetic on a CPU."""
    return p.round().clamp_(1, s_max).sub_(p).abs_()


def _distance_outside(p: Tensor, s_max: int) -> Tensor:
    """d where p lies below the first level or above the last, no more than 0 between them, where d ≤ 1/2."""
    return torch.maximum(1 - p, p - s_max)


def relsg_et(
    p: Tensor,
    s_max: int,
    alpha: float = 0.5,
    beta: float = 3.0,
    tail: str = "document",
) -> Tensor:
    """Rectified-linear surrogate gradient with exponential tails (ReLSG-ET, arXiv 2604.25688).

    Eq. (S1): g = 1 where d ≤ α, else exp(−β·d) (``document``) or exp(−β·(d − α)) (``continuous``: no jump at α).

    >>> p = torch.tensor([0.0, 0.5, 1.2, 2.0, 3.0])
    >>> [round(g, 4) for g in relsg_et(p, s_max=2).tolist()]  # exp(-3) = 0.0498, one level away from both ends
    [0.0498, 1.0, 1.0, 1.0, 0.0498]
    """
    d = _distance_outside(p, s_max) if alpha >= 0.5 else _distance(p, s_max)  # d ≤ α counts as 0 below
    if tail == "continuous":
        d.sub_(alpha).clamp_(min=0)
    elif tail == "document":
        torch.threshold_(d, alpha, 0)  # d where d > α, else 0, for which the exponential below is 1
    else:
        raise ArgumentError(f"tail must be one of document, continuous, got {tail!r}")
    return d.mul_(-beta).exp_()


def arctan(p: Tensor, s_max: int, alpha: float = 2.0) -> Tensor:
    """Derivative of arctan at the nearest level (Fang et al., arXiv 2007.05785).

    Eq. (S2): g = (α/2) / (1 + (π/2·α·d)²).

    >>> arctan(torch.tensor([1.0]), s_max=1).item()
    1.0
    """
    return _distance(p, s_max).mul_(math.pi / 2 * alpha).square_().add_(1).reciprocal_().mul_(alpha / 2)


def rectangular(p: Tensor, s_max: int, alpha: float = 1.0) -> Tensor:
    """Window of area 1 around the nearest level (Wu et al., arXiv 1706.02609, h1). Eq. (S3): g = α where d ≤ 1/(2α).

    >>> rectangular(torch.tensor([0.4, 0.5, 2.5, 2.6]), s_max=2).tolist()
    [0.0, 1.0, 1.0, 0.0]
    """
    return (_distance(p, s_max) <= 0.5 / alpha).to(p.dtype).mul_(alpha)


def triangular(p: Tensor, s_max: int, alpha: float = 1.0) -> Tensor:
    """Triangle of area 1 around the nearest level (Esser et al., arXiv 1603.08270). Eq. (S4): g = α·max(0, 1 − α·d).

    >>> triangular(torch.tensor([0.0, 0.75, 1.0]), s_max=1).tolist()
    [0.0, 0.75, 1.0]
    """
    return _distance(p, s_max).mul_(-alpha).add_(1).clamp_(min=0).mul_(alpha)


def sigmoid(p: Tensor, s_max: int, alpha: float = 4.0) -> Tensor:
    """Derivative of the logistic function at the nearest level. Eq. (S5): g = α·σ(α·d)·(1 − σ(α·d)).

    >>> sigmoid(torch.tensor([1.0]), s_max=1).item()
    1.0
    """
    y = _distance(p, s_max).mul_(alpha).sigmoid_()
    return (1 - y).mul_(y).mul_(alpha)


def fast_sigmoid(p: Tensor, s_max: int, alpha: float = 25.0) -> Tensor:
    """Derivative of x/(1 + |x|), normalised to 1 at the level, as snnTorch has it. Eq. (S6): g = 1/(1 + α·d)².

    >>> fast_sigmoid(torch.tensor([2.0]), s_max=1, alpha=1.0).item()
    0.25
    """
    return _distance(p, s_max).mul_(alpha).add_(1).square_().reciprocal_()


def super_spike(p: Tensor, s_max: int, alpha: float = 1.0) -> Tensor:
    """SuperSpike (Zenke & Ganguli, arXiv 1705.11146), as SpikingJelly scales it. Eq. (S7): g = α/(1 + d)².

    >>> super_spike(torch.tensor([0.0, 1.0]), s_max=1).tolist()
    [0.25, 1.0]
    """
    return _distance(p, s_max).add_(1).square_().reciprocal_().mul_(alpha)


def straight_through(p: Tensor, s_max: int) -> Tensor:
    """The gradient of the identity (Bengio et al., arXiv 1308.3432). Eq. (S8): g = 1."""
    return torch.ones_like(p)


SURROGATES: dict[str, Callable[..., Tensor]] = {
    "relsg_et": relsg_et,
    "rectangular": rectangular,
    "triangular": triangular,
    "arctan": arctan,
    "sigmoid": sigmoid,
    "fast_sigmoid": fast_sigmoid,
    "super_spike": super_spike,
    "straight_through": straight_through,
}
"""The surrogates by the names that settings use."""


def surrogate(name: str, alpha: float | None = None, beta: float = 3.0, tail: str = "document") -> Surrogate:
    """The surrogate of this name.

    Args:
        name: A key of ``SURROGATES``.
        alpha: Its width; ``None`` is its own default.
        beta: Of ReLSG-ET only.
        tail: Of ReLSG-ET only.

    Raises:
        ArgumentError: ``name`` is no such key.
    """
    function = SURROGATES[checks.choice("name", name, SURROGATES)]
    arguments: dict[str, float | str] = {} if alpha is None or name == "straight_through" else {"alpha": alpha}
    if name == "relsg_et":
        arguments |= {"beta": beta, "tail": tail}
    return partial(function, **arguments)


def own_surrogate(function: Surrogate) -> Surrogate:
    """The surrogate that a user's function is; the function may return p itself, a view, or another type."""
    return partial(_copied, function=function)


def _copied(p: Tensor, s_max: int, function: Surrogate) -> Tensor:
    g = function(p, s_max)
    if g.shape != p.shape:
        raise ArgumentError(f"surrogate must return the shape of p, {list(p.shape)}, got {list(g.shape)}")
    return g.to(p.dtype, copy=True)
