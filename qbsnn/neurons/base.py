"""What a network, absorption and the diagnostics may ask of a neuron."""

from __future__ import annotations

from abc import abstractmethod
from functools import partial

import torch
from torch import Tensor, nn

from qbsnn.functional.burst import burst_step
from qbsnn.functional.reset import RESETS, is_hard
from qbsnn.functional.scan import scan
from qbsnn.functional.surrogate import Surrogate


class Neuron(nn.Module):
    """A map of currents ``[T, B, ...]`` to outputs of the same shape. Keeps nothing between two calls."""

    stateful = True
    """Whether the output of a step depends on earlier steps; a network repeats an input over T only for these."""


class SpikingNeuron(Neuron):
    """A neuron of equations (N1) to (N4) in :mod:`qbsnn.functional.burst`; subclasses own Δ.

    s_max: largest burst; tau: membrane time constant τ ≥ 1 in steps; reset: a key of ``RESETS``.
    """

    def __init__(self, *, s_max: int, tau: float, surrogate: Surrogate, reset: str, graded: bool) -> None:
        super().__init__()
        self.s_max, self.tau, self.reset, self.graded = s_max, tau, reset, graded
        self.surrogate = surrogate

    @abstractmethod
    def scale(self) -> Tensor:
        """Δ > 0, a scalar tensor."""

    @property
    def decay(self) -> float:
        """λ = 1 − 1/τ."""
        return 1.0 - 1.0 / self.tau

    def emission_scale(self) -> Tensor:
        """What one spike of the output is worth: Δ if graded, 1 for counts."""
        delta = self.scale()
        return delta if self.graded else torch.ones_like(delta)

    def step(self, u: Tensor, current: Tensor) -> tuple[Tensor, Tensor]:
        """One time step from membrane U_{t−1} ``[B, ...]``: returns (U_t, o_t)."""
        return self._bound_step()(u, current)

    def run(self, current: Tensor) -> tuple[Tensor, Tensor]:
        """Outputs and membranes after the reset, both ``[T, B, ...]``."""
        outputs, membranes = scan(self._bound_step(), current, keep=True)
        assert membranes is not None
        return outputs, membranes

    def forward(self, current: Tensor) -> Tensor:
        """Outputs o ``[T, B, ...]`` for currents I ``[T, B, ...]``."""
        return scan(self._bound_step(), current)[0]

    def counts(self, output: Tensor) -> Tensor:
        """The integer bursts s that an output o stands for."""
        return (output / self.emission_scale()).round() if self.graded else output

    def absorbed(self) -> SpikingNeuron:
        """The same neuron with Δ = 1 and integer output, for a network whose weights hold the scales."""
        return FixedBurst(s_max=self.s_max, tau=self.tau, hard=is_hard(self.reset), surrogate=self.surrogate)

    def _bound_step(self) -> partial[tuple[Tensor, Tensor]]:
        return partial(
            burst_step,
            delta=self.scale(),
            decay=self.decay,
            s_max=self.s_max,
            surrogate=self.surrogate,
            reset=RESETS[self.reset],
            graded=self.graded,
        )

    def extra_repr(self) -> str:
        """Show the settings and the scale in ``print(network)``."""
        return f"s_max={self.s_max}, tau={self.tau:g}, reset={self.reset}, delta={self.scale().detach().tolist()}"


class FixedBurst(SpikingNeuron):
    """A burst neuron with Δ = 1: what absorption leaves. ``hard`` selects the hard reset."""

    one: Tensor

    def __init__(self, *, s_max: int, tau: float, hard: bool, surrogate: Surrogate) -> None:
        super().__init__(s_max=s_max, tau=tau, surrogate=surrogate, reset="hard" if hard else "detach", graded=False)
        self.register_buffer("one", torch.ones(()), persistent=False)

    def scale(self) -> Tensor:
        """Δ = 1."""
        return self.one
