"""What a network spends in a forward pass, differentiably: the accumulates that :mod:`qbsnn.energy.count` counts.

Per image, A = Σ_l Σ_t Σ_i f_l(i)·|s_l,t(i)| over sources l, steps t and positions i, with the exact fan-out f. The
relative energy of the tables is (0.9 pJ·A + 4.6 pJ·M)/(4.6 pJ·D), with M products of real-valued inputs that are not 0
and D the synaptic operations of the dense ReLU network. Its gradient with respect to a spike is f up to a constant.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from qbsnn.deploy.convert.absorb import pool_divisor
from qbsnn.energy.activity import spikes
from qbsnn.energy.constants import FLOAT_ADD, FLOAT_MULTIPLY
from qbsnn.energy.fanout import fanout
from qbsnn.layers.stage import INPUT
from qbsnn.models.network import SpikingNetwork
from qbsnn.neurons.base import SpikingNeuron


class _Weighed(torch.autograd.Function):
    """Σ f·x over all of x ``[T, B, C, ...]`` for x ≥ 0; keeps nothing of x for the backward pass."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, fan: Tensor) -> Tensor:
        ctx.save_for_backward(fan)
        ctx.shape, ctx.dtype = x.shape, x.dtype
        return (x.sum((0, 1, 2), dtype=torch.float32) * fan).sum()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        (fan,) = ctx.saved_tensors
        return (gradient * fan).to(ctx.dtype).expand(ctx.shape), None


@dataclass
class Spending:
    """Listens to one forward pass as its ``tap`` (:meth:`qbsnn.models.SpikingNetwork.forward`).

    Args:
        network: the one that is listened to.

    Attributes:
        accumulates: per image, by source, a scalar with gradient; of spikes only.
        products: per image, of the encoded input where it is real-valued.
        dense: synaptic operations of one image in the dense ReLU network, by source.
        rates: mean |s| per value and step behind the pool, by source, a scalar with gradient.

    Raises:
        EnergyError: at the first pass, where the operations of a layer cannot be counted.
        DeployError: where a pool has no integer form.
    """

    network: SpikingNetwork
    accumulates: dict[str, Tensor] = field(default_factory=dict)
    products: Tensor | float = 0.0
    dense: dict[str, int] = field(default_factory=dict)
    rates: dict[str, Tensor] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Look at the network."""
        self._divisors = {name: pool_divisor(name, stage) for name, stage in self.network.named_stages()}
        self._neurons = {name: neuron for name, _, neuron in self.network.spiking_stages()}
        self._readers: dict[str, list[tuple[str, torch.nn.Module]]] = {}
        for name, stage in self.network.named_stages():
            for part in stage.parts:
                if part.weight is not None:
                    self._readers.setdefault(part.source, []).append((name, part.weight))

    def __call__(self, name: str, output: Tensor) -> None:
        """Take in what left the encoder (``input``) or a stage: ``[T or 1, B, ...]``."""
        if name not in self._readers:
            return
        images, fan = output.shape[1], self._fan(name, output)
        if name == INPUT and self.network.encoder.coding == "direct":
            self.products = _Weighed.apply(output.detach().ne(0).float(), fan) / images
        elif (values := self._spikes(name, output)) is not None:
            self.accumulates[name] = _Weighed.apply(values, fan * self._divisors.get(name, 1)) / images
            self.rates[name] = _Weighed.apply(values, torch.ones_like(fan)) / values.numel()

    def _fan(self, name: str, output: Tensor) -> Tensor:
        """Fan-out of a position to all stages that read it: float32 ``[H, W]`` or a scalar; notes dense operations."""
        shape = tuple(output.shape[2:])
        fan = torch.stack([fanout(reader, layer, shape) for reader, layer in self._readers[name]]).sum(0)
        self.dense[name] = int(fan.sum()) * shape[0]
        return fan.to(output.device, torch.float32)

    def _spikes(self, name: str, output: Tensor) -> Tensor | None:
        """|s| with the gradient of the output; ``None`` for a source that sends real numbers."""
        if name == INPUT:
            return None if self.network.encoder.coding == "direct" else output.detach()
        neuron = self._neurons.get(name)
        return _counts(neuron, output) if neuron is not None and spikes(neuron) else None

    def relative(self) -> Tensor:
        """The relative energy of the tables, with its gradient: a scalar."""
        multiply_add, dense = FLOAT_MULTIPLY + FLOAT_ADD, sum(self.dense.values())
        total = torch.stack(list(self.accumulates.values())).sum()
        return (FLOAT_ADD * total + multiply_add * self.products) / (multiply_add * dense)

    def shares(self) -> dict[str, Tensor]:
        """By source of spikes, its part of :meth:`relative`, without gradient."""
        scale = FLOAT_ADD / ((FLOAT_MULTIPLY + FLOAT_ADD) * sum(self.dense.values()))
        return {name: scale * value.detach() for name, value in self.accumulates.items()}

    def per_synapse(self) -> Tensor:
        """Accumulates per spike-driven synapse and image, with its gradient: a scalar."""
        driven = sum(self.dense[name] for name in self.accumulates)
        return torch.stack(list(self.accumulates.values())).sum() / driven


class StepSpending(Spending):
    """The same per step and sample, without gradient: ``steps`` ``[T, B]``, ``None`` where there are no spikes."""

    steps: Tensor | None = None

    def __call__(self, name: str, output: Tensor) -> None:
        """Take in what left the encoder or a stage."""
        if name in self._readers and (values := self._spikes(name, output)) is not None:
            fan = self._fan(name, output) * self._divisors.get(name, 1)
            spent = (values.sum(2, dtype=torch.float64) * fan).flatten(2).sum(2) if fan.dim() else None
            if spent is None:
                spent = values.flatten(2).sum(2, dtype=torch.float64) * fan
            self.steps = spent if self.steps is None else self.steps + spent


def _counts(neuron: SpikingNeuron, output: Tensor) -> Tensor:
    """|s| of an output, with the gradient of the output."""
    values = output / neuron.emission_scale() if neuron.graded else output
    return values.abs() if neuron.s_min < 0 else values
