from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from qbsnn.deploy.engines import reference, scalar
from qbsnn.deploy.format.network import INPUT, IntBranch, IntegerNetwork, IntPool, Leak, Overflow
from qbsnn.errors import DeployError
from tests.deploy import networks

ENGINES = [scalar.run, reference.run]


def same(net: IntegerNetwork, current: NDArray[np.int32]) -> None:
    trace, oracle = reference.run(net, current), scalar.run(net, current)
    networks.assert_active(net, oracle)
    assert networks.mismatches(trace, oracle) == 0
    assert networks.same_overflows(trace, oracle)
    for changed in networks.flips(net, oracle):
        assert networks.mismatches(reference.run(changed, current), oracle) > 0


@pytest.mark.parametrize("run", ENGINES)
def test_numbers_worked_by_hand(run):
    net, current, expected = networks.worked_by_hand()
    trace = run(net, current)
    networks.assert_active(net, trace)
    assert networks.mismatches(trace, expected) == 0
    assert trace.overflows == 0
    for stage, index in ((1, (0, 1)), (-1, (0, 0)), (-1, (1, 0))):
        assert networks.mismatches(run(networks.flip(net, stage, index), current), expected) > 0
    # why ``flips`` leaves hard resets out: 3 + 1 gives V = 5 and 10 for 4 and 8, which fire as often and reset to 0
    assert networks.mismatches(run(networks.flip(net, 1, (0, 0)), current), expected) == 0


@pytest.mark.parametrize(("reset", "rounding", "s_min"), networks.VARIANTS)
@pytest.mark.parametrize("leak", networks.LEAKS, ids=str)
def test_every_neuron_state(leak, reset, rounding, s_min):
    net, current, expected = networks.every_neuron(leak, reset, rounding, s_min)
    assert networks.mismatches(reference.run(net, current), expected) == 0


def test_static_current_is_the_same_every_step():
    rng = np.random.default_rng(0)
    net = networks.make(rng, "chain", T=4)
    current = networks.make_current(rng, net, 2, static=True)
    once, repeated = reference.run(net, current), reference.run(net, np.repeat(current, 4, axis=0))
    networks.assert_active(net, once)
    assert networks.mismatches(once, repeated) == 0


@pytest.mark.parametrize("run", ENGINES)
def test_overflow_is_counted_and_does_not_wrap(run):
    # θ = 1, one spike a step: V = 2³¹ − 1, still int32; then 2³¹ − 2 + 2³¹ − 1 = 2³² − 3, and 2³² − 4 + 2³¹ − 1
    net = networks.single_stage(np.array([1]), 3, s_max=1, leak=networks.NONE)
    trace = run(net, np.full((1, 1, 1), 2**31 - 1, np.int32))
    assert trace.first_overflow == Overflow(1, 0, 0, (0,), "only", 2**32 - 3)
    assert trace.membranes[0].ravel().tolist() == [2**31 - 2, 2**32 - 4, 2**32 + 2**31 - 6]
    assert trace.spikes[0].ravel().tolist() == [1, 1, 1]
    assert trace.overflows == 2


@pytest.mark.parametrize("run", ENGINES)
def test_overflow_of_bias_and_readout_is_counted(run):
    net = networks.single_stage(np.array([1, 1]), 2, s_max=1, leak=Leak("shift_floor", 0))
    stage = replace(net.stages[0], bias=np.array([1, 0], np.int32))
    readout = replace(net.readout, bias=np.array([2**31 - 3], np.int32))
    # neuron 0: 2³¹ − 1 + 1 leaves int32 in both steps; readout: 2³¹ − 3 + 2 fits, twice that does not
    trace = run(replace(net, stages=(stage,), readout=readout), np.full((1, 1, 2), 2**31 - 1, np.int32))
    assert trace.logits.tolist() == [[2 * (2**31 - 1)]]
    assert trace.overflows == 3


@pytest.mark.parametrize("seed", range(12))
def test_currents_near_the_ends_of_int32(seed):
    rng = np.random.default_rng(seed)
    net = networks.make(rng, networks.TOPOLOGIES[seed % 3], T=4, leak=networks.LEAKS[seed], s_max=127, theta="any")
    shape = (4, 2, *net.stages[0].shape)
    current = np.where(rng.random(shape) < 0.8, 2**31 - 1 - rng.integers(0, 9, shape), -(2**31)).astype(np.int32)
    trace, oracle = reference.run(net, current), scalar.run(net, current)
    networks.assert_active(net, oracle)
    assert networks.mismatches(trace, oracle) == 0
    assert trace.overflows == oracle.overflows > 0


@pytest.mark.parametrize("exact", [{}, {np.float64: 2**53}, reference.EXACT], ids=["int64", "float64", "float32"])
@pytest.mark.parametrize("columns", [1, 10**9])
def test_all_contractions_and_any_chunking_agree(monkeypatch, exact, columns):
    monkeypatch.setattr(reference, "EXACT", exact)
    monkeypatch.setattr(reference, "COLUMNS", columns)
    monkeypatch.setattr(reference, "CACHED", columns)
    for seed, topology in enumerate(networks.TOPOLOGIES):
        rng = np.random.default_rng(seed)
        net = networks.make(rng, topology, s_max=127)
        same(net, networks.make_current(rng, net, 3))


@pytest.mark.parametrize(
    ("bits", "dtype"), [(7, np.float32), (9, np.float32), (11, np.float64), (22, np.float64), (25, np.int64)]
)
def test_matmul_is_exact_up_to_the_bound_and_beyond(bits, dtype):
    rng = np.random.default_rng(bits)
    a, b = (rng.integers(-(2**bits), 2**bits + 1, shape) for shape in ((5, 33), (33, 4)))
    assert reference.exact_dtype(b.T, a) is dtype
    expected = [[sum(int(x) * int(y) for x, y in zip(row, column, strict=True)) for column in b.T] for row in a]
    assert reference.matmul(a, b).tolist() == expected


def test_dtype_switches_exactly_at_the_bound():
    weight = np.array([[2**20, -(2**20)]])
    assert reference.exact_dtype(weight, np.array([7])) is np.float32  # 2²¹·7 < 2²⁴
    assert reference.exact_dtype(weight, np.array([-8])) is np.float64  # 2²⁴ itself is too large
    assert reference.exact_dtype(weight, np.array([2**32 - 1])) is np.float64  # 2²¹·(2³² − 1) < 2⁵³
    assert reference.exact_dtype(weight, np.array([-(2**32)])) is np.int64  # 2⁵³ itself is refused


def change(k: int, **fields: object):
    def apply(net: IntegerNetwork) -> IntegerNetwork:
        return replace(net, stages=tuple(replace(s, **fields) if i == k else s for i, s in enumerate(net.stages)))

    return apply


def change_branch(k: int, **fields: object):
    return lambda net: change(k, branches=(replace(net.stages[k].branches[0], **fields),))(net)


def change_readout(**fields: object):
    return lambda net: replace(net, readout=replace(net.readout, **fields))


WRONG = {
    "later source": (change_branch(1, source=1), "stage 'block0/a': source must be an earlier stage, got 1"),
    "no source": (change_branch(1, source=INPUT), "stage 'block0/a': source must"),
    "weight dtype": (change_branch(1, weight=np.zeros((3, 3, 3, 3), np.int32)), "'block0/a': a conv weight must"),
    "weight −128": (change_branch(1, weight=np.full((3, 3, 3, 3), -128, np.int8)), "'block0/a'.*−128"),
    "no weight": (change_branch(1, weight=None), "'block0/a': a conv weight must be int8 .* got None"),
    "channels": (change_branch(1, weight=np.zeros((3, 2, 3, 3), np.int8)), "'block0/a'.* does not fit its source"),
    "groups": (change_branch(1, groups=2), "'block0/a'.*groups=2 does not fit"),
    "padding": (change_branch(1, padding=(0, 0)), "'block0/a': its conv branch gives"),
    "stride": (change_branch(1, stride=(0, 1)), "'block0/a'.*stride"),
    "kernel": (change_branch(1, weight=np.zeros((3, 3, 9, 9), np.int8)), "'block0/a': kernel .* larger than"),
    "scale": (change(2, branches=(IntBranch(0, "identity", scale=np.zeros(2, np.int32)),)), "'block0/b': scale must"),
    "scale dtype": (change(2, branches=(IntBranch(0, "identity", scale=np.zeros(3)),)), "'block0/b': scale .*float64"),
    "linear": (change_branch(1, kind="linear", weight=np.zeros((3, 7), np.int8)), "'block0/a': a linear weight"),
    "kind": (change_branch(1, kind="pool"), "'block0/a': unknown kind of branch 'pool'"),
    "no branch": (change(1, branches=()), "'block0/a': it has no branches"),
    "input twice": (change(1, branches=networks.INPUT_BRANCH), "'block0/a': 'input' is the only branch of the first"),
    "no input": (change_branch(0, kind="identity"), "'stem': 'input' is the only branch of the first stage"),
    "input's source": (change_branch(0, source=0), "'stem': the source of an input branch is INPUT"),
    "shape": (change(0, shape=(3, 4)), "'stem': shape must be"),
    "bias": (change(1, bias=np.zeros(3, np.int64)), r"'block0/a': bias must be int32 \(3,\), got int64 \(3,\)"),
    "theta": (change(1, theta=np.array([1, 0, 1], np.int32)), "'block0/a': theta must be at least 1, got 0"),
    "s_max": (change(1, s_max=128), "'block0/a': s_max must be an integer from 1 to 127, got 128"),
    "leak": (change(1, leak=Leak("leaky", 1)), "'block0/a': the kind of leak must be one of none, .* got 'leaky'"),
    "shift": (
        change(1, leak=Leak("shift_floor", 31)),
        "'block0/a': the amount of a shift_floor leak must be an integer from 0 to 30, got 31",
    ),
    "decay": (change(1, leak=Leak("mul12_to_zero", -1)), "amount of a mul12_to_zero leak .* 0 to 4096, got -1"),
    "xylo": (change(1, leak=Leak("shift_xylo", 0.5)), "amount of a shift_xylo leak must be an integer .* got 0.5"),
    "s_min": (change(1, s_min=-3), "'block0/a': s_min must be 0 or −s_max = -8, got -3"),
    "rounding": (change(1, rounding="ceil"), "'block0/a': rounding must be floor, round or to_zero, got 'ceil'"),
    "bits": (lambda net: replace(net, membrane_bits=33), "network: membrane_bits must be an integer from 2 to 32, got"),
    "policy": (lambda net: replace(net, overflow="clip"), "network: overflow must be one of .* got 'clip'"),
    "narrow": (
        lambda net: change(1, theta=np.array([1, 8, 7], np.int32))(replace(net, membrane_bits=4)),
        "theta must be at most 7 to fit a 4-bit membrane, got",
    ),
    "reset": (change(1, reset="none"), "'block0/a': reset must be soft or hard, got 'none'"),
    "true s_max": (change(1, s_max=True, s_min=0), "'block0/a': s_max must be an integer from 1 to 127, got True"),
    "half s_max": (change(1, s_max=2.5, s_min=0), "'block0/a': s_max must be an integer from 1 to 127, got 2.5"),
    "false s_min": (change(1, s_min=False), "'block0/a': s_min must be 0 or −s_max = -8, got False"),
    "half a bit": (lambda net: replace(net, membrane_bits=16.5), "network: membrane_bits must be .* to 32, got 16.5"),
    "half a row": (change(1, shape=(3, 4.0, 4)), r"'block0/a': shape must be \(O,\) or \(O, H, W\), got \(3, 4.0, 4\)"),
    "half a group": (change_branch(1, groups=1.0), "'block0/a': groups must be integers, got 1.0"),
    "half a stride": (change_branch(1, stride=(1.0, 1)), r"'block0/a': stride must be integers, got \(1.0, 1\)"),
    "true padding": (change_branch(1, padding=(True, 1)), r"'block0/a': padding must be integers, got \(True, 1\)"),
    "half a source": (change_branch(1, source=0.0), "'block0/a': source must be integers, got 0.0"),
    "half a kernel": (change(1, pool=IntPool("max", (2.0, 2), (2, 2))), "'block0/a': kernel must be integers, got"),
    "no scale": (change_readout(scale=float("nan")), "readout: scale must be a finite number above 0, got nan"),
    "zero scale": (change_readout(scale=0.0), "readout: scale must be a finite number above 0, got 0.0"),
    "more padding than half": (
        change(1, pool=IntPool("max", (3, 3), (2, 2), (2, 2))),
        r"'block0/a': padding \(2, 2\): 0 for a sum pool, at most half the kernel \(3, 3\) for a max pool",
    ),
    "sum padding": (change(1, pool=IntPool("sum", (2, 2), (2, 2), (1, 1))), "'block0/a': padding"),
    "max padding": (change(1, pool=IntPool("max", (2, 2), (2, 2), (2, 2))), "'block0/a': padding"),
    "pool size": (change(1, pool=IntPool("max", (9, 9), (1, 1))), "'block0/a': kernel .* larger than"),
    "pool kind": (change(1, pool=IntPool("mean", (2, 2), (2, 2))), "'block0/a': unknown kind of pool 'mean'"),
    "names": (change(1, name="stem"), "stage 'stem': its name is not unique"),
    "T": (lambda net: replace(net, T=0), "network: T must be an integer of at least 1, got 0"),
    "empty": (lambda net: replace(net, stages=()), "network: it has no stages"),
    "readout source": (
        change_readout(branch=IntBranch(5, "linear")),
        "readout: source must be an earlier stage, got 5",
    ),
    "readout kind": (
        change_readout(branch=IntBranch(0, "identity")),
        "readout: its branch must be linear, got identity",
    ),
    "readout bias": (change_readout(bias=np.zeros(2, np.int32)), "readout: bias must be"),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_wiring_names_the_stage(name):
    wrong, message = WRONG[name]
    net = networks.make(np.random.default_rng(0), "residual")
    current = networks.make_current(np.random.default_rng(0), net, 1)
    with pytest.raises(DeployError, match=message):
        reference.run(wrong(net), current)


def test_pool_needs_a_map():
    net = networks.make(np.random.default_rng(0), "linear")
    with pytest.raises(DeployError, match="stage 'in': a pool needs the shape"):
        reference.check(change(0, pool=IntPool("max", (1, 1), (1, 1)))(net))


def test_current_of_another_dtype_or_shape_is_refused():
    net = networks.make(np.random.default_rng(0), "linear", T=3)
    shape = net.stages[0].shape
    for current in (
        np.zeros((3, 2, *shape), np.int64),
        np.zeros((2, 2, *shape), np.int32),
        np.zeros((3, *shape), np.int32),
        np.zeros((3, 2, shape[0] + 1), np.int32),
        np.zeros((3, 0, *shape), np.int32),
    ):
        with pytest.raises(DeployError, match="the current J must be"):
            reference.run(net, current)
