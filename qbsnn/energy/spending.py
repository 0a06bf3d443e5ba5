"""What a network spends in a forward pass, differentiably: the accumulates that :mod:`qbsnn.energy.count` counts.

Per image, A of (E1) over sources, steps and positions, with the exact fan-out. The relative energy of the tables is
(E2), with M products of real-valued inputs that are not 0 and D the synaptic operations of the dense ReLU network. Its
gradient with respect to a spike is the fan-out up to a constant, (P3). Products have no gradient.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from qbsnn.deploy.convert.folding import pool_divisor
from qbsnn.energy.activity import sent_once, spikes, window
from qbsnn.energy.constants import FLOAT_ADD, FLOAT_MULTIPLY
from qbsnn.energy.count import bits_for
from qbsnn.energy.fanout import fanout
from qbsnn.energy.price import MODELS
from qbsnn.errors import EnergyError
from qbsnn.layers.stage import INPUT, Stage
from qbsnn.models.network import SpikingNetwork
from qbsnn.neurons.base import SpikingNeuron


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
        self._coding = network.encoder.coding
        self._analog = self._coding == "direct"
        self._divisors = {name: pool_divisor(name, stage) for name, stage in network.named_stages()}
        self._neurons = {name: neuron for name, _, neuron in network.spiking_stages() if spikes(neuron)}
        self._readers: dict[str, list[tuple[str, nn.Module]]] = {}
        self._once = sent_once(network)
        self._widths: dict[str, int | None] = {INPUT: None}  # bits of a source that weights multiply
        for name, stage in network.named_stages():
            for part in stage.parts:
                if part.weight is not None:
                    self._readers.setdefault(part.source, []).append((name, part.weight))
            self._widths[name] = _width(stage)
        self._fans: dict[tuple[Any, ...], Tensor] = {}

    def read(self, name: str) -> bool:
        """Whether weights read this source."""
        return name in self._readers

    def senders(self) -> list[str]:
        """The stages whose spikes are read."""
        return [name for name in self._neurons if self.read(name)]

    def analog(self, name: str) -> bool:
        """Whether a source sends real numbers, by which synapses multiply."""
        return self._analog if name == INPUT else name not in self._neurons

    def once(self, name: str) -> bool:
        """Whether a source sends one step, which stands for all T."""
        return name in self._once

    def fan(self, name: str, output: Tensor) -> Tensor:
        """Synapses that one spike at a position drives: float32 ``[H, W]`` or a scalar, on the output's device.

        Of an average pool the output is a share of a spike, which counts as often as the pool divides. Of real numbers
        every product counts as its price of that at full width, (E4).

        Raises:
            EnergyError: where the operations of a layer cannot be counted.
        """
        shape, analog = tuple(output.shape[2:]), self.analog(name)
        if (key := (name, analog, shape, output.device)) not in self._fans:
            self._fans[key] = self._fan(name, shape, analog, output.device)
        return self._fans[key]

    @torch.inference_mode(False)  # a validation may come first, and training reads the same tensor
    def _fan(self, name: str, shape: tuple[int, ...], analog: bool, device: torch.device) -> Tensor:
        readers = self._readers[name]
        fans = torch.stack([fanout(reader, layer, shape) for reader, layer in readers])
        self.dense[name] = int(fans.sum()) * shape[0]
        if analog:
            price = MODELS["fp32"].mac
            share = torch.tensor(price(self._widths[name]) / price(None))
            fan = (fans * share).sum(0)
        else:
            fan = fans.sum(0) * self._divisors.get(name, 1)
        return fan.to(device, torch.float32)

    def spikes(self, name: str, output: Tensor) -> Tensor | None:
        """|s| with the gradient of the output; ``None`` for a source that sends real numbers.

        Frames of events are such from the first fraction on, as all of them are in the count.
        """
        if name == INPUT and self._coding == "events" and not self._analog:
            self._analog = bool(output.ne(output.round()).any())
        if self.analog(name):
            return None
        if name == INPUT:
            return output.detach()
        neuron = self._neurons[name]
        values = output / neuron.emission_scale() if neuron.graded else output
        return values.abs() if neuron.s_min < 0 else values


def _width(stage: Stage) -> int | None:
    """Bits of what a stage sends in one step; ``None`` for real numbers of full width."""
    neuron = stage.neuron
    if not isinstance(neuron, SpikingNeuron):
        return None
    return bits_for(window(stage) * (neuron.s_max - neuron.s_min) + 1)


@dataclass
class Spending:
    """Listens to one forward pass as its ``tap`` (:meth:`qbsnn.models.SpikingNetwork.forward`).

    Args:
        synapses: of the network that is listened to.
        times: all steps T over those of this pass. Accumulates count as often: what T such steps would spend.

    Attributes:
        accumulates: per image, by source, a scalar with gradient; of spikes only.
        products: per image, of all sources that send real numbers, each as its price of a product at full width.
        rates: mean |s| per value and step behind the pool, by stage, a scalar with gradient.

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
        values = self.synapses.spikes(name, output)
        images, fan = output.shape[1], self.synapses.fan(name, output)
        if values is None:
            times = 1.0 if self.synapses.once(name) else self.times
            self.products = self.products + (output.detach().ne(0).sum((0, 1, 2)) * fan).sum() / images * times
        else:
            total = _PerPosition.apply(values)
            self.accumulates[name] = (total * fan).sum() / images * self.times
            if name != INPUT:  # nothing that is trained could change it
                self.rates[name] = total.sum() / values.numel()

    def relative(self) -> Tensor:
        """The relative energy of the tables, with its gradient: a scalar."""
        multiply_add, dense = FLOAT_MULTIPLY + FLOAT_ADD, sum(self.synapses.dense.values())
        total = torch.stack(list(self.accumulates.values())).sum() if self.accumulates else torch.zeros(())
        return (FLOAT_ADD * total + multiply_add * self.products) / (multiply_add * dense)

    def per_synapse(self) -> Tensor:
        """Accumulates per spike-driven synapse and image, with its gradient: a scalar.

        Raises:
            EnergyError: where no synapse is driven by spikes.
        """
        if not self.accumulates:
            raise EnergyError("accumulates per synapse need a layer that spikes drive, and there is none")
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
