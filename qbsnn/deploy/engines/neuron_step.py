"""The neuron equations of QB-INT 1 on tensors, and their scan over time as one kernel.

Integers live in integer tensors or, exactly too, in floating-point ones: then ⌊V/θ⌋ is the floor of an IEEE division.
That is exact while |V| + θ stays within the integers the format holds (2^24 for float32, 2^53 for float64), because a
quotient below an integer k lies below it by 1/θ or more, which is more than half the spacing of numbers below k.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache, partial
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from qbsnn.deploy.format.network import IntStage, Leak
from qbsnn.kernels.compiled import Kernel


class NeuronKind(NamedTuple):
    """What the equations of a stage depend on besides its thresholds; see ``IntStage`` of the format."""

    leak: Leak
    s_min: int
    s_max: int
    rounding: Literal["floor", "round", "to_zero"]
    reset: Literal["soft", "hard"]

    @classmethod
    def of(cls, stage: IntStage) -> NeuronKind:
        """That of a stage."""
        return cls(stage.leak, stage.s_min, stage.s_max, stage.rounding, stage.reset)

    @property
    def burst(self) -> torch.dtype:
        """The type of a burst."""
        return torch.uint8 if self.s_min == 0 else torch.int8


def leaked(leak: Leak, v: Tensor) -> Tensor:
    """What the leak leaves of V; the dtype must hold V·4096 for the leak that multiplies."""
    match leak.kind:
        case "shift_floor":
            return v - _shifted(v, leak.amount)
        case "shift_xylo":
            shifted = _shifted(v, leak.amount)
            return v - torch.where(shifted == 0, v.sign(), shifted)
        case "mul12_to_zero":
            product = v * (4096 - leak.amount)
            return (product / 4096).trunc() if v.is_floating_point() else product.div(4096, rounding_mode="trunc")
    return v


def fired(kind: NeuronKind, v: Tensor, theta: Tensor) -> tuple[Tensor, Tensor]:
    """(s, V after the reset) from V after the step's sum, both in V's dtype."""
    raised = v + _shifted(theta, 1) if kind.rounding == "round" else v
    mode = "trunc" if kind.rounding == "to_zero" else "floor"
    if v.is_floating_point():
        levels = raised / theta
        s = levels.trunc() if mode == "trunc" else levels.floor()
    else:
        s = torch.div(raised, theta, rounding_mode=mode)
    s = s.clamp(kind.s_min, kind.s_max)
    return s, torch.where(s != 0, 0, v) if kind.reset == "hard" else v - theta * s


def _shifted(v: Tensor, n: int) -> Tensor:
    """⌊V/2ⁿ⌋; in floating point V·2⁻ⁿ is exact."""
    return (v * 2.0**-n).floor() if v.is_floating_point() else v >> n


Part = tuple[Tensor, Tensor | None]
"""Integers ``[T or 1, N, C]`` of any type that a step adds, and the constants ``[C]`` they are multiplied by first."""


def scan_neurons(
    kind: NeuronKind, steps: int, parts: Sequence[Part], bias: Tensor, theta: Tensor, keep: bool, compiled: bool
) -> tuple[Tensor, Tensor | None]:
    """The neurons of a stage over all steps, from V = 0: bursts and, with ``keep``, membranes, ``[T, N, C]``.

    bias, theta: ``[C]``, floating point, whose type holds every value exactly. compiled: as one kernel where that is
    possible; N and C are free, all else has a kernel of its own.
    """
    tensors = [bias, theta, *(x for part in parts for x in part if x is not None)]
    scaled = tuple(scale is not None for _, scale in parts)
    result = _kernel(kind, steps, keep, compiled and parts[0][0].numel() > 0)(scaled, *tensors)
    return result[0], result[1] if keep else None


@cache
def _kernel(kind: NeuronKind, steps: int, keep: bool, compiled: bool) -> Kernel:
    return Kernel(partial(_scan, kind, steps, keep), compiled)


def _scan(
    kind: NeuronKind, steps: int, keep: bool, scaled: tuple[bool, ...], bias: Tensor, theta: Tensor, *rest: Tensor
) -> tuple[Tensor, ...]:
    """The scan from bias, θ, then every part, followed by its constants if it has some."""
    v, spikes, membranes = None, [], []
    for t in range(steps):
        total = bias
        values = iter(rest)
        for has_scale in scaled:
            x = next(values)
            x = x[t if len(x) > 1 else 0].to(bias.dtype)
            total = total + (x * next(values) if has_scale else x)
        v = total if v is None else leaked(kind.leak, v) + total
        s, v = fired(kind, v, theta)
        spikes.append(s.to(kind.burst))
        membranes.append(v)
    return (torch.stack(spikes), torch.stack(membranes)) if keep else (torch.stack(spikes),)
