"""What a network spends in a forward pass, differentiably: the accumulates that :mod:`qbsnn.energy.count` counts.

Per image, A of (E1) over sources, steps and positions, with the exact fan-out. The relative energy of the tables is
(E2), with M products of real-valued inputs that are not 0 and D the synaptic operations of the dense ReLU network. Its
gradient with respect to a spike is the fan-out up to a constant, (P3).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from qbsnn.deploy.convert.absorb import pool_divisor
from qbsnn.energy.activity import spikes
from qbsnn.energy.constants import FLOAT_ADD, FLOAT_MULTIPLY
from qbsnn.energy.fanout import fanout
from qbsnn.layers.stage import INPUT
from qbsnn.models.network import SpikingNetwork


class _PerPosition(torch.autograd.Function):
    """Σ of x ``[T, B, C, ...]`` over T, B and C: float32 ``[H, W]`` or a scalar. Keeps nothing of x."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.shape, ctx.dtype = x.shape, x.dtype
        return x.sum((0, 1, 2), dtype=torch.float32)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return gradient.to(ctx.dtype).expand(ctx.shape)


class Synapses:
    """Who reads each source of a network, and how often: what stays the same from one forward pass to the next.

    Args:
        network: whose synapses they are.

    Attributes:
        dense: synaptic operations of one image in the dense ReLU network, by source, of those seen so far.

    Raises:
        DeployError: where a pool has no integer form.
    """

    def __init__(self, network: SpikingNetwork) -> None:
        self.dense: dict[str, int] = {}
        self._analog = network.encoder.coding == "direct"
        self._divisors = {name: pool_divisor(name, stage) for name, stage in network.named_stages()}
        self._neurons = {name: neuron for name, _, neuron in network.spiking_stages() if spikes(neuron)}
        self._readers: dict[str, list[tuple[str, nn.Module]]] = {}
        for name, stage in network.named_stages():
            for part in stage.parts:
                if part.weight is not None:
                    self._readers.setdefault(part.source, []).append((name, part.weight))
        self._fans: dict[tuple[Any, ...], Tensor] = {}

    def read(self, name: str) -> bool:
        """Whether weights read this source."""
        return name in self._readers

    def senders(self) -> list[str]:
        """The stages whose spikes are read."""
        return [name for name in self._neurons if self.read(name)]

    def analog(self, name: str) -> bool:
        """Whether a source is the real-valued input."""
        return name == INPUT and self._analog

    def fan(self, name: str, output: Tensor) -> Tensor:
        """Synapses that one spike at a position drives: float32 ``[H, W]`` or a scalar, on the output's device.

        Of an average pool the output is a share of a spike, which counts as often as the pool divides.

        Raises:
            EnergyError: where the operations of a layer cannot be counted.
        """
        shape = tuple(output.shape[2:])
        if (key := (name, shape, output.device)) not in self._fans:
            fan = torch.stack([fanout(reader, layer, shape) for reader, layer in self._readers[name]]).sum(0)
            self.dense[name] = int(fan.sum()) * shape[0]
            self._fans[key] = (fan * self._divisors.get(name, 1)).to(output.device, torch.float32)
        return self._fans[key]

    def spikes(self, name: str, output: Tensor) -> Tensor | None:
        """|s| with the gradient of the output; ``None`` for a source that sends real numbers."""
        if name == INPUT:
            return None if self._analog else output.detach()
        if (neuron := self._neurons.get(name)) is None:
            return None
        values = output / neuron.emission_scale() if neuron.graded else output
        return values.abs() if neuron.s_min < 0 else values


@dataclass
class Spending:
    """Listens to one forward pass as its ``tap`` (:meth:`qbsnn.models.SpikingNetwork.forward`).

    Args:
        synapses: of the network that is listened to.
        times: all steps T over those of this pass. Accumulates count as often: what T such steps would spend.

    Attributes:
        accumulates: per image, by source, a scalar with gradient; of spikes only.
        products: per image, of the encoded input where it is real-valued.
        rates: mean |s| per value and step behind the pool, by source, a scalar with gradient.

    Raises:
        EnergyError: where the operations of a layer cannot be counted.
    """

    synapses: Synapses
    times: float = 1.0
    accumulates: dict[str, Tensor] = field(default_factory=dict)
    products: Tensor | float = 0.0
    rates: dict[str, Tensor] = field(default_factory=dict)

    def __call__(self, name: str, output: Tensor) -> None:
        """Take in what left the encoder (``input``) or a stage: ``[T or 1, B, ...]``."""
        if not self.synapses.read(name):
            return
        images, fan = output.shape[1], self.synapses.fan(name, output)
        if self.synapses.analog(name):
            self.products = (output.detach().ne(0).sum((0, 1, 2)) * fan).sum() / images
        elif (values := self.synapses.spikes(name, output)) is not None:
            total = _PerPosition.apply(values)
            self.accumulates[name] = (total * fan).sum() / images * self.times
            self.rates[name] = total.sum() / values.numel()

    def relative(self) -> Tensor:
        """The relative energy of the tables, with its gradient: a scalar."""
        multiply_add, dense = FLOAT_MULTIPLY + FLOAT_ADD, sum(self.synapses.dense.values())
        total = torch.stack(list(self.accumulates.values())).sum()
        return (FLOAT_ADD * total + multiply_add * self.products) / (multiply_add * dense)

    def per_synapse(self) -> Tensor:
        """Accumulates per spike-driven synapse and image, with its gradient: a scalar."""
        driven = sum(self.synapses.dense[name] for name in self.accumulates)
        return torch.stack(list(self.accumulates.values())).sum() / driven


class StepSpending(Spending):
    """The same per step and sample, without gradient: ``steps`` ``[T, B]``, ``None`` where there are no spikes."""

    steps: Tensor | None = None

    def __call__(self, name: str, output: Tensor) -> None:
        """Take in what left the encoder or a stage."""
        if self.synapses.read(name) and (values := self.synapses.spikes(name, output)) is not None:
            spent = values.sum(2, dtype=torch.float64) * self.synapses.fan(name, output)
            spent = spent.reshape(*values.shape[:2], -1).sum(2)
            self.steps = spent if self.steps is None else self.steps + spent
