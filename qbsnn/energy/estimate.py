"""From a network and what a meter saw to the ``energy`` block of a result."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

from qbsnn.energy import constants as c
from qbsnn.energy.activity import ActivityMeter
from qbsnn.energy.count import StageCounts, bits_for, count_operations
from qbsnn.energy.price import MODELS, footprint, price
from qbsnn.errors import EnergyError
from qbsnn.results.energy_schema import Energy, EnergyLayer, Parts

Estimates = dict[str, dict[str, Parts]]


def estimate(meter: ActivityMeter, checkpoint: str) -> Energy:
    """Operations and estimates for all that passed through the meter's network while it was attached.

    Args:
        meter: What listened.
        checkpoint: Which weights ran, for the record.

    Raises:
        EnergyError: Nothing was seen, or a layer cannot be counted.
    """
    emitted, sent = meter.traffic()
    if not sent:
        raise EnergyError("no image passed through the network while its operations were counted")
    images = next(iter(sent.values())).samples
    stages = count_operations(meter.network, emitted, sent)
    by_stage = _estimates(stages, images)
    totals = {
        model: {network: _sum([by_stage[stage.name][model][network] for stage in stages]) for network in networks}
        for model, networks in by_stage[stages[0].name].items()
    }
    fp32 = totals["fp32"]
    levels = max((stage.levels for stage in stages if stage.levels is not None), default=None)
    spiking = [stage for stage in stages if stage.spiking]
    return Energy(
        checkpoint=checkpoint,
        images=images,
        models={key: model.title for key, model in MODELS.items()},
        levels=levels,
        level_bits=None if levels is None else bits_for(levels),
        spikes_per_synapse=_spikes_per_synapse(stages, images),
        break_even=list(c.BREAK_EVEN),
        mean_rate=_rate(spiking, images),
        break_even_rate=c.BREAK_EVEN_RATE,
        relative_synapses=fp32["network"].synapses / fp32["relu_dense"].synapses,
        relative={
            model: {name: parts["network"].total / twin.total for name, twin in parts.items() if name != "network"}
            for model, parts in totals.items()
        },
        totals=totals,
        layers=[_layer(stage, images, by_stage[stage.name]) for stage in stages],
    )


def _estimates(stages: Sequence[StageCounts], images: int) -> dict[str, Estimates]:
    """By stage, model and network."""
    sizes = {network: footprint(stages, network) for network in stages[0].usage}
    return {
        stage.name: {
            key: {network: price(use, model, sizes[network], images) for network, use in stage.usage.items()}
            for key, model in MODELS.items()
        }
        for stage in stages
    }


def _layer(stage: StageCounts, images: int, estimates: Estimates) -> EnergyLayer:
    counts = asdict(stage.usage["network"].counts)
    return EnergyLayer(
        name=stage.name,
        neurons=stage.neurons,
        steps=stage.steps,
        dense=stage.dense,
        **{kind: count for kind, count in counts.items() if kind in EnergyLayer.__annotations__},
        spikes=stage.spikes,
        rate=_rate([stage], images) if stage.spiking else None,
        spikes_per_synapse=_spikes_per_synapse([stage], images),
        estimates=estimates,
    )


def _rate(stages: Sequence[StageCounts], images: int) -> float | None:
    """Σ|s| per neuron and step."""
    neuron_steps = sum(stage.neurons * stage.steps for stage in stages)
    return sum(stage.spikes for stage in stages) / (neuron_steps * images) if neuron_steps else None


def _spikes_per_synapse(stages: Sequence[StageCounts], images: int) -> float | None:
    """Σ|s| × fan-out over synapses, per inference; stages with an analog input have none to count."""
    driven = [stage for stage in stages if stage.spike_driven and stage.dense]
    acs = sum(stage.usage["network"].counts.acs for stage in driven)
    return acs / (sum(stage.dense for stage in driven) * images) if driven else None


def _sum(parts: Sequence[Parts]) -> Parts:
    return Parts(*(sum(getattr(part, name) for part in parts) for name in ("synapses", "neurons", "memory")))
