"""Other libraries' counters agree to the unit on binary networks; on bursts they do not, and why is shown."""

import pytest
import torch
from torch import nn

from qbsnn.energy.activity import ActivityMeter
from qbsnn.energy.count import count_operations
from qbsnn.models import mlp, resnet, vgg
from qbsnn.neurons import LIF, QBLIF, ReLU

IMAGES = 3
ARGUMENTS = {"in_shape": (2, 9, 8), "num_classes": 4, "mean": [0.0, 0.1], "std": [0.3, 0.2], "T": 3}
NETWORKS = {
    "mlp": lambda neuron, **more: mlp(neuron, hidden=(20, 30), **ARGUMENTS, **more),
    "vgg9": lambda neuron, **more: vgg(neuron, name="vgg9", width=0.1, **ARGUMENTS, **more),
    "vgg5, strided": lambda neuron, **more: vgg(neuron, name="vgg5", width=0.1, stem="imagenet", **ARGUMENTS, **more),
    "resnet20": lambda neuron, **more: resnet(neuron, name="resnet20", width=0.3, **ARGUMENTS, **more),
}
every_network = pytest.mark.parametrize("make", NETWORKS.values(), ids=NETWORKS)
every_encoding = pytest.mark.parametrize("encoding", ["direct", "rate"])


def prepared(make, neuron=LIF, **more):
    """The network with its norms at a batch's statistics, so that all layers spike, and a batch of pixels."""
    torch.manual_seed(0)
    network = make(neuron, **more)
    x = torch.rand(IMAGES, 2, 9, 8)
    for module in network.modules():
        if isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d)):
            module.momentum = 1.0
    with torch.no_grad():
        network.train()(x)
    return network.eval(), x


def ours(network, x):
    """(events, acs, macs, dense over all steps) of one pass, and the events of layers behind an average pool.

    Such a pool sends fractions in the trained network, which the other counters take for real numbers; we count the
    sums that the integer network sends.
    """
    meter = ActivityMeter(network)
    meter.attach()
    with torch.no_grad():
        network(x)
    meter.detach()
    emitted, sent = meter.traffic()
    assert all(traffic.events.sum() for traffic in emitted.values()), "a silent layer proves nothing"
    events = acs = macs = dense = behind_average = 0
    for stage in count_operations(network, emitted, sent):
        counts, sources = stage.usage["network"].counts, network.stages[stage.name].sources
        dense += stage.dense * sent[sources[0]].steps * IMAGES
        macs += counts.macs
        if any(isinstance(network.stages[s].pool, nn.AvgPool2d) for s in sources if s in network.stages):
            behind_average += counts.events
        else:
            events, acs = events + counts.events, acs + counts.acs
    return events, acs, macs, dense, behind_average


def spikingjelly(network, x):
    op_counter = pytest.importorskip("spikingjelly.activation_based.op_counter")
    counter = op_counter.SynOpCounter()
    with torch.no_grad(), op_counter.DispatchCounterMode([counter]):
        network(x)
    return counter.get_total()


def neurobench(network, x):
    """(ACs, MACs, dense) of one pass."""
    models = pytest.importorskip("neurobench.models")
    from neurobench.metrics.workload import SynapticOperations

    model = models.TorchModel(network)
    model.register_hooks()
    with torch.no_grad():
        model(x)
        metric = SynapticOperations()
        metric(model, None, (x, None))
    model.cleanup_hooks()
    return metric.AC, metric.MAC, metric.total_synops


@every_encoding
@every_network
def test_spikingjelly_counts_the_same_on_binary_networks(make, encoding):
    network, x = prepared(make, encoding=encoding)
    events, acs, *_ = ours(network, x)
    assert spikingjelly(network, x) == events == acs > 0


@every_encoding
@every_network
def test_neurobench_counts_the_same_on_binary_networks(make, encoding):
    network, x = prepared(make, encoding=encoding)
    events, acs, macs, dense, behind_average = ours(network, x)
    assert neurobench(network, x) == (events, macs + behind_average, dense)
    assert events == acs > 0 and (macs > 0) == (encoding == "direct")


@every_network
def test_neurobench_counts_the_same_on_relu_networks(make):
    network, x = prepared(make, neuron=ReLU)
    events, acs, macs, dense, _ = ours(network, x)
    assert neurobench(network, x) == (0, macs, dense)
    assert events == acs == 0 < macs < dense


def test_bursts_are_priced_by_their_size_here_and_missed_there():
    network, x = prepared(NETWORKS["mlp"], neuron=QBLIF, encoding="latency")
    events, acs, *_ = ours(network, x)
    first = network.stages["fc1"].branches[0].weight.out_features * int((x > 0).sum())
    assert acs > events > first > 0
    assert spikingjelly(network, x) == first  # only the binary input is a spike to it
    assert neurobench(network, x)[:2] == (first, events - first)  # bursts are products to it
