"""``verify``: the proof is of this network and of what was made from it, and of nothing else."""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch

from qbsnn.deploy.convert.absorb import absorb
from qbsnn.deploy.convert.quantize import quantize
from qbsnn.deploy.convert.settings import DeploySettings
from qbsnn.deploy.verify.integer import verify
from qbsnn.deploy.verify.margins import with_exit
from qbsnn.errors import ArgumentError
from qbsnn.neurons import QBLIF
from tests.deploy import networks
from tests.deploy.spiking import batches, make

NEURON = partial(QBLIF, s_max=4)


def made(network, settings=None):
    return quantize(absorb(network), settings, batches(network)[0][0])


@pytest.mark.parametrize(
    ("family", "extra", "settings"),
    [
        ("vgg5-max", {}, None),
        ("mlp", {}, DeploySettings(bits=4, theta="integer", profile="xylo")),
        ("resnet20", {"encoding": "latency"}, DeploySettings(first_layer="integer")),
    ],
)
def test_what_was_made_of_a_network_passes_with_it(family, extra, settings):
    network = make(family, NEURON, **extra)
    quantized = made(network, settings)
    assert verify(network, quantized, batches(network)).passed
    assert verify(network, with_exit(quantized, batches(network), 1.0), batches(network)).passed


def moved(what):
    """A network one of whose parts is not that of the others."""
    network = make("mlp", NEURON)
    with torch.no_grad():
        what(network)
    return network


OTHERS = {
    "another seed": (lambda: make("mlp", NEURON, seed=1), "fc1: "),
    "another family": (lambda: make("vgg5-max", NEURON), "its stages are"),
    "another width": (lambda: make("mlp", NEURON, hidden=(40, 20)), "fc2: "),
    "another burst": (lambda: make("mlp", partial(QBLIF, s_max=5)), "fc1: "),
    "another T": (lambda: make("mlp", NEURON, T=3), "T = "),
    "first weights": (lambda: moved(lambda n: n.stages["fc1"].parts[0].weight.weight[0].mul_(1.01)), "fc1: "),
    "later weights": (lambda: moved(lambda n: n.stages["fc2"].parts[0].weight.weight[0].mul_(1.1)), "fc2: "),
    "a later norm": (lambda: moved(lambda n: n.stages["fc2"].parts[0].norm.bias.add_(0.1)), "fc2: "),
    "the readout": (lambda: moved(lambda n: n.stages["readout"].parts[0].weight.bias.add_(1)), "readout: "),
    "the pixels": (lambda: moved(lambda n: n.encoder.mean.add_(0.1)), "encoder: "),
    "the coding": (lambda: make("mlp", NEURON, encoding="latency"), "encoder: "),
}


@pytest.mark.parametrize("other", OTHERS)
def test_what_was_made_of_another_network_is_refused(other):
    build, where = OTHERS[other]
    network, quantized = build(), made(make("mlp", NEURON))
    with pytest.raises(ArgumentError, match=rf"^quantized must be what quantize\(absorb\(network\)\) .*{where}"):
        verify(network, quantized, batches(network))


def test_a_first_layer_of_the_same_weights_that_reads_other_pixels_is_refused():
    network = make("vgg5-max", NEURON)
    quantized = made(network)
    name, stage = next(network.named_stages())
    stage.parts[0].weight.dilation, stage.parts[0].weight.padding = (2, 2), (2, 2)
    with pytest.raises(ArgumentError, match=f"^quantized must be .*{name}: "):
        verify(network, quantized, batches(network))


def test_an_integer_network_that_was_changed_by_hand_is_refused():
    network = make("mlp", NEURON)
    quantized = made(network)
    changed = replace(quantized, net=networks.flip(quantized.net, -1, (0, 0)))
    with pytest.raises(ArgumentError, match=r"^quantized must be .*readout: "):
        verify(network, changed, batches(network))
    shorter = replace(quantized, net=replace(quantized.net, stages=quantized.net.stages[:1]))
    with pytest.raises(ArgumentError, match=r"^quantized must be .*it has 1 stages with neurons, the network 2"):
        verify(network, shorter, batches(network))
    wider = replace(quantized, net=replace(quantized.net, overflow="saturate"))
    with pytest.raises(ArgumentError, match=r"^quantized must be .*overflow = saturate"):
        verify(network, wider, batches(network))


def test_what_training_on_the_grid_may_have_changed_is_not_compared():
    network = make("mlp", NEURON)
    quantized = made(make("mlp", NEURON, seed=1), DeploySettings(mode="qat"))
    assert np.any(made(network).net.stages[1].branches[0].weight != quantized.net.stages[1].branches[0].weight)
    assert verify(network, quantized, batches(network)).passed
