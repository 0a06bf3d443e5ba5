"""What counted operations cost: three models, each an estimate."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import log

from qbsnn.energy import constants as c
from qbsnn.energy.count import StageCounts, Usage
from qbsnn.results.energy_schema import Parts


@dataclass(frozen=True)
class Model:
    """Prices of single operations in picojoules.

    Attributes:
        title: What a page calls the model.
        multiply: A multiplication.
        add: An addition, a comparison or a subtraction.
        leak: λ·V is a multiplication in floating point, and a shift with a subtraction in integers.
        width: Bits of the multiplier that ``multiply`` is quoted for.
        memory: Whether accesses to SRAM are priced too.
    """

    title: str
    multiply: float
    add: float
    leak: float
    width: int
    memory: bool = False

    def mac(self, bits: int | None) -> float:
        """One multiply-accumulate with an activation of this width, (E4); ``None`` is the multiplier's own.

        >>> [round(MODELS["int"].mac(bits), 4) for bits in (None, 8, 6)]
        [0.3, 0.3, 0.25]
        """
        return self.multiply * (1 if bits is None else bits / self.width) + self.add


MODELS = {
    "fp32": Model("45 nm, fp32", c.FLOAT_MULTIPLY, c.FLOAT_ADD, c.FLOAT_MULTIPLY, c.FLOAT_BITS),
    "int": Model("45 nm, int8 weights, 32-bit accumulation", c.INT_MULTIPLY, c.INT_ADD, c.INT_ADD, c.INT_BITS),
    "memory": Model(
        "45 nm, integers, with SRAM", c.INT_MULTIPLY, c.INT_ADD, c.INT_ADD, c.INT_BITS, memory=True
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Footprint:
    """Sizes in bytes of the three arrays that a network needs: weights, accumulators and membranes, maps of values."""

    weights: float
    state: float
    maps: float


def footprint(stages: Sequence[StageCounts], network: str) -> Footprint:
    """The arrays of one of a :class:`StageCounts`' networks, each as large as the network itself demands.

    All weights are stored. Membranes of all layers are kept between steps; an accumulator without memory of its past is
    free again when its stage is done, and so are the maps that a stage reads and writes.
    """
    uses = [stage.usage[network] for stage in stages]
    return Footprint(
        weights=sum(stage.weights for stage in stages) * c.WEIGHT_BITS / 8,
        state=(sum(use.held for use in uses) + max(use.scratch for use in uses)) / 8,
        maps=max(use.maps for use in uses) / 8,
    )


def access(size: float, bits: float) -> float:
    """Picojoules to move ``bits`` to or from an array of ``size`` bytes.

    Between the sizes of ``SRAM``, and above the last of them, energy is a power of size (a straight line on two
    logarithmic axes); below the first it is the first's; it never exceeds that of ``DRAM``. A narrow value costs its
    share of a 64-bit word, as if neighbours were used too.

    >>> access(8 * 1024, 64), access(32 * 1024, 8), round(access(16 * 1024, 64), 3)
    (10.0, 2.5, 14.142)
    """
    points = c.SRAM
    pairs = list(pairwise(points))
    (low, low_energy), (high, high_energy) = next((pair for pair in pairs if size <= pair[1][0]), pairs[-1])
    slope = log(high_energy / low_energy) / log(high / low)
    energy = low_energy * (max(size, points[0][0]) / low) ** slope
    return min(energy, c.DRAM) * bits / c.SRAM_WORD


def price(use: Usage, model: Model, sizes: Footprint, samples: int) -> Parts:
    """Picojoules of one stage per sample: its synapses, its neurons (with bias, shortcut and pool) and its memory."""
    n = use.counts
    synapses = sum(macs * model.mac(bits) for bits, macs in use.products.items()) + n.acs * model.add
    simple = n.shortcut_adds + n.bias_adds + n.current_adds + n.pool_ops
    neurons = (simple + n.compares + n.resets) * model.add + n.leaks * model.leak
    memory = 0.0
    if model.memory:
        memory = n.weight_reads * access(sizes.weights, c.WEIGHT_BITS)
        memory += n.state_accesses * access(sizes.state, c.STATE_BITS)
        memory += access(sizes.maps, n.map_bits)
    return Parts(synapses / samples, neurons / samples, memory / samples)
