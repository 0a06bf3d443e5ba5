"""The network: an encoder and an ordered list of stages."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import nullcontext
from typing import TypeVar

import torch
from torch import Tensor, nn

from qbsnn import checks
from qbsnn.bounds import ModelBounds
from qbsnn.errors import ArgumentError, DataError, SettingsError
from qbsnn.functional.loss import DECISIONS
from qbsnn.kernels.packing import PackedBursts
from qbsnn.layers.encoder import Encoder
from qbsnn.layers.quantised import quantise, trained_weight
from qbsnn.layers.stage import INPUT, Stage
from qbsnn.neurons.base import SpikingNeuron

Value = TypeVar("Value")
Tap = Callable[[str, Tensor], None]
"""Is shown what leaves the encoder (named ``input``) and every stage in a forward pass."""


class SpikingNetwork(nn.Module):
    """Pixels ``[B, C, H, W]`` in [0, 1] to logits ``[T or 1, B, classes]``.

    encoder: the input layer, of as many steps; stages: in execution order, the last one is the readout; T: time steps;
    in_shape: (C, H, W); decision: a key of ``DECISIONS``. A network of stateless neurons on direct input computes one
    step, which stands for all T. The weights of the readout are quantised behind neurons with ``weight_bits``, unless
    they are frozen.

    Raises:
        ArgumentError: A value is none of these, or the encoder has another number of steps than T or of channels.
        SettingsError: ``in_shape`` has not three entries.
    """

    def __init__(
        self,
        encoder: Encoder,
        stages: dict[str, Stage],
        T: int,
        in_shape: tuple[int, int, int],
        decision: str = "mean",
    ) -> None:
        super().__init__()
        _check_wiring(stages)
        self.T, self.in_shape = ModelBounds.check("T", T), check_shape(in_shape)
        if not isinstance(encoder, Encoder):
            raise ArgumentError(f"encoder must be an Encoder, got {type(encoder).__name__}")
        if encoder.steps != self.T:
            raise ArgumentError(
                f"encoder must be one of T = {self.T} steps, as the network is, got {encoder.steps} steps"
            )
        if (means := len(encoder.mean)) not in (1, self.in_shape[0]):
            raise ArgumentError(
                f"mean must have one number, or {self.in_shape[0]} as in_shape = {list(self.in_shape)} has channels, "
                f"got {means}"
            )
        self.encoder, self.decision = encoder, checks.choice("decision", decision, DECISIONS)
        _quantise_readout(stages)
        self.stages = nn.ModuleDict(stages)
        self.packs, self._packed_passes = False, 0
        last_use = {source: name for name, stage in stages.items() for source in stage.sources}
        self._done_after: dict[str, list[str]] = {}
        for source, name in last_use.items():
            self._done_after.setdefault(name, []).append(source)

    def named_stages(self) -> Iterator[tuple[str, Stage]]:
        """Name and stage, in execution order."""
        return ((name, stage) for name, stage in self.stages.items() if isinstance(stage, Stage))

    def spiking_stages(self) -> Iterator[tuple[str, Stage, SpikingNeuron]]:
        """Name, stage and neuron of the stages that emit spikes."""
        for name, stage in self.named_stages():
            if isinstance(stage.neuron, SpikingNeuron):
                yield name, stage, stage.neuron

    @property
    def compiled(self) -> bool:
        """Whether neurons run as compiled kernels."""
        return any(neuron.compiled for _, _, neuron in self.spiking_stages())

    def walk(self, encoded: Value, visit: Callable[[str, Stage, list[Value]], Value]) -> Value:
        """Call ``visit(name, stage, inputs)`` for each stage in order and hand its result on; returns the last one.

        ``inputs`` has one value per branch: in a forward pass a tensor ``[T or 1, B, ...]``. Values are dropped after
        their last use.
        """
        values = {INPUT: encoded}
        out = encoded
        for name, stage in self.named_stages():
            out = values[name] = visit(name, stage, [values[source] for source in stage.sources])
            for source in self._done_after.get(name, ()):
                del values[source]
        return out

    def forward(self, pixels: Tensor, tap: Tap | None = None) -> Tensor:
        """Logits of every time step; ``tap`` is shown what leaves every stage.

        Raises:
            ArgumentError: As of the encoder.
            DataError: Pixels have other dimensions, or another size than ``in_shape``.
        """
        bursts = self._packing() if self.packs and torch.is_grad_enabled() else None

        def visit(name: str, stage: Stage, inputs: list[Tensor]) -> Tensor:
            if bursts is not None:
                bursts.owner = f"stages.{name}, a {type(stage.neuron).__name__}"
            output: Tensor = stage(inputs, self.T) if bursts is None else stage(inputs, self.T, bursts)
            if tap is not None:
                tap(name, output)
            return output

        with nullcontext() if bursts is None else bursts.active():
            encoded = self.encoder(pixels)
            if pixels.shape[-3:] != self.in_shape:
                raise DataError(
                    f"pixels must end with in_shape = {list(self.in_shape)}, for which the network was built, got "
                    f"{list(pixels.shape)}"
                )
            if tap is not None:
                tap(INPUT, encoded)
            return self.walk(encoded, visit)

    def _packing(self) -> PackedBursts:
        """For one pass. Passes 1, 2, 4, 8, ... check that outputs are bursts, which then costs nothing over a fit."""
        self._packed_passes += 1
        return PackedBursts(checks=self._packed_passes & (self._packed_passes - 1) == 0)

    def decide(self, logits: Tensor) -> Tensor:
        """The logits that are compared, ``[B, classes]``, from those of every step."""
        return DECISIONS[self.decision](logits)


def check_shape(shape: Sequence[int]) -> tuple[int, int, int]:
    """The pixel shape as (C, H, W), or a SettingsError."""
    sides = list(shape) if isinstance(shape, Iterable) else []
    if len(sides) != 3:
        raise SettingsError(f"in_shape must be (channels, height, width), got {shape}")
    c, h, w = (checks.integer("in_shape", side, 1) for side in sides)
    return c, h, w


def _quantise_readout(stages: dict[str, Stage]) -> None:
    """Put the readout's weights on one grid, so that classes can be compared, if those of the neurons before it are."""
    *_, readout = stages.values()
    for branch in readout.parts:
        before = stages[branch.source].neuron if branch.source in stages else None
        if before is None or before.weight_bits is None or branch.weight is None:
            continue
        if trained_weight(branch.weight).requires_grad:  # a vote of a population is no weight
            quantise(branch.weight, before.weight_bits, per_tensor=True)


def _check_wiring(stages: dict[str, Stage]) -> None:
    """Raise an ArgumentError, naming the stage, where stages do not make a network.

    Each reads what is there before it, has a name and a neuron of its own, and the last one reads out.
    """
    known, owners = [INPUT], dict[int, str]()
    for name, stage in stages.items():
        if not isinstance(stage, Stage):
            raise ArgumentError(f"stages.{name} must be a Stage, got {type(stage).__name__}")
        if name == INPUT:
            raise ArgumentError(f"stages.{name} must have another name: {name!r} is the encoded input")
        if stage.neuron is not None and (owner := owners.setdefault(id(stage.neuron), name)) != name:
            raise ArgumentError(
                f"stages.{name} must have a neuron of its own, got the {type(stage.neuron).__name__} of stages.{owner}"
            )
        for source in stage.sources:
            if source not in known:
                raise ArgumentError(f"stages.{name} reads {source!r}, which is none of {', '.join(known)} before it")
        known.append(name)
    if len(known) == 1:
        raise ArgumentError("stages must hold a stage at least, the readout, got none")
    if isinstance(stages[known[-1]].neuron, SpikingNeuron):
        raise ArgumentError(
            f"stages.{known[-1]} must be the readout, as it is the last, without a spiking neuron, got "
            f"{type(stages[known[-1]].neuron).__name__}"
        )
