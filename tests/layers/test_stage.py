"""A stage by itself: its gradients in every layout of memory, and norms of other libraries in a second pass."""

import pytest
import torch
from torch import nn

from qbsnn.layers import INPUT, BatchNorm2d, Branch, Encoder, Stage
from qbsnn.models import SpikingNetwork
from qbsnn.models.execution import prepare
from qbsnn.neurons import QBLIF


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


@pytest.mark.parametrize("momentum", [0.1, None])
def test_a_norm_of_torch_counts_a_batch_once_however_the_network_runs(momentum):
    def after(memory):
        torch.manual_seed(0)
        norm = nn.BatchNorm2d(4, momentum=momentum)
        stages = {
            "a": Stage([Branch(INPUT, nn.Conv2d(3, 4, 3), norm)], QBLIF()),
            "readout": Stage([Branch("a", nn.Linear(4 * 4, 2))]),
        }
        network = SpikingNetwork(Encoder("direct", 2, [0.5] * 3, [0.5] * 3), stages, 2, (3, 4, 4))
        prepare(network, memory=memory)
        for _ in range(2):
            network(torch.rand(4, 3, 4, 4)).sum().backward()
        return [*norm.buffers(), *(p.grad for p in network.parameters())]

    for ours, theirs in zip(after("checkpoint"), after("none"), strict=True):
        torch.testing.assert_close(ours, theirs)
