"""From traffic to operations: exact integer counts per stage, for a network and for its twins without time.

A stage is one layer: its incoming synapses, its neurons and the pool after them. A twin is counted by the same lines:
only the traffic of its sources differs.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields

import torch
from torch import nn

from qbsnn.deploy.convert.folding import why_norm_not
from qbsnn.energy.activity import Traffic, spikes
from qbsnn.energy.constants import ANALOG_BITS, STATE_BITS
from qbsnn.energy.fanout import fanout, pool_fanout
from qbsnn.errors import EnergyError
from qbsnn.layers.stage import Stage
from qbsnn.models.network import SpikingNetwork
from qbsnn.neurons.base import Neuron, Operations


@dataclass(frozen=True)
class Counts:
    """Operations and memory accesses, totals over the samples.

    Synapses: ``events``, non-zero spikes × fan-out; ``acs``, Σ|s| × fan-out (a burst of s costs s accumulates);
    ``macs``, non-zero real-valued inputs × fan-out; ``shortcut_adds``, on identity shortcuts, one add per spike of a
    burst (per non-zero value where values are real).
    Neurons: ``bias_adds``, once per neuron and step of the current; ``current_adds``, where a current that was computed
    once is added in every step; ``leaks``, once per state variable and step; ``compares``, ``resets``, once per neuron
    and step; ``pool_ops``, one add or compare per non-zero value and pooling window.
    Memory: ``weight_reads``; ``state_accesses``, reads and writes of accumulators and membranes; ``map_bits``, bits of
    spikes or activations read and written.
    """

    events: int = 0
    acs: int = 0
    macs: int = 0
    shortcut_adds: int = 0
    bias_adds: int = 0
    current_adds: int = 0
    leaks: int = 0
    compares: int = 0
    resets: int = 0
    pool_ops: int = 0
    weight_reads: int = 0
    state_accesses: int = 0
    map_bits: int = 0

    def __add__(self, other: Counts) -> Counts:
        """Field by field."""
        return Counts(*(getattr(self, entry.name) + getattr(other, entry.name) for entry in fields(Counts)))


@dataclass(frozen=True)
class Usage:
    """What one stage costs in one network. ``products``: ``macs`` by the width of the activation, ``None`` for full.

    Memory in bits: ``held`` must be kept between steps, ``scratch`` is free again when the stage is done, ``maps`` is
    what the stage reads and writes at once.
    """

    counts: Counts
    products: Mapping[int | None, int]
    held: int
    scratch: int
    maps: int


@dataclass(frozen=True)
class StageCounts:
    """One stage. ``dense``: operations of one sample and step without sparsity, its number of (unrolled) synapses.

    ``spike_driven``: whether its weights read spikes only. ``spikes``: Σ|s| of its own neurons, over all samples.
    ``levels``: T·s_max + 1, how many values their sum over the steps can take; ``None`` for real numbers.
    ``weights``: number of stored weights. ``usage``: by network: ``network`` is the one that ran; ``relu`` the same
    architecture as a ReLU network, whose activations are 0 where a neuron's spikes sum to 0; ``relu_dense`` that one
    without zero-skipping; ``quantized`` the one with exactly T·s_max + 1 levels. A ReLU network that ran has only
    ``relu_dense`` beside it.
    """

    name: str
    dense: int
    neurons: int
    steps: int
    spiking: bool
    spike_driven: bool
    spikes: int
    levels: int | None
    weights: int
    usage: dict[str, Usage]


SUM = Operations(keeps=True)
"""Of a readout without neurons, which adds up its current."""

RELU = Operations(compares=1)
"""Of the neurons of every twin."""


def bits_for(levels: int | None) -> int:
    """⌈log2(levels)⌉, at least 1; real numbers have the width of pixels.

    >>> bits_for(33), bits_for(32), bits_for(2), bits_for(None)
    (6, 5, 1, 8)
    """
    return ANALOG_BITS if levels is None else max(1, (levels - 1).bit_length())


def count_operations(
    network: SpikingNetwork, emitted: Mapping[str, Traffic], sent: Mapping[str, Traffic]
) -> list[StageCounts]:
    """Counts of every stage from what an :class:`~qbsnn.energy.activity.ActivityMeter` saw.

    Raises EnergyError, naming the stage, for a layer whose operations cannot be counted.
    """
    twins: dict[str, dict[str, bool]] = {"relu_dense": {"dense": True}}
    if any(spikes(neuron) for *_, neuron in network.spiking_stages()):
        twins = {"relu": {}, "quantized": {"matched": True}, **twins}
    result = []
    for name, stage in network.named_stages():
        _check(name, stage)
        for source in stage.sources:
            if source not in sent:
                raise EnergyError(f"{name}: not counted, for its source {source} {_unheard(network, source)}")
    for name, stage in network.named_stages():
        sources, own = [sent[source] for source in stage.sources], emitted.get(name)
        after = sent[name] if own else None
        usage = {"network": _usage(name, stage, _stated(name, stage.neuron), sources, own, after)}
        for twin, view in twins.items():
            flat = [source.timeless(**view) for source in sources]
            out = (own.timeless(**view), sent[name].timeless(**view)) if own else (None, None)
            usage[twin] = _usage(name, stage, RELU if own else SUM, flat, *out)
        weighted = [
            (part, source) for part, source in zip(stage.parts, sources, strict=True) if part.weight is not None
        ]
        result.append(
            StageCounts(
                name=name,
                dense=sum(int(fanout(name, p.weight, s.shape).sum()) * s.shape[0] for p, s in weighted),
                neurons=own.elements if own else _outputs(name, stage),
                steps=own.steps if own else max(source.steps for source in sources),
                spiking=spikes(stage.neuron),
                spike_driven=not any(source.analog for _, source in weighted),
                spikes=int(own.spikes.sum()) if own else 0,
                levels=own.timeless(matched=True).levels if own else None,
                weights=sum(part.weight.weight.numel() for part, _ in weighted if part.weight is not None),
                usage=usage,
            )
        )
    return result


def _usage(
    name: str,
    stage: Stage,
    step: Operations,
    sources: Sequence[Traffic],
    own: Traffic | None,
    after: Traffic | None,
) -> Usage:
    """One stage with these sources, whose neurons do ``step``.

    ``own`` leaves its neurons, ``after`` its pool: ``None`` for the readout.
    """
    counts, products = Counts(), Counter[int | None]()
    for part, source in zip(stage.parts, sources, strict=True):
        found = _synapses(fanout(name, part.weight, source.shape), source, identity=part.weight is None)
        counts += found
        products[None if source.levels is None else bits_for(source.levels)] += found.macs
    samples, current_steps = sources[0].samples, max(source.steps for source in sources)
    steps = own.steps if own else current_steps
    neurons = own.elements if own else _outputs(name, stage)
    updates = neurons * steps * samples
    once = current_steps < steps  # a static input: its current is computed once and kept
    stateful = steps > 1 and step.keeps  # in a single step nothing needs to be kept
    counts += Counts(
        bias_adds=neurons * current_steps * samples,
        current_adds=updates if once else 0,
        leaks=updates * step.leaks,
        compares=updates * step.compares,
        resets=updates * step.resets,
        state_accesses=updates * ((1 + stateful) * step.state + once),
    )
    maps, again = [traffic for traffic in (*sources, own) if traffic], list[Traffic]()
    if own and after and isinstance(stage.pool, (nn.MaxPool2d, nn.AvgPool2d)):
        windows = pool_fanout(stage.pool, own.shape[1:], after.shape[1:])
        counts += Counts(pool_ops=int((own.events * windows).sum()))
        maps, again = [*maps, after], [own]  # the pool reads it
    counts += Counts(map_bits=sum(_map_bits(traffic) * traffic.steps * samples for traffic in (*maps, *again)))
    return Usage(
        counts=counts,
        products=+products,
        held=STATE_BITS * neurons * (step.state + once) if stateful else 0,
        scratch=0 if stateful else STATE_BITS * neurons,
        maps=sum(_map_bits(traffic) for traffic in maps),
    )


def _synapses(fan: torch.Tensor, source: Traffic, identity: bool) -> Counts:
    events, spikes = int((source.events * fan).sum()), int((source.spikes * fan).sum())
    touched = {"state_accesses": 2 * events}  # an accumulator is read and written, once for a whole burst
    if identity:
        return Counts(shortcut_adds=events if source.analog else spikes, **touched)
    if source.analog:
        return Counts(macs=events, weight_reads=events, **touched)
    return Counts(events=events, acs=spikes, weight_reads=events, **touched)


def _stated(name: str, neuron: Neuron | None) -> Operations:
    """What the neuron says of itself."""
    if neuron is None:
        return SUM
    stated = neuron.stated_operations()
    if stated is None:
        raise EnergyError(
            f"{name}: not counted, for {type(neuron).__name__} does not state what its step takes: give it operations()"
        )
    return stated


def _check(name: str, stage: Stage) -> None:
    """Refuse what would run uncounted."""
    for part in stage.parts:
        why = why_norm_not(part.norm)
        if part.temporal is not None:
            why = "a scale per step takes other weights in every step"
        if why:
            raise EnergyError(f"{name}: operations are counted for norms that fold into the weights; {why}")


def _map_bits(traffic: Traffic) -> int:
    """Bits of one sample's values in one step."""
    return traffic.elements * bits_for(traffic.levels)


def _unheard(network: SpikingNetwork, source: str) -> str:
    """Why nothing was heard of a stage that another one reads."""
    neuron = dict(network.named_stages())[source].neuron
    what = "no neuron" if neuron is None else f"a {type(neuron).__name__}"
    return f"has {what}, and only the last stage may: give it a neuron, such as ReLU"


def _outputs(name: str, stage: Stage) -> int:
    """Number of outputs of a stage without neurons."""
    layer = stage.parts[0].weight
    if not isinstance(layer, nn.Linear):
        raise EnergyError(f"{name}: a readout must be a linear layer to be counted, got {layer}")
    return layer.out_features
