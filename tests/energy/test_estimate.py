"""The block of a result: twins, ratios and the figures beside published ones."""

from functools import partial

import pytest
import torch

from qbsnn.deploy.convert.absorb import absorb
from qbsnn.deploy.convert.grid import GridNetwork
from qbsnn.deploy.convert.quantize import quantize
from qbsnn.energy.activity import ActivityMeter
from qbsnn.energy.estimate import estimate
from qbsnn.models import mlp, resnet, vgg
from qbsnn.neurons import LIF, QBLIF, QuantReLU, ReLU

ARGUMENTS = {"in_shape": (1, 8, 8), "num_classes": 4, "mean": [0.3], "std": [0.3]}
MAKES = {
    "vgg5": partial(vgg, name="vgg5", width=0.1, pool="avg", **ARGUMENTS),
    "resnet20": partial(resnet, name="resnet20", width=0.3, **ARGUMENTS),
    "mlp": partial(mlp, hidden=(16, 12), **ARGUMENTS),
}


def block(make, neuron, T, **more):
    torch.manual_seed(0)
    network = make(neuron, T=T, **more).eval()
    meter = ActivityMeter(network)
    meter.attach()
    with torch.no_grad():
        network(torch.rand(5, 1, 8, 8))
    return estimate(meter, "best")


@pytest.mark.parametrize("make", MAKES.values(), ids=MAKES)
def test_a_spiking_network_stands_beside_its_twins(make):
    found = block(make, partial(QBLIF, s_max=8, delta=0.1), T=4)
    assert (found.images, found.levels, found.level_bits) == (5, 33, 6)
    assert list(found.totals) == ["fp32", "int", "memory"] and found.break_even == [0.15, 1.38]
    for model, networks in found.totals.items():
        assert set(networks) == {"network", "relu", "quantized", "relu_dense"}
        for part in ("synapses", "neurons", "memory"):
            for network, total in networks.items():
                summed = sum(getattr(layer.estimates[model][network], part) for layer in found.layers)
                assert getattr(total, part) == pytest.approx(summed, rel=1e-12)
        assert networks["quantized"].synapses < networks["relu"].synapses <= networks["relu_dense"].synapses
        for twin, share in found.relative[model].items():
            assert share == pytest.approx(networks["network"].total / networks[twin].total, rel=1e-12)
    assert found.totals["memory"]["relu"].synapses == found.totals["int"]["relu"].synapses
    fp32 = found.totals["fp32"]
    macs, acs = (sum(getattr(layer, name) for layer in found.layers) for name in ("macs", "acs"))
    assert fp32["network"].synapses == pytest.approx((4.6 * macs + 0.9 * acs) / 5, rel=1e-12)
    dense = sum(layer.dense for layer in found.layers)
    assert found.relative_synapses == pytest.approx(fp32["network"].synapses / (4.6 * dense), rel=1e-12)
    driven = [layer for layer in found.layers if layer.spikes_per_synapse is not None]
    assert len(driven) == len(found.layers) - 1  # all but the first
    assert found.spikes_per_synapse == pytest.approx(acs / (5 * sum(layer.dense for layer in driven)), rel=1e-12)
    rate = sum(layer.spikes for layer in found.layers) / sum(
        layer.neurons * layer.steps * 5 for layer in found.layers if layer.rate is not None
    )
    assert found.mean_rate == pytest.approx(rate, rel=1e-12) and 0 < rate < 8


def test_one_binary_step_does_what_its_relu_twin_does():
    """With T = 1 and s_max = 1 every active neuron sends one spike: as many accumulates as the twin has products."""
    found = block(MAKES["mlp"], partial(LIF, v_th=0.1), T=1)
    assert (found.levels, found.level_bits) == (2, 1)
    int8 = found.totals["int"]
    saved = sum(layer.acs for layer in found.layers) * 0.2 / 5  # the multiplications
    assert saved > 0 and int8["relu"].synapses - int8["network"].synapses == pytest.approx(saved, rel=1e-9)


def test_a_relu_network_is_compared_with_itself_without_zero_skipping():
    found = block(MAKES["resnet20"], ReLU, T=1)
    assert found.levels is found.level_bits is found.spikes_per_synapse is found.mean_rate is None
    assert all(set(networks) == {"network", "relu_dense"} for networks in found.totals.values())
    assert 0.1 < found.relative["fp32"]["relu_dense"] < 1
    assert all(layer.rate is layer.spikes_per_synapse is None for layer in found.layers)
    assert sum(layer.acs + layer.leaks + layer.resets for layer in found.layers) == 0


def test_spike_coded_input_makes_the_first_layer_spike_driven():
    found = block(MAKES["mlp"], LIF, T=6, encoding="rate")
    assert sum(layer.macs for layer in found.layers) == 0
    assert all(layer.spikes_per_synapse is not None for layer in found.layers)
    assert found.layers[0].acs > 0 == found.layers[0].current_adds


def test_a_relu_network_on_spike_coded_input_keeps_no_membranes():
    found = block(MAKES["mlp"], ReLU, T=6, encoding="rate")
    first = found.layers[0]
    assert (first.steps, first.compares, first.leaks) == (6, 16 * 6 * 5, 0)
    assert first.acs > 0 == first.macs  # binary input; what follows multiplies in every step
    assert all(layer.macs > 0 for layer in found.layers[1:])


@pytest.mark.parametrize("make", MAKES.values(), ids=MAKES)
def test_the_same_bursts_cost_the_same_in_the_grid_network(make):
    torch.manual_seed(0)
    network = make(partial(QBLIF, s_max=8, delta=0.1, output="graded"), T=4).eval()
    grid, counts = GridNetwork(quantize(absorb(network))).eval(), []
    trained, other, pixels = ActivityMeter(network), ActivityMeter(grid), torch.rand(5, 1, 8, 8)
    for _, _, neuron in network.spiking_stages():
        neuron.register_forward_hook(lambda neuron, _, output: counts.append(neuron.counts(output)))
    trained.attach()
    other.attach()
    with torch.no_grad():
        network(pixels)
        grid.encoder(pixels)
        other.hear(counts)
    assert estimate(other, "best") == estimate(trained, "best")


@pytest.mark.parametrize("steps", [1, 4])
def test_the_levels_of_a_grid_network_of_quantised_relu_are_factors_too(steps):
    torch.manual_seed(0)
    network = MAKES["mlp"](partial(QuantReLU, bits=4), T=steps).eval()
    grid, pixels = GridNetwork(quantize(absorb(network))).eval(), torch.rand(5, 1, 8, 8)
    trained, other, levels = ActivityMeter(network), ActivityMeter(grid), []
    for _, _, neuron in network.spiking_stages():
        neuron.register_forward_hook(
            lambda neuron, _, output: levels.append(neuron.counts(output).expand(steps, *output.shape[1:]))
        )
    trained.attach()
    other.attach()
    with torch.no_grad():
        network(pixels)
        grid.encoder(pixels)
        other.hear(levels)
    found = estimate(other, "best")
    assert found == estimate(trained, "best") and found.mean_rate is None
