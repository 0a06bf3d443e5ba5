"""The burst neuron: one step, and the quantiser inside it.

Time first: a step sees ``[B, ...]``. u = V/Δ; λ = 1 − 1/τ.

    (N1)  V_t = λ U_{t−1} + I_t,   U_0 = 0
    (N2)  s_t = clamp(⌊V_t/Δ⌋, 0, s_max)
    (N3)  U_t = V_t − Δ s_t        (or another function of qbsnn.functional.reset)
    (N4)  o_t = s_t ("counts")     or  Δ s_t ("graded")

Source: arXiv 2604.25688, with the gradient of Δ that follows from ∂s/∂u = g: for counts ∂o/∂V = g/Δ and
∂o/∂Δ = −u·g/Δ, for graded ∂o/∂V = g and ∂o/∂Δ = s − u·g.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from qbsnn.functional.reset import Reset
from qbsnn.functional.surrogate import Surrogate


class _Burst(torch.autograd.Function):
    """Forward: (N2) of u. Backward: the surrogate g(u), so only u is kept."""

    @staticmethod
    def forward(ctx: Any, u: Tensor, s_max: int, surrogate: Surrogate) -> Tensor:
        ctx.save_for_backward(u)
        ctx.s_max, ctx.surrogate = s_max, surrogate
        return u.floor().clamp_(0, s_max)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        (u,) = ctx.saved_tensors
        return ctx.surrogate(u, ctx.s_max).mul_(grad), None, None


def burst(u: Tensor, s_max: int, surrogate: Surrogate) -> Tensor:
    """Quantise u = V/Δ to a burst, equation (N2), with the surrogate as its derivative.

    u: any shape, in units of Δ. Returns integers 0..s_max in u's dtype and shape.

    >>> from qbsnn.functional.surrogate import relsg_et
    >>> burst(torch.tensor([-0.5, 0.99, 1.0, 7.3]), 4, relsg_et).tolist()
    [0.0, 0.0, 1.0, 4.0]
    """
    return _Burst.apply(u, s_max, surrogate)


def burst_step(
    u: Tensor,
    current: Tensor,
    delta: Tensor,
    *,
    decay: float,
    s_max: int,
    surrogate: Surrogate,
    reset: Reset,
    graded: bool = False,
) -> tuple[Tensor, Tensor]:
    """One time step, equations (N1) to (N4). Returns (U_t, o_t).

    u: U_{t−1} ``[B, ...]``; current: I_t ``[B, ...]``; delta: Δ > 0, a scalar or broadcastable to ``[B, ...]``.
    """
    v = decay * u + current
    s = burst(v / delta, s_max, surrogate)
    return reset(v, s, delta), delta * s if graded else s
