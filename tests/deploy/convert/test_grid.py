"""Training on the grid: the forward pass is the deployed network, the backward pass that of the absorbed one."""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch

from qbsnn.deploy.convert.absorb import absorb
from qbsnn.deploy.convert.grid import GridNetwork, fitted, leaked, through
from qbsnn.deploy.convert.quantize import quantize
from qbsnn.deploy.convert.settings import DeploySettings
from qbsnn.deploy.engines import reference
from qbsnn.deploy.format.network import Leak
from qbsnn.deploy.verify.agreement import compare_layers, grid_trace
from qbsnn.deploy.verify.integer import check_integer
from qbsnn.neurons import LIF, QBLIF
from tests.deploy import networks
from tests.deploy.spiking import FAMILIES, batches, make

CASES = {
    "int8": (partial(QBLIF, s_max=4), DeploySettings()),
    "int4": (partial(QBLIF, s_max=15, output="graded"), DeploySettings(bits=4, theta="integer")),
    "ternary, hard": (partial(LIF, reset="hard"), DeploySettings(bits=2, theta="integer")),
    "mul12": (partial(QBLIF, tau=3.0, reset="full"), DeploySettings()),
    "xylo": (partial(QBLIF, s_max=8), DeploySettings(profile="xylo", theta="integer")),
    "wrapping": (partial(QBLIF, s_max=8), DeploySettings(membrane_bits=12, overflow="wrap")),
    "wrapping in 32 bits": (partial(QBLIF, s_max=8), DeploySettings(overflow="wrap")),
    "saturating": (partial(QBLIF, s_max=8, tau=1.0), DeploySettings(membrane_bits=12, overflow="saturate")),
}


def agree(grid: GridNetwork, pixels: torch.Tensor) -> reference.Trace:
    """Assert that the grid network computes what the int64 engine makes of its integers; returns that trace."""
    quantized = grid.integers()
    yardstick = reference.run(quantized.net, quantized.current(pixels))
    networks.assert_active(quantized.net, yardstick)
    rows = list(compare_layers("grid", quantized.net, grid_trace(grid, grid.encoder(pixels)), yardstick))
    assert not [row for row in rows if row.first]
    return yardstick


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("family", ["mlp", "vgg9-avg", "resnet20"])
def test_what_was_trained_is_what_is_deployed(family, case):
    """Before and after steps of an optimiser, in training mode and with gradients in every parameter."""
    neuron, settings = CASES[case]
    network = make(family, neuron)
    pixels, labels = batches(network)[0]
    grid = GridNetwork(quantize(absorb(network), settings, pixels)).train()
    before = agree(grid, pixels)
    optimizer = torch.optim.SGD(grid.parameters(), lr=0.05)
    for _ in range(2):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(grid(pixels).mean(0), labels).backward()
        optimizer.step()
    after = agree(grid, pixels)
    assert networks.mismatches(before, after) > 0
    touched = {name: bool(p.grad.abs().sum() > 0) for name, p in grid.named_parameters()}
    assert np.mean(list(touched.values())) > 0.8, touched


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_trains_as_it_is_deployed(family, case):
    test_what_was_trained_is_what_is_deployed(family, case)


def test_signed_and_rounding_neurons_are_those_of_the_engines():
    """Fields of a quantised network changed by hand; the grid network reads them as the engines do."""
    network = make("mlp", partial(QBLIF, s_max=8))
    pixels = batches(network)[0][0]
    for (reset, rounding, s_min), leak in zip(networks.VARIANTS * 3, networks.LEAKS, strict=False):
        quantized = quantize(absorb(network))
        changes = {"reset": reset, "rounding": rounding, "s_min": s_min, "leak": leak}
        stages = tuple(replace(stage, **changes) for stage in quantized.net.stages)
        changed = replace(quantized, net=replace(quantized.net, stages=stages))
        grid = GridNetwork(changed)
        yardstick = reference.run(changed.net, changed.current(pixels))
        assert all(s.any() for s in yardstick.spikes)
        rows = compare_layers("grid", changed.net, grid_trace(grid, grid.encoder(pixels)), yardstick)
        assert not [row.first for row in rows if row.first]


def test_the_gradient_is_that_of_the_absorbed_network_where_rounding_is_fine():
    """With θ = 2¹⁵ and small weights rounding is 10⁻⁴ of a weight, so both gradients agree to that."""
    network = absorb(make("mlp", partial(QBLIF, s_max=4)))
    for _, stage in network.named_stages():
        stage.parts[0].weight.weight.data.mul_(0.003).add_(0.0005)
        stage.parts[0].weight.bias.data.add_(0.7)
    pixels, labels = batches(network)[0]
    grid = GridNetwork(quantize(network))
    network.requires_grad_(True)
    for model in (network, grid):
        torch.nn.functional.cross_entropy(model(pixels).mean(0), labels).backward()
    for (name, p), q in zip(network.named_parameters(), grid.parameters(), strict=True):
        cosine = torch.nn.functional.cosine_similarity(p.grad.flatten(), q.grad.flatten(), dim=0)
        assert cosine > 0.98, (name, float(cosine))


def test_the_argument_is_not_changed_and_its_grid_is_fixed():
    network = make("vgg5-max", QBLIF)
    pixels, _ = batches(network)[0]
    quantized = quantize(absorb(network), DeploySettings(theta="integer"))
    before = reference.run(quantized.net, quantized.current(pixels))
    grid = GridNetwork(quantized)
    with torch.no_grad():
        for parameter in grid.parameters():
            parameter.mul_(1.1)
    trained = grid.integers()
    assert networks.mismatches(reference.run(quantized.net, quantized.current(pixels)), before) == 0
    assert all(np.array_equal(a.theta, b.theta) for a, b in zip(quantized.net.stages, trained.net.stages, strict=True))
    assert trained.plan is quantized.plan


def test_what_was_frozen_stays_frozen():
    network = make("vgg5-max", QBLIF)
    quantized = quantize(absorb(network))
    for name in ("conv1", "fc1"):
        network.stages[name].parts[0].weight.weight.requires_grad_(False)
    network.stages["conv2"].parts[0].norm.bias.requires_grad_(False)
    grid = GridNetwork(quantized, network)
    frozen = [name for name, parameter in grid.named_parameters() if not parameter.requires_grad]
    bases = {"conv1": "weight", "conv2": "bias", "fc1": "weight"}
    assert frozen == [f"stages.{name}.branches.0.weight.{what}" for name, what in bases.items()]
    assert all(parameter.requires_grad for parameter in GridNetwork(quantized).parameters())


@pytest.mark.parametrize("leak", networks.LEAKS, ids=str)
def test_leaks_in_floating_point_are_the_integer_ones(leak):
    v = torch.arange(-3000, 3001, dtype=torch.float64)
    expected = reference.leaked(leak, v.long().numpy())
    assert torch.equal(leaked(leak, v, 0.5).long(), torch.from_numpy(expected))
    if leak.kind != "mul12_to_zero":  # whose product needs more than 24 bits
        assert torch.equal(leaked(leak, v.float(), 0.5).long(), torch.from_numpy(expected))


@pytest.mark.parametrize(("bits", "overflow"), networks.REGISTERS)
def test_registers_in_floating_point_are_the_integer_ones(bits, overflow):
    net = networks.make(np.random.default_rng(0), "linear", membrane_bits=bits, overflow=overflow)
    ends = 2 ** (bits - 1) + np.arange(-20, 21)
    v = np.concatenate([ends, -ends, [0]])
    assert torch.equal(fitted(net, torch.from_numpy(v).double()).long(), torch.from_numpy(reference.fitted(net, v)))
    # in float32 the width of the register does not matter, only whether it holds V
    v = np.concatenate([v[np.abs(v) < 2**24], np.arange(-20, 21), [-(2**24), 2**24]])
    assert torch.equal(fitted(net, torch.from_numpy(v).float()).long(), torch.from_numpy(reference.fitted(net, v)))
    half = 2.0 ** (bits - 1)
    v = torch.tensor([-half - 1, -half, half - 1, half], dtype=torch.float64, requires_grad=True)
    fitted(net, v).sum().backward()
    assert v.grad.tolist() == ([0, 1, 1, 0] if overflow == "saturate" else [1] * 4)


@pytest.mark.parametrize(("bits", "q_max"), [(8, 127), (4, 7)])
def test_a_weight_is_pushed_no_further_out_of_its_grid_than_it_rounds(bits, q_max):
    network = make("mlp", partial(QBLIF, s_max=4))
    grid = GridNetwork(quantize(absorb(network), DeploySettings(bits=bits)))
    layer, theta = grid.stages["fc2"].parts[0].weight, grid.origin.net.stages[1].theta[0]
    pixels, labels = batches(network)[0]
    for value, moves in ((q_max + 0.4, True), (q_max + 0.6, False), (-q_max - 0.4, True), (-q_max - 0.6, False)):
        layer.weight.data[0] = value / float(theta)
        layer.weight.grad = None
        torch.nn.functional.cross_entropy(grid(pixels).mean(0), labels).backward()
        assert bool(layer.weight.grad[0].any()) == moves
        assert int(grid.integers().net.stages[1].branches[0].weight[0, 0]) == (q_max if value > 0 else -q_max)


def test_through_gives_the_exact_value_and_the_smooth_gradient():
    x = torch.tensor([0.4, 1.6], requires_grad=True)
    y = through(3 * x, torch.tensor([1.0, 5.0]))
    y.sum().backward()
    assert y.tolist() == [1.0, 5.0] and x.grad.tolist() == [3.0, 3.0]
    v = torch.tensor([7.0], requires_grad=True)
    leaked(Leak("shift_floor", 1), v, 0.5).backward()
    assert v.grad.item() == 0.5


def test_a_wrong_grid_network_fails_the_check():
    network = make("mlp", partial(QBLIF, s_max=4))
    quantized = quantize(absorb(network))
    honest = check_integer(quantized, batches(network), onnx_images=0)
    assert honest.passed and honest.grid_mismatches == 0
    grid = GridNetwork(quantized)
    with torch.no_grad():
        grid.stages["fc2"].parts[0].weight.weight[0, 0] += 1 / float(quantized.net.stages[1].theta[0])
    found = check_integer(quantized, batches(network), onnx_images=0, grid=grid)
    assert found.grid_mismatches > 0 and not found.passed
    assert found.spike_mismatches == found.membrane_mismatches == 0
