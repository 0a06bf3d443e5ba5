"""Burst neurons with more state or more parameters than QB-LIF. They train in every model and have no integer form."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn
from typing_extensions import Unpack

from qbsnn.bounds import NeuronBounds
from qbsnn.errors import ArgumentError
from qbsnn.functional.burst import adaptive_step, two_compartment_step
from qbsnn.functional.parameters import integer_cap
from qbsnn.functional.scan import Step
from qbsnn.neurons.base import Operations
from qbsnn.neurons.qb_lif import QBLIF, BurstOptions, refuse


class AdaptiveQB(QBLIF):
    """QB-LIF whose largest burst is chosen per sample and step, 1..s_max, equations (A1) and (A2).

    A small network sees the mean and the mean magnitude of the step's scaled current I/Δ and gives the cap. s_max:
    upper bound of the cap. share: one cap per ``sample`` or per ``channel`` of a sample. hidden: its hidden units. The
    other arguments are those of :class:`QBLIF`, without rounding.

    >>> neuron = AdaptiveQB(s_max=8)
    >>> spikes = neuron(torch.randn(4, 2, 16) * 9)
    >>> spikes.shape, bool(spikes.max() <= 8)
    (torch.Size([4, 2, 16]), True)
    """

    no_integer_form = "chooses its largest burst by a small network on each sample's statistics"

    def __init__(
        self,
        s_max: int = 8,
        tau: float = 2.0,
        learn_delta: bool = True,
        share: str = "sample",
        hidden: int = 16,
        output: str = "counts",
        **options: Unpack[BurstOptions],
    ) -> None:
        refuse(self, options, rounding="its bursts round down")
        super().__init__(s_max=s_max, tau=tau, learn_delta=learn_delta, output=output, **options)
        self.share = NeuronBounds.check("share", share)
        units = NeuronBounds.check("hidden", hidden)
        self.cap_net = nn.Sequential(nn.Linear(2, units), nn.ReLU(), nn.Linear(units, 1))

    def cap(self, scaled: Tensor) -> Tensor:
        """Equation (A1): n ``[B, 1, ...]`` or ``[B, C, 1, ...]`` for the scaled current ``[B, ...]``."""
        kept = 1 if self.share == "sample" else 2
        if scaled.dim() < kept:
            raise ArgumentError(f"share={self.share} needs a current [T, B, C, ...], got [T, {scaled.dim()} more]")
        merged = scaled.flatten(kept) if scaled.dim() > kept else scaled.unsqueeze(-1)
        statistics = torch.stack([merged.mean(-1), merged.abs().mean(-1)], -1)
        logit = self.cap_net(statistics.to(next(self.cap_net.parameters()).dtype)).squeeze(-1)
        return integer_cap(logit, self.s_max).view(*logit.shape, *[1] * (scaled.dim() - kept)).to(scaled.dtype)

    def bound_step(self) -> Step:
        """The step of equations (A1) and (A2)."""
        return partial(
            adaptive_step,
            delta=self.scale(),
            cap=self.cap,
            decay=self.decay,
            s_max=self.s_max,
            surrogate=self.surrogate,
            reset=self.reset,
            graded=self.graded,
        )


class MultiCompartment(QBLIF):
    """A dendrite and a soma with bursts, equations (M1) to (M4) (TC-LIF, arXiv 2308.13250), graded output by default.

    The couplings are learned, a = σ(w_a) and b = σ(w_b); gamma: the share of the reset that reaches the dendrite. The
    other arguments are those of :class:`QBLIF`, without τ and rounding.

    >>> MultiCompartment(s_max=4)(torch.ones(3, 1, 1)).shape
    torch.Size([3, 1, 1])
    """

    compartments = 2
    no_integer_form = "has two coupled state variables, and QB-INT 1 has one membrane"

    def __init__(
        self,
        s_max: int = 8,
        learn_delta: bool = True,
        gamma: float = 0.5,
        output: str = "graded",
        **options: Unpack[BurstOptions],
    ) -> None:
        none = "it has couplings instead of a τ"
        refuse(self, options, rounding="its bursts round down", tau=none, learn_tau=none)
        super().__init__(s_max=s_max, tau=1.0, learn_delta=learn_delta, output=output, **options)
        self.gamma = NeuronBounds.check("gamma", gamma)
        self.coupling = nn.Parameter(torch.zeros(2))

    def operations(self) -> Operations:
        """Two state variables, each of which takes from the other; one comparison, one reset."""
        return Operations(leaks=2, compares=1, resets=1, state=2, keeps=True)

    def bound_step(self) -> Step:
        """The step of equations (M1) to (M4)."""
        a, b = torch.sigmoid(self.coupling)
        return partial(
            two_compartment_step,
            delta=self.scale(),
            backward_coupling=a,
            forward_coupling=b,
            gamma=self.gamma,
            s_max=self.s_max,
            surrogate=self.surrogate,
            reset=self.reset,
            graded=self.graded,
        )
