"""What every source of a network sends, summed over a data set by forward hooks: no second pass is needed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from math import prod
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle
from torchmetrics import Metric

from qbsnn.deploy.convert.folding import pair, pool_divisor
from qbsnn.layers.stage import INPUT, Stage
from qbsnn.models.network import SpikingNetwork
from qbsnn.neurons.base import SpikingNeuron
from qbsnn.neurons.relu import LeakyIntegrator

FLOAT32_INTEGERS = 2**24


def spikes(neuron: nn.Module | None) -> bool:
    """Whether synapses only add what a neuron puts out. Levels of a quantised ReLU are factors, not spikes."""
    return isinstance(neuron, SpikingNeuron) and neuron.emits_spikes


def window(stage: Stage) -> int:
    """How many values the pool of a stage adds up: those of an average pool's window, else 1."""
    return prod(pair(stage.pool.kernel_size)) if isinstance(stage.pool, nn.AvgPool2d) else 1


def sent_once(network: SpikingNetwork) -> set[str]:
    """The sources that send one step for all T: still pixels, and what has no state and reads nothing else."""
    found = {INPUT} if network.encoder.coding == "direct" else set()
    for name, stage in network.named_stages():
        if not (stage.neuron and stage.neuron.stateful) and found.issuperset(stage.sources):
            found.add(name)
    return found


@dataclass(frozen=True)
class Traffic:
    """What one source sent: int64 sums over ``samples``, steps and channels, ``[H, W]`` (a scalar for features).

    ``spikes``: Σ|s|, 0 where ``analog``, that is, where values are real numbers and synapses multiply. ``events``:
    values that are not 0. ``active``: elements whose sum over the steps is not 0, which is what a rate-equivalent
    network without time sends. shape: one sample's, ``[C, H, W]`` or ``[F]``. steps: T or 1. levels: how many values an
    element can take in one step; ``None`` for real numbers.
    """

    shape: tuple[int, ...]
    steps: int
    samples: int
    analog: bool
    levels: int | None
    spikes: Tensor
    events: Tensor
    active: Tensor

    @property
    def elements(self) -> int:
        """Values of one sample in one step."""
        return prod(self.shape)

    def timeless(self, dense: bool = False, matched: bool = False) -> Traffic:
        """The same source in a network without time: real numbers, 0 where the sum over the steps is 0.

        dense: as if no value were 0. matched: with exactly as many levels as T steps of integers can sum to.
        """
        levels = None if self.levels is None or not matched else self.steps * (self.levels - 1) + 1
        events = torch.full_like(self.active, self.shape[0] * self.samples) if dense else self.active
        return replace(
            self, steps=1, analog=True, levels=levels, spikes=torch.zeros_like(events), events=events, active=events
        )


class Activity(Metric):
    """Accumulates the :class:`Traffic` of one source over batches and processes.

    spiking: whether values are expected to be spikes; a single one that is no integer makes the whole source analog.
    low, high: the smallest and largest level, where known; else both are looked up in the data.

    >>> activity = Activity((2, 1, 2), steps=2, low=0, high=3)
    >>> two_steps = torch.tensor([[[[[1.0, 0.0]], [[3.0, 0.0]]]], [[[[0.0, 0.0]], [[2.0, 0.0]]]]])  # [T, B, C, H, W]
    >>> activity.update(two_steps)
    >>> sent = activity.traffic()
    >>> sent.spikes.tolist(), sent.events.tolist(), sent.active.tolist()
    ([[6, 0]], [[3, 0]], [[2, 0]])
    """

    full_state_update = False
    spikes: Tensor
    events: Tensor
    active: Tensor
    samples: Tensor
    fractional: Tensor
    seen_low: Tensor
    seen_high: Tensor

    def __init__(
        self,
        shape: tuple[int, ...],
        steps: int,
        spiking: bool = True,
        low: int | None = None,
        high: int | None = None,
    ) -> None:
        super().__init__()
        self.shape, self.steps, self.spiking, self.low, self.high = shape, steps, spiking, low, high
        for name in ("spikes", "events", "active"):
            self.add_state(name, torch.zeros(shape[1:], dtype=torch.int64), dist_reduce_fx="sum")
        for name in ("samples", "fractional"):
            self.add_state(name, torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")
        self.add_state("seen_low", torch.zeros(()), dist_reduce_fx="min")
        self.add_state("seen_high", torch.zeros(()), dist_reduce_fx="max")
        # Sums over channels and steps run in float32 where that is exact, which is several times faster than float64.
        exact = low is not None and high is not None and max(-low, high) * shape[0] * steps < FLOAT32_INTEGERS
        self.sum_dtype = torch.float32 if exact else torch.float64

    def update(self, values: Tensor) -> None:
        """Add one batch, ``[T, B, C, H, W]`` or ``[T, B, F]``."""
        self.samples += values.shape[1]
        total = values if values.shape[0] == 1 else values.sum(0, keepdim=True, dtype=self.sum_dtype)
        self.active += self._per_position(total.ne(0))
        if not self.spiking:
            self.events += self._per_position(values.ne(0))
            return
        if self.low is None or self.high is None:
            self.fractional += values.ne(values.round()).sum()
            self.seen_low = torch.minimum(self.seen_low, values.min())
            self.seen_high = torch.maximum(self.seen_high, values.max())
            values = values.abs().ceil()  # a fraction is an event too
        # Passes over fresh memory are what this costs on a CPU, so there is one fewer where nothing is negative.
        positive = self.low == 0
        size = values if positive else values.abs()
        self.spikes += self._per_position(total if positive else size)
        self.events += self._per_position(size.clamp(max=1))

    def compute(self) -> dict[str, Tensor]:
        """The accumulated states, of all processes."""
        return {name: getattr(self, name) for name in self._defaults}

    def traffic(self) -> Traffic:
        """The sums as what they mean, on the CPU."""
        sums = {name: value.cpu() for name, value in self.compute().items()}
        maps = {name: sums[name].reshape(self.shape[1:]) for name in ("spikes", "events", "active")}
        analog, levels = not self.spiking or bool(sums["fractional"]), None
        if analog:
            maps["spikes"] = torch.zeros_like(maps["spikes"])
        if self.low is not None and self.high is not None:
            levels = self.high - self.low + 1
        elif not analog:
            levels = int(sums["seen_high"]) - int(sums["seen_low"]) + 1
        return Traffic(self.shape, self.steps, int(sums["samples"]), analog, levels, **maps)

    def _per_position(self, values: Tensor) -> Tensor:
        """Sum over steps, samples and channels: int64 ``[H, W]`` or a scalar."""
        return values.sum(2, dtype=self.sum_dtype).sum((0, 1), dtype=torch.float64).round().long()


class ActivityMeter:
    """Listens to the encoder and every neuron of a network between ``attach`` and ``detach``.

    ``emitted[stage]`` is what its neurons put out; ``sent[stage]`` what other stages receive, after the pool, as
    integers: an average pool is counted as the sum that the integer network moves. ``sent["input"]`` is the encoded
    input. Raises DeployError where a pool has no integer form.
    """

    def __init__(self, network: SpikingNetwork) -> None:
        self.network = network
        self._emitted: dict[str, Activity] = {}
        self._sent: dict[str, Activity] = {}
        self._handles: list[RemovableHandle] = []
        self._divisors = {name: pool_divisor(name, stage) for name, stage in network.named_stages()}
        self._once = sent_once(network)

    def attach(self) -> None:
        """Start listening."""
        encoder = self.network.encoder
        self._handles.append(encoder.register_forward_hook(self._listen_to_input))
        for name, stage in self.network.named_stages():
            if stage.neuron is not None and not isinstance(stage.neuron, LeakyIntegrator):
                self._handles.append(stage.neuron.register_forward_hook(partial(self._listen, name, stage)))

    def detach(self) -> None:
        """Stop listening."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()

    def hear(self, bursts: Sequence[Tensor]) -> None:
        """Take in the bursts ``[T, B, ...]`` of the spiking stages of a network whose neurons are not called."""
        for (name, stage, neuron), output in zip(self.network.spiking_stages(), bursts, strict=True):
            self._listen(name, stage, neuron, None, output[:1] if name in self._once else output)

    def traffic(self) -> tuple[dict[str, Traffic], dict[str, Traffic]]:
        """(emitted, sent) by stage."""
        emitted = {name: activity.traffic() for name, activity in self._emitted.items()}
        sent = {name: activity.traffic() for name, activity in self._sent.items()}
        return emitted, emitted | sent

    def _listen_to_input(self, encoder: nn.Module, inputs: Any, output: Tensor) -> None:
        _add(self._sent, INPUT, output.detach().float(), spiking=self.network.encoder.coding != "direct")

    def _listen(self, name: str, stage: Stage, neuron: nn.Module, inputs: Any, output: Tensor) -> None:
        values, divisor = output.detach().float(), self._divisors[name]
        kind: dict[str, Any] = {"spiking": False}
        if isinstance(neuron, SpikingNeuron):
            values = neuron.counts(values)
            kind = {"spiking": spikes(neuron), "low": neuron.s_min, "high": neuron.s_max}
        _add(self._emitted, name, values, **kind)
        if stage.pool is not None:
            pooled = stage.emit(values)
            if "high" in kind:
                pooled = (pooled * divisor).round_() if divisor > 1 else pooled
                kind |= {"low": window(stage) * kind["low"], "high": window(stage) * kind["high"]}
            _add(self._sent, name, pooled, **kind)


def _add(activities: dict[str, Activity], name: str, values: Tensor, **kind: Any) -> None:
    """Update the activity of this name, made on first sight, when the shape is known."""
    if name not in activities:
        activities[name] = Activity(tuple(values.shape[2:]), len(values), **kind).to(values.device)
    activities[name].update(values)
