"""QB-LIF: integer bursts with a learnable scale."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn

from qbsnn import checks
from qbsnn.functional.surrogate import relsg_et
from qbsnn.neurons.base import SpikingNeuron

RESET_NAMES = ("detach", "detach_s", "full")


class QBLIF(SpikingNeuron):
    """Quantized-burst leaky integrate-and-fire neuron (arXiv 2604.25688), soft reset.

    s_max: largest burst, 1..127. tau: membrane time constant τ ≥ 1. delta: initial Δ > 0, one scalar per layer; |Δ| is
    used. learn_delta: whether Δ is a parameter. output: ``counts`` (s) or ``graded`` (Δ·s). reset: which gradient the
    reset passes on. alpha, beta, tail: ReLSG-ET, equation (S1). Raises SettingsError for values outside these bounds.

    >>> neuron = QBLIF(s_max=8)
    >>> neuron(torch.tensor([[[0.4, 1.2]], [[0.4, 9.0]]])).tolist()  # [T=2, B=1, 2], Δ = 0.5
    [[[0.0, 2.0]], [[1.0, 8.0]]]
    """

    delta: Tensor

    def __init__(
        self,
        s_max: int = 8,
        tau: float = 2.0,
        delta: float = 0.5,
        learn_delta: bool = True,
        output: str = "counts",
        reset: str = "detach",
        alpha: float = 0.5,
        beta: float = 3.0,
        tail: str = "document",
    ) -> None:
        surrogate = partial(
            relsg_et,
            alpha=checks.number("neuron.alpha", alpha, 0),
            beta=checks.number("neuron.beta", beta, 0),
            tail=checks.choice("neuron.tail", tail, ("document", "continuous")),
        )
        super().__init__(
            s_max=checks.integer("neuron.s_max", s_max, 1, 127),
            tau=checks.number("neuron.tau", tau, 1),
            surrogate=surrogate,
            reset=checks.choice("neuron.reset", reset, RESET_NAMES),
            graded=checks.choice("neuron.output", output, ("counts", "graded")) == "graded",
        )
        initial = torch.tensor(checks.number("neuron.delta", delta, 0, open_low=True))
        if checks.boolean("neuron.learn_delta", learn_delta):
            self.delta = nn.Parameter(initial)
        else:
            self.register_buffer("delta", initial)

    def scale(self) -> Tensor:
        """|Δ|."""
        return self.delta.abs()
