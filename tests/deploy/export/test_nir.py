"""NIR: plain where a plain reader gets it right, refused where it would not, whole in the metadata on request."""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest

from qbsnn.deploy.engines import reference
from qbsnn.deploy.export import nir_graph as nir_export
from qbsnn.deploy.export import nir_reader as nir_engine
from qbsnn.deploy.export.write import identical
from qbsnn.deploy.format.bounds import Bound, bounds
from qbsnn.deploy.format.network import IntBranch, IntegerNetwork, IntPool, IntReadout, IntStage, Leak
from qbsnn.errors import DeployError
from qbsnn.neurons import IF
from tests.deploy import networks
from tests.deploy.export.exporting import trained

nir = pytest.importorskip("nir")

LOSSLESS = (Leak("none", 0), Leak("mul12_to_zero", 0))
FORGETFUL = (Leak("shift_floor", 0), Leak("shift_xylo", 0), Leak("mul12_to_zero", 4096))


def binary(seed, topology="residual", T=4, leak=LOSSLESS[0], reset="hard", **neuron):
    """A network of neurons that fire 0 or 1, its current and its bounds; without what the nir package cannot type."""
    rng = np.random.default_rng(seed)
    while True:
        net = networks.make(rng, topology, T=T, s_max=1, leak=leak, reset=reset, **neuron)
        first = net.stages[0]
        net = replace(net, stages=(replace(first, bias=np.zeros_like(first.bias)), *net.stages[1:]))
        current = networks.make_current(rng, net, 3)
        if all(typed(branch) for stage in net.stages for branch in stage.branches):
            return net, current, bounds(net, networks.loose(net, current).current_bounds)


def typed(branch):
    return branch.kind != "conv" or (branch.groups == 1 and branch.weight.shape[2] == branch.weight.shape[3])


def assert_plain(path, net, current):
    """A reader that ignores the metadata emits the network's spikes and logits."""
    expected = reference.run(net, current)
    networks.assert_active(net, expected)
    steps = np.broadcast_to(current, (net.T, *current.shape[1:])).copy()
    spikes, logits = nir_engine.run_plain(path, steps, nir_export.DT)
    for found, wanted in zip(spikes, expected.spikes, strict=True):
        assert np.array_equal(found, wanted)
    assert np.array_equal(logits, expected.logits)


@pytest.mark.parametrize("topology", networks.TOPOLOGIES)
@pytest.mark.parametrize("leak", [*LOSSLESS, *FORGETFUL], ids=str)
@pytest.mark.parametrize("rounding", ["floor", "round", "to_zero"])
def test_plain_graphs_run_by_nirs_own_equations(tmp_path, topology, leak, rounding):
    path = tmp_path / "net.nir"
    for seed in range(2):
        net, current, limits = binary(seed, topology, T=1 + 3 * seed, leak=leak, rounding=rounding)
        nir_export.write(net, limits, path)
        assert_plain(path, net, current)
        assert identical(nir_engine.read(path), net)
        if seed and topology == "linear":  # a weight that is one unit off reaches the output
            nir_export.write(networks.flip(net, -1, (0, 0)), limits, path)
            with pytest.raises(AssertionError):
                assert_plain(path, net, current)


@pytest.mark.parametrize("leak", [Leak("shift_floor", 1), Leak("shift_xylo", 2), Leak("mul12_to_zero", 400)], ids=str)
def test_one_step_needs_no_leak_and_no_reset(tmp_path, leak):
    net, current, limits = binary(0, T=1, leak=leak, reset="soft")
    nir_export.write(net, limits, tmp_path / "net.nir")
    assert_plain(tmp_path / "net.nir", net, current)


def test_max_and_sum_pools_are_plain(tmp_path):
    rng = np.random.default_rng(0)
    pools = (IntPool("max", (3, 3), (2, 2), (1, 1)), IntPool("sum", (2, 2), (1, 1)), IntPool("max", (2, 1), (1, 1)))
    for seed, pool in enumerate(pools):
        net, current, _ = binary(seed)
        stage = net.stages[0]
        pooled = reference.pool(pool, np.zeros((1, 1, *stage.shape), np.int64)).shape[2:]
        head = IntReadout(
            IntBranch(0, "linear", rng.integers(-127, 128, (3, np.prod(pooled))).astype(np.int8)),
            np.zeros(3, np.int32),
            1.0,
        )
        net = IntegerNetwork((replace(stage, pool=pool),), head, net.T)
        nir_export.write(net, bounds(net, networks.loose(net, current).current_bounds), tmp_path / "net.nir")
        assert_plain(tmp_path / "net.nir", net, current)
        assert identical(nir_engine.read(tmp_path / "net.nir"), net)


@pytest.mark.slow
def test_spikingjelly_reads_a_plain_graph_and_fires_alike(tmp_path):
    """An independent reader. It takes one threshold per layer, so the network has no other."""
    pytest.importorskip("nirtorch")
    exchange = pytest.importorskip("spikingjelly.activation_based.nir_exchange")
    import torch

    rng = np.random.default_rng(0)

    def stage(name, branches, shape, theta):
        bias = np.zeros(shape[0]) if branches[0].kind == "input" else rng.integers(-20, 60, shape[0])
        return IntStage(name, branches, bias.astype(np.int32), np.full(shape[0], theta, np.int32), 1, shape,
                        leak=LOSSLESS[0], reset="hard")  # fmt: skip

    def weight(*shape):
        return rng.integers(-90, 128, shape).astype(np.int8)

    stages = (
        stage("stem", networks.INPUT_BRANCH, (3, 5, 4), 64),
        stage("conv", (IntBranch(0, "conv", weight(4, 3, 3, 3), stride=(2, 2), padding=(1, 1)),), (4, 3, 2), 128),
        stage("fc", (IntBranch(1, "linear", weight(6, 24)),), (6,), 256),
    )
    net = IntegerNetwork(
        stages, IntReadout(IntBranch(2, "linear", weight(3, 6)), np.array([5, -7, 0], np.int32), 1.0), 5
    )
    current = (32 * rng.integers(-3, 5, (5, 2, 3, 5, 4)) + rng.integers(0, 2, (5, 2, 3, 5, 4))).astype(np.int32)
    expected = reference.run(net, current)
    networks.assert_active(net, expected)
    nir_export.write(net, bounds(net, networks.loose(net, current).current_bounds), tmp_path / "net.nir")
    model = exchange.import_from_nir(tmp_path / "net.nir", dt=nir_export.DT)
    total, state = torch.zeros(2, 3), None
    with torch.no_grad():
        for step in torch.from_numpy(current).float():
            out, state = model(step, state)
            total += out
    assert np.array_equal(total.numpy(), expected.logits)


MISREAD = {
    "bursts of up to 8": {"s_max": 8},
    "negative spikes": {"s_min": -1},
    "soft reset": {"reset": "soft"},
    "the rounding leak shift_floor 1": {"leak": Leak("shift_floor", 1)},
    "the rounding leak shift_xylo 30": {"leak": Leak("shift_xylo", 30)},
    "the rounding leak mul12_to_zero 1": {"leak": Leak("mul12_to_zero", 1)},
}


@pytest.mark.parametrize("problem", MISREAD)
def test_what_a_plain_reader_would_misread_is_refused(tmp_path, problem):
    net, _, limits = binary(0)
    stages = tuple(replace(stage, **MISREAD[problem]) if i == 1 else stage for i, stage in enumerate(net.stages))
    path = tmp_path / "net.nir"
    with pytest.raises(DeployError, match=rf"plain NIR reader would misread this network: {problem} \(block0/a\)\."):
        nir_export.write(replace(net, stages=stages), limits, path)
    assert not path.exists()


def test_a_narrow_register_and_large_sums_are_refused():
    net, _, limits = binary(0)
    assert nir_export.misreadings(net, limits) == []
    low = max(limit.membrane for limit in limits).bit_length()
    (problem,) = nir_export.misreadings(replace(net, membrane_bits=low, overflow="saturate"), limits)
    assert problem.startswith(f"membranes that may leave {low} bits (saturate)")
    assert nir_export.misreadings(replace(net, membrane_bits=low + 1, overflow="saturate"), limits) == []
    large = [Bound(2**23, 0), *limits[1:-1], Bound(2**23, 0)]
    (problem,) = nir_export.misreadings(net, large)
    assert problem == "sums beyond 2^23, not exact in float32 (stem, readout)"


def test_if_neurons_are_refused_where_their_product_would_round():
    net, _, limits = binary(0)
    rounds = [Bound(2**20 // net.T, 0), *limits[1:]]
    found = nir_export.misreadings(net, rounds)
    assert found == ["sums beyond 2^20/T, which IF multiplies by r·dt, not exact in float32 (stem)"]
    assert nir_export.misreadings(net, [Bound(2**20 // net.T - 1, 0), *limits[1:]]) == []


@pytest.mark.parametrize("s_min", [0, -8])
@pytest.mark.parametrize(
    "leak", [Leak("none", 0), Leak("shift_floor", 2), Leak("shift_xylo", 3), Leak("mul12_to_zero", 9)]
)
def test_metadata_bring_back_every_network(tmp_path, leak, s_min):
    path = tmp_path / "net.nir"
    for topology in ("residual", "linear"):
        rng = np.random.default_rng(1)
        net = networks.make(rng, topology, leak=leak, s_min=s_min, rounding="round", membrane_bits=24, overflow="wrap")
        first = net.stages[0]
        net = replace(net, stages=(replace(first, bias=np.zeros_like(first.bias)), *net.stages[1:]))
        current = networks.make_current(rng, net, 2)
        nir_export.write(net, bounds(net, networks.loose(net, current).current_bounds), path, allow_metadata_only=True)
        assert identical(nir_engine.read(path), net)
        assert nir.read(path).metadata["plain_readers"].startswith("misread it: bursts of up to 8 (")


def test_a_trained_residual_network_comes_back(tmp_path):
    quantized, pixels = trained("resnet20")
    path = tmp_path / "net.nir"
    nir_export.write(quantized.net, bounds(quantized.net, quantized.current_bounds), path, allow_metadata_only=True)
    net = nir_engine.read(path)
    assert identical(net, quantized.net)
    current = quantized.current(pixels)
    assert networks.mismatches(reference.run(net, current), reference.run(quantized.net, current)) == 0


def test_a_trained_integrate_and_fire_network_is_plain(tmp_path):
    quantized, pixels = trained("vgg5-max", partial(IF, reset="hard"))
    assert nir_export.misreadings(quantized.net, bounds(quantized.net, quantized.current_bounds)) == []
    nir_export.write(quantized.net, bounds(quantized.net, quantized.current_bounds), tmp_path / "net.nir")
    assert_plain(tmp_path / "net.nir", quantized.net, quantized.current(pixels))


def test_bursts_do_differ_for_a_plain_reader(tmp_path):
    """Why they are refused."""
    rng = np.random.default_rng(0)
    net = networks.make(rng, "linear", s_max=8)
    first = net.stages[0]
    net = replace(net, stages=(replace(first, bias=np.zeros_like(first.bias)), *net.stages[1:]))
    current = networks.make_current(rng, net, 2)
    nir_export.write(
        net, bounds(net, networks.loose(net, current).current_bounds), tmp_path / "net.nir", allow_metadata_only=True
    )
    with pytest.raises(AssertionError):
        assert_plain(tmp_path / "net.nir", net, current)


def test_what_nir_cannot_hold_is_refused(tmp_path):
    net, _, limits = binary(0)
    path = tmp_path / "net.nir"
    first = net.stages[0]
    biased = replace(net, stages=(replace(first, bias=first.theta), *net.stages[1:]))
    with pytest.raises(DeployError, match="stage 'stem': its bias must be 0, as J includes it"):
        nir_export.write(biased, limits, path)
    only = replace(net.stages[2], branches=net.stages[2].branches[1:])
    assert only.branches[0].kind == "identity"
    with pytest.raises(DeployError, match="'block0/b': NIR has no place for a bias without weights"):
        nir_export.write(replace(net, stages=(*net.stages[:2], only, *net.stages[3:])), limits, path)
    for weight, groups, padding in (
        (np.ones((3, 1, 3, 3), np.int8), 3, (1, 1)),
        (np.ones((3, 3, 3, 1), np.int8), 1, (1, 0)),
    ):
        branch = IntBranch(0, "conv", weight, padding=padding, groups=groups)
        changed = replace(net.stages[1], branches=(branch,))
        with pytest.raises(DeployError, match=f"groups = {groups} and a kernel of 3x"):
            nir_export.write(replace(net, stages=(net.stages[0], changed, *net.stages[2:])), limits, path)
    assert not path.exists()


def test_damaged_and_foreign_files_are_refused(tmp_path):
    net, _, limits = binary(0)
    path = tmp_path / "net.nir"
    nir_export.write(net, limits, path)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(DeployError, match=r"net\.nir is cut short"):
        nir_engine.read(path)
    flipped = bytearray(content)
    flipped[len(content) // 2] ^= 1
    path.write_bytes(flipped)
    with pytest.raises(DeployError, match=r"net\.nir is damaged"):
        nir_engine.read(path)
    nir.write(path, nir_export.graph(net, []))
    with pytest.raises(DeployError, match=r"net\.nir is cut short or was not written by"):
        nir_engine.read(path)
    graph = nir_export.graph(net, [])
    for key, value in (("version", 2), ("semantics", "other"), ("format", "x")):
        graph.metadata = {**graph.metadata, key: value}
        nir_export.save(path, graph)
        with pytest.raises(DeployError, match=f"{key} must be .*, got {value!r}; it is no graph of this exporter"):
            nir_engine.read(path)
        graph = nir_export.graph(net, [])
    del graph.nodes["stage1"].metadata["theta"]
    nir_export.save(path, graph)
    with pytest.raises(DeployError, match="lacks a part of the network: KeyError: 'theta'"):
        nir_engine.read(path)
    graph = nir_export.graph(net, [])
    graph.nodes["stage1"].metadata["s_max"] = 0
    nir_export.save(path, graph)
    with pytest.raises(DeployError, match="s_max must be an integer from 1 to 127, got 0"):
        nir_engine.read(path)


def test_other_nodes_are_no_plain_graph(tmp_path):
    path = tmp_path / "other.nir"
    nodes = {"input": nir.Input(np.array([2])), "stage0": nir.I(np.ones(2)), "output": nir.Output(np.array([2]))}
    nir.write(path, nir.NIRGraph(nodes, [("input", "stage0"), ("stage0", "output")]))
    with pytest.raises(DeployError, match="knows no NIR node of the kind I"):
        nir_engine.run_plain(path, np.zeros((1, 1, 2), np.int32), nir_export.DT)
