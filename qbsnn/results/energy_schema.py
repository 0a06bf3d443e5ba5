"""The ``energy`` block of ``result.json``. Everything in picojoules is an estimate by a named model."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class Parts:
    """Estimated picojoules per inference: synaptic operations; bias, state, pool and shortcut; memory accesses."""

    synapses: float
    neurons: float
    memory: float

    @property
    def total(self) -> float:
        """All parts."""
        return self.synapses + self.neurons + self.memory


@dataclass
class EnergyLayer:
    """One layer: its incoming synapses, its neurons, the pool after them.

    Counts are exact totals over the test images, of the network that was tested. ``dense``: synaptic operations of one
    image and step without sparsity. ``events``: non-zero spikes × fan-out. ``acs``: Σ|s| × fan-out. ``macs``: products
    with non-zero real inputs. ``current_adds``: adds of a current that a static image makes only once. ``leaks``,
    ``compares``, ``resets``: the state updates. ``spikes``: Σ|s| that the layer's neurons emitted. ``rate``: spikes per
    neuron and step; ``spikes_per_synapse``: acs per synapse and inference; ``None`` where there are no spikes to count.
    ``estimates``: by model, then by network.
    """

    name: str
    neurons: int
    steps: int
    dense: int
    events: int
    acs: int
    macs: int
    shortcut_adds: int
    bias_adds: int
    current_adds: int
    leaks: int
    compares: int
    resets: int
    pool_ops: int
    spikes: int
    rate: float | None
    spikes_per_synapse: float | None
    estimates: dict[str, dict[str, Parts]]


@dataclass
class Energy:
    """Operations counted on the test images, and estimates of their energy per inference, see ``docs/energy.md``.

    ``models``: by key, what the model is called. The networks are ``network`` (the one that was tested), ``relu`` (the
    same architecture as a ReLU network; nothing is trained: an activation is taken to be 0 where the neuron's spikes
    sum to 0), ``relu_dense`` (that one without zero-skipping) and ``quantized`` (that one with exactly ``levels`` =
    T·s_max + 1 activation levels, ``level_bits`` wide; wider by the sum after an average pool). ``relative``: by model,
    the network's energy over the other's. ``relative_synapses``: the same from fp32 synaptic operations alone over the
    dense ReLU network, the convention of published tables.

    ``spikes_per_synapse`` (per inference, Σ|s|) stands beside the published ``break_even`` range, ``mean_rate`` (per
    neuron and step) beside ``break_even_rate``. ``None`` in a network without spikes.
    """

    checkpoint: str
    images: int
    models: dict[str, str]
    levels: int | None
    level_bits: int | None
    spikes_per_synapse: float | None
    break_even: list[float]
    mean_rate: float | None
    break_even_rate: float
    relative_synapses: float
    relative: dict[str, dict[str, float]]
    totals: dict[str, dict[str, Parts]]
    layers: list[EnergyLayer]
    skipped: str | None = None
