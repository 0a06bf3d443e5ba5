"""QB-LIF: integer bursts with a learnable scale, and the neurons that are settings of it."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor
from typing_extensions import TypedDict, Unpack

from qbsnn import checks
from qbsnn.bounds import NeuronBounds
from qbsnn.errors import ArgumentError
from qbsnn.functional.burst import QUANTISERS
from qbsnn.functional.reset import Reset, ResetFunction
from qbsnn.functional.surrogate import Surrogate
from qbsnn.neurons.base import SpikingNeuron, checked_reset, checked_surrogate
from qbsnn.neurons.scale import Scale


class BurstOptions(TypedDict, total=False):
    """Arguments of :class:`QBLIF` that every neuron built on it takes, with the same defaults."""

    delta: float
    reset: str | Reset | ResetFunction
    surrogate: str | Surrogate
    alpha: float | None
    beta: float
    tail: str


def refuse(neuron: QBLIF, options: Mapping[str, object], **reasons: str) -> None:
    """Raise an ArgumentError for an argument of :class:`QBLIF` that a neuron built on it has not, with the reason."""
    for name, reason in reasons.items():
        if name in options:
            raise ArgumentError(f"{name} must be left out of {type(neuron).__name__}: {reason}, got {options[name]!r}")


RESET_NAMES = ("detach", "detach_s", "full")


class QBLIF(SpikingNeuron):
    """Quantized-burst leaky integrate-and-fire neuron (arXiv 2604.25688), soft reset.

    Args:
        s_max: The largest burst, 1..127.
        tau: The membrane time constant τ ≥ 1, infinite for no leak.
        learn_tau: Learn 1/τ = σ(w), one per layer, from τ > 1.
        delta: The initial Δ > 0.
        learn_delta, granularity, parametrisation, lsq, init, percentile: See :class:`~qbsnn.neurons.scale.Scale`.
        output: ``counts`` (s) or ``graded`` (Δ·s).
        rounding: A key of ``QUANTISERS``, as a rule ``floor`` or ``round`` (a half goes up).
        reset: Which gradient the reset passes on: ``detach``, ``detach_s`` or ``full``; or a function (V, s, Δ) -> U.
        surrogate: A key of ``SURROGATES``, or a function (p, s_max) -> g.
        alpha: The width of a surrogate with a name; ``None`` for its default.
        beta, tail: Of ReLSG-ET.

    Raises:
        ArgumentError: A value is outside these bounds.

    >>> import torch
    >>> neuron = QBLIF(s_max=8)
    >>> neuron(torch.tensor([[[0.4, 1.2]], [[0.4, 9.0]]])).tolist()  # [T=2, B=1, 2], Δ = 0.5
    [[[0.0, 2.0]], [[1.0, 8.0]]]
    """

    def __init__(
        self,
        s_max: int = 8,
        tau: float = 2.0,
        learn_tau: bool = False,
        delta: float = 0.5,
        learn_delta: bool = True,
        granularity: str = "layer",
        parametrisation: str = "abs",
        lsq: bool = False,
        init: str = "fixed",
        percentile: float = 99.0,
        output: str = "counts",
        rounding: str = "floor",
        reset: str | Reset | ResetFunction = "detach",
        surrogate: str | Surrogate = "relsg_et",
        alpha: float | None = None,
        beta: float = 3.0,
        tail: str = "document",
    ) -> None:
        super().__init__(
            s_max=NeuronBounds.check("s_max", s_max),
            tau=NeuronBounds.check("tau", tau),
            surrogate=checked_surrogate(surrogate, alpha, beta, tail),
            reset=checked_reset(reset, RESET_NAMES),
            graded=NeuronBounds.check("output", output) == "graded",
            rounding=checks.choice("rounding", rounding, QUANTISERS),
            learn_tau=NeuronBounds.check("learn_tau", learn_tau),
        )
        self.delta = Scale(delta, s_max, learn_delta, granularity, parametrisation, lsq, init, percentile)

    def scale(self) -> Tensor:
        """Δ."""
        return self.delta()


class BurstLIF(QBLIF):
    """Fixed multi-threshold burst: QB-LIF whose Δ is not learned. The arguments are those of :class:`QBLIF`.

    >>> list(BurstLIF(s_max=4, delta=0.5).parameters())
    []
    """

    def __init__(
        self,
        s_max: int = 8,
        tau: float = 2.0,
        output: str = "counts",
        **options: Unpack[BurstOptions],
    ) -> None:
        refuse(self, options, learn_delta="its Δ is fixed")
        super().__init__(s_max=s_max, tau=tau, learn_delta=False, output=output, **options)


class ILIF(QBLIF):
    """Integer LIF (I-LIF, arXiv 2407.20708): rounded bursts of a fixed scale, a window as surrogate.

    The arguments are those of :class:`QBLIF`; the defaults are those of the authors' code (λ = 1/4). A half is rounded
    up, where the authors round it to even.

    >>> import torch
    >>> ILIF(s_max=4)(torch.tensor([[[0.4, 0.6, 9.0]]])).tolist()
    [[[0.0, 1.0, 4.0]]]
    """

    def __init__(
        self,
        s_max: int = 4,
        tau: float = 4 / 3,
        delta: float = 1.0,
        reset: str | Reset | ResetFunction = "full",
        surrogate: str | Surrogate = "rectangular",
        alpha: float | None = None,
    ) -> None:
        super().__init__(
            s_max=s_max, tau=tau, delta=delta, learn_delta=False, rounding="round", reset=reset,
            surrogate=surrogate, alpha=alpha,
        )  # fmt: skip


class TernaryBurst(QBLIF):
    """Signed bursts −s_max..s_max: ternary spikes (arXiv 2312.06372) generalised to more than one level.

    s = sign(V)·min(⌊|V|/Δ⌋, s_max), so |V| < Δ is silent. The arguments are those of :class:`QBLIF`.

    >>> import torch
    >>> TernaryBurst(s_max=2, delta=0.5)(torch.tensor([[[-9.0, -0.7, 0.2, 0.7]]])).tolist()
    [[[-2.0, -1.0, 0.0, 1.0]]]
    """

    def __init__(
        self,
        s_max: int = 4,
        tau: float = 2.0,
        learn_delta: bool = True,
        granularity: str = "layer",
        output: str = "counts",
        **options: Unpack[BurstOptions],
    ) -> None:
        refuse(self, options, rounding="its bursts round towards 0")
        super().__init__(
            s_max=s_max, tau=tau, learn_delta=learn_delta, granularity=granularity, output=output,
            rounding="to_zero", **options,
        )  # fmt: skip


class QATQBLIF(QBLIF):
    """QB-LIF in front of which weights are quantised to ``num_bits`` (2 to 8) in training, equation (Q1).

    A stage quantises the weights of every layer that feeds such a neuron, and the network those of the readout behind
    the last one, unless they are frozen; gradients go straight through. Set weights before a layer goes into its stage:
    from then on ``weight`` is computed from what is trained. The other arguments are those of :class:`QBLIF`.

    >>> QATQBLIF(num_bits=4).weight_bits
    4
    """

    def __init__(
        self,
        num_bits: int = 4,
        s_max: int = 8,
        tau: float = 2.0,
        learn_delta: bool = True,
        granularity: str = "layer",
        output: str = "counts",
        **options: Unpack[BurstOptions],
    ) -> None:
        super().__init__(
            s_max=s_max, tau=tau, learn_delta=learn_delta, granularity=granularity, output=output, **options
        )
        self.weight_bits = NeuronBounds.check("num_bits", num_bits)


class QuantReLU(QBLIF):
    """Learned-step quantised ReLU of ``bits`` (1 to 7) bits: the ANN baseline at the level count of a burst.

    The burst neuron that forgets everything (τ = 1), rounds and puts out Δ·s: s = clamp(round(I/Δ), 0, 2^bits − 1) with
    the gradients of learned step size quantization (arXiv 1902.08153). One step is all it needs.

    Args:
        bits: Of a level, 1 to 7.
        delta, init, percentile: See :class:`~qbsnn.neurons.scale.Scale`.

    >>> import torch
    >>> QuantReLU(bits=2, delta=0.5)(torch.tensor([[[-1.0, 0.7, 9.0]]])).tolist()
    [[[0.0, 0.5, 1.5]]]
    """

    emits_spikes = False
    stateful = False

    def __init__(self, bits: int = 4, delta: float = 0.5, init: str = "fixed", percentile: float = 99.0) -> None:
        levels = 2 ** NeuronBounds.check("bits", bits) - 1
        super().__init__(
            s_max=levels, tau=1.0, delta=delta, lsq=True, init=init, percentile=percentile, output="graded",
            rounding="round", surrogate="rectangular",
        )  # fmt: skip
