"""The burst neuron: one step, and the quantiser inside it.

Time first: a step sees ``[B, ...]``. u = V/Δ; λ = 1 − 1/τ.

    (N1)  V_t = λ U_{t−1} + I_t,   U_0 = 0
    (N2)  s_t = clamp(⌊V_t/Δ⌋, 0, s_max)      (or another quantiser of ``QUANTISERS``)
    (N3)  U_t = V_t − Δ s_t                   (or another function of qbsnn.functional.reset)
    (N4)  o_t = s_t ("counts")     or  Δ s_t ("graded")

Source: arXiv 2604.25688, with the gradients of V and Δ that follow from ∂s/∂u = g: (G1) for counts, (G2) for graded.
Equations that are cited here and elsewhere by number alone stand in docs/mathematical_derivations.md.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from qbsnn.functional.reset import Reset
from qbsnn.functional.surrogate import Surrogate


class Quantiser(NamedTuple):
    """How u = V/Δ becomes a burst: s = clamp(⌊p(u)⌋, 0, s_max), with the sign of u if ``signed``.

    Attributes:
        position: p, the place of u among the levels. The surrogate is evaluated there too.
        signed: Whether bursts are negative where u is.
    """

    position: Callable[[Tensor], Tensor]
    signed: bool = False

    def levels(self, u: Tensor, s_max: int) -> Tensor:
        """The burst of each u, a fresh tensor of integers in u's dtype."""
        s = self.position(u).floor().clamp_(0, s_max)
        return s.copysign_(u) if self.signed else s


def _itself(u: Tensor) -> Tensor:
    return u


def _half_up(u: Tensor) -> Tensor:
    return u + 0.5


QUANTISERS = {
    "floor": Quantiser(_itself),
    # I-LIF (arXiv 2407.20708) and quantised activations round; a half goes up, as an integer adder does it.
    "round": Quantiser(_half_up),
    # Ternary spikes (arXiv 2312.06372) generalised: −s_max..s_max, towards zero, so that |V| < Δ is silent.
    "to_zero": Quantiser(torch.abs, signed=True),
}
"""The quantisers by the names that settings use."""


class _Burst(torch.autograd.Function):
    """Forward: (N2) of u. Backward: the surrogate g(p(u)), so only u is kept."""

    @staticmethod
    def forward(ctx: Any, u: Tensor, s_max: int, surrogate: Surrogate, quantiser: Quantiser) -> Tensor:
        ctx.save_for_backward(u)
        ctx.s_max, ctx.surrogate, ctx.quantiser = s_max, surrogate, quantiser
        return quantiser.levels(u, s_max)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None]:
        (u,) = ctx.saved_tensors
        return ctx.surrogate(ctx.quantiser.position(u), ctx.s_max).mul_(grad), None, None, None


class _InUnits(torch.autograd.Function):
    """u = V/Δ. The forward pass divides, so that bursts are exact; the backward pass multiplies by 1/Δ."""

    @staticmethod
    def forward(ctx: Any, v: Tensor, delta: Tensor) -> Tensor:
        u = v / delta
        ctx.save_for_backward(u, delta)
        return u

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor | None]:
        u, delta = ctx.saved_tensors
        inverse = delta.reciprocal()
        needed = ctx.needs_input_grad[1]
        return grad * inverse, (grad * u).sum_to_size(delta.shape).mul(-inverse) if needed else None


def burst(u: Tensor, s_max: int, surrogate: Surrogate, quantiser: Quantiser = QUANTISERS["floor"]) -> Tensor:
    """Quantise u = V/Δ to a burst, equation (N2), with the surrogate as its derivative.

    Args:
        u: The membrane in units of Δ, any shape.
        s_max: The largest burst.
        surrogate: (p, s_max) -> g, which must return a fresh tensor.
        quantiser: An entry of ``QUANTISERS``.

    Returns:
        Integers 0..s_max (−s_max..s_max if signed) in u's type and shape.

    >>> from qbsnn.functional.surrogate import relsg_et
    >>> burst(torch.tensor([-0.5, 0.99, 1.0, 7.3]), 4, relsg_et).tolist()
    [0.0, 0.0, 1.0, 4.0]
    >>> burst(torch.tensor([-0.6, 0.49, 0.5, 7.3]), 4, relsg_et, QUANTISERS["round"]).tolist()
    [0.0, 0.0, 1.0, 4.0]
    >>> burst(torch.tensor([-9.0, -1.9, 0.9, 2.0]), 4, relsg_et, QUANTISERS["to_zero"]).tolist()
    [-4.0, -1.0, 0.0, 2.0]
    """
    return _Burst.apply(u, s_max, surrogate, quantiser)


def leaky_step(v: Tensor, current: Tensor, decay: float) -> tuple[Tensor, Tensor]:
    """Equation (N1) alone, a membrane that never fires: (V_t, V_t)."""
    v = decay * v + current
    return v, v


def burst_step(
    u: Tensor,
    current: Tensor,
    delta: Tensor,
    *,
    decay: float | Tensor,
    s_max: int,
    surrogate: Surrogate,
    reset: Reset,
    graded: bool = False,
    quantiser: Quantiser = QUANTISERS["floor"],
) -> tuple[Tensor, Tensor]:
    """One time step, equations (N1) to (N4).

    Args:
        u: U_{t−1} ``[B, ...]``.
        current: I_t ``[B, ...]``.
        delta: Δ > 0, a scalar or broadcastable to ``[B, ...]``.
        decay: λ, a number or a scalar tensor.
        s_max: The largest burst.
        surrogate: The derivative of the burst.
        reset: U_t of V_t, s_t and Δ.
        graded: Whether o_t = Δ·s_t instead of s_t.
        quantiser: An entry of ``QUANTISERS``.

    Returns:
        (U_t, o_t), both ``[B, ...]``.
    """
    v = decay * u + current
    s = burst(_InUnits.apply(v, delta), s_max, surrogate, quantiser)
    return reset(v, s, delta), delta * s if graded else s


def adaptive_step(
    u: Tensor,
    current: Tensor,
    delta: Tensor,
    *,
    cap: Callable[[Tensor], Tensor],
    decay: float | Tensor,
    s_max: int,
    surrogate: Surrogate,
    reset: Reset,
    graded: bool = False,
) -> tuple[Tensor, Tensor]:
    """A burst step whose largest burst depends on its input.

    Eq. (A1): n_t = cap(I_t/Δ), an integer from 1 to s_max; (A2): s_t = min(clamp(⌊V_t/Δ⌋, 0, s_max), n_t). Where the
    burst is cut off, the gradient goes to n_t, elsewhere to V_t; I_t/Δ is causal and does not change under absorption.

    Args:
        u, current, delta, decay, s_max, surrogate, reset, graded: As in :func:`burst_step`.
        cap: I_t/Δ ``[B, ...]`` to n_t, which broadcasts to it.

    Returns:
        (U_t, o_t), both ``[B, ...]``.
    """
    v = decay * u + current
    s = burst(_InUnits.apply(v, delta), s_max, surrogate)
    n = cap(current / delta)
    s = torch.where(s > n, n, s)
    return reset(v, s, delta), delta * s if graded else s


def two_compartment_step(
    state: tuple[Tensor, Tensor],
    current: Tensor,
    delta: Tensor,
    *,
    backward_coupling: Tensor,
    forward_coupling: Tensor,
    gamma: float,
    s_max: int,
    surrogate: Surrogate,
    reset: Reset,
    graded: bool = False,
) -> tuple[tuple[Tensor, Tensor], Tensor]:
    """One step of a dendrite and a soma (TC-LIF, Zhang et al., arXiv 2308.13250), with a burst where that has a spike.

    Eq. (M1): D_t = D_{t−1} − a·S_{t−1} + I_t; (M2): V_t = S_{t−1} + b·D_t; (M3): s_t as in (N2);
    (M4): S_t = V_t − Δ s_t, D_t ← D_t − γ·Δ s_t.

    Args:
        state: (D, S) of the step before, each ``[B, ...]``.
        current: I_t ``[B, ...]``.
        delta, s_max, surrogate, reset, graded: As in :func:`burst_step`.
        backward_coupling: a in (0, 1), a scalar tensor.
        forward_coupling: b in (0, 1), a scalar tensor.
        gamma: γ, the share of the reset that reaches the dendrite.

    Returns:
        The new state and o_t.
    """
    dendrite, soma = state
    dendrite = dendrite - backward_coupling * soma + current
    v = soma + forward_coupling * dendrite
    s = burst(_InUnits.apply(v, delta), s_max, surrogate)
    new = reset(dendrite, gamma * s, delta), reset(v, s, delta)
    return new, delta * s if graded else s
