"""Prices against numbers worked out by hand from the published constants."""

import pytest
import torch
from torch import nn

from qbsnn.energy import constants
from qbsnn.energy.count import Counts, Usage
from qbsnn.energy.price import MODELS, Footprint, access, footprint, price
from tests.energy.networks import chain, counted, pixels

SIZES = Footprint(weights=8 * 1024, state=32 * 1024, maps=1024 * 1024)


def priced(model: str, bits: int | None = None, samples: int = 1, **counts: int) -> list[float]:
    parts = price(Usage(Counts(**counts), {bits: counts.get("macs", 0)}, 0, 0, 0), MODELS[model], SIZES, samples)
    return [parts.synapses, parts.neurons, parts.memory]


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        # 2 MACs, 10 accumulates; 3 leaks, and 7 adds (bias, compares, resets)
        ("fp32", [2 * 4.6 + 10 * 0.9, 3 * 3.7 + 7 * 0.9, 0]),
        ("int", [2 * 0.3 + 10 * 0.1, 10 * 0.1, 0]),
        ("memory", [2 * 0.3 + 10 * 0.1, 10 * 0.1, 0]),
    ],
)
def test_operations(model, expected):
    found = priced(model, macs=2, acs=10, events=4, leaks=3, compares=3, resets=3, bias_adds=1)
    assert found == pytest.approx(expected, rel=1e-12)


def test_every_add_costs_the_same():
    for name in ("shortcut_adds", "bias_adds", "current_adds", "compares", "resets", "pool_ops"):
        assert priced("int", samples=4, **{name: 8}) == pytest.approx([0, 0.2, 0], rel=1e-12)


def test_narrow_activations_make_the_multiplication_cheaper_and_not_the_addition():
    assert priced("int", 6, macs=1)[0] == pytest.approx(0.2 * 6 / 8 + 0.1, rel=1e-12)
    assert priced("fp32", 6, macs=1)[0] == pytest.approx(3.7 * 6 / 24 + 0.9, rel=1e-12)
    assert priced("int", 8, macs=1) == priced("int", None, macs=1)


def test_the_published_multipliers_follow_the_product_of_their_widths():
    """3.1 pJ at 32 by 32 bits (Horowitz 2014) from 0.2 pJ at 8 by 8, within 4 %."""
    scaled = MODELS["int"].multiply * (32 / constants.INT_BITS) ** 2
    assert scaled == pytest.approx(3.1, rel=0.04)


def test_memory_accesses():
    # 8 bits of a 10 pJ word; 32 bits of a 20 pJ word; 128 bits are two 100 pJ words
    assert priced("memory", weight_reads=3)[2] == pytest.approx(3 * 10 / 8, rel=1e-12)
    assert priced("memory", state_accesses=3)[2] == pytest.approx(3 * 10, rel=1e-12)
    assert priced("memory", map_bits=128, samples=2)[2] == pytest.approx(100, rel=1e-12)
    assert priced("int", weight_reads=3, state_accesses=3, map_bits=128)[2] == 0


@pytest.mark.parametrize(
    ("kilobytes", "energy"),
    # published; constant below; 20·√5 halfway on logarithmic axes from 32 KB to 1 MB; 100·4^(ln 5 / ln 32); DRAM
    [(8, 10), (32, 20), (1024, 100), (1, 10), (0, 10), (32 * 2**2.5, 20 * 5**0.5), (4096, 190.365), (2**40, 1300)],
)
def test_sram_by_size(kilobytes, energy):
    assert access(1024 * kilobytes, 64) == pytest.approx(energy, rel=1e-5)


def test_footprints_by_hand():
    """6 inputs → 6 neurons → 5 neurons → 2 classes, T = 3, s_max = 15."""
    stages = list(counted(chain(nn.Linear(6, 5)), pixels(2, 1, 3, c0_0_0=4)).values())
    # 30 + 10 int8 weights. 32-bit words: 6 membranes and 6 currents, 5 membranes, 2 sums of the readout; or 6 at once.
    # Maps: 6 pixels of 8 bits and 6 bursts of 4; of 8 (ReLU); of 6 (46 levels).
    assert footprint(stages, "network") == Footprint(40, 4 * (12 + 5 + 2), (48 + 24) / 8)
    assert footprint(stages, "relu") == footprint(stages, "relu_dense") == Footprint(40, 4 * 6, (48 + 48) / 8)
    assert footprint(stages, "quantized") == Footprint(40, 4 * 6, (48 + 36) / 8)


def test_a_pooled_map_is_held_once():
    stages = list(counted(chain(nn.Linear(4, 5), nn.MaxPool2d(3, 2, 1)), pixels(1, 4, 4, c0_0_0=4)).values())
    # 16 pixels of 8 bits, 16 bursts of 4 bits, and 4 of them behind the pool
    assert footprint(stages, "network").maps == (128 + 64 + 16) / 8
    assert footprint(stages, "relu_dense").maps == (128 + 128 + 32) / 8


def test_zero_spikes_cost_no_synaptic_energy():
    stages = counted(chain(nn.Linear(4, 3)), torch.zeros(1, 1, 2, 2))
    assert priced("fp32", acs=stages["b"].usage["network"].counts.acs)[0] == 0
    assert stages["b"].usage["network"].counts.compares > 0
