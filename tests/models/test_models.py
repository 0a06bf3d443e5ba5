"""Architectures against numbers from elsewhere, and properties of every network."""

from functools import partial

import pytest
import torch
from torch import nn

from qbsnn.errors import SettingsError
from qbsnn.layers import INPUT, Branch, Encoder, Stage
from qbsnn.layers.quantised import trained_weight
from qbsnn.models import SpikingNetwork, fast, mlp, resnet, vgg
from qbsnn.models.vgg import TABLES
from qbsnn.neurons import LIF, QATQBLIF, QBLIF, ReLU
from qbsnn.neurons.relu import LeakyIntegrator

CIFAR = {"in_shape": (3, 32, 32), "num_classes": 10, "mean": (0.5,) * 3, "std": (0.25,) * 3}
IMAGENET = {"in_shape": (3, 224, 224), "num_classes": 1000, "mean": (0.5,) * 3, "std": (0.25,) * 3}


def parameters(network) -> int:
    return sum(p.numel() for p in network.parameters())


@pytest.mark.parametrize("name", ["resnet18", "resnet34"])
def test_imagenet_resnets_have_torchvisions_number_of_parameters(name):
    models = pytest.importorskip("torchvision.models")
    with torch.device("meta"):
        theirs = getattr(models, name)()
    assert parameters(resnet(ReLU, name=name, stem="imagenet", **IMAGENET)) == parameters(theirs)


def test_resnet20_has_the_papers_number_of_parameters():
    # 0.27 M in table 6 of arXiv 1512.03385, there with parameter-free shortcuts; ours add two 1×1 convolutions + norms.
    network = resnet(ReLU, name="resnet20", **CIFAR)
    assert parameters(network) - (16 * 32 + 64) - (32 * 64 + 128) == 269_722


@pytest.mark.parametrize(
    ("name", "convolutions", "linears"),
    [("resnet18", 17, 1), ("resnet19", 17, 2), ("resnet20", 19, 1), ("resnet34", 33, 1)],
)
def test_resnets_have_the_layers_of_their_names(name, convolutions, linears):
    network = resnet(QBLIF, name=name, width=0.125, **CIFAR)
    kernels = [m.kernel_size for m in network.modules() if isinstance(m, nn.Conv2d)]
    assert sum(kernel != (1, 1) for kernel in kernels) == convolutions
    assert sum(isinstance(m, nn.Linear) for m in network.modules()) == linears
    assert len(list(network.spiking_stages())) == convolutions + linears - 1


@pytest.mark.parametrize(("name", "convolutions"), [("vgg5", 3), ("vgg9", 7), ("vgg11", 8), ("vgg16", 13)])
def test_vggs_follow_their_tables(name, convolutions):
    network = vgg(QBLIF, name=name, **CIFAR)
    channels = [m.out_channels for m in network.modules() if isinstance(m, nn.Conv2d)]
    assert len(channels) == convolutions
    assert channels == [entry for entry in TABLES[name][0] if entry != "M"]
    torchvision = pytest.importorskip("torchvision.models.vgg")
    if name in ("vgg11", "vgg16"):
        column = {"vgg11": "A", "vgg16": "D"}[name]
        assert list(TABLES[name][0]) == torchvision.cfgs[column]


def test_resnet19_is_that_of_tdbn_and_tet():
    network = resnet(LIF, name="resnet19", **CIFAR)
    widths = [m.out_channels for m in network.modules() if isinstance(m, nn.Conv2d) and m.kernel_size == (3, 3)]
    assert widths == [64] + [128] * 6 + [256] * 6 + [512] * 4
    assert [m.out_features for m in network.modules() if isinstance(m, nn.Linear)] == [256, 10]


ALL = [(mlp, {}), *((vgg, {"name": n}) for n in TABLES)]
ALL += [(resnet, {"name": n}) for n in ("resnet18", "resnet19", "resnet20", "resnet34")]


@pytest.mark.parametrize(("builder", "extra"), ALL, ids=lambda v: v.get("name", "mlp") if isinstance(v, dict) else "")
@pytest.mark.parametrize("shape", [(1, 8, 8), (2, 28, 20)])
def test_any_image_shape_trains_and_every_layer_owns_its_scale(builder, extra, shape):
    c = shape[0]
    network = builder(QBLIF, shape, 7, (0.5,) * c, (0.3,) * c, T=3, width=0.0625, **extra)
    logits = network(torch.rand(4, *shape))
    assert logits.shape == (3, 4, 7)
    logits.sum().backward()
    assert all(p.grad is not None for p in network.parameters())
    deltas = [neuron.delta.raw for _, _, neuron in network.spiking_stages()]
    assert len({id(delta) for delta in deltas}) == len(deltas) == len(network.stages) - 1


@pytest.mark.parametrize("neuron", [QBLIF, LIF])
@pytest.mark.parametrize("encoding", ["direct", "rate", "latency"])
def test_nothing_survives_a_forward_pass(neuron, encoding):
    network = vgg(neuron, name="vgg5", width=0.125, encoding=encoding, **CIFAR).eval()
    x = torch.rand(4, 3, 32, 32)
    first = network(x)
    network(torch.rand(9, 3, 32, 32))
    assert torch.equal(network(x), first)


def test_rate_coding_draws_afresh_in_every_epoch():
    network = vgg(QBLIF, name="vgg5", width=0.125, encoding="rate", **CIFAR)
    x = torch.full((2, 3, 32, 32), 0.5)
    first = network.encoder(x)
    assert torch.equal(network.encoder(x), first)
    network.encoder.epoch = 1
    assert not torch.equal(network.encoder(x), first)


def test_a_static_image_passes_the_first_layer_once_and_a_stateless_network_altogether_once():
    seen = []
    for neuron in (QBLIF, ReLU):
        network = vgg(neuron, name="vgg5", width=0.125, T=6, **CIFAR)
        for module in network.modules():
            if isinstance(module, nn.Conv2d):
                module.register_forward_hook(lambda m, i, o: seen.append(len(i[0])))
        network(torch.rand(5, 3, 32, 32))
    assert seen == [5, 30, 30, 5, 5, 5]


def test_repeating_the_current_equals_repeating_the_image():
    network = vgg(QBLIF, name="vgg5", width=0.125, T=3, **CIFAR).eval()
    x = torch.rand(2, 3, 32, 32)
    once = network(x)
    network.encoder.forward = lambda pixels: ((pixels - 0.5) / 0.25).expand(3, *pixels.shape)
    assert torch.allclose(network(x), once, atol=1e-5)


def test_tdbn_scales_by_the_constant_and_by_the_number_of_branches():
    network = resnet(LIF, name="resnet20", norm="tdbn", v_th=0.5, width=0.25, **CIFAR).eval()
    gains = [part.norm.gain for part in network.stages["group1_1b"].parts if part.norm is not None]
    assert gains == [pytest.approx(0.5 / 2**0.5)]
    assert network.stages["stem"].parts[0].norm.gain == 0.5
    norm = network.stages["stem"].parts[0].norm
    x = torch.randn(64, norm.num_features, 5, 5) * 3 + 1
    y = norm.train()(x).detach()
    assert y.std() == pytest.approx(0.5, rel=1e-3) and y.mean().abs() < 1e-5
    assert norm.running_mean.abs().max() > 0


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (partial(vgg, QBLIF, name="vgg7", **CIFAR), "name must be one of vgg5, vgg9, vgg11, vgg16, got 'vgg7'"),
        (partial(resnet, QBLIF, name="resnet50", **CIFAR), "got 'resnet50'"),
        (partial(vgg, QBLIF, T=0, **CIFAR), "T must be an integer from 1 to 1024, got 0"),
        (partial(vgg, QBLIF, width=0, **CIFAR), "width"),
        (partial(vgg, QBLIF, norm="gn", **CIFAR), "norm must be one of bn, tdbn, tebn, layer, none, got 'gn'"),
        (partial(vgg, QBLIF, encoding="ttfs", **CIFAR), "direct, rate, latency"),
        (partial(vgg, QBLIF, pool="sum", **CIFAR), "pool"),
        (partial(resnet, QBLIF, stem="mnist", **CIFAR), "stem"),
        (partial(mlp, QBLIF, hidden=(0,), **CIFAR), "hidden"),
        (partial(mlp, QBLIF, hidden=(), **CIFAR), "hidden must have at least one entry"),
        (
            partial(fast, QBLIF, **{**CIFAR, "in_shape": (3, 40, 1)}),
            "[3, 40, 1] is too small for this model: a map of 40 × 1 has no place for a convolution of 2 × 2",
        ),
        (partial(mlp, partial(QBLIF, s_max=0), **CIFAR), "s_max"),
    ],
)
def test_bad_settings_are_named(make, words):
    with pytest.raises(SettingsError) as caught:
        make()
    assert words in str(caught.value)


def test_groups_start_as_the_identity_with_quantised_weights_too():
    network = fast(QATQBLIF, (3, 16, 16), 10, [0.5] * 3, [0.5] * 3, channels=(32,), T=1)
    for name in ("conv1a", "conv1b"):
        kept = trained_weight(network.stages[name].parts[0].weight).detach()
        assert torch.equal(kept[:24], nn.init.dirac_(torch.empty_like(kept[:24])))


def grid(weight):
    """How many different magnitudes there are per output."""
    return [len(row.detach().abs().unique()) for row in weight.flatten(1)]


@pytest.mark.parametrize("last", [None, LeakyIntegrator(2.0)])
def test_a_network_built_by_hand_quantises_the_weights_around_a_neuron_that_wants_it(last):
    neuron = partial(QATQBLIF, num_bits=2)
    stages = {
        "a": Stage([Branch(INPUT, nn.Conv2d(3, 4, 3))], neuron()),
        "b": Stage([Branch("a", nn.Conv2d(4, 4, 1)), Branch("a")], neuron()),
        "c": Stage([Branch("b", nn.Conv2d(4, 4, 1))], QBLIF()),
        "d": Stage([Branch("c", nn.Conv2d(4, 4, 1))], neuron()),
        "readout": Stage([Branch("d", nn.Linear(144, 5))], last),
    }
    network = SpikingNetwork(Encoder("direct", 2, [0.5] * 3, [0.5] * 3), stages, 2, (3, 8, 8))
    weights = {name: network.stages[name].parts[0].weight.weight for name in stages}
    assert all(max(grid(weights[name])) <= 2 for name in "abd")
    assert min(grid(weights["c"])) > 2 and len(weights["readout"].detach().abs().unique()) == 2
    network(torch.rand(2, 3, 8, 8)).sum().backward()
    assert all(p.grad is not None for p in network.parameters())
    again = SpikingNetwork(network.encoder, dict(network.named_stages()), 2, (3, 8, 8))
    assert list(again.state_dict()) == list(network.state_dict())


def test_a_vote_is_left_alone():
    network = mlp(QATQBLIF, (3, 8, 8), 5, mean=[0.5] * 3, std=[0.5] * 3, readout="rate")
    assert "stages.readout.branches.0.weight.weight" in network.state_dict()
