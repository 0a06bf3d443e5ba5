"""Counts against numbers worked out by hand and against plain loops."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from qbsnn.deploy.format.operations import axis_fanout
from qbsnn.energy.count import Counts
from qbsnn.energy.fanout import fanout, pool_fanout
from qbsnn.errors import DeployError, EnergyError
from qbsnn.layers import INPUT, Branch, Encoder, Stage
from qbsnn.models import SpikingNetwork, mlp
from qbsnn.neurons import LIF, QBLIF, LeakyIntegrator, ReLU
from tests.energy.networks import T, chain, counted, direct, loops, pixels


def conv(*args, **settings):
    return nn.Conv2d(*args, bias=False, **settings)


@pytest.mark.parametrize(
    ("layer", "image", "dense", "events", "acs"),
    [
        # 3×3 map, all taps inside at the centre (9), 4 at a corner; two output channels
        (conv(1, 2, 3, padding=1), pixels(1, 3, 3, c0_0_0=2, c0_1_1=3), 2 * 49, 2 * 13, 2 * 35),
        # outputs at rows 0 and 2: the middle row and column are read twice each
        (conv(1, 1, 3, stride=2), pixels(1, 5, 5, c0_2_2=1, c0_0_2=2, c0_4_4=1), 36, 4 + 2 + 1, 4 + 4 + 1),
        # one output that reads rows and columns 0, 2, 4
        (conv(1, 1, 3, dilation=2), pixels(1, 5, 5, c0_2_2=7, c0_1_1=9), 9, 1, 7),
        # each of 4 channels reaches the 3 output channels of its own group
        (conv(4, 6, 1, groups=2), pixels(4, 1, 2, c0_0_0=1, c3_0_1=5), 24, 6, 18),
        # rows at stride 1 with two rows of padding, columns at stride 2: the last column is never read
        (conv(1, 1, (1, 2), stride=(1, 2), padding=(2, 0)), pixels(1, 1, 3, c0_0_0=4, c0_0_2=4), 2, 1, 4),
    ],
    ids=["padding", "stride", "dilation", "groups", "uneven"],
)
def test_convolutions_by_hand(layer, image, dense, events, acs):
    network = chain(layer)
    found = counted(network, image, image)["b"]
    assert (found.dense, found.usage["network"].counts.macs) == (dense, 0)
    assert found.usage["network"].counts.events == 2 * T * events
    assert found.usage["network"].counts.acs == 2 * T * acs
    # Without time each of the non-zero inputs is multiplied once.
    assert found.usage["relu"].counts.macs == found.usage["quantized"].counts.macs == 2 * events
    assert found.usage["relu_dense"].counts.macs == 2 * dense
    assert found.usage["relu"].counts.acs == 0


def test_linear_layers_and_readout_by_hand():
    network = chain(nn.Linear(6, 5))
    network.stages["b"].neuron = direct(QBLIF(s_max=15, tau=2.0, delta=1e9))  # silent
    found = counted(network, pixels(2, 1, 3, c0_0_0=4, c1_0_2=1))
    counts = found["b"].usage["network"].counts
    assert (found["b"].dense, counts.events, counts.acs) == (30, 10 * T, 25 * T)
    assert (found["b"].neurons, counts.bias_adds, counts.current_adds) == (5, 5 * T, 0)
    assert (counts.leaks, counts.compares, counts.resets) == (5 * T, 5 * T, 5 * T)
    # weights once per event; each event reads and writes an accumulator, each neuron-step its membrane
    assert (counts.weight_reads, counts.state_accesses) == (10 * T, 2 * 10 * T + 2 * 5 * T)
    # 6 inputs and 5 outputs of 0..15: 4 bits each, in every step
    assert counts.map_bits == T * (6 + 5) * 4
    readout = found["readout"].usage["network"].counts
    assert (found["readout"].dense, readout.acs, readout.bias_adds, readout.compares) == (10, 0, 2 * T, 0)


def test_the_first_layer_multiplies_once_and_its_current_is_added_in_every_step():
    stages = {
        "first": Stage([Branch(INPUT, conv(1, 2, 3, padding=1))], LIF()),
        "readout": Stage([Branch("first", nn.LazyLinear(2))]),
    }
    network = SpikingNetwork(Encoder("direct", T, [0.0], [1.0]), stages, T, (1, 3, 3)).eval()
    found = counted(network, pixels(1, 3, 3, c0_1_1=1), torch.full((2, 1, 3, 3), 0.5))["first"]
    counts = found.usage["network"].counts
    assert (found.spike_driven, found.dense, found.neurons, found.steps) == (False, 98, 18, T)
    assert (counts.macs, counts.events, counts.acs) == (18 + 2 * 98, 0, 0)
    assert (counts.bias_adds, counts.current_adds, counts.compares) == (3 * 18, 3 * 18 * T, 3 * 18 * T)
    # each of 18 neurons reads and writes its membrane and reads its kept current; 32 bits for either are held
    assert counts.state_accesses == 2 * counts.macs + (2 + 1) * 3 * 18 * T
    assert found.usage["network"].held == 32 * 18 * (1 + 1) and found.usage["network"].scratch == 0
    assert found.usage["relu"].counts.macs == counts.macs  # zero pixels are skipped on both sides
    assert found.usage["relu"].counts.current_adds == 0


def test_identity_shortcuts_add_once_per_spike():
    stages = {
        "a": Stage([Branch(INPUT)], direct()),
        "b": Stage([Branch("a", conv(1, 1, 3, padding=1)), Branch("a")], direct()),
        "c": Stage([Branch("b", conv(1, 1, 1)), Branch(INPUT)], direct()),
        "readout": Stage([Branch("c", nn.LazyLinear(2))]),
    }
    network = SpikingNetwork(Encoder("direct", T, [0.0], [1.0]), stages, T, (1, 3, 3)).eval()
    found = counted(network, pixels(1, 3, 3, c0_0_0=2, c0_1_1=3))
    counts = found["b"].usage["network"].counts
    assert (found["b"].dense, counts.acs, counts.shortcut_adds) == (49, T * 35, T * 5)
    assert found["b"].usage["relu"].counts.shortcut_adds == 2
    assert found["b"].usage["relu_dense"].counts.shortcut_adds == 9
    # the image itself is a real number, added once
    assert found["a"].usage["network"].counts.shortcut_adds == 2
    # sums of three bursts of up to 15 have 6 bits; a corner and the centre meet 4 and 9 weights; an addend has no width
    assert [found[name].usage["network"].products for name in "abc"] == [{}] * 3
    assert found["a"].usage["quantized"].products == {} and found["b"].usage["quantized"].products == {6: 4 + 9}
    assert found["c"].usage["quantized"].products.keys() <= {6}  # which bursts of b arrive depends on its weights
    assert [found[name].spike_driven for name in "bc"] == [True, True]  # the image is added to c, and not multiplied


def test_average_pools_send_sums():
    network = chain(nn.Linear(4, 5), nn.AvgPool2d(2))
    found = counted(network, pixels(1, 4, 4, c0_0_0=1, c0_1_1=2, c0_3_3=4))
    # windows hold 1 + 2 and 4
    counts = found["b"].usage["network"].counts
    assert (found["a"].usage["network"].counts.pool_ops, counts.events, counts.acs) == (3 * T, 10 * T, 35 * T)
    assert found["a"].spikes == 7 * T
    # one step carries 0..60 (6 bits), three steps 0..180 (8 bits); a neuron itself 0..45
    assert counts.map_bits == T * (4 * 6 + 5 * 4)
    assert (found["a"].levels, found["b"].usage["quantized"].products) == (46, {8: 10})


def test_max_pools_send_maxima():
    network = chain(nn.Linear(4, 5), nn.MaxPool2d(3, 2, 1))
    found = counted(network, pixels(1, 4, 4, c0_0_0=1, c0_1_1=2, c0_3_3=4))
    # rows and columns 1 and 3 lie in one or two of the two windows: (0,0) in 1, (1,1) in 4, (3,3) in 1
    counts = found["b"].usage["network"].counts
    assert (found["a"].usage["network"].counts.pool_ops, counts.events, counts.acs) == (
        6 * T,
        20 * T,
        5 * T * (2 + 2 + 2 + 4),
    )
    assert found["a"].usage["relu_dense"].counts.pool_ops == 5 * 5


def test_bursts_that_differ_between_steps():
    """Δ = 1, V = I + U/2. I = 0.75: V = 0.75, 1.125, 0.8125. I = 1.7: V = 1.7, 2.05, 1.725."""
    stages = {
        "a": Stage([Branch(INPUT)], QBLIF(s_max=3, tau=2.0, delta=1.0, output="graded")),
        "readout": Stage([Branch("a", nn.Linear(3, 4))]),
    }
    network = SpikingNetwork(Encoder("direct", 3, [0.0], [1.0]), stages, 3, (1, 1, 3)).eval()
    image = torch.tensor([0.75, 1.7, 0.0]).view(1, 1, 1, 3)
    bursts = [[0, 1, 0], [1, 2, 0], [0, 1, 0]]
    assert network.stages["a"]([network.encoder(image)], 3).flatten(1).tolist() == bursts
    counts = counted(network, image)["readout"].usage
    assert (counts["network"].counts.events, counts["network"].counts.acs) == (4 * 4, 4 * 5)
    assert counts["relu"].counts.macs == 4 * 2


def test_a_relu_network_is_counted_itself():
    network = chain(conv(1, 2, 3, padding=1))
    for stage in ("a", "b"):
        network.stages[stage].neuron = ReLU()
    found = counted(network, pixels(1, 3, 3, c0_0_0=0.5, c0_1_1=3, c0_2_2=-1))["b"]
    assert set(found.usage) == {"network", "relu_dense"}
    counts = found.usage["network"].counts
    assert (counts.macs, counts.acs, counts.compares, counts.leaks, counts.resets) == (26, 0, 18, 0, 0)
    assert (found.steps, found.levels, counts.state_accesses) == (1, None, 2 * 26 + 18)
    assert found.usage["relu_dense"].counts.macs == 98


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_random_convolutions_equal_plain_loops(data):
    draw = data.draw
    groups = draw(st.integers(1, 2))
    kernel, stride, dilation = ((draw(st.integers(1, 3)), draw(st.integers(1, 3))) for _ in range(3))
    padding = draw(st.integers(0, 2)), draw(st.integers(0, 2))
    size = [
        draw(st.integers(max(1, d * (k - 1) + 1 - 2 * p), 7)) for k, p, d in zip(kernel, padding, dilation, strict=True)
    ]
    layer = nn.Conv2d(2 * groups, draw(st.integers(1, 2)) * groups, kernel, stride, padding, dilation, groups)
    image = torch.randint(
        0, 4, (1, 2 * groups, *size), generator=torch.Generator().manual_seed(draw(st.integers(0, 99)))
    )
    found = counted(chain(layer), image.float())["b"]
    dense, events, acs = loops(image[0], layer)
    counts = found.usage["network"].counts
    assert (found.dense, counts.events, counts.acs) == (dense, T * events, T * acs)


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 12), st.integers(1, 4), st.integers(1, 3), st.integers(0, 3), st.integers(1, 3))
def test_fanout_is_the_transposed_convolution_of_ones(size, kernel, stride, padding, dilation):
    outputs = (size + 2 * padding - dilation * (kernel - 1) - 1) // stride + 1
    if outputs < 1:
        return
    x = torch.zeros(1, 1, size, requires_grad=True)
    weight = torch.ones(1, 1, kernel)
    nn.functional.conv1d(x, weight, None, stride, padding, dilation).sum().backward()
    found = axis_fanout(size, kernel, stride, padding, dilation, outputs)
    assert found.tolist() == x.grad.flatten().long().tolist()


@pytest.mark.parametrize(
    "pool",
    [
        nn.MaxPool2d(2),
        nn.AvgPool2d(3, 2, 1),
        nn.MaxPool2d((2, 3), (1, 2), (1, 0), dilation=(2, 1)),
        nn.AvgPool2d((1, 4)),
    ],
)
def test_pool_windows_are_those_that_fold_counts(pool):
    out = tuple(pool(torch.zeros(1, 1, 7, 8)).shape[2:])
    pairs = (pool.kernel_size, getattr(pool, "dilation", 1), pool.padding, pool.stride)
    kernel, dilation, padding, stride = ((v, v) if isinstance(v, int) else v for v in pairs)
    windows = torch.ones(1, kernel[0] * kernel[1], out[0] * out[1])
    counted_by_torch = nn.functional.fold(windows, (7, 8), kernel, dilation, padding, stride)[0, 0]
    assert torch.equal(pool_fanout(pool, (7, 8), out), counted_by_torch.long())


def test_windows_of_ceil_mode_that_reach_beyond_the_map():
    pool = nn.MaxPool2d(2, ceil_mode=True)
    assert pool_fanout(pool, (3, 3), (2, 2)).tolist() == [[1, 1, 1]] * 3


def test_what_cannot_be_counted_is_named():
    for layer in (
        nn.Conv2d(1, 1, 3, padding=1, padding_mode="circular"),
        nn.Conv2d(1, 1, 3, padding="same"),
        nn.ReLU(),
    ):
        with pytest.raises(EnergyError, match="fc7: operations are counted for linear layers and zero-padded conv"):
            fanout("fc7", layer, (1, 4, 4))
    network = chain(nn.Linear(4, 5), nn.AvgPool2d(2, ceil_mode=True))
    with pytest.raises(DeployError, match="a: average pooling folds only with a constant divisor"):
        counted(network, pixels(1, 4, 4))
    network = chain(nn.Linear(4, 5))
    network.stages["readout"] = Stage([Branch("b")])
    with pytest.raises(EnergyError, match="readout: a readout must be a linear layer to be counted, got None"):
        counted(network, pixels(1, 2, 2))


@pytest.mark.parametrize(
    ("neuron", "words"), [(None, "no neuron"), (LeakyIntegrator(2.0), "a LeakyIntegrator")], ids=["none", "leaky"]
)
@pytest.mark.parametrize("layer", [nn.Linear(4, 4), conv(1, 1, 1)], ids=["linear", "convolution"])
def test_a_stage_that_sends_a_current_or_a_membrane_is_named_with_its_reader(neuron, words, layer):
    stages = {
        "a": Stage([Branch(INPUT)], direct()),
        "mid": Stage([Branch("a", layer)], neuron),
        "b": Stage([Branch("mid", nn.LazyLinear(3))], direct()),
        "readout": Stage([Branch("b", nn.LazyLinear(2))]),
    }
    network = SpikingNetwork(Encoder("direct", T, [0.0], [1.0]), stages, T, (1, 2, 2)).eval()
    with pytest.raises(EnergyError, match=f"^b: not counted, for its source mid has {words}, and only the last stage"):
        counted(network, pixels(1, 2, 2))


def test_a_model_of_membranes_is_named_too():
    network = mlp(LeakyIntegrator, (1, 2, 2), 3, [0.5], [0.5], hidden=(8,)).eval()
    with pytest.raises(EnergyError, match=r"^readout: not counted, for its source fc1 has a LeakyIntegrator"):
        counted(network, pixels(1, 2, 2))


def test_counts_add_up_field_by_field():
    assert Counts(events=1, acs=2) + Counts(acs=3, resets=4) == Counts(events=1, acs=5, resets=4)
