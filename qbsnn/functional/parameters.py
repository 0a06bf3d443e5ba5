"""How learned parameters stand for the quantities of the neuron: Δ > 0, λ in (0, 1), an integer cap."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

LOOKED_AT = 2**20
"""Elements of a current whose percentile is taken."""


class Parametrisation(NamedTuple):
    """Δ > 0 of a free parameter ρ.

    Attributes:
        value: Δ of ρ.
        inverse: A ρ for a given Δ.
    """

    value: Callable[[Tensor], Tensor]
    inverse: Callable[[Tensor], Tensor]


def _softplus_inverse(delta: Tensor) -> Tensor:
    return delta + torch.log(-torch.expm1(-delta))


PARAMETRISATIONS = {
    "abs": Parametrisation(torch.abs, torch.abs),
    "softplus": Parametrisation(F.softplus, _softplus_inverse),
    "exp": Parametrisation(torch.exp, torch.log),
}
"""Ways to keep Δ positive, by the names that settings use; their gradients are (G3)."""


def straight_through(value: Tensor, carrier: Tensor) -> Tensor:
    """``value``, bit for bit, with the gradient of ``carrier``."""
    return value.detach() + (carrier - carrier.detach())


def scale_gradient(x: Tensor, factor: float) -> Tensor:
    """x itself, with its gradient multiplied by ``factor``, as in (G7)."""
    return straight_through(x, factor * x)


def lsq_factor(neurons: int, s_max: int) -> float:
    """The factor of (G7) for a scale that N neurons share (learned step size quantization, arXiv 1902.08153)."""
    return (neurons * s_max) ** -0.5


def percentile_scale(current: Tensor, s_max: int, percentile: float) -> Tensor:
    """Δ for which ``percentile`` per cent of the positive currents are at most Δ·s_max.

    Args:
        current: Any shape. If it has 2·``LOOKED_AT`` elements or more, ``LOOKED_AT`` of them are looked at. They are
            drawn at random with a fixed seed, the same on every device: equal distances could hit one column of a map.
        s_max: The largest burst.
        percentile: Above 0, at most 100.

    Returns:
        A scalar, 0 if no current is positive.

    >>> percentile_scale(torch.arange(-3.0, 9.0), s_max=4, percentile=100.0).item()
    2.0
    """
    flat = current.detach().float().flatten()
    if flat.numel() >= 2 * LOOKED_AT:
        places = torch.randint(flat.numel(), (LOOKED_AT,), generator=torch.Generator().manual_seed(0))
        flat = flat[places.to(flat.device)]
    positive = flat[flat > 0]
    if not positive.numel():
        return flat.new_zeros(())
    return torch.quantile(positive, percentile / 100) / s_max


def log_ratio_penalty(delta: Tensor, initial: Tensor) -> Tensor:
    """Mean of ln(Δ/Δ_0)², a scalar: zero at Δ_0, and equal for scales that grew or shrank by one factor.

    >>> [round(log_ratio_penalty(torch.tensor(d), torch.tensor(1.0)).item(), 4) for d in (0.5, 1.0, 2.0)]
    [0.4805, 0.0, 0.4805]
    """
    return (delta / initial).log().square().mean()


def decay_of(tau: float) -> float:
    """λ = 1 − 1/τ of a time constant τ ≥ 1 in steps; 1, no leak, for an infinite one."""
    return 1.0 - 1.0 / tau


def time_constant(decay: float) -> float:
    """τ = 1/(1 − λ) in steps, infinite for λ = 1.

    >>> time_constant(0.75), time_constant(decay_of(math.inf))
    (4.0, inf)
    """
    return math.inf if decay == 1 else 1 / (1 - decay)


def learned_decay(w: Tensor) -> Tensor:
    """λ = 1 − σ(w) of a free parameter w: τ = 1/σ(w) (PLIF, Fang et al., arXiv 2007.05785)."""
    return 1 - torch.sigmoid(w)


def inverse_decay(tau: float) -> Tensor:
    """The w of :func:`learned_decay` for τ > 1.

    >>> 1 / torch.sigmoid(inverse_decay(4.0)).item()
    4.0
    """
    return -torch.log(torch.tensor(tau - 1.0))


def integer_cap(logit: Tensor, s_max: int) -> Tensor:
    """An integer from 1 to s_max for any real ``logit``: round(1 + (s_max − 1)·σ(logit)), straight-through.

    >>> integer_cap(torch.tensor([-9.0, 0.0, 9.0]), s_max=7).tolist()
    [1.0, 4.0, 7.0]
    """
    real = 1 + (s_max - 1) * torch.sigmoid(logit)
    return straight_through(real.round(), real)


def quantise_weight(weight: Tensor, bits: int) -> Tensor:
    """W on a symmetric grid of 2^bits − 1 values per output channel, with the gradient of the identity.

    Eq. (Q1): step = max|W|/(2^(bits−1) − 1) over each row of W ``[O, ...]``; W → step·round(W/step).

    >>> quantise_weight(torch.tensor([[1.0, -0.4, 0.2]]), bits=2).tolist()
    [[1.0, 0.0, 0.0]]
    """
    largest = weight.detach().flatten(1).abs().amax(1).view(-1, *[1] * (weight.dim() - 1))
    step = largest.clamp(min=torch.finfo(weight.dtype).tiny) / (2 ** (bits - 1) - 1)
    return straight_through((weight / step).round() * step, weight)
