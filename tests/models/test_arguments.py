"""What networks, models, stages and functions say to arguments that do not fit."""

import numpy as np
import pytest
import torch
from torch import nn

import qbsnn
from qbsnn.errors import ArgumentError, DataError
from qbsnn.functional import decided_cross_entropy, relsg_et, surrogate
from qbsnn.layers import INPUT, Branch, Encoder, Stage
from tests.test_python import network


@pytest.mark.parametrize("coding", ["direct", "rate", "latency"])
def test_pixels_of_fewer_bits_are_widened_and_of_another_kind_refused(coding):
    one, x = network(encoding=coding).eval(), torch.rand(2, 1, 4, 4).bfloat16()
    assert torch.equal(one(x), one(x.float()))
    one.bfloat16()
    with pytest.raises(ArgumentError, match=r"^pixels must be torch.bfloat16, as the weights are, got torch.float16"):
        one(x.half())
    assert one(x).dtype == torch.bfloat16


@pytest.mark.parametrize("shape", [(2, 1, 5, 5), (2, 2, 4, 4), (2, 1, 4, 3)])
def test_pixels_of_another_size_are_named_with_the_size_of_the_network(shape):
    words = rf"^pixels must end with in_shape = \[1, 4, 4\], for which the network was built, got \{list(shape)}"
    with pytest.raises(DataError, match=words):
        network()(torch.rand(shape))


def test_frames_of_another_size_are_named_too():
    one = network(encoding="events")
    with pytest.raises(
        DataError, match=r"in_shape = \[1, 4, 4\], for which the network was built, got \[2, 3, 1, 4, 5\]"
    ):
        one(torch.ones(2, 3, 1, 4, 5))


@pytest.mark.parametrize("seed", [-1, 2**39, 1.5, "x", None, True])
def test_a_seed_is_checked_when_the_encoder_is_built(seed):
    with pytest.raises(ArgumentError, match=f"^seed must be an integer from 0 to 549755813887, got {seed!r}"):
        network(encoding="rate", seed=seed)
    assert network(encoding="rate", seed=2**39 - 1)(torch.rand(2, 1, 4, 4)).shape == (3, 2, 3)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"mean": [0.5] * 2}, r"^mean must have one number, or 3 as in_shape = \[3, 4, 4\] has channels, got 2"),
        ({"hidden": 64}, "^hidden must be a list of integers of at least 1, got 64"),
        ({"hidden": "64"}, "^hidden must be a list of integers of at least 1, got '64'"),
        ({"neurons": [qbsnn.QBLIF]}, "^neurons must give stages what makes their neurons, {STAGE: QBLIF}, got "),
    ],
)
def test_a_model_of_bad_settings(change, words):
    given = {"in_shape": np.array([3, 4, 4]), "num_classes": 3, "mean": [0.5] * 3, "std": [0.3]}
    assert qbsnn.mlp(qbsnn.QBLIF, **given | {"mean": [0.5]}).in_shape == (3, 4, 4)
    with pytest.raises(ArgumentError, match=words):
        qbsnn.mlp(qbsnn.QBLIF, **given | change)


def test_stages_that_cannot_be_are_refused():
    with pytest.raises(ArgumentError, match=r"^branches must hold a branch at least, got none"):
        Stage([], qbsnn.QBLIF())
    words = r"^pool must be None in a stage without neuron, which returns its current, got AvgPool2d\("
    with pytest.raises(ArgumentError, match=words):
        Stage([Branch(INPUT)], None, nn.AvgPool2d(2))
    stages = {INPUT: Stage([Branch(INPUT, nn.Linear(16, 8))], qbsnn.QBLIF()), "readout": Stage([Branch(INPUT)])}
    words = r"^stages\.input must have another name: 'input' is the encoded input"
    with pytest.raises(ArgumentError, match=words):
        qbsnn.SpikingNetwork(Encoder("direct", 2, [0.5], [0.3]), stages, 2, (1, 4, 4))


def test_a_neuron_of_two_stages_is_refused():
    def stages(first, second):
        return {
            "first": Stage([Branch(INPUT, nn.Linear(16, 8))], first),
            "second": Stage([Branch("first", nn.Linear(8, 8))], second),
            "readout": Stage([Branch("second", nn.Linear(8, 3))]),
        }

    encoder, neuron = Encoder("direct", 2, [0.5], [0.3]), qbsnn.QBLIF()
    qbsnn.SpikingNetwork(encoder, stages(neuron, qbsnn.QBLIF()), 2, (1, 4, 4))
    words = r"^stages\.second must have a neuron of its own, got the QBLIF of stages\.first$"
    with pytest.raises(ArgumentError, match=words):
        qbsnn.SpikingNetwork(encoder, stages(neuron, neuron), 2, (1, 4, 4))


@pytest.mark.parametrize("neuron", [qbsnn.QBLIF, qbsnn.QuantReLU])
def test_a_last_stage_that_spikes_is_refused(neuron):
    first, last = (Stage([Branch(source, nn.Linear(16, 16))], neuron()) for source in (INPUT, "readout"))
    stages = {"first": first, "readout": Stage([Branch("first", nn.Linear(16, 3))])}
    encoder = Encoder("direct", 2, [0.5], [0.3])
    qbsnn.SpikingNetwork(encoder, stages, 2, (1, 4, 4))
    words = rf"^stages\.last must be the readout, as it is the last, without a spiking neuron, got {neuron.__name__}"
    with pytest.raises(ArgumentError, match=words):
        qbsnn.SpikingNetwork(encoder, {**stages, "last": last}, 2, (1, 4, 4))


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: relsg_et(torch.zeros(1), 1, tail="contin"), "^tail must be one of document, continuous, got 'contin'"),
        (lambda: surrogate("atan"), "^name must be one of relsg_et, .* got 'atan'"),
        (
            lambda: decided_cross_entropy(torch.rand(1, 2, 3), torch.tensor([0, 1]), "avg"),
            "^decision must be one of mean, last, max, got 'avg'",
        ),
    ],
)
def test_names_are_checked_by_functions_too(call, words):
    with pytest.raises(ArgumentError, match=words):
        call()
