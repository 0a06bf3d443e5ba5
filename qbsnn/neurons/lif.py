"""Binary neurons: LIF, PLIF, IF."""

from __future__ import annotations

import math

from torch import Tensor

from qbsnn.bounds import NeuronBounds
from qbsnn.functional.reset import RESETS, Reset, ResetFunction
from qbsnn.functional.surrogate import Surrogate
from qbsnn.neurons.base import SpikingNeuron, checked_reset, checked_surrogate
from qbsnn.neurons.scale import representable

NAMES: dict[tuple[object, bool], str] = {
    ("soft", True): "detach", ("soft", False): "full", ("hard", True): "hard", ("hard", False): "hard_full",
}  # fmt: skip
"""The key of ``RESETS`` for each reset and whether the gradient sees the spike."""


class LIF(SpikingNeuron):
    """Leaky integrate-and-fire neuron: the burst neuron with s_max = 1 and a constant threshold as Δ.

    Args:
        tau: The membrane time constant τ ≥ 1.
        v_th: The threshold, above 0.
        reset: ``soft`` (subtract), ``hard`` (to 0), or a function (V, s, Δ) -> U.
        detach_reset: Whether a reset with a name hides the spike from the gradient.
        surrogate: A key of ``SURROGATES``, or a function (p, s_max) -> g.
        alpha: The width of a surrogate with a name; ``None`` for its default.

    Raises:
        ArgumentError: A value is outside these bounds.

    >>> import torch
    >>> LIF()(torch.tensor([[[0.8]], [[0.8]], [[0.8]]])).flatten().tolist()  # V = 0.8, 1.2, 0.9
    [0.0, 1.0, 0.0]
    """

    v_th: Tensor
    learns_tau = False

    def __init__(
        self,
        tau: float = 2.0,
        v_th: float = 1.0,
        reset: str | Reset | ResetFunction = "soft",
        detach_reset: bool = True,
        surrogate: str | Surrogate = "arctan",
        alpha: float | None = None,
    ) -> None:
        hidden = NeuronBounds.check("detach_reset", detach_reset)
        super().__init__(
            s_max=1,
            tau=NeuronBounds.check("tau", tau),
            surrogate=checked_surrogate(surrogate, alpha),
            reset=RESETS[NAMES[reset, hidden]] if reset in ("soft", "hard") else checked_reset(reset, ("soft", "hard")),
            learn_tau=self.learns_tau,
        )
        self.register_buffer("v_th", representable("v_th", v_th))

    def scale(self) -> Tensor:
        """The constant threshold."""
        return self.v_th


class PLIF(LIF):
    """LIF with a learned time constant, 1/τ = σ(w), one per layer (Fang et al., arXiv 2007.05785).

    tau: initial τ > 1; the other arguments are those of :class:`LIF`.

    >>> [tuple(p.shape) for p in PLIF(tau=2.0).parameters()]
    [()]
    """

    learns_tau = True


class IF(LIF):
    """Integrate-and-fire neuron: LIF without leak. The arguments are those of :class:`LIF` without tau.

    >>> import torch
    >>> IF()(torch.tensor([[[0.4]], [[0.4]], [[0.4]]])).flatten().tolist()  # V = 0.4, 0.8, 1.2
    [0.0, 0.0, 1.0]
    """

    def __init__(
        self,
        v_th: float = 1.0,
        reset: str | Reset | ResetFunction = "soft",
        detach_reset: bool = True,
        surrogate: str | Surrogate = "arctan",
        alpha: float | None = None,
    ) -> None:
        super().__init__(math.inf, v_th, reset, detach_reset, surrogate, alpha)
