"""Networks whose spikes a test chooses by hand, and operations counted by plain loops."""

from itertools import product

import torch
from torch import Tensor, nn

from qbsnn.energy.activity import ActivityMeter
from qbsnn.energy.count import StageCounts, count_operations
from qbsnn.layers import INPUT, Branch, Encoder, Stage
from qbsnn.models import SpikingNetwork
from qbsnn.neurons import QBLIF
from qbsnn.neurons.base import Neuron

T = 3


def direct(neuron: Neuron | None = None) -> Neuron:
    """A neuron whose burst in every step is its current, rounded down: no memory, Δ = 1."""
    return neuron or QBLIF(s_max=15, tau=1.0, delta=1.0)


def chain(layer: nn.Module | None, pool: nn.Module | None = None, steps: int = T) -> SpikingNetwork:
    """Pixels → ``a`` (bursts = pixels, then ``pool``) → ``b`` (``layer``) → readout of 2 classes."""
    stages = {
        "a": Stage([Branch(INPUT)], direct(), pool),
        "b": Stage([Branch("a", layer)], direct()),
        "readout": Stage([Branch("b", nn.LazyLinear(2))]),
    }
    return SpikingNetwork(Encoder("direct", steps, [0.0], [1.0]), stages, steps, (1, 1, 1)).eval()


def counted(network: SpikingNetwork, *batches: Tensor) -> dict[str, StageCounts]:
    """Counts by stage after these batches of pixels."""
    meter = ActivityMeter(network)
    network.in_shape = batches[0].shape[-3:]  # a chain takes images of any size
    meter.attach()
    with torch.no_grad():
        for batch in batches:
            network(batch)
    meter.detach()
    return {stage.name: stage for stage in count_operations(network, *meter.traffic())}


def pixels(*shape: int, **at: int) -> Tensor:
    """One image ``[1, C, H, W]`` of zeros, with ``c0_1_2=5`` meaning a 5 in channel 0, row 1, column 2."""
    image = torch.zeros(1, *shape)
    for place, value in at.items():
        image[(0, *map(int, place[1:].split("_")))] = value
    return image


def loops(spikes: Tensor, layer: nn.Conv2d) -> tuple[int, int, int]:
    """(dense, events, acs) of a convolution on integers ``[C, H, W]``, one product at a time."""
    channels, height, width = spikes.shape
    (kh, kw), (sh, sw), (ph, pw), (dh, dw) = layer.kernel_size, layer.stride, layer.padding, layer.dilation
    rows = (height + 2 * ph - dh * (kh - 1) - 1) // sh + 1
    columns = (width + 2 * pw - dw * (kw - 1) - 1) // sw + 1
    dense = events = acs = 0
    for out, row, column, y, x in product(range(layer.out_channels), range(rows), range(columns), range(kh), range(kw)):
        group = out // (layer.out_channels // layer.groups)
        per_group = channels // layer.groups
        for channel in range(group * per_group, (group + 1) * per_group):
            h, w = row * sh - ph + y * dh, column * sw - pw + x * dw
            if 0 <= h < height and 0 <= w < width:
                s = abs(int(spikes[channel, h, w]))
                dense, events, acs = dense + 1, events + (s > 0), acs + s
    return dense, events, acs
