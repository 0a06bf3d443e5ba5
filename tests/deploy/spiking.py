"""Networks for deployment tests: small, lively, with nothing left at a value that would hide a mistake."""

import torch
from torch import nn

from qbsnn.models import SpikingNetwork, mlp, resnet, vgg
from qbsnn.neurons import QBLIF

SHAPE = (3, 8, 8)
FAMILIES = {
    "mlp": (mlp, {"hidden": (40, 30)}),
    "vgg5-max": (vgg, {"name": "vgg5", "width": 0.125}),
    "vgg9-avg": (vgg, {"name": "vgg9", "width": 0.125, "pool": "avg"}),
    "resnet20": (resnet, {"name": "resnet20", "width": 0.5}),
    "resnet19-tdbn": (resnet, {"name": "resnet19", "width": 0.0625, "norm": "tdbn", "v_th": 0.7}),
    "resnet18-imagenet": (resnet, {"name": "resnet18", "width": 0.125, "stem": "imagenet"}),
}


def make(family: str, neuron, seed: int = 0, **extra) -> SpikingNetwork:
    """A network with random norms of both signs and distinct Δ, in evaluation mode."""
    builder, arguments = FAMILIES[family]
    torch.manual_seed(seed)
    shape = (3, 32, 32) if "imagenet" in family else SHAPE
    network = builder(neuron, shape, 5, (0.4, 0.5, 0.6), (0.2, 0.25, 0.3), **{**arguments, **extra})
    return lively(network).eval()


def lively(network: SpikingNetwork) -> SpikingNetwork:
    for module in network.modules():
        if isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d)) and module.affine and module.track_running_stats:
            size = module.weight.data
            size.uniform_(0.6, 1.6).mul_(torch.where(torch.rand_like(size) < 0.3, -1.0, 1.0))
            module.bias.data.uniform_(0.1, 1.0)
            module.running_mean.uniform_(-0.5, 0.5)
            module.running_var.uniform_(0.4, 1.5)
        if isinstance(module, QBLIF) and isinstance(module.delta.raw, nn.Parameter):
            module.delta.raw.data.uniform_(0.3, 0.7)
    return network


def batches(network: SpikingNetwork, images: int = 24, dtype=torch.float32):
    gen = torch.Generator().manual_seed(7)
    pixels = torch.rand(images, *network.in_shape, generator=gen).to(dtype)
    return [
        (pixels[: images // 2], torch.zeros(images // 2, dtype=torch.long)),
        (pixels[images // 2 :], torch.ones(images - images // 2, dtype=torch.long)),
    ]
