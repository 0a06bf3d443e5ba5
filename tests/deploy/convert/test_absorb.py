"""Absorption: equal in float64, equal outside ties in float32, and every plausible mistake is caught."""

from functools import partial

import pytest
import torch
from torch import nn

from qbsnn.deploy.convert import absorb as module
from qbsnn.deploy.convert.absorb import absorb
from qbsnn.deploy.verify.absorption import check_absorption
from qbsnn.errors import DeployError
from qbsnn.functional.fold import absorb_scale, fold_norm
from qbsnn.neurons import LIF, QBLIF, ReLU
from tests.deploy.spiking import FAMILIES, batches, make

NEURONS = {
    "counts": partial(QBLIF, s_max=4),
    "graded": partial(QBLIF, s_max=4, output="graded"),
    "lif": LIF,
    "lif-hard": partial(LIF, reset="hard"),
}


@pytest.mark.parametrize("neuron", NEURONS)
@pytest.mark.parametrize("family", FAMILIES)
def test_absorbed_network_emits_the_same_bursts(family, neuron):
    network = make(family, NEURONS[neuron]).double()
    found = check_absorption(network, absorb(network), batches(network, dtype=torch.float64))
    assert found.passed
    assert found.spike_mismatches == found.free_running_mismatches == 0
    assert found.acc == found.trained_acc
    assert all(layer.spikes > 0 for layer in found.layers)

    network = network.float()
    found = check_absorption(network, absorb(network), batches(network))
    assert found.passed
    assert found.ties <= found.positions // 10_000


@pytest.mark.parametrize("output", ["counts", "graded"])
def test_the_networks_above_are_lively(output):
    network = make("vgg5-max", partial(QBLIF, s_max=4, output=output))
    found = check_absorption(network, absorb(network), batches(network))
    assert found.spikes / found.positions > 0.3
    saturated = []
    for _, _, neuron in network.spiking_stages():
        hook = partial(lambda n, m, i, o: saturated.append((n.counts(o) == n.s_max).float().mean()), neuron)
        neuron.register_forward_hook(hook)
    network(batches(network)[0][0])
    assert 0 < torch.stack(saturated).mean() < 0.5
    scales = [float(neuron.scale().detach()) for _, _, neuron in network.spiking_stages()]
    assert len(set(scales)) == len(scales)


def test_absorption_leaves_its_argument_alone_and_keeps_no_norms():
    network = make("resnet20", NEURONS["graded"])
    before = {name: value.clone() for name, value in network.state_dict().items()}
    new = absorb(network)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert not [m for m in new.modules() if isinstance(m, (nn.BatchNorm1d, nn.BatchNorm2d))]
    assert all(float(neuron.scale()) == 1 and not neuron.graded for _, _, neuron in new.spiking_stages())


@pytest.mark.parametrize("neuron", ["graded", "counts"])
def test_absorbing_an_absorbed_network_changes_nothing(neuron):
    network = make("resnet20", NEURONS[neuron])
    once = absorb(network)
    twice = absorb(once)
    assert any(float((part.gain - 1).abs().max()) > 0.1 for _, stage in once.named_stages() for part in stage.parts
               if part.weight is None)  # fmt: skip
    values = twice.state_dict()
    assert all(torch.equal(value, values[name]) for name, value in once.state_dict().items())
    found = check_absorption(network, twice, batches(network))
    assert found.passed
    found = check_absorption(once, twice, batches(network))
    assert found.passed and found.spike_mismatches == found.free_running_mismatches == 0


def _no_source(weight, bias, source, delta, groups=1):
    return absorb_scale(weight, bias, torch.ones_like(source), delta, groups)


def _bias_times_source(weight, bias, source, delta, groups=1):
    w, b = absorb_scale(weight, bias, source, delta, groups)
    return w, b * source


def _bias_not_divided(weight, bias, source, delta, groups=1):
    return absorb_scale(weight, bias, source, delta, groups)[0], bias


def _no_mean(weight, bias, mean, var, eps, gamma, beta):
    return fold_norm(weight, bias, torch.zeros_like(mean), var, eps, gamma, beta)


def _no_variance(weight, bias, mean, var, eps, gamma, beta):
    return fold_norm(weight, bias, mean, torch.ones_like(var), 0.0, gamma, beta)


@pytest.mark.parametrize("family", ["mlp", "vgg9-avg", "resnet20"])
@pytest.mark.parametrize(
    ("function", "mutant"),
    [
        ("absorb_scale", _no_source),
        ("absorb_scale", _bias_times_source),
        ("absorb_scale", _bias_not_divided),
        ("fold_norm", _no_mean),
        ("fold_norm", _no_variance),
    ],
)
def test_mutants_are_caught(monkeypatch, family, function, mutant):
    network = make(family, NEURONS["graded"])
    monkeypatch.setattr(module, function, mutant)
    found = check_absorption(network, absorb(network), batches(network))
    assert not found.passed
    assert found.spike_mismatches > 100


def test_a_forgotten_shortcut_scale_is_caught():
    network = make("resnet20", NEURONS["graded"])
    new = absorb(network)
    shortcuts = [part for _, stage in new.named_stages() for part in stage.parts if part.weight is None]
    assert shortcuts
    for part in shortcuts:
        part.gain.fill_(1.0)
    assert check_absorption(network, new, batches(network)).spike_mismatches > 100


def test_a_silent_layer_proves_nothing():
    network = make("mlp", NEURONS["counts"])
    dead = network.stages["fc2"].branches[0].norm
    dead.weight.data.zero_()
    dead.bias.data.fill_(-1.0)
    found = check_absorption(network, absorb(network), batches(network))
    assert found.spike_mismatches == 0
    assert not found.passed


def test_ties_are_told_from_mismatches():
    # Weights and pixels on a coarse grid make V/Δ hit levels exactly; Δ = 0.3 then rounds in one network only.
    network = make("mlp", partial(QBLIF, s_max=4, delta=0.3))
    first = network.stages["fc1"].branches[0]
    first.norm = None
    first.weight.weight.data = (first.weight.weight.data * 20).round() * 0.3 / 8
    network.encoder.mean.zero_()
    network.encoder.std.fill_(0.25)
    network.stages["fc1"].neuron.delta.raw.data.fill_(0.3)
    pixels = torch.randint(0, 5, (200, *network.in_shape), generator=torch.Generator().manual_seed(0)) / 4
    found = check_absorption(network, absorb(network), [(pixels, torch.zeros(200, dtype=torch.long))])
    assert found.layers[0].ties > 0
    assert found.spike_mismatches == 0


def test_what_has_no_integer_form_is_refused_with_the_layer_and_the_reason():
    with pytest.raises(DeployError, match="fc1: ReLU puts out real numbers"):
        absorb(make("mlp", ReLU))
