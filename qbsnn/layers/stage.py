"""A stage: one or more branches whose currents are summed, a neuron, a pool.

Convolution-norm-neuron is a stage with one branch; the second half of a residual block is a stage with two (the
convolution and the shortcut); the readout is a stage without a neuron. Every network is a list of stages, so forward
pass, absorption, the integer network and the diagnostics all walk the same list.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import cast

import torch
from torch import Tensor, nn
from torch.func import functional_call

from qbsnn.errors import ArgumentError
from qbsnn.functional.drive import Drive, Part
from qbsnn.kernels.packing import PackedBursts, recompute
from qbsnn.layers.norm import Normalising, TemporalScale
from qbsnn.layers.quantised import quantise
from qbsnn.neurons.base import Neuron, SpikingNeuron

INPUT = "input"
"""The name of the network's encoded input as a branch's source."""


class Branch(nn.Module):
    """One way into a stage: source → weights → norm → scale per step.

    source: name of the stage whose output is read, or ``INPUT``. weight: convolution, linear (flattens its input), or
    ``None`` for an identity shortcut. norm: over merged time and batch. temporal: a factor per step, or ``None``.
    """

    gain: Tensor | None

    def __init__(
        self,
        source: str,
        weight: nn.Conv2d | nn.Linear | None = None,
        norm: nn.Module | None = None,
        temporal: TemporalScale | None = None,
    ) -> None:
        super().__init__()
        if weight is None and (norm is not None or temporal is not None):
            raise ArgumentError(f"norm and temporal must be None in a branch without weight, which comes from {source}")
        self.source, self.weight, self.norm, self.temporal = source, weight, norm, temporal
        # Absorption sets this on identity shortcuts: the constant c/Δ that one source spike is worth.
        self.register_buffer("gain", None)

    def forward(self, x: Tensor) -> Tensor:
        """Current ``[T, B, ...]`` for the source's output x ``[T, B, ...]``."""
        return self.part(x).value()

    def part(self, x: Tensor, frozen: bool = False) -> Part:
        """The current with the norm still to be applied, where that is a map per channel.

        frozen: leave the running statistics alone, for a pass that repeats another.
        """
        if self.weight is None:
            return Part(x if self.gain is None else x * self.gain)
        if (x.dim() != 5 and isinstance(self.weight, nn.Conv2d)) or x.dim() < 3:
            right = "[T, B, C, H, W]" if isinstance(self.weight, nn.Conv2d) else "[T, B, ...]"
            raise ArgumentError(
                f"input of a {type(self.weight).__name__} from {self.source} must be {right}, where dimension 0 is "
                f"time, got {list(x.shape)}"
            )
        merged = x.flatten(0, 1)
        y = self.weight(merged.flatten(1) if isinstance(self.weight, nn.Linear) else merged)
        normal = self.norm.normal(y, frozen) if isinstance(self.norm, Normalising) else None
        if normal is None and self.norm is not None:
            y = _frozen(self.norm, y) if frozen else self.norm(y)
        part = Part(y.unflatten(0, x.shape[:2]), normal)
        return part if self.temporal is None else Part(self.temporal(part.value()))

    def extra_repr(self) -> str:
        """Show where the branch comes from."""
        return f"source={self.source}"


def _frozen(module: nn.Module, x: Tensor) -> Tensor:
    """What a norm of another library, or a pool with a norm in it, gives in a pass that leaves its statistics alone."""
    output: Tensor = functional_call(module, {name: value.clone() for name, value in module.named_buffers()}, (x,))
    return output


class Stage(nn.Module):
    """Branches, summed; then a neuron; then a pool. Without a neuron: the readout, which returns its current.

    A neuron with ``weight_bits`` has the weights of the branches quantised.

    Raises:
        ArgumentError: The neuron is none, there is no branch, or a pool without neuron.
    """

    def __init__(self, branches: Sequence[Branch], neuron: Neuron | None = None, pool: nn.Module | None = None) -> None:
        super().__init__()
        if not (neuron is None or isinstance(neuron, Neuron)):
            raise ArgumentError(f"neuron must be a neuron, or None for the readout, got {neuron!r}")
        if not len(branches):
            raise ArgumentError("branches must hold a branch at least, got none")
        if neuron is None and pool is not None:
            raise ArgumentError(f"pool must be None in a stage without neuron, which returns its current, got {pool!r}")
        self.branches = nn.ModuleList(branches)
        for branch in self.parts:
            if neuron is not None and neuron.weight_bits is not None and branch.weight is not None:
                quantise(branch.weight, neuron.weight_bits)
        self.neuron, self.pool = neuron, pool
        self.fused, self.checkpointed = False, False

    @property
    def parts(self) -> list[Branch]:
        """The branches, typed."""
        return cast("list[Branch]", list(self.branches))

    @property
    def sources(self) -> list[str]:
        """Names of the stages that this one reads, in branch order."""
        return [branch.source for branch in self.parts]

    def drive(self, inputs: Sequence[Tensor], steps: int, frozen: bool = False) -> Drive:
        """What sums to the current; one step stands for all T only for a stateful neuron, which has its own state."""
        parts = tuple(branch.part(x, frozen) for branch, x in zip(self.parts, inputs, strict=True))
        seen = max(len(part.y) for part in parts)
        stateful = self.neuron is not None and self.neuron.stateful
        return Drive(parts, steps if stateful and seen == 1 else seen)

    def current(self, inputs: Sequence[Tensor], steps: int) -> Tensor:
        """Summed current ``[T or 1, B, ...]``; one step is repeated over T (as a view) only for a stateful neuron."""
        return self.drive(inputs, steps).total()

    def emit(self, output: Tensor, frozen: bool = False) -> Tensor:
        """What leaves the stage when its neuron put out ``output`` ``[T, B, ...]``: the pooled output.

        frozen: as of :meth:`Branch.part`.
        """
        if self.pool is None:
            return output
        merged = output.flatten(0, 1)
        pooled: Tensor = _frozen(self.pool, merged) if frozen else self.pool(merged)
        return pooled.unflatten(0, output.shape[:2])

    def forward(self, inputs: Sequence[Tensor], steps: int, bursts: PackedBursts | None = None) -> Tensor:
        """Output ``[T or 1, B, ...]`` for one input per branch; ``bursts`` hears of the spikes that were emitted."""
        compute = partial(self._compute, steps=steps, bursts=bursts)
        if self.checkpointed and torch.is_grad_enabled():
            return recompute(compute, tuple(self.parameters()), *inputs)
        return compute(*inputs)

    def _compute(self, *inputs: Tensor, steps: int, bursts: PackedBursts | None, again: bool = False) -> Tensor:
        drive = self.drive(inputs, steps, frozen=again)
        if self.neuron is None:
            return drive.total()
        if not isinstance(self.neuron, SpikingNeuron):
            return self.emit(self.neuron(drive.total()), again)
        output = self.neuron(drive if self.fused else drive.total())
        if bursts is None or again:
            return self.emit(output, again)
        unit = self.neuron.emission_scale() if self.neuron.graded else None
        levels = (self.neuron.s_min, self.neuron.s_max)
        bursts.note(output, unit, levels)
        emitted = self.emit(output)
        if isinstance(self.pool, nn.MaxPool2d):
            bursts.note(emitted, unit, levels)
        return emitted
