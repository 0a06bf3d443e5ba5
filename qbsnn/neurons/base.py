"""What a network, absorption and the diagnostics may ask of a neuron."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Collection
from dataclasses import dataclass
from functools import partial
from math import prod

import torch
from torch import Tensor, nn

from qbsnn import checks
from qbsnn.bounds import NeuronBounds
from qbsnn.functional.arguments import real_current
from qbsnn.functional.burst import QUANTISERS, burst_step
from qbsnn.functional.drive import Drive, Part
from qbsnn.functional.parameters import decay_of, inverse_decay, learned_decay, time_constant
from qbsnn.functional.reset import RESETS, Reset, ResetFunction
from qbsnn.functional.scan import HALF, Step, scan
from qbsnn.functional.surrogate import SURROGATES, Surrogate, own_surrogate, surrogate
from qbsnn.kernels.fused import fused_scan
from qbsnn.neurons.scale import Scale


@dataclass(frozen=True)
class Operations:
    """What one neuron does in one time step, its synapses and its bias aside.

    Attributes:
        leaks: State variables that decay to something else than themselves or 0.
        compares: Comparisons with a threshold.
        resets: Changes of the state after a burst.
        state: Values that a step reads and writes: the accumulator, or every state variable.
        keeps: Whether these values are kept until the next step.
    """

    leaks: int = 0
    compares: int = 0
    resets: int = 0
    state: int = 1
    keeps: bool = False


STEP_METHODS = ("bound_step", "forward")
"""Where a class can say what its neurons compute."""


def steps_anew(cls: type[nn.Module], *stated: str) -> bool:
    """Whether a class computes another step than the one for which it, or a base, stated something by these names."""
    order = cls.__mro__
    base = next(i for i, each in enumerate(order) if vars(each).keys() & set(stated))
    return any(vars(each).keys() & set(STEP_METHODS) for each in order[:base])


class Neuron(nn.Module):
    """A map of currents ``[T, B, ...]`` to outputs of the same shape. Keeps nothing between two calls."""

    stateful = True
    """Whether the output of a step depends on earlier steps; a network repeats an input over T only for these."""

    no_integer_form: str | None = None
    """Why this neuron cannot be absorbed into an integer network; ``None`` if it can."""

    weight_bits: int | None = None
    """Bits to which the weights in front of this neuron are quantised in training; ``None`` leaves them alone."""

    def operations(self) -> Operations | None:
        """What one neuron does in one step; ``None`` if it is not known, which energy estimates then say."""
        return None

    def stated_operations(self) -> Operations | None:
        """:meth:`operations`, unless they were stated for another step than this class computes.

        A subclass that overrides the step and not the operations has stated none.
        """
        return None if steps_anew(type(self), "operations") else self.operations()

    def size_to(self, shape: tuple[int, ...]) -> None:
        """Hear, once and from the network, the shape of one sample's current: ``(C, H, W)`` or ``(F,)``."""


class SpikingNeuron(Neuron):
    """A neuron of equations (N1) to (N4) in :mod:`qbsnn.functional.burst`; subclasses own Δ.

    It puts out whole bursts from ``s_min`` to ``s_max``, times :meth:`emission_scale` if graded and times nothing else:
    ``memory=packed`` and ``memory=checkpoint`` keep the bursts alone, and :meth:`counts` reads them.

    Args:
        s_max: The largest burst.
        tau: The membrane time constant τ ≥ 1 in steps, infinite for no leak.
        surrogate: (p, s_max) -> g.
        reset: U of V, s and Δ.
        graded: Whether the output is Δ·s instead of s.
        rounding: A key of ``QUANTISERS``.
        learn_tau: Whether 1/τ is learned, as σ(w).
    """

    emits_spikes = True
    """Whether synapses only add what the neuron puts out; a quantised activation is a factor instead."""

    compartments = 1
    """How many state variables a neuron has."""

    neurons = 0
    """How many neurons the layer has, once :meth:`size_to` told."""

    compiled = False
    """Whether forward passes run as compiled kernels."""

    def __init__(
        self,
        *,
        s_max: int,
        tau: float,
        surrogate: Surrogate,
        reset: Reset,
        graded: bool = False,
        rounding: str = "floor",
        learn_tau: bool = False,
    ) -> None:
        super().__init__()
        self.s_max, self.reset, self.graded, self.rounding = s_max, reset, graded, rounding
        self.surrogate = surrogate
        if reset.kind is None and self.no_integer_form is None:
            self.no_integer_form = f"has a reset of its own ({reset}), and QB-INT 1 has a soft and a hard one"
        self._tau = tau
        learned = inverse_decay(checks.number("tau", tau, 1, open_low=True)) if learn_tau else None
        self.w = None if learned is None else nn.Parameter(learned)

    @abstractmethod
    def scale(self) -> Tensor:
        """Δ > 0: a scalar tensor, or one per channel, ``[C, 1, 1]`` or ``[F]``."""

    @property
    def delta_module(self) -> Scale | None:
        """The learned scale, if this neuron has one."""
        return next((module for module in self.children() if isinstance(module, Scale)), None)

    @property
    def tau(self) -> float:
        """τ as a number, from the learned one where it is learned."""
        return self._tau if self.w is None else time_constant(self._decay_number())

    @property
    def decay(self) -> float | Tensor:
        """λ = 1 − 1/τ; a scalar tensor where τ is learned."""
        return decay_of(self._tau) if self.w is None else learned_decay(self.w)

    @property
    def s_min(self) -> int:
        """The smallest burst: 0, or −s_max for signed bursts."""
        return -self.s_max if QUANTISERS[self.rounding].signed else 0

    def emission_scale(self) -> Tensor:
        """What one spike of the output is worth: Δ if graded, 1 for counts."""
        return self.scale() if self.graded else torch.ones_like(self.scale())

    def bound_step(self) -> Step:
        """The step function (U_{t−1}, I_t) -> (U_t, o_t) with this neuron's parameters.

        A new neuron overrides this and :meth:`operations`.
        """
        return partial(
            burst_step,
            delta=self.scale(),
            decay=self.decay,
            s_max=self.s_max,
            surrogate=self.surrogate,
            reset=self.reset,
            graded=self.graded,
            quantiser=QUANTISERS[self.rounding],
        )

    def operations(self) -> Operations | None:
        """One membrane that leaks unless λ is 0 or 1, one comparison, one reset."""
        leaks = int(1 < self.tau < float("inf"))
        return Operations(leaks, compares=1, resets=1, keeps=True) if self.emits_spikes else Operations(leaks, 1)

    def step(self, u: Tensor, current: Tensor) -> tuple[Tensor, Tensor]:
        """One time step from the state U_{t−1} ``[B, ...]``: returns (U_t, o_t)."""
        return self.bound_step()(u, current)

    def run(self, current: Tensor) -> tuple[Tensor, Tensor]:
        """Outputs ``[T, B, ...]`` and states after the reset, ``[T, B, ...]`` or ``[T, compartments, B, ...]``."""
        outputs, states = scan(self.bound_step(), real_current(current), keep=True, compartments=self.compartments)
        assert states is not None
        return outputs, states

    def forward(self, current: Tensor | Drive) -> Tensor:
        """Outputs o ``[T, B, ...]`` for currents I ``[T, B, ...]``, or for the parts that sum to them.

        From parts, norm, sum and neuron run as one function that keeps the parts alone for the backward pass.

        Raises:
            ArgumentError: The currents are no tensor, have no step, or are integers, which would cut off the bursts.
        """
        if not isinstance(current, Drive):
            real_current(current)
        if (module := self.delta_module) is not None and module.unsettled:
            module.settle(current.total() if isinstance(current, Drive) else current)
        if isinstance(current, Drive) or self.compiled:
            drive = current if isinstance(current, Drive) else Drive((Part(current),), len(current))
            return fused_scan(self.bound_step(), drive, self.compartments, self.compiled)
        return scan(self.bound_step(), current, compartments=self.compartments)[0]

    def size_to(self, shape: tuple[int, ...]) -> None:
        """Give Δ the size of the layer."""
        self.neurons = prod(shape)
        if (module := self.delta_module) is not None:
            module.size_to(shape)

    def counts(self, output: Tensor) -> Tensor:
        """The integer bursts s that an output o stands for."""
        wide = output.float() if output.dtype in HALF else output  # a quotient of half precision misses large bursts
        return (wide / self.emission_scale()).round() if self.graded else output

    def absorbed(self) -> FixedBurst:
        """The same neuron with Δ = 1 and integer output, for a network whose weights hold the scales."""
        return FixedBurst(
            s_max=self.s_max, decay=self._decay_number(), surrogate=self.surrogate, rounding=self.rounding,
            reset=RESETS["hard" if self.reset.kind == "hard" else "detach"],
            stateful=self.stateful, emits_spikes=self.emits_spikes,
        )  # fmt: skip

    def _decay_number(self) -> float:
        return float(decay.detach()) if isinstance(decay := self.decay, Tensor) else decay

    def extra_repr(self) -> str:
        """Show the settings and the scale in ``print(network)``."""
        settings = f"s_max={self.s_max}, tau={self.tau:g}, reset={self.reset}, rounding={self.rounding}"
        unsized = (module := self.delta_module) is not None and module.unsized
        return f"{settings}, delta={'unsized' if unsized else f'{self.scale().detach().mean():.4g}'}"


class FixedBurst(SpikingNeuron):
    """A burst neuron with Δ = 1 and decay λ: what absorption leaves."""

    one: Tensor

    def __init__(
        self, *, s_max: int, decay: float, reset: Reset, surrogate: Surrogate, rounding: str = "floor",
        stateful: bool = True, emits_spikes: bool = True,
    ) -> None:  # fmt: skip
        super().__init__(s_max=s_max, tau=time_constant(decay), surrogate=surrogate, reset=reset, rounding=rounding)
        self._decay, self.stateful, self.emits_spikes = decay, stateful, emits_spikes
        self.register_buffer("one", torch.ones(()), persistent=False)

    @property
    def decay(self) -> float:
        """λ, exactly as the trained neuron has it."""
        return self._decay

    def scale(self) -> Tensor:
        """Δ = 1."""
        return self.one


def checked_surrogate(
    given: str | Surrogate, alpha: float | None = None, beta: float = 3.0, tail: str = "document"
) -> Surrogate:
    """The surrogate of a neuron's settings.

    Args:
        given: A key of ``SURROGATES``, or a function (p, s_max) -> g, to which the other arguments do not apply.
        alpha: Its width; ``None`` is the surrogate's own default.
        beta: Of ReLSG-ET.
        tail: Of ReLSG-ET.

    Raises:
        ArgumentError: A value is none of these or out of bounds.
    """
    if callable(given):
        return own_surrogate(given)
    checks.choice("surrogate", given, SURROGATES)
    if alpha is not None:
        checks.number("alpha", alpha, 0, open_low=given != "relsg_et")
    NeuronBounds.check("beta", beta)
    NeuronBounds.check("tail", tail)
    return surrogate(given, alpha, beta, tail)


def checked_reset(given: str | Reset | ResetFunction, names: Collection[str]) -> Reset:
    """The reset of a neuron's settings.

    Args:
        given: One of ``names``, a :class:`Reset`, or a function (V, s, Δ) -> U, which is of neither kind that has an
            integer form.
        names: Keys of ``RESETS``.

    Raises:
        ArgumentError: It is none of these.
    """
    if isinstance(given, Reset):
        return given
    return Reset(given) if callable(given) else RESETS[checks.choice("reset", given, names)]
