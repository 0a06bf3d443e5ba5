"""Integer networks with a float first layer in front, for the tests of the exports."""

from types import SimpleNamespace

import numpy as np
import torch
from torch import nn

from qbsnn.deploy.convert.absorb import absorb
from qbsnn.deploy.convert.quantize import quantize
from qbsnn.deploy.convert.quantized import Quantized
from qbsnn.deploy.engines import reference
from qbsnn.deploy.format.network import IntegerNetwork, Trace
from qbsnn.layers.encoder import Encoder
from qbsnn.layers.stage import INPUT, Branch, Stage
from qbsnn.models import SpikingNetwork
from qbsnn.neurons import QBLIF
from tests.deploy import networks, spiking


def with_front(net: IntegerNetwork) -> SimpleNamespace:
    """A quantised network for an integer network that was never trained: its first layer hands pixels on."""
    shape = net.stages[0].shape
    channels = shape[0]
    if len(shape) == 3:
        layer: nn.Module = nn.Conv2d(channels, channels, 1)
        layer.weight.data = torch.eye(channels)[:, :, None, None]
        pixels = shape
    else:
        layer = nn.Linear(channels, channels)
        layer.weight.data = torch.eye(channels)
        pixels = (1, 1, channels)
    layer.bias.data.zero_()
    encoder = Encoder("direct", net.T, [0.0] * pixels[0], [1.0] * pixels[0])
    front = SpikingNetwork(encoder, {"first": Stage([Branch(INPUT, layer)])}, net.T, pixels)
    return SimpleNamespace(net=net, front=front.requires_grad_(False))


def trained(family: str, neuron=QBLIF, **extra) -> tuple[Quantized, torch.Tensor]:
    """A quantised network of a family of models, and pixels ``[4, C, H, W]`` on which every layer fires."""
    quantized = quantize(absorb(spiking.make(family, neuron, **extra)))
    pixels = spiking.batches(quantized.front, images=8)[0][0]
    networks.assert_active(quantized.net, reference.run(quantized.net, quantized.current(pixels)))
    return quantized, pixels


def as_trace(output) -> Trace:
    """What the bundle's reader gives, as a trace."""
    return Trace(list(output.spikes), list(output.membranes), np.asarray(output.logits), exits=output.exits)
