"""What the page says and draws of energy: exact counts, and estimates by model."""

from __future__ import annotations

from dataclasses import dataclass

from qbsnn.results.energy_schema import Energy, Parts
from qbsnn.results.formatting import counted, energy, number, percent
from qbsnn.results.schema import Result

NETWORKS = {
    "network": "this network",
    "relu": "ReLU network",
    "quantized": "level-matched ReLU network",
    "relu_dense": "ReLU network, zeros not skipped",
}
PARTS = {"synapses": "synapses", "neurons": "bias, state, pool, shortcut", "memory": "memory"}
Estimates = dict[str, Parts]


@dataclass
class Bar:
    """One bar: whose, its value in words, its segments as (part, left, width) in per cent, the tooltip's lines."""

    network: str
    name: str
    value: str
    segments: list[tuple[str, str, str]]
    tip: list[str]


@dataclass
class Panel:
    """The bars of one model: of the whole network, and of each layer on a scale of their own."""

    model: str
    total: list[Bar]
    layers: list[tuple[str, list[Bar]]]


def absent(result: Result) -> str:
    """Why there is nothing to show."""
    if isinstance(result.energy, dict):
        return f"No operations were counted: {result.energy['skipped']}."
    return "No operations were counted: result.json holds no energy."


def panels(block: Energy) -> list[Panel]:
    """One panel per model. A layer's dense ReLU bar is left out: it would hide the others."""
    result = []
    for key, title in block.models.items():
        layers = {layer.name: _sparse(layer.estimates[key]) for layer in block.layers}
        top = max(parts.total for networks in layers.values() for parts in networks.values())
        whole = block.totals[key]
        most = max(parts.total for parts in whole.values())
        result.append(
            Panel(
                title,
                _bars("whole network", title, whole, most),
                [(name, _bars(name, title, networks, top)) for name, networks in layers.items()],
            )
        )
    return result


def facts(block: Energy) -> list[tuple[str, str]]:
    """Sentences with a tone (``good``, ``warn`` or ``note``) that put the figures beside published ones."""
    lines = [
        ("note", f"Counted on {counted(block.images, 'test image')}. Counts are exact; every energy is an estimate.")
    ]
    if block.spikes_per_synapse is not None:
        low, high = block.break_even
        value = block.spikes_per_synapse
        tone, where = ("good", "below") if value < low else ("warn", "above") if value > high else ("note", "within")
        lines.append(
            (
                tone,
                f"{value:.3g} spikes per synapse and inference (a burst of s counts s times): {where} the published "
                f"break-even of {low:g} to {high:g}, by ANN implementation (Dampfhoffer et al. 2023).",
            )
        )
    if block.mean_rate is not None:
        below = block.mean_rate < block.break_even_rate
        lines.append(
            (
                "good" if below else "warn",
                f"Mean rate {percent(block.mean_rate)} spikes per neuron and step: {'below' if below else 'above'} the "
                f"{percent(block.break_even_rate, 1)} published as break-even with a quantised network at T = 5 "
                "(arXiv 2409.08290).",
            )
        )
    if block.levels is not None:
        lines.append(
            (
                "note",
                "The ReLU networks have this architecture and no time; they are not trained: a neuron whose spikes sum "
                f"to 0 counts as a zero activation. The level-matched one has {number(block.levels)} levels, "
                f"{counted(block.level_bits or 0, 'bit')}.",
            )
        )
    lines.append(
        (
            "note",
            f"Relative energy as in published tables (fp32 synaptic operations over the dense ReLU network, estimate): "
            f"{percent(block.relative_synapses)}.",
        )
    )
    return lines


def relative(block: Energy) -> list[tuple[str, list[str]]]:
    """Per model, the estimated energy of this network over each other one's, as a percentage."""
    return [
        (block.models[key], [percent(share, 1) for share in shares.values()]) for key, shares in block.relative.items()
    ]


def others(block: Energy) -> list[str]:
    """The names of the networks that :func:`relative` compares with, in its order."""
    return [NETWORKS[name] for name in next(iter(block.relative.values()))]


def _sparse(networks: Estimates) -> Estimates:
    """Without the dense ReLU network, where there is another one to compare with."""
    return {name: parts for name, parts in networks.items() if name != "relu_dense" or "relu" not in networks}


def _bars(place: str, model: str, networks: Estimates, top: float) -> list[Bar]:
    bars = []
    for network in NETWORKS:
        if network not in networks:
            continue
        parts, left, segments = networks[network], 0.0, []
        tip = [f"{place}, {NETWORKS[network]}", f"{energy(parts.total)} per image: estimate, {model}"]
        for part, words in PARTS.items():
            value = getattr(parts, part)
            width = 100 * value / top if top else 0.0
            segments.append((part, f"{left:.3f}", f"{width:.3f}"))
            left += width
            if value:
                tip.append(f"{words}: {energy(value)} ({percent(value / parts.total, 1)})")
        bars.append(Bar(network, NETWORKS[network], energy(parts.total), segments, tip))
    return bars
