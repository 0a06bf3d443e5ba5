"""Early exit of the integer network: logits worked by hand, and all engines on random networks."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from qbsnn.deploy.convert.absorb import absorb
from qbsnn.deploy.convert.quantize import quantize
from qbsnn.deploy.engines import c_engine, c_source, onnx_engine, reference, scalar
from qbsnn.deploy.engines.int8_engine import Int8Engine
from qbsnn.deploy.engines.torch_engine import TorchEngine
from qbsnn.deploy.export import bundle, bundle_reader
from qbsnn.deploy.format.network import IntBranch
from qbsnn.deploy.verify.exits import accumulates
from qbsnn.deploy.verify.integer import check_integer
from qbsnn.deploy.verify.margins import with_exit
from qbsnn.deploy.verify.traces import compare, exit_differences
from qbsnn.errors import ArgumentError, DeployError
from qbsnn.neurons import QBLIF
from tests.deploy import networks, spiking
from tests.deploy.engines.test_c_source import compiler_missing
from tests.deploy.export.exporting import as_trace, with_front


def by_hand(margin):
    """Three neurons that hand J on (θ = 1, no leak), each read by one class, so that Z_t is the sum of J.

    sample 0    J  5 0 3, 0 4 0, 0 0 9    Z  5 0 3, 5 4 3, 5 4 12    margins 2, 1, 7
    sample 1       2 2 0, 0 3 0, 0 0 0       2 2 0, 2 5 0, 2 5 0             0, 3, 3
    sample 2       4 1 0, 0 9 0, 0 0 0       4 1 0, 4 10 0, 4 10 0           3, 6, 6
    sample 3       1 1 1, 1 1 1, 1 1 1       1 1 1, 2 2 2, 3 3 3             0, 0, 0
    """
    net = networks.single_stage(np.array([1, 1, 1]), 3, s_max=127, leak=networks.NONE)
    identity = IntBranch(0, "linear", np.eye(3, dtype=np.int8))
    readout = replace(net.readout, branch=identity, bias=np.zeros(3, np.int32))
    current = [[[5, 0, 3], [2, 2, 0], [4, 1, 0], [1, 1, 1]], [[0, 4, 0], [0, 3, 0], [0, 9, 0], [1, 1, 1]],
               [[0, 0, 9], [0, 0, 0], [0, 0, 0], [1, 1, 1]]]  # fmt: skip
    return replace(net, readout=readout, exit_margin=margin), np.array(current, np.int32)


BY_HAND = {
    0: [[1, 1, 1, 1], [0, 0, 0, 0]],
    2: [[1, 2, 1, 3], [0, 1, 0, 0]],
    3: [[3, 2, 1, 3], [2, 1, 0, 0]],
    4: [[3, 3, 2, 3], [2, 1, 1, 0]],
    2**32 - 1: [[3, 3, 3, 3], [2, 1, 1, 0]],
}


def engines(folder, compiled):
    def read_back(net, current):
        place = folder / f"bundle{len(list(folder.iterdir()))}"
        place.mkdir()
        bundle.write(with_front(net), place, "net", ["a", "b", "c"])
        assert bundle.read(place).exit_margin == net.exit_margin
        return as_trace(bundle_reader.read(place).run(current))

    def c(net, current):
        place = folder / f"c{len(list(folder.iterdir()))}"
        place.mkdir()
        c_source.write(net, place, current)
        return c_engine.run(place, net, current, ("-O1",))

    found = {
        "scalar": scalar.run,
        "int64": reference.run,
        "torch": lambda net, current: TorchEngine(networks.loose(net, current)).run(current),
        "int8": lambda net, current: Int8Engine(networks.loose(net, current)).run(current),
        "bundle": read_back,
    }
    if onnx_engine.available() is None:
        found["onnx"] = lambda net, current: onnx_engine.OnnxEngine(net).run(current)
    return found | ({"c": c} if compiled and not compiler_missing() else {})


@pytest.mark.parametrize("margin", BY_HAND)
def test_logits_by_hand(tmp_path, margin):
    net, current = by_hand(margin)
    for name, run in engines(tmp_path, compiled=margin in (0, 3)).items():
        trace = run(net, current)
        assert trace.exits.tolist() == BY_HAND[margin], name
        assert trace.logits.tolist() == current.sum(0).tolist(), name  # the whole is computed all the same


def steps_at(margins, margin):
    """The step from 0 at which each sample leaves, for margins ``[T, B]``."""
    last = len(margins) - 1
    return [next((t for t in range(last) if column[t] >= margin), last) for column in margins.T]


@pytest.mark.parametrize("topology", networks.TOPOLOGIES)
def test_engines_agree_on_random_networks(tmp_path, topology):
    taken = set()
    for seed in range(4):
        rng = np.random.default_rng(seed)
        net = networks.make(rng, topology, T=4, s_max=2)
        current = networks.make_current(rng, net, 8)
        # Z after t steps is that of the network of t steps; a large bias for one class makes decisions change
        net = replace(net, readout=replace(net.readout, bias=np.array([-40, 300, 0], np.int32) * (seed % 2)))
        z = np.stack([scalar.run(replace(net, T=t), current[:t]).logits for t in range(1, 5)])
        ordered = np.sort(z, 2)
        margins = ordered[..., 2] - ordered[..., 1]
        # one that is met exactly, so that one more is another rule; of these the one with most different steps
        met = [int(m) for m in np.unique(margins[:3]) if steps_at(margins, m) != steps_at(margins, m + 1)]
        margin = max(met, key=lambda margin, at=margins: len(set(steps_at(at, margin))))
        steps = steps_at(margins, margin)
        expected = [[t + 1 for t in steps], [z[t, b].tolist().index(z[t, b].max()) for b, t in enumerate(steps)]]
        taken |= set(steps)
        ours = replace(net, exit_margin=margin)
        for name, run in engines(tmp_path, compiled=seed == 0).items():
            found = run(ours, current)
            assert found.exits.tolist() == expected, (name, seed)
            other = reference.run(replace(ours, exit_margin=margin + 1), current)
            assert compare(found, other) == exit_differences(found, other) > 0
    assert len(taken) > 1


def test_a_difference_beyond_int32_is_right(tmp_path):
    net, current = by_hand(2**32 - 2)
    bias = np.array([2**31 - 2**20, -(2**31) + 2**20, 0], np.int32)
    net = replace(net, T=1, exit_margin=2**32 - 2**21, readout=replace(net.readout, bias=bias))
    two = replace(net.readout.branch, weight=np.array([[1, 1, 1], [0, 0, 0]], np.int8))
    net = replace(net, readout=replace(net.readout, branch=two, bias=bias[:2]))
    for name, run in engines(tmp_path, compiled=True).items():
        if name != "bundle":  # whose classes have names
            assert run(net, current[:1]).exits.tolist() == [[1] * 4, [0] * 4], name


def test_bad_margins():
    net, current = by_hand(1)
    for margin in (-1, 2**32, 1.0, True):
        with pytest.raises(DeployError, match="network: exit_margin must be an integer from 0 to 4294967295, got"):
            reference.run(replace(net, exit_margin=margin), current)
    alone = networks.single_stage(np.array([1]), 1, s_max=1)
    with pytest.raises(DeployError, match="an exit margin needs two classes, got 1"):
        reference.run(replace(alone, exit_margin=1), np.ones((1, 1, 1), np.int32))
    with pytest.raises(ValueError, match="only one of the engines"):
        compare(reference.run(net, current), reference.run(replace(net, exit_margin=None), current))


@pytest.mark.parametrize("family", ["vgg5-max", "resnet20"])
def test_what_a_run_counts(family):
    quantized = quantize(absorb(spiking.make(family, QBLIF)))
    batches = spiking.batches(quantized.front)
    ours = with_exit(quantized, batches, 1.0)  # any loss will do: all leave at once
    assert ours.net.exit_margin is not None
    found = check_integer(ours, batches, onnx_images=0)
    assert found.passed and found.exit.mismatches == 0 and found.exit.steps[0] == found.exit.images == found.images
    assert found.exit.mean_steps == 1 and 0 < found.exit.acs < found.exit.acs_whole
    assert found.exit.right_whole == round(found.acc * found.images)
    assert check_integer(quantized, batches[:1], onnx_images=0).exit is None


def test_a_margin_needs_images_and_two_classes():
    quantized = quantize(absorb(spiking.make("mlp", QBLIF)))
    ((pixels, labels), *_) = spiking.batches(quantized.front)
    for none in ([], [(pixels[:0], labels[:0])]):
        with pytest.raises(ArgumentError, match="batches must hold an image at least, got none"):
            with_exit(quantized, none, 0.01)
    readout = quantized.net.readout
    alone = replace(readout, branch=replace(readout.branch, weight=readout.branch.weight[:1]), bias=readout.bias[:1])
    with pytest.raises(DeployError, match="network: an exit margin needs two classes, got 1"):
        with_exit(replace(quantized, net=replace(quantized.net, readout=alone)), [(pixels, labels)], 0.01)


@pytest.mark.parametrize("topology", networks.TOPOLOGIES)
def test_accumulates_are_sums_over_weights_of_one(topology):
    rng = np.random.default_rng(7)
    net = networks.make(rng, topology, T=3, s_min=-8)
    trace = reference.run(net, networks.make_current(rng, net, 2))
    pooled = [np.abs(s if stage.pool is None else reference.pool(stage.pool, s))
              for stage, s in zip(net.stages, trace.spikes, strict=True)]  # fmt: skip
    total = np.zeros((3, 2))
    for branch in [b for stage in net.stages for b in stage.branches] + [net.readout.branch]:
        if branch.weight is None:
            continue
        ones, x = torch.ones(branch.weight.shape), torch.from_numpy(pooled[branch.source]).flatten(0, 1).float()
        if branch.kind == "linear":
            found = F.linear(x.flatten(1), ones)
        else:
            found = F.conv2d(x, ones, None, branch.stride, branch.padding, groups=branch.groups)
        total += found.flatten(1).sum(1).reshape(3, 2).numpy()
    assert total.min() > 0 and np.array_equal(accumulates(net, trace), total)
