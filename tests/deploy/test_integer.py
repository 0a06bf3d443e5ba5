"""Quantisation, static bounds and the whole proof, for every family and neuron."""

import re
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch

from qbsnn.deploy.convert.absorb import absorb
from qbsnn.deploy.convert.grid import GridNetwork
from qbsnn.deploy.convert.quantize import quantize
from qbsnn.deploy.convert.settings import DeploySettings
from qbsnn.deploy.convert.thresholds import power_of_two_theta
from qbsnn.deploy.engines import onnx_engine, reference
from qbsnn.deploy.engines.torch_engine import TorchEngine
from qbsnn.deploy.format.bounds import bits, bounds
from qbsnn.deploy.format.network import INPUT, Leak
from qbsnn.deploy.verify import agreement
from qbsnn.deploy.verify import integer as verify_integer
from qbsnn.deploy.verify.integer import check_integer
from qbsnn.deploy.verify.traces import compare, flip_weight
from qbsnn.errors import DeployError
from qbsnn.layers import Branch, Encoder, Stage
from qbsnn.models import SpikingNetwork
from qbsnn.neurons import LIF, QBLIF
from tests.deploy.networks import loose, same_overflows
from tests.deploy.spiking import FAMILIES, batches, make

NEURONS = {
    "counts": partial(QBLIF, s_max=4),
    "graded": partial(QBLIF, s_max=15, output="graded", tau=4.0),
    "lif": LIF,
    "lif-hard": partial(LIF, reset="hard"),
    "full-leak": partial(QBLIF, s_max=2, tau=1.0),
}


def quantized(family, neuron="counts", **extra):
    return quantize(absorb(make(family, NEURONS[neuron], **extra)))


@pytest.mark.parametrize("neuron", NEURONS)
@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_with_every_neuron_is_proven(family, neuron):
    network = make(family, NEURONS[neuron])
    found = check_integer(quantize(absorb(network)), batches(network), onnx_images=12)
    assert found.passed, found
    assert found.spike_mismatches == found.membrane_mismatches == found.logit_mismatches == found.overflows == 0
    assert all(layer.spikes > 0 for layer in found.layers)
    assert found.flip_mismatches > 0
    if found.onnxruntime_skipped is None:
        assert found.onnxruntime_images == 12 and found.onnxruntime_mismatches == 0
    for layer in found.layers:
        assert layer.membrane_seen <= layer.membrane_bound < 2 ** (layer.membrane_bits - 1)


@pytest.mark.parametrize("encoding", ["rate", "latency"])
def test_other_encodings_are_proven(encoding):
    network = make("vgg5-max", NEURONS["counts"], encoding=encoding)
    assert check_integer(quantize(absorb(network)), batches(network), onnx_images=12).passed


def test_weights_and_thresholds_lie_on_the_documented_grid():
    network = absorb(make("vgg5-max", NEURONS["graded"]))
    result = quantize(network)
    for stage, (_, trained) in zip(result.net.stages, network.named_stages(), strict=False):
        branch = trained.parts[0]
        w = branch.weight.weight.double().numpy()
        largest = np.abs(w).reshape(len(w), -1).max(1)
        k = np.clip(np.floor(np.log2(127 / largest)), 0, 15)
        assert np.array_equal(stage.theta, 2**k)
        if stage.branches[0].source != INPUT:
            per_row = stage.theta.reshape(-1, *[1] * (w.ndim - 1))
            assert np.array_equal(stage.branches[0].weight, np.rint(w * per_row))
            assert np.array_equal(stage.bias, np.rint(branch.weight.bias.double().numpy() * stage.theta))
    assert sum(result.clipped.values()) == 0


def test_weights_too_large_for_theta_1_are_clipped_and_counted():
    network = absorb(make("mlp", NEURONS["counts"]))
    network.stages["fc2"].parts[0].weight.weight.data[0, :3] = torch.tensor([200.0, -300.0, 5.0])
    result = quantize(network)
    assert result.clipped == {"fc1": 0, "fc2": 2, "readout": 0}
    assert result.net.stages[1].theta[0] == 1
    assert result.net.stages[1].branches[0].weight[0, :3].tolist() == [127, -127, 5]


def test_clipped_weights_of_the_readout_are_counted():
    network = absorb(make("mlp", NEURONS["counts"]))
    network.stages["readout"].parts[0].weight.weight.data[0, :2] = torch.tensor([0.5, -0.5])
    result = quantize(network, DeploySettings(bits=2, theta="integer"), batches(network)[0][0])
    rounded = np.rint(network.stages["readout"].parts[0].weight.weight.double().numpy() * result.net.readout.scale)
    assert result.clipped["readout"] == (np.abs(rounded) > 1).sum() > 0
    found = check_integer(result, batches(network), onnx_images=0)
    assert found.readout_clipped_weights == result.clipped["readout"]


def test_clipped_weights_of_a_first_layer_of_integers_are_counted():
    network = absorb(make("mlp", NEURONS["counts"], encoding="latency"))
    network.stages["fc1"].parts[0].weight.weight.data[0, :3] = torch.tensor([200.0, -300.0, 5.0])
    assert quantize(network, DeploySettings(first_layer="integer")).clipped == {"fc1": 2, "fc2": 0, "readout": 0}


@pytest.mark.parametrize(
    ("kernel", "groups", "mean", "std"),
    # groups whose weights have a size that three channels divide, and normalisation that differs by channel
    [(3, 3, (0.5, 0.5, 0.5), (0.01, 5.0, 5.0)), (2, 3, (0.5, 0.4, 0.9), (0.2, 0.2, 0.2)), (2, 1, (0.3,), (0.2,))],
)
def test_currents_of_a_grouped_first_layer_stay_within_their_bounds(kernel, groups, mean, std):
    torch.manual_seed(0)
    first = torch.nn.Conv2d(3, 6, kernel, groups=groups, padding=1)
    size = 8 + 3 - kernel
    stages = {"a": Stage([Branch("input", first)], QBLIF(s_max=8)),
              "readout": Stage([Branch("a", torch.nn.Linear(6 * size**2, 5))])}  # fmt: skip
    network = SpikingNetwork(Encoder("direct", 3, mean, std), stages, 3, (3, 8, 8)).eval()
    result = quantize(absorb(network))
    # The input that drives an output furthest: 1 where its weight is positive, 0 elsewhere, or the reverse.
    low, high = result.current_bounds
    with torch.no_grad():
        for o in range(6):
            own = slice(o // (6 // groups) * (3 // groups), (o // (6 // groups) + 1) * (3 // groups))
            for sign in (1, -1):
                pixels = torch.zeros(1, 3, 8, 8)
                pixels[0, own, 2 : 2 + kernel, 2 : 2 + kernel] = (sign * first.weight[o] > 0).float()
                at = result.current(pixels)[0, 0, o, 3, 3]
                assert low[o] <= at <= high[o]
                assert min(at - low[o], high[o] - at) <= 0.02 * (high[o] - low[o]) + 2


@pytest.mark.parametrize("theta", ["pow2", "integer"])
@pytest.mark.parametrize(("s_max", "least"), [(63, 8), (64, 9), (127, 9)])
def test_a_membrane_too_narrow_for_the_bursts_is_named(theta, s_max, least):
    network = absorb(make("mlp", partial(QBLIF, s_max=s_max)))
    if least == 9:
        with pytest.raises(DeployError, match=f"fc1: .* s_max = {s_max} needs deploy.membrane_bits .* 9, got 8"):
            quantize(network, DeploySettings(theta=theta, membrane_bits=8, overflow="saturate"))
    assert quantize(network, DeploySettings(theta=theta, membrane_bits=least, overflow="saturate")).net.stages


def test_identity_shortcut_is_a_constant_per_channel():
    result = quantized("resnet20", "graded")
    constants = [b.scale for stage in result.net.stages for b in stage.branches if b.kind == "identity"]
    assert len(constants) == 7  # nine blocks, two of which change the shape
    assert all(c.dtype == np.int32 and (c > 0).all() for c in constants)


def test_power_of_two_theta_never_clips_and_cannot_be_finer():
    largest = np.concatenate([np.random.default_rng(0).uniform(0.004, 127, 1000), [127, 63.5, 63.500001]])
    theta = power_of_two_theta(largest).astype(float)
    assert (largest * theta <= 127).all()
    assert ((largest * theta * 2 > 127) | (theta == 2**15)).all()


@pytest.mark.parametrize("family", ["mlp", "vgg9-avg", "resnet20"])
def test_bounds_hold_for_the_worst_input(family):
    result = quantized(family)
    static = bounds(result.net, result.current_bounds)
    engine = TorchEngine(result)
    # White, black and random pixels: the current must stay inside its interval, membranes inside their bound.
    shape = result.front.in_shape
    pixels = torch.cat([torch.zeros(1, *shape), torch.ones(1, *shape), torch.rand(30, *shape).round()])
    with torch.no_grad():
        current = result.current(pixels)
    flat = np.moveaxis(current, 2, 0).reshape(current.shape[2], -1)
    assert (flat >= result.current_bounds[0][:, None]).all() and (flat <= result.current_bounds[1][:, None]).all()
    trace = engine.run(current)
    for bound, membranes in zip(static, trace.membranes, strict=False):
        assert np.abs(membranes).max() <= bound.membrane


def test_padding_is_an_input_of_its_own():
    """Black and white become 2.5 and 7.5 here: at a corner of a black image weights above 0 give less than inside."""
    network = make("vgg5-max", NEURONS["counts"])
    network.encoder.mean.fill_(-0.5)
    network.stages["conv1"].parts[0].weight.weight.data.abs_()
    result = quantize(absorb(network))
    current = result.current(torch.zeros(1, *result.front.in_shape)).astype(np.int64)[0, 0]
    low, high = (bound[:, None, None] for bound in result.current_bounds)
    assert (current >= low).all() and (current <= high).all()


def test_bits_of_a_register():
    assert [bits(n) for n in (0, 1, 127, 128, 2**31 - 1, 2**31)] == [1, 2, 8, 9, 32, 33]


def test_wide_membranes_are_exact_and_their_overflows_counted():
    result = quantized("mlp")
    first = result.net.stages[0]
    net = replace(result.net, stages=(replace(first, leak=Leak("none")), *result.net.stages[1:]))
    current = np.full((1, 2, *first.shape), 2**31 - 1, dtype=np.int32)
    trace = TorchEngine(loose(net, current)).run(current)
    expected = reference.run(net, current)
    assert same_overflows(trace, expected) and trace.overflows > 0
    assert compare(trace, expected) == 0


@pytest.mark.parametrize("family", FAMILIES)
def test_one_flipped_weight_is_noticed(family):
    network = make(family, NEURONS["counts"])
    result = quantize(absorb(network))
    current = result.current(batches(network)[0][0])
    trace = reference.run(result.net, current)
    assert compare(trace, reference.run(result.net, current)) == 0
    assert compare(trace, reference.run(flip_weight(result.net, trace), current)) > 0


def off_by_one(values):
    values.flat[0] += 1


WRONG = {  # which engine is wrong, and how
    "membrane": (reference, lambda trace: off_by_one(trace.membranes[1])),
    "logit": (reference, lambda trace: off_by_one(trace.logits)),
    "exit": (reference, lambda trace: off_by_one(trace.exits)),
    "overflow": (reference, lambda trace: object.__setattr__(trace, "overflows", 1)),
    "onnx": (onnx_engine.OnnxEngine, lambda trace: off_by_one(trace.logits)),
}


@pytest.mark.parametrize("fault", [*WRONG, "no flip"])
def test_a_wrong_engine_fails_the_check(monkeypatch, fault):
    network = make("mlp", NEURONS["counts"])
    quantized = quantize(absorb(network))
    if fault == "exit":
        quantized = replace(quantized, net=replace(quantized.net, exit_margin=1000))
    if fault == "onnx":
        pytest.importorskip("onnxruntime")
    if fault == "no flip":
        monkeypatch.setattr(verify_integer, "flip_weight", lambda net, trace: net)
    else:
        place, spoil = WRONG[fault]
        honest = place.run

        def run(*arguments):
            trace = honest(*arguments)
            spoil(trace)
            return trace

        monkeypatch.setattr(place, "run", run)
    found = check_integer(quantized, batches(network), onnx_images=12 if fault == "onnx" else 0)
    assert not found.passed
    exits = 0 if found.exit is None else found.exit.mismatches
    counts = (found.membrane_mismatches, found.logit_mismatches, exits, found.onnxruntime_mismatches or 0)
    ones = {"membrane": 2, "logit": 2, "exit": 2, "onnx": 1}  # one a batch, and onnxruntime sees only the first
    assert counts == tuple(count * (name == fault) for name, count in ones.items())
    assert found.spike_mismatches == found.grid_mismatches == found.overflows == 0
    assert (found.flip_mismatches == 0) == (fault == "no flip")


@pytest.mark.skipif(onnx_engine.available() is not None, reason="needs onnxruntime")
def test_a_network_that_onnxruntime_cannot_hold_is_proven_without_it(caplog):
    network = make("vgg5-max", partial(QBLIF, s_max=64), pool="avg")
    quantized = quantize(absorb(network))
    words = r"^stage '.*': its sum pool gives up to 256, and '.*' takes at most 255"
    with pytest.raises(DeployError, match=words):
        onnx_engine.OnnxEngine(quantized.net, static=True)
    proof = verify_integer.verify(network, quantized, batches(network))
    assert proof.passed and proof.integer.images == 24
    assert proof.integer.onnxruntime_images is proof.integer.onnxruntime_mismatches is None
    assert re.match(words, proof.integer.onnxruntime_skipped)
    found = list(agreement.compare_engines(quantized, GridNetwork(quantized), iter([batches(network)[0][0]]), 0))
    ((rows, _),) = found
    assert {row.engine for row in rows} == {"grid", "torch", "int8"} and not any(row.first for row in rows)
    assert "onnxruntime is left out: stage '" in caplog.text


@pytest.mark.skipif(onnx_engine.available() is not None, reason="needs onnxruntime")
@pytest.mark.parametrize("encoding", ["direct", "latency"])
def test_onnxruntime_is_compared_where_it_holds_the_network(encoding):
    network = make("mlp", NEURONS["counts"], encoding=encoding)
    quantized = quantize(absorb(network))
    pixels = [given for given, _ in batches(network)]
    for rows, _ in agreement.compare_engines(quantized, GridNetwork(quantized), iter(pixels), 0):
        assert "onnxruntime" in {row.engine for row in rows} and not any(row.first for row in rows)


def test_a_silent_layer_proves_nothing():
    network = make("mlp", NEURONS["counts"])
    norm = network.stages["fc2"].parts[0].norm
    norm.weight.data.zero_()
    norm.bias.data.fill_(-1.0)
    found = check_integer(quantize(absorb(network)), batches(network), onnx_images=0)
    assert found.spike_mismatches == found.membrane_mismatches == 0
    assert not found.passed


def test_what_does_not_fit_is_refused_by_name():
    with pytest.raises(
        DeployError, match=r"fc1: leak=shift_floor shifts, so tau must be a power of two .* got tau = 3"
    ):
        quantize(absorb(make("mlp", partial(QBLIF, tau=3.0))), DeploySettings(leak="shift_floor"))
    with pytest.raises(DeployError, match=r"fc1: QBLIF is not absorbed; call absorb\(network\) first"):
        quantize(make("mlp", NEURONS["counts"]))
    network = absorb(make("mlp", NEURONS["counts"]))
    network.stages["readout"].parts[0].weight.weight.data.zero_()
    with pytest.raises(DeployError, match="readout: all weights"):
        quantize(network)
    result = quantized("mlp")
    with pytest.raises(DeployError, match="must be numbers in"):
        result.current(torch.full((1, 3, 8, 8), float("nan")))
