"""QB-INT 1: the integer network as plain data.

Every engine reads this and nothing else, so that engines share numbers but no code. All arrays are numpy: int8
weights in [−127, 127]; int32 biases, thresholds and shortcut constants. Per time step, for each stage in order,
equations (I4) to (I7) (docs/hardware.md):

    V ← leak(V)                         see Leak
    V ← fit(V + Σ q·s + b + Σ m·s)      conv/linear branches, bias, identity shortcuts; see IntegerNetwork.overflow
    s ← clamp(⌊V/θ⌋, s_min, s_max)      V = θ fires once; rounding "round": ⌊(V + ⌊θ/2⌋)/θ⌋, which is half up;
                                        "to_zero": sign(V)·⌊|V|/θ⌋, silent for |V| < θ
    V ← V − θ·s                         soft reset;  hard reset: V ← 0 where s ≠ 0

V starts at 0 for every sample. Spikes leave a stage through its ``pool``. The first stage has one branch of kind
``input``: its current J (int32, bias included) is computed outside, in floating point, and rounded once; J is the
input of every engine. The readout accumulates Z of (I8) over the steps, one scale for all classes; the predicted class
is the lowest index among the largest Z. With an exit margin m a sample leaves after the first step whose largest Z
exceeds the second largest by at least m, or after the last step, with the class of that step.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

INPUT = -1
"""The ``source`` of the branch that is fed by the network's input current J."""


@dataclass(frozen=True)
class Leak:
    """What a membrane loses at the beginning of a step.

    Attributes:
        kind: ``none``: nothing. ``shift_floor``: V − (V >> n), the arithmetic shift rounding towards −∞.
            ``shift_xylo``: V − (V >> n) with the same shift, or V − sign(V) where V >> n is 0. ``mul12_to_zero``:
            trunc(V·(4096 − d)/4096), with a 64-bit product.
        amount: n (0 to 30) or d (0 to 4096).
    """

    kind: Literal["none", "shift_floor", "shift_xylo", "mul12_to_zero"] = "shift_floor"
    amount: int = 1


@dataclass(frozen=True)
class IntBranch:
    """One way into a stage.

    source: index of the stage whose pooled spikes feed this branch, or ``INPUT``.
    kind: ``input`` (J is added as it is), ``conv``, ``linear`` (flattens C, H, W in that order), ``identity``.
    weight: int8, conv ``[O, I / groups, kh, kw]``, linear ``[O, I]``; ``None`` for input and identity.
    scale: int32 ``[O]``, the constant m of an identity shortcut; ``None`` otherwise.
    """

    source: int
    kind: Literal["input", "conv", "linear", "identity"]
    weight: NDArray[np.int8] | None = None
    scale: NDArray[np.int32] | None = None
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int] = (0, 0)
    groups: int = 1


@dataclass(frozen=True)
class IntPool:
    """Pooling of a stage's spikes: ``max`` (of the positions inside the map), or ``sum`` (no padding).

    The padding is at most half the kernel. Output size is ⌊(size + 2·padding − kernel)/stride⌋ + 1.
    """

    kind: Literal["max", "sum"]
    kernel: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int] = (0, 0)


@dataclass(frozen=True)
class IntStage:
    """One layer of neurons. ``bias`` and ``theta`` are int32 ``[O]``; ``shape`` is one sample's membrane shape.

    ``shape`` is ``(O,)`` or ``(O, H, W)``. Spikes are s_min..s_max; s_min is 0, or −s_max for signed bursts.
    """

    name: str
    branches: tuple[IntBranch, ...]
    bias: NDArray[np.int32]
    theta: NDArray[np.int32]
    s_max: int
    shape: tuple[int, ...]
    leak: Leak = Leak()
    s_min: int = 0
    rounding: Literal["floor", "round", "to_zero"] = "floor"
    reset: Literal["soft", "hard"] = "soft"
    pool: IntPool | None = None


@dataclass(frozen=True)
class IntReadout:
    """The classifier: a linear branch without neurons. ``scale`` turns Z into float logits: logits = Z / (scale·T)."""

    branch: IntBranch
    bias: NDArray[np.int32]
    scale: float


@dataclass(frozen=True)
class IntegerNetwork:
    """Stages in execution order, a readout and the number of time steps ``T``.

    membrane_bits: width of the two's complement register that holds V. overflow: what happens when the complete sum of
    a step does not fit it: ``error`` (engines count it, verification refuses), ``saturate`` or ``wrap``. Accumulators
    are int32 in every case, which the static bounds prove sufficient. exit_margin: m, 0 to 2³² − 1; ``None`` for a
    network that always takes all steps.
    """

    stages: tuple[IntStage, ...]
    readout: IntReadout
    T: int
    membrane_bits: int = 32
    overflow: Literal["error", "saturate", "wrap"] = "error"
    exit_margin: int | None = None


@dataclass(frozen=True, order=True)
class Overflow:
    """Where a value did not fit its register; the order is that of time, then of the network.

    step, sample: from 0. index, stage: number and name of the stage; the readout follows the last one and is called
    ``readout``. neuron: its position in ``shape``. value: what did not fit.
    """

    step: int
    index: int
    sample: int
    neuron: tuple[int, ...]
    stage: str
    value: int

    def __str__(self) -> str:
        """A sentence part: layer, neuron, step and value."""
        at = ", ".join(str(i) for i in self.neuron)
        return f"{self.stage}, neuron ({at}), step {self.step}, sample {self.sample}: {self.value}"


@dataclass(frozen=True)
class Trace:
    """What an engine did on one batch of B samples.

    spikes, membranes: one array per stage, ``[T, B, *shape]``: the bursts s before pooling, and V after the reset.
    Bursts are uint8, or int8 where s_min < 0; the plain engines may use wider integers.
    logits: Z after all steps, ``[B, classes]``.
    overflows: positions (stage, step, sample, neuron) at which the step's sum Σ q·s + b + Σ m·s is no int32 or V plus
    that sum does not fit ``membrane_bits``, whatever the policy does about it; in the readout, at which the step's sum
    or Z is no int32. first_overflow: the earliest of them.
    exits: when each sample leaves (1 to T) and with which class, ``[2, B]``; ``None`` without an exit margin. Spikes,
    membranes, Z and overflows are those of all steps in any case.
    """

    spikes: list[NDArray[np.integer]]
    membranes: list[NDArray[np.integer]]
    logits: NDArray[np.integer]
    overflows: int = 0
    first_overflow: Overflow | None = None
    exits: NDArray[np.integer] | None = None
