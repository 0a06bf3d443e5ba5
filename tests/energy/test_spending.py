"""What a training step is charged is what the exact count finds, and its gradient is the fan-out."""

import pytest
import torch
from torch import nn

from qbsnn.energy.activity import ActivityMeter
from qbsnn.energy.count import count_operations
from qbsnn.energy.estimate import estimate
from qbsnn.energy.spending import Spending, Synapses
from qbsnn.errors import EnergyError
from qbsnn.layers import INPUT, Branch, Encoder, Stage
from qbsnn.models import SpikingNetwork, fast, mlp, resnet, vgg
from qbsnn.models.execution import prepare
from qbsnn.neurons import ILIF, LIF, QBLIF, QuantReLU, ReLU, TernaryBurst
from tests.energy.networks import T, chain

SHAPE = {"in_shape": (2, 9, 9), "num_classes": 5, "mean": (0.5,) * 2, "std": (0.25,) * 2, "T": 3}
NETWORKS = {
    "vgg": lambda neuron: vgg(neuron, name="vgg5", width=0.1, **SHAPE),
    "averages": lambda neuron: vgg(neuron, name="vgg5", width=0.1, pool="avg", **SHAPE),
    "resnet": lambda neuron: resnet(neuron, name="resnet20", width=0.25, **SHAPE),
    "mlp": lambda neuron: mlp(neuron, hidden=(13, 11), **SHAPE),
    "fast": lambda neuron: fast(neuron, channels=(6, 8), **SHAPE),
    "rate": lambda neuron: vgg(neuron, name="vgg5", width=0.1, encoding="rate", **SHAPE),
}


def busy():
    """Fires at once, with bursts of several sizes."""
    return QBLIF(delta=0.05)


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize(
    "neuron", [busy, lambda: QBLIF(delta=0.05, output="graded"), lambda: TernaryBurst(delta=0.05), LIF, ILIF]
)
def test_it_is_what_the_exact_count_finds(network, neuron):
    torch.manual_seed(0)
    net = NETWORKS[network](neuron).eval()
    pixels = torch.rand(4, 2, 9, 9)
    meter, spending = ActivityMeter(net), Spending(Synapses(net))
    meter.attach()
    with torch.no_grad():
        net(pixels, spending)
    meter.detach()
    stages = count_operations(net, *meter.traffic())
    acs = sum(stage.usage["network"].counts.acs for stage in stages)
    assert acs > 0
    assert 4 * float(sum(spending.accumulates.values())) == pytest.approx(acs, rel=1e-5)
    assert sum(spending.synapses.dense.values()) == sum(stage.dense for stage in stages)
    found = estimate(meter, "best")
    assert float(spending.relative()) == pytest.approx(found.relative_synapses, rel=1e-5)
    if network != "rate":
        assert float(spending.per_synapse()) == pytest.approx(found.spikes_per_synapse, rel=1e-5)


MIXED = {
    "relu": {"conv1": ReLU},
    "relu behind spikes": {"conv2": ReLU, "conv3": ReLU},
    "levels": {"conv1": lambda: QuantReLU(bits=2, delta=0.2), "conv2": lambda: QuantReLU(bits=4, delta=0.1)},
    "all": {"conv1": ReLU, "conv2": lambda: QuantReLU(bits=3, delta=0.1), "conv3": ReLU, "fc1": ReLU},
}


@pytest.mark.parametrize("neurons", MIXED)
@pytest.mark.parametrize("pool", ["max", "avg"])
@pytest.mark.parametrize("encoding", ["direct", "rate"])
def test_products_of_every_real_valued_source_are_charged(neurons, pool, encoding):
    torch.manual_seed(0)
    settings = {"pool": pool, "encoding": encoding, "neurons": MIXED[neurons]}
    net = vgg(busy, name="vgg5", width=0.1, **SHAPE, **settings).eval()
    assert_agree(net, torch.rand(4, 2, 9, 9))


@pytest.mark.parametrize(
    ("second", "products"),
    # a row of 2 values, each of which a padded kernel of 3 × 3 reads twice: 4 products of 4 bits, and 4 of full width
    [(None, 4 * (3.7 * 4 / 24 + 0.9)), (3, 4 * (3.7 * 4 / 24 + 0.9) + 4 * 4.6)],
    ids=["identity", "convolution"],
)
def test_products_have_the_width_of_what_they_multiply_with(second, products):
    """By hand: pixels → ReLU → 4 bits. ``out`` multiplies with these, and adds the stem's values or multiplies them."""
    add = None if second is None else nn.Conv2d(1, 1, second, padding=1)
    stages = {
        "stem": Stage([Branch(INPUT)], ReLU()),
        "inner": Stage([Branch("stem")], QuantReLU(bits=4, delta=1.0)),
        "out": Stage([Branch("inner", nn.Conv2d(1, 1, 3, padding=1)), Branch("stem", add)], QuantReLU(bits=4)),
        "readout": Stage([Branch("out", nn.Linear(2, 3))]),
    }
    net = SpikingNetwork(Encoder("direct", 1, [0.0], [1.0]), stages, 1, (1, 1, 2)).eval()
    pixels = torch.tensor([5.0, 3.0]).view(1, 1, 1, 2)
    assert_agree(net, pixels)
    meter = ActivityMeter(net)
    meter.attach()
    net(pixels)
    (out,) = (layer for layer in estimate(meter, "best").layers if layer.name == "out")
    assert out.estimates["fp32"]["network"].synapses == pytest.approx(products, rel=1e-12)
    assert out.spikes_per_synapse is None


@pytest.mark.parametrize("unit", [1.0, 0.5])
def test_frames_with_fractions_are_multiplied(unit):
    torch.manual_seed(0)
    net = vgg(busy, name="vgg5", width=0.1, encoding="events", **SHAPE).eval()
    spending = assert_agree(net, (torch.rand(4, 3, 2, 9, 9) * 3).floor() * unit)
    assert ("input" in spending.accumulates) == (unit == 1)


def assert_agree(net, pixels):
    meter, spending = ActivityMeter(net), Spending(Synapses(net))
    meter.attach()
    with torch.no_grad():
        net(pixels, spending)
    meter.detach()
    assert float(spending.relative()) == pytest.approx(estimate(meter, "best").relative_synapses, rel=1e-5)
    return spending


def test_its_gradient_is_the_exact_fanout():
    """By hand for the last layer, behind which no spike follows: each of its spikes drives 5 classes."""
    torch.manual_seed(0)
    net = vgg(busy, name="vgg5", width=0.05, **{**SHAPE, "in_shape": (2, 4, 4)})
    seen = {}

    class Listening(Spending):
        def __call__(self, name, output):
            if output.requires_grad:
                output.retain_grad()
                seen[name] = output
            super().__call__(name, output)

    spending = Listening(Synapses(net))
    net(torch.rand(2, 2, 4, 4), spending)
    dense = sum(spending.synapses.dense.values())
    spending.relative().backward()
    last = [name for name, _, _ in net.spiking_stages()][-1]
    assert seen[last].grad.flatten().tolist() == pytest.approx([0.9 * 5 / (4.6 * dense * 2)] * seen[last].numel())


def test_its_gradient_differs_between_positions():
    """A kernel of 3×3 and a padded map of 3×3: a spike at a corner meets 4 weights of each of two channels."""
    spending = Spending(Synapses(chain(torch.nn.Conv2d(1, 2, 3, padding=1))))
    bursts = torch.zeros(T, 1, 1, 3, 3, requires_grad=True)
    spending("a", bursts)
    spending.accumulates["a"].backward()
    assert bursts.grad[:, 0, 0].tolist() == [[[8, 12, 8], [12, 18, 12], [8, 12, 8]]] * T


def test_a_network_without_spikes_spends_nothing():
    net = NETWORKS["vgg"](ReLU).eval()
    spending = Spending(Synapses(net))
    net(torch.rand(2, 2, 9, 9), spending)
    assert not spending.accumulates
    share = float(spending.products) / sum(spending.synapses.dense.values())
    assert float(spending.relative()) == pytest.approx(share) and share > 0
    with pytest.raises(EnergyError, match="accumulates per synapse need a layer that spikes drive, and there is none"):
        spending.per_synapse()


def test_fewer_steps_count_as_often_as_all_of_them_do():
    net = NETWORKS["vgg"](busy).eval()
    once, twice = Spending(Synapses(net)), Spending(Synapses(net), times=2.0)
    pixels = torch.rand(2, 2, 9, 9)
    with torch.no_grad():
        net(pixels, once)
        net(pixels, twice)
    for name, spent in once.accumulates.items():
        assert float(twice.accumulates[name]) == 2 * float(spent) > 0
        assert float(twice.rates[name]) == float(once.rates[name])
    assert float(twice.products) == float(once.products)


@pytest.mark.parametrize("how", [{"memory": "packed"}, {"memory": "checkpoint"}])
def test_the_gradient_is_the_same_however_the_network_runs(how):
    def gradients(**how):
        torch.manual_seed(0)
        net = prepare(NETWORKS["fast"](busy), **how).double()  # Δ's gradients are small differences of large sums
        spending = Spending(Synapses(net))
        logits = net(torch.rand(3, 2, 9, 9, dtype=torch.double, generator=torch.Generator().manual_seed(1)), spending)
        (logits.mean() + spending.relative()).backward()
        return [p.grad for p in net.parameters()]

    for ours, theirs in zip(gradients(), gradients(**how), strict=True):
        torch.testing.assert_close(ours, theirs)
