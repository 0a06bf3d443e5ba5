"""A stage by itself: its gradients in every layout of memory, what a second pass repeats, and what fits in a byte."""

from functools import partial

import pytest
import torch
from torch import nn

from qbsnn.errors import SettingsError
from qbsnn.functional.reset import RESETS
from qbsnn.functional.surrogate import straight_through
from qbsnn.layers import INPUT, BatchNorm2d, Branch, Encoder, Stage
from qbsnn.models import SpikingNetwork
from qbsnn.models.execution import prepare
from qbsnn.neurons import QBLIF
from qbsnn.neurons.base import SpikingNeuron


@pytest.mark.parametrize("size", [(8, 8), (1, 8), (8, 1)])
@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize("fused", [False, True])
def test_gradients_are_the_same_in_channels_last_memory(fused, batch, size):
    def gradients(memory_format):
        torch.manual_seed(0)
        stage = Stage([Branch(INPUT, nn.Conv2d(3, 4, 3, padding=1, bias=False), BatchNorm2d(4))], QBLIF())
        stage.double().to(memory_format=memory_format).fused = fused
        out = stage([torch.rand(1, batch, 3, *size, dtype=torch.float64)], 3)
        (out * torch.randn(out.shape, dtype=torch.float64)).sum().backward()
        return [p.grad for p in stage.parameters()]

    for ours, theirs in zip(gradients(torch.channels_last), gradients(torch.contiguous_format), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("as_pool", [False, True])
@pytest.mark.parametrize("momentum", [0.1, None])
def test_a_norm_of_torch_counts_a_batch_once_however_the_network_runs(momentum, as_pool):
    def after(memory):
        torch.manual_seed(0)
        norm = nn.BatchNorm2d(4, momentum=momentum)
        stages = {
            "a": Stage(
                [Branch(INPUT, nn.Conv2d(3, 4, 3), None if as_pool else norm)], QBLIF(), norm if as_pool else None
            ),
            "readout": Stage([Branch("a", nn.Linear(4 * 4, 2))]),
        }
        network = SpikingNetwork(Encoder("direct", 2, [0.5] * 3, [0.5] * 3), stages, 2, (3, 4, 4))
        prepare(network, memory=memory)
        for _ in range(2):
            network(torch.rand(4, 3, 4, 4)).sum().backward()
        return [*norm.buffers(), *(p.grad for p in network.parameters())]

    for ours, theirs in zip(after("checkpoint"), after("none"), strict=True):
        torch.testing.assert_close(ours, theirs)


class Worth(QBLIF):
    """Puts out ``worth`` times its bursts, which is no whole number of them."""

    def __init__(self, worth, **options):
        super().__init__(**options)
        self.worth = worth

    def forward(self, current):
        return super().forward(current) * self.worth


class Large(SpikingNeuron):
    """Whose bursts leave a byte."""

    def __init__(self):
        super().__init__(s_max=1000, tau=2.0, surrogate=straight_through, reset=RESETS["detach"])

    def scale(self):
        return torch.tensor(1e-3)


def gradients_of_two(neuron, memory, pool=None, passes=1, silent=()):
    """Gradients after the last of some passes; in those of ``silent`` the input is dark."""
    torch.manual_seed(0)
    stages = {
        "a": Stage([Branch(INPUT, nn.Conv2d(1, 16, 3, padding=1))], neuron(), None if pool is None else pool()),
        "b": Stage([Branch("a", nn.Conv2d(16, 8, 3, padding=1))], neuron()),
        "readout": Stage([Branch("b", nn.Linear(512, 3))]),
    }
    network = prepare(SpikingNetwork(Encoder("direct", 4, [0.0], [1.0]), stages, 4, (1, 8, 8)), memory=memory)
    for count in range(1, passes + 1):
        network.zero_grad()
        x = torch.rand(8, 1, 8, 8) * (count not in silent)
        network(x).square().sum().backward()
    return [parameter.grad for parameter in network.parameters()]


@pytest.mark.parametrize("memory", ["packed", "checkpoint"])
@pytest.mark.parametrize("neuron", [partial(Worth, 0.5), partial(Worth, 1.3, output="graded")])
def test_a_neuron_whose_output_is_no_bursts_is_refused_where_bursts_are_kept_as_bytes(neuron, memory):
    with pytest.raises(SettingsError, match=r"memory must be none .* stages\.a, a Worth: .* whole bursts"):
        gradients_of_two(neuron, memory)
    gradients_of_two(neuron, "none")


def test_a_layer_that_was_silent_at_first_is_looked_at_again():
    with pytest.raises(SettingsError, match="Worth"):
        gradients_of_two(partial(Worth, 0.5), "packed", passes=4, silent=(1, 2))


@pytest.mark.parametrize("memory", ["packed", "checkpoint"])
def test_bursts_that_leave_a_byte_are_kept_as_they_are(memory):
    for ours, theirs in zip(gradients_of_two(Large, memory), gradients_of_two(Large, "none"), strict=True):
        torch.testing.assert_close(ours, theirs)


def test_a_layer_that_draws_random_numbers_draws_the_same_ones_again():
    def after(memory):
        gradients = gradients_of_two(QBLIF, memory, partial(nn.Dropout2d, 0.3))
        return [*gradients, torch.rand(3)]  # and what follows draws on from where it was

    for ours, theirs in zip(after("checkpoint"), after("none"), strict=True):
        torch.testing.assert_close(ours, theirs)
