"""LIF: binary spikes."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from qbsnn import checks
from qbsnn.functional.surrogate import arctan
from qbsnn.neurons.base import SpikingNeuron


class LIF(SpikingNeuron):
    """Leaky integrate-and-fire neuron: the burst neuron with s_max = 1 and a constant threshold as Δ.

    tau: membrane time constant τ ≥ 1. v_th: threshold > 0. reset: ``soft`` (subtract) or ``hard`` (to 0).
    detach_reset: whether the reset hides the spike from the gradient. alpha: width of the arctan surrogate (S2).
    Raises SettingsError for values outside these bounds.

    >>> LIF()(torch.tensor([[[0.8]], [[0.8]], [[0.8]]])).flatten().tolist()  # V = 0.8, 1.2, 0.9
    [0.0, 1.0, 0.0]
    """

    v_th: Tensor

    def __init__(
        self,
        tau: float = 2.0,
        v_th: float = 1.0,
        reset: str = "soft",
        detach_reset: bool = True,
        alpha: float = 2.0,
    ) -> None:
        hidden = checks.boolean("neuron.detach_reset", detach_reset)
        soft = checks.choice("neuron.reset", reset, ("soft", "hard")) == "soft"
        super().__init__(
            s_max=1,
            tau=checks.number("neuron.tau", tau, 1),
            surrogate=partial(arctan, alpha=checks.number("neuron.alpha", alpha, 0, open_low=True)),
            reset=("detach" if hidden else "full") if soft else ("hard" if hidden else "hard_full"),
            graded=False,
        )
        self.register_buffer("v_th", torch.tensor(checks.number("neuron.v_th", v_th, 0, open_low=True)))

    def scale(self) -> Tensor:
        """The constant threshold."""
        return self.v_th
