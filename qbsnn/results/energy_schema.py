"""The ``energy`` block of ``result.json``. Everything in picojoules is an estimate by a named model."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class Parts:
    """Estimated picojoules per inference.

    Args:
        synapses: Products and accumulates.
        neurons: Bias, shortcut, state updates and pools.
        memory: Accesses to memory.
    """

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

    Counts are exact totals over the test images, of the network that was tested.

    Args:
        name: Of the layer.
        neurons: Its neurons.
        steps: Its time steps.
        dense: Synaptic operations of one image and step without sparsity.
        events: Non-zero spikes × fan-out.
        acs: Σ|s| × fan-out.
        macs: Products with real inputs that are not 0.
        shortcut_adds: Adds of identity shortcuts.
        bias_adds: Adds of a bias.
        current_adds: Adds of a current that a static image makes only once.
        leaks: State updates, as the next two.
        compares: With a threshold.
        resets: After a spike.
        pool_ops: Adds or compares of the pool.
        spikes: Σ|s| that the neurons emitted.
        rate: Spikes per neuron and step; ``None`` where there are no spikes to count, as in the next.
        spikes_per_synapse: ``acs`` per synapse and inference.
        estimates: By model, then by network, see :class:`Energy`.
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

    Four networks are compared. ``network`` is the one that was tested. ``relu`` is the same architecture as a ReLU
    network; nothing is trained for it: an activation counts as 0 where the neuron's spikes sum to 0. ``relu_dense`` is
    ``relu`` without skipping zeros. ``quantized`` is ``relu`` with as many activation levels as the spikes can say.

    Args:
        checkpoint: File of the weights.
        images: Test images counted.
        models: By key of an energy model, what it is called.
        levels: T·s_max + 1, the levels of ``quantized``; ``None`` in a network without spikes, as in the next three.
        level_bits: Width of these levels; the sum after an average pool is wider.
        spikes_per_synapse: Per inference, Σ|s|.
        break_even: Published range of ``spikes_per_synapse`` in which a spiking network needs as much as another.
        mean_rate: Spikes per neuron and step.
        break_even_rate: Published break-even of ``mean_rate``.
        relative_synapses: The relative energy: fp32 synaptic operations of ``network`` ÷ those of ``relu_dense``.
        relative: By model, the energy of ``network`` ÷ that of each other one, all parts.
        totals: By model, the estimates of each network.
        layers: The counts by layer.
        skipped: Why nothing was counted.
        mode: As of ``Integer``: with ``qat``, ``network`` is the one that was trained further on the grid.
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
    mode: str = "ptq"

    def with_accumulates(self, share: float) -> float | None:
        """The relative energy with that share of the accumulates; products of real numbers stay as they are.

        ``None`` with ``mode`` qat: early exit in floating point is another network's.
        """
        if self.mode == "qat":
            return None
        products = sum(layer.macs for layer in self.layers) / (self.images * sum(layer.dense for layer in self.layers))
        return products + (self.relative_synapses - products) * share
