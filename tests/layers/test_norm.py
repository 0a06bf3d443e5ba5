"""Batch norms keep the contract of torch's: statistics, their momentum, their count, what may be switched off."""

import copy
from functools import partial

import pytest
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, update_bn

from qbsnn.layers import BatchNorm1d, BatchNorm2d
from qbsnn.models import mlp
from qbsnn.models.execution import prepare
from qbsnn.neurons import QBLIF

OPTIONS = [
    {}, {"momentum": 0.3}, {"momentum": None}, {"affine": False}, {"track_running_stats": False},
    {"momentum": None, "affine": False},
]  # fmt: skip


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize(
    ("ours", "theirs", "shape"), [(BatchNorm1d, nn.BatchNorm1d, (6, 3)), (BatchNorm2d, nn.BatchNorm2d, (6, 3, 4, 4))]
)
def test_every_option_is_torchs(ours, theirs, shape, options):
    torch.manual_seed(0)
    a, b = ours(3, **options).double(), theirs(3, **options).double()
    for _ in range(3):
        x = torch.randn(shape, dtype=torch.float64) * 2 + 1
        assert torch.allclose(a(x), b(x), rtol=1e-12)
    assert a.state_dict().keys() == b.state_dict().keys()
    assert all(torch.allclose(v, b.state_dict()[k], rtol=1e-12) for k, v in a.state_dict().items())
    assert torch.allclose(a.eval()(x), b.eval()(x), rtol=1e-12)


@pytest.mark.parametrize("memory", ["none", "packed", "checkpoint"])
def test_batches_are_counted_once_however_the_network_runs(memory):
    network = mlp(QBLIF, in_shape=(1, 4, 4), num_classes=3, mean=[0.5], std=[0.3], hidden=(8,), T=3)
    prepare(network, memory=memory)
    for _ in range(2):
        network(torch.rand(5, 1, 4, 4)).sum().backward()
    assert network.stages["fc1"].branches[0].norm.num_batches_tracked == 2


def test_update_bn_gives_averaged_weights_statistics_of_their_own():
    torch.manual_seed(0)
    network = mlp(partial(QBLIF, s_max=4), in_shape=(1, 4, 4), num_classes=3, mean=[0.5], std=[0.3], hidden=(8,), T=3)
    averaged = AveragedModel(network)
    for model in (network, copy.deepcopy(network)):
        for parameter in model.parameters():
            parameter.data.mul_(1.5)
        averaged.update_parameters(model)
    loader = [torch.rand(16, 1, 4, 4) for _ in range(4)]
    update_bn(loader, averaged)
    branch = averaged.module.stages["fc1"].branches[0]
    seen = [branch.weight((x - 0.5).flatten(1) / 0.3) for x in loader]
    assert torch.allclose(branch.norm.running_mean, torch.stack([y.mean(0) for y in seen]).mean(0), atol=1e-6)
    assert torch.allclose(branch.norm.running_var, torch.stack([y.var(0) for y in seen]).mean(0), atol=1e-5)
    assert branch.norm.num_batches_tracked == 4 and branch.norm.momentum == 0.1
