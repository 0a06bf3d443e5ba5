"""All engines on random small networks: every leak, rounding, sign, reset, register width and policy."""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from numpy.typing import NDArray

from qbsnn.deploy.convert.absorb import absorb
from qbsnn.deploy.convert.grid import GridNetwork
from qbsnn.deploy.convert.quantize import quantize
from qbsnn.deploy.convert.settings import DeploySettings
from qbsnn.deploy.engines import onnx_engine, reference, scalar
from qbsnn.deploy.engines import torch_engine as engine
from qbsnn.deploy.engines.int8_engine import Int8Engine
from qbsnn.deploy.engines.torch_engine import TorchEngine
from qbsnn.deploy.format.bounds import bounds
from qbsnn.deploy.format.network import IntBranch, IntegerNetwork, IntPool, IntReadout, Leak
from qbsnn.deploy.verify.agreement import grid_trace
from qbsnn.errors import DeployError
from qbsnn.layers import Branch, Encoder, Stage
from qbsnn.models import SpikingNetwork
from qbsnn.neurons import QBLIF
from tests.deploy import networks

INT32 = 2**31 - 1


def same(case: tuple[IntegerNetwork, NDArray[np.int32]]) -> None:
    """Scalar = numpy = torch = onnxruntime, in every spike, membrane and logit, with the same overflows."""
    net, current = case
    oracle = scalar.run(net, current)
    assume(networks.active(oracle))
    static = bounds(net, networks.loose(net, current).current_bounds)
    assume(max(bound.accumulator for bound in static) <= INT32)
    fast = TorchEngine(networks.loose(net, current))
    for run in (partial(reference.run, net), fast.run, Int8Engine(networks.loose(net, current)).run):
        trace = run(current)
        assert networks.mismatches(trace, oracle) == 0
        assert networks.same_overflows(trace, oracle)
    for bound, membranes in zip(static, oracle.membranes, strict=False):
        if net.overflow == "error":
            assert np.abs(membranes).max() <= bound.membrane
        else:
            assert -(2 ** (net.membrane_bits - 1)) <= membranes.min() <= membranes.max() < 2 ** (net.membrane_bits - 1)
    if max(bound.membrane for bound in static) <= 2 ** (net.membrane_bits - 1) - 1:
        assert oracle.overflows == 0
    if onnx_engine.available() is None:
        trace = onnx_engine.OnnxEngine(net, static=len(current) == 1).run(current)
        assert networks.mismatches(trace, oracle) == 0
        assert trace.spikes[0].dtype == (np.int8 if net.stages[0].s_min else np.uint8)
    for changed in networks.flips(net, oracle):
        assert networks.mismatches(fast.run(current), reference.run(changed, current)) > 0


@settings(max_examples=50, deadline=None, derandomize=True)
@given(networks.cases())
def test_random_networks(case):
    same(case)


@pytest.mark.slow
@settings(max_examples=1200, deadline=None, derandomize=True)
@given(networks.cases())
def test_many_random_networks(case):
    same(case)


@pytest.mark.parametrize(("reset", "rounding", "s_min"), networks.VARIANTS)
@pytest.mark.parametrize("leak", networks.LEAKS, ids=str)
def test_every_neuron_state_in_torch(leak, reset, rounding, s_min):
    net, current, expected = networks.every_neuron(leak, reset, rounding, s_min)
    trace = TorchEngine(networks.loose(net, current)).run(current)
    assert networks.mismatches(trace, expected) == 0


LEAKED = {  # V before and after, by hand
    Leak("none", 0): {-5: -5, 5: 5},
    Leak("shift_floor", 1): {-5: -2, -1: 0, 0: 0, 5: 3},  # −5 − ⌊−2.5⌋ = −2; 5 − 2
    Leak("shift_floor", 0): {-5: 0, 5: 0},
    Leak("shift_xylo", 1): {-5: -2, -1: 0, 0: 0, 1: 0, 5: 3},  # −5 >> 1 = −3; 1 >> 1 = 0, so 1 − sign(1)
    Leak("shift_xylo", 2): {-5: -3, -4: -3, -1: 0, 3: 2, 4: 3},  # −5 >> 2 = −2; 3 >> 2 = 0
    Leak("shift_xylo", 4): {-5: -4, 5: 4, 32: 30},
    Leak("shift_xylo", 0): {-5: 0, 5: 0},
    Leak("mul12_to_zero", 1024): {-5: -3, -1: 0, 5: 3},  # 5·3/4 = 3.75
    Leak("mul12_to_zero", 4096): {-5: 0, 5: 0},
}


@pytest.mark.parametrize("leak", LEAKED, ids=str)
def test_leaks_worked_by_hand(leak):
    values = LEAKED[leak]
    v = np.array(list(values), np.int64)
    assert reference.leaked(leak, v).tolist() == list(values.values())
    assert [scalar.leaked(leak, int(x)) for x in v] == list(values.values())
    net = networks.single_stage(np.array([100]), 2, s_max=1, leak=leak)
    current = np.stack([v, 0 * v]).astype(np.int32)[:, :, None]
    assert TorchEngine(networks.loose(net, current)).run(current).membranes[0][1].ravel().tolist() == list(
        values.values()
    )


@pytest.mark.parametrize(
    ("overflow", "membranes"),
    # 4 bits, θ = 7, one spike at most: 7, +7 → 0, 7; 5 + 7 = 12; −8 − 8 = −16
    [("saturate", [[0, 5, -8], [0, 0, -8]]), ("wrap", [[0, 5, -8], [0, -4, 0]])],
)
def test_policies_worked_by_hand(overflow, membranes):
    net = networks.single_stage(np.array([7] * 3), 2, s_max=1, leak=networks.NONE, membrane_bits=4, overflow=overflow)
    current = np.array([[7, 5, -8], [7, 7, -8]], np.int32)[:, None]
    runs = [partial(scalar.run, net), partial(reference.run, net), TorchEngine(networks.loose(net, current)).run]
    if onnx_engine.available() is None:
        runs.append(onnx_engine.OnnxEngine(net).run)
    for run in runs:
        trace = run(current)
        assert trace.membranes[0][:, 0].tolist() == membranes
    assert str(runs[1](current).first_overflow) == "only, neuron (1), step 1, sample 0: 12"
    assert runs[1](current).overflows == 2


@pytest.mark.parametrize("fast", [TorchEngine, Int8Engine])
def test_a_register_of_31_bits_wraps_without_leaving_its_type(fast):
    """J = 2^29 + 2^20, and two spikes of 5 whenever V > 0.

    V = J, then 2J − 10 = 2^30 + 2^21 − 10, which wraps to 2^21 − 2^30 − 10, then 3·2^20 − 2^29 − 10. Before it wraps,
    V + 2^30 is no int32.
    """
    net = networks.single_stage(np.array([5]), 3, s_max=2, leak=networks.NONE, membrane_bits=31, overflow="wrap")
    current = np.full((1, 1, 1), 2**29 + 2**20, np.int32)
    found, expected = fast(networks.loose(net, current)).run(current), reference.run(net, current)
    left = [2**29 + 2**20 - 10, 2**21 - 2**30 - 10, 3 * 2**20 - 2**29 - 10]
    assert found.membranes[0].ravel().tolist() == left and found.spikes[0].ravel().tolist() == [2, 0, 0]
    assert networks.mismatches(found, expected) == 0 and networks.same_overflows(found, expected)
    assert expected.overflows == 1


@pytest.mark.parametrize("fast", [TorchEngine, Int8Engine])
def test_a_current_outside_the_bounds_is_refused(fast):
    net = networks.single_stage(np.array([4, 4]), 1, s_max=2)
    engine = fast(networks.loose(net, np.array([[[-5, 9]]], np.int32)))
    with pytest.raises(DeployError, match=r"the current J must be within ±9, as it is for pixels .*, got -10\.\.0"):
        engine.run(np.array([[[-10, 0]]], np.int32))


def shapes_of_no_current(net):
    """Currents of another type, number of steps, batch or shape than the network's."""
    t, shape = net.T, net.stages[0].shape
    right = np.zeros((t, 2, *shape), np.int32)
    return [
        *(right.astype(dtype) for dtype in (np.float32, np.float64, np.int64, np.uint8)),
        np.zeros((t + 1, 2, *shape), np.int32),
        np.zeros((t, 0, *shape), np.int32),
        np.zeros((t, 2, 1, *shape[1:]), np.int32),
        np.zeros((t, 2, *shape[:-1], 2 * shape[-1]), np.int32),
        right[0],
        right[..., None],
    ]


@pytest.mark.parametrize("topology", networks.TOPOLOGIES)
@pytest.mark.parametrize("fast", [TorchEngine, Int8Engine])
def test_a_current_of_another_type_or_shape_is_refused(fast, topology):
    net = networks.make(np.random.default_rng(0), topology, T=2)
    engine = fast(networks.loose(net, networks.make_current(np.random.default_rng(1), net, 2)))
    for current in shapes_of_no_current(net):
        runs = [engine.run, partial(reference.run, net)]
        if fast is Int8Engine:
            runs.append(lambda j: engine.logits(torch.from_numpy(j)))
        for run in runs:
            with pytest.raises(DeployError, match=r"^the current J must be (int32|\[2 or 1, B, [\d, ]+\]), got "):
                run(current)


def test_the_bound_of_the_readout_holds_for_partial_sums():
    """Four spikes of 127 times 127 are 64,516 before the bias of −60,000 makes 4,516 of them."""
    net = networks.single_stage(np.array([1] * 4), 1, s_max=127, leak=networks.NONE)
    branch = IntBranch(0, "linear", np.full((1, 4), 127, np.int8))
    for bias in (-60_000, 60_000):
        given = replace(net, readout=IntReadout(branch, np.array([bias], np.int32), 1.0))
        assert bounds(given, (np.zeros(4, np.int64), np.full(4, 1000)))[-1].accumulator == 64_516 + max(bias, 0)
    negative = replace(branch, weight=-branch.weight)
    given = replace(net, readout=IntReadout(negative, np.array([60_000], np.int32), 1.0))
    assert bounds(given, (np.zeros(4, np.int64), np.full(4, 1000)))[-1].accumulator == 64_516


def test_signed_bursts_worked_by_hand():
    """θ = 4. floor: −1 gives −1 and leaves 3; round (half up): −1 gives 0, −2 gives 0, −3 gives −1 and 2 gives 1.

    to_zero: −3 and 3 are silent.
    """
    j = [-20, -3, -2, -1, 1, 2, 3, 20]
    for rounding, spikes, left in (
        ("floor", [-2, -1, -1, -1, 0, 0, 0, 2], [-12, 1, 2, 3, 1, 2, 3, 12]),
        ("round", [-2, -1, 0, 0, 0, 1, 1, 2], [-12, 1, -2, -1, 1, -2, -1, 12]),
        ("to_zero", [-2, 0, 0, 0, 0, 0, 0, 2], [-12, -3, -2, -1, 1, 2, 3, 12]),
    ):
        net = networks.single_stage(np.array([4] * 8), 1, s_max=2, s_min=-2, rounding=rounding, leak=networks.NONE)
        current = np.array(j, np.int32).reshape(1, 1, -1)
        runs = [partial(scalar.run, net), partial(reference.run, net), TorchEngine(networks.loose(net, current)).run]
        if onnx_engine.available() is None:
            runs.append(onnx_engine.OnnxEngine(net).run)
        for run in runs:
            trace = run(current)
            assert trace.spikes[0].ravel().tolist() == spikes
            assert trace.membranes[0].ravel().tolist() == left


@pytest.mark.parametrize("rounding", ["floor", "round", "to_zero"])
@pytest.mark.parametrize("s_min", [0, -8])
@pytest.mark.parametrize("leak", networks.LEAKS, ids=str)
def test_no_drive_exceeds_the_membrane_bound(leak, s_min, rounding):
    """Constant and random drives of ±A stay inside the bound, and the bound is not loose."""
    rng = np.random.default_rng(0)
    A, T = 1000, 12
    net = networks.single_stage(np.array([3, 900, 30_000]), T, s_max=8, s_min=s_min, leak=leak, rounding=rounding)
    current = rng.choice([-A, -A + 1, 0, 1, A - 1, A], (T, 400, 3)).astype(np.int32)
    current[:, 0], current[:, 1] = A, -A
    (bound, _) = bounds(net, networks.loose(net, current).current_bounds)
    assert bound.accumulator == A
    trace = reference.run(net, current)
    before = trace.membranes[0] + trace.spikes[0] * net.stages[0].theta
    largest = max(int(np.abs(v).max()) for v in (before, trace.membranes[0]))
    assert bound.membrane / 4 < largest <= bound.membrane


def test_torch_integers_are_those_of_numpy_where_a_float_would_round():
    rng = np.random.default_rng(5)
    net = networks.make(rng, "chain", s_max=127, theta="any", leak=Leak("mul12_to_zero", 3), T=5)
    current = networks.make_current(rng, net, 3) * 16_000
    trace = TorchEngine(networks.loose(net, current)).run(current)
    assert networks.mismatches(trace, reference.run(net, current)) == 0
    assert max(int(np.abs(v).max()) for v in trace.membranes) > 2**24


def test_max_pool_of_signed_bursts_ignores_what_lies_outside_the_map():
    """All −1, and one 2 in the middle: a padding of 0 would win in the corners."""
    bursts = -np.ones((1, 1, 1, 3, 3), np.int8)
    bursts[..., 1, 1] = 2
    spec = IntPool("max", (2, 2), (2, 2), (1, 1))
    expected = [[-1, -1], [-1, 2]]
    assert reference.pool(spec, bursts.astype(np.int64))[0, 0, 0].tolist() == expected
    assert engine.pooled(torch.from_numpy(bursts), spec)[0, 0, 0].tolist() == expected
    by_position = {at: int(bursts[(0, 0, *at)]) for at in scalar.positions((1, 3, 3))}
    assert list(scalar.pooled(spec, (1, 3, 3), by_position).values()) == [-1, -1, -1, 2]


@pytest.mark.parametrize("signed", [False, True])
def test_a_sum_pool_is_exact_where_a_float32_sum_would_round(signed):
    """364²·127 is just above 2^24."""
    rng = np.random.default_rng(0)
    for side in (364, 400):
        bursts = rng.integers(120, 128, (2, 2, 3, side, side)).astype(np.int8 if signed else np.uint8)
        bursts = -bursts if signed else bursts
        spec = IntPool("sum", (side, side), (1, 1))
        expected = reference.pool(spec, bursts.astype(np.int64))
        found = engine.pooled(torch.from_numpy(bursts), spec)
        assert found.dtype == torch.int32 and np.array_equal(found.numpy(), expected)
    assert np.abs(expected).max() > 2**24 and (expected % 2).any()


def test_a_global_pool_over_a_large_map_is_exact_in_every_engine():
    side = 400
    torch.manual_seed(0)
    first, second = torch.nn.Conv2d(1, 1, 1), torch.nn.Conv2d(1, 1, 1)
    with torch.no_grad():
        first.weight.fill_(0.1)
        first.bias.fill_(6.2)
        second.weight.fill_(1.0)
    stages = {
        "first": Stage([Branch("input", first)], QBLIF(s_max=127, delta=0.05)),
        "second": Stage([Branch("first", second)], QBLIF(s_max=127, delta=1.0), torch.nn.AvgPool2d(side)),
        "readout": Stage([Branch("second", torch.nn.Linear(1, 2))]),
    }
    network = SpikingNetwork(Encoder("direct", 1, [0.5], [0.3]), stages, 1, (1, side, side)).eval()
    quantized = quantize(absorb(network), DeploySettings(bits=2))
    pixels = torch.rand(2, 1, side, side)
    current = quantized.current(pixels)
    expected = reference.run(quantized.net, current)
    assert np.abs(expected.logits).max() > 2**24 and (expected.logits % 2).any()
    for trace in (
        TorchEngine(quantized).run(current),
        Int8Engine(quantized).run(current),
        grid_trace(GridNetwork(quantized), network.encoder(pixels)),
    ):
        assert networks.mismatches(trace, expected) == 0
