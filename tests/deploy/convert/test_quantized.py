"""What the input of an integer network may be: pixels of its size, within the bounds, and a sample at least."""

from functools import partial

import pytest
import torch

from qbsnn.deploy.convert.absorb import absorb
from qbsnn.deploy.convert.quantize import quantize
from qbsnn.deploy.engines.int8_engine import Int8Engine
from qbsnn.errors import DataError, DeployError
from qbsnn.layers import INPUT, Branch, Encoder, Stage
from qbsnn.models import SpikingNetwork
from qbsnn.neurons import QBLIF
from tests.deploy.spiking import lively, make

NEURON = partial(QBLIF, s_max=4)


@pytest.mark.parametrize("encoding", ["direct", "rate", "latency"])
@pytest.mark.parametrize("family", ["mlp", "vgg5-max"])
@pytest.mark.parametrize("size", [(16, 16), (4, 16), (8, 16), (4, 4)])
def test_pixels_of_another_size_are_refused(family, encoding, size):
    network = make(family, NEURON, encoding=encoding)
    quantized = quantize(absorb(network))
    pixels = torch.rand(4, 3, *size)
    words = r"^pixels must end with in_shape = \[3, 8, 8\], for which the network was built, got "
    for run in (network, quantized.current, Int8Engine(quantized).predict):
        with pytest.raises(DataError, match=words):
            run(pixels)
    with pytest.raises(DataError, match=words):
        quantized.current_of(quantized.front.encoder(pixels))


def events() -> SpikingNetwork:
    torch.manual_seed(0)
    stages = {"a": Stage([Branch(INPUT, torch.nn.Conv2d(2, 4, 3, padding=1))], QBLIF()),
              "readout": Stage([Branch("a", torch.nn.Linear(4 * 16, 3))])}  # fmt: skip
    return lively(SpikingNetwork(Encoder("events", 3, [0.0], [1.0]), stages, 3, (2, 4, 4))).eval()


@pytest.mark.parametrize("encoding", ["direct", "rate", "latency", "events"])
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -0.001, 1.001])
def test_values_outside_the_bounds_are_refused(encoding, bad):
    network = events() if encoding == "events" else make("vgg5-max", NEURON, encoding=encoding)
    quantized = quantize(absorb(network))
    most = network.encoder.bound
    shape = (2, 3, 2, 4, 4) if encoding == "events" else (2, 3, 8, 8)
    pixels = most * torch.rand(shape, generator=torch.Generator().manual_seed(0))
    pixels[0, 0, 0, 0], pixels[0, 0, 0, 1] = 0, most  # the ends belong to it
    engine = Int8Engine(quantized)
    assert engine.predict(pixels).shape == (2,) and quantized.current(pixels).any()
    pixels[1, 0, 0, 0] = bad * most
    words = rf"^{'frames' if most > 1 else 'pixels'} must be numbers in \[0, {most:g}\]"
    for run in (quantized.current, engine.predict):
        with pytest.raises(DeployError, match=words):
            run(pixels)


@pytest.mark.parametrize("encoding", ["direct", "rate", "latency", "events"])
def test_a_batch_of_nothing_is_refused(encoding):
    network = events() if encoding == "events" else make("mlp", NEURON, encoding=encoding)
    quantized = quantize(absorb(network))
    pixels = torch.zeros(0, 3, 2, 4, 4) if encoding == "events" else torch.zeros(0, 3, 8, 8)
    for run in (quantized.current, Int8Engine(quantized).predict):
        with pytest.raises(DataError, match=r"must hold a sample at least, got \[0, 3, "):
            run(pixels)
