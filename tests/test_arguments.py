"""What the Python interface says to arguments that do not fit: the argument, the value and what would be right."""

from functools import partial

import numpy as np
import pytest
import torch
from torch import nn

import qbsnn
from qbsnn.data import ImageFolder
from qbsnn.deploy.engines.int8_engine import Int8Engine
from qbsnn.errors import ArgumentError, DeployError, SettingsError
from qbsnn.layers import INPUT, Branch, Encoder, Stage
from tests.test_python import network

NEURONS = [
    qbsnn.QBLIF(),
    qbsnn.LIF().run,
    qbsnn.MultiCompartment(),
    qbsnn.AdaptiveQB(),
    qbsnn.ReLU(),
    qbsnn.QuantReLU(),
]


@pytest.mark.parametrize("call", NEURONS)
@pytest.mark.parametrize(
    ("current", "words"),
    [
        ([[1.0]], r"current must be a tensor \[T, B, ...\], got list: torch.as_tensor"),
        (np.ones((2, 3)), r"current must be a tensor \[T, B, ...\], got ndarray"),
        (None, "got NoneType"),
        (torch.zeros(0, 3), r"current must be \[T, B, ...\] with T of at least 1, got \[0, 3\]; dimension 0 is time"),
        (torch.tensor(1.0), r"with T of at least 1, got \[\]"),
        (
            torch.ones(2, 3, dtype=torch.int32),
            r"must be of a floating-point type, got torch.int32 \[2, 3\]: call .float",
        ),
    ],
)
def test_a_current_that_is_none_is_refused(call, current, words):
    with pytest.raises(ArgumentError, match=words):
        call(current)


same = qbsnn.QBLIF()


@pytest.mark.parametrize(
    ("factory", "words"),
    [
        (qbsnn.QBLIF(s_max=4), r"^neuron must be what makes a neuron, .* got QBLIF: write lambda: QBLIF\(...\)$"),
        ("qblif", "^neuron must be what makes a neuron, since every layer has its own, got str"),
        (None, "^neuron must be what makes a neuron, .* got NoneType"),
        (lambda: None, "^neuron must return a neuron when it is called, got NoneType"),
        (nn.ReLU, "^neuron must return a neuron when it is called, got ReLU"),
        (lambda: same, "^neuron must return a new neuron at every call, got the same QBLIF twice"),
    ],
)
def test_a_neuron_in_the_place_of_what_makes_neurons(factory, words):
    build = partial(qbsnn.mlp, in_shape=(1, 4, 4), num_classes=3, mean=[0.5], std=[0.3], hidden=(8, 8))
    with pytest.raises(ArgumentError, match=words):
        build(factory)
    if factory is not same and "new neuron" not in words:
        with pytest.raises(ArgumentError, match=words.replace("^neuron", r"^neurons\.fc2")):
            build(qbsnn.QBLIF, neurons={"fc2": factory})


def test_what_makes_a_neuron_in_the_place_of_a_neuron():
    with pytest.raises(ArgumentError, match="neuron must be a neuron, or None for the readout, got <class"):
        Stage([Branch(INPUT)], qbsnn.QBLIF)


@pytest.mark.parametrize("coding", ["direct", "rate", "latency"])
@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda x: x.tolist(), r"^pixels must be a tensor \[B, C, H, W\], got list"),
        (lambda x: x.numpy(), "^pixels must be a tensor .* got ndarray"),
        (lambda x: x.double(), r"^pixels must be torch.float32, as the weights are, got torch.float64: call .to\("),
        (
            lambda x: (255 * x).byte(),
            r"^pixels must be .* got torch.uint8 \[2, 1, 4, 4\]: bytes .* by .float\(\) / 255",
        ),
        (lambda x: x > 0.5, "^pixels must be of a floating-point type, got torch.bool"),
    ],
)
def test_pixels_of_another_type_are_refused(coding, change, words):
    one, x = network(encoding=coding).eval(), torch.rand(2, 1, 4, 4)
    assert one(x).shape[1:] == (2, 3)
    with pytest.raises(ArgumentError, match=words):
        one(change(x))
    assert one.double()(x.double()).dtype == torch.float64


def test_frames_of_another_type_are_refused():
    encoder, frames = Encoder("events", 3, [0.0], [1.0]), torch.ones(2, 3, 1, 4, 4)
    assert encoder(frames).shape == (3, 2, 1, 4, 4)
    with pytest.raises(
        ArgumentError, match=r"^frames must be .* got torch.uint8 \[2, 3, 1, 4, 4\]: call .float\(\) first"
    ):
        encoder(frames.byte())
    with pytest.raises(ArgumentError, match=r"^frames must be a tensor \[B, T, C, H, W\], got list"):
        encoder(frames.tolist())


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"std": [0.0]}, "^std must be a number above 0, got 0.0"),
        ({"std": [-1.0]}, "^std must be a number above 0, got -1.0"),
        ({"std": [float("inf")]}, "^std must be a number above 0, got inf"),
        ({"std": [float("nan")]}, "^std must be a number above 0, got nan"),
        ({"mean": [float("nan")]}, r"^mean must be a number \(finite\), got nan"),
        ({"mean": ["0.5"]}, r"^mean must be a number \(finite\), got '0.5'"),
        ({"mean": 0.5}, "^mean must be a list with a number for each channel, got 0.5"),
        ({"mean": []}, "^mean must be a list with a number for each channel"),
        ({"std": [0.3, 0.3]}, "^std must have one number, or 1 as mean has, got 2"),
        ({"steps": 0}, "^steps must be an integer of at least 1, got 0"),
        ({"steps": 2.0}, "^steps must be an integer of at least 1, got 2.0"),
    ],
)
def test_an_encoder_of_bad_settings(change, words):
    with pytest.raises(ArgumentError, match=words):
        Encoder(**{"coding": "direct", "steps": 3, "mean": [0.5], "std": [0.3]} | change)
    tensors = Encoder("direct", 3, torch.tensor([0.5, 0.25]), np.array([0.5, 0.25]))
    assert tensors.mean.flatten().tolist() == tensors.std.flatten().tolist() == [0.5, 0.25]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        *(
            ({"T": T}, rf"^T must be an integer (from 1 to 1024|of at least 1|), got {T!r}")
            for T in (0, -1, 2.0, "4", 2000)
        ),
        ({"T": 3}, "^encoder must be one of T = 3 steps, as the network is, got 4 steps"),
        ({"encoder": None}, "^encoder must be an Encoder, got NoneType"),
        ({"decision": "most"}, "^decision must be one of mean, .* got 'most'"),
        ({"in_shape": (4, 4)}, r"^in_shape must be \(channels, height, width\), got \(4, 4\)"),
        ({"in_shape": "144"}, "^in_shape must be an integer of at least 1, got '1'"),
        ({"in_shape": 4}, r"^in_shape must be \(channels, height, width\), got 4"),
        ({"in_shape": (1, 4, 0)}, "^in_shape must be an integer of at least 1, got 0"),
    ],
)
def test_a_network_of_bad_settings(change, words):
    stages = {"a": Stage([Branch(INPUT)], qbsnn.QBLIF()), "readout": Stage([Branch("a", nn.Linear(16, 3))])}
    given = {"encoder": Encoder("direct", 4, [0.5], [0.3]), "stages": stages, "T": 4, "in_shape": (1, 4, 4)}
    assert qbsnn.SpikingNetwork(**given).T == 4
    with pytest.raises(SettingsError, match=words):
        qbsnn.SpikingNetwork(**given | change)


@pytest.fixture(scope="module")
def proven():
    """A network, its quantised form, pixels and labels."""
    one = network(lambda: qbsnn.QBLIF(s_max=4, delta=0.1)).eval()
    return one, qbsnn.quantize(qbsnn.absorb(one)), torch.rand(6, 1, 4, 4), torch.randint(3, (6,))


def test_batches_that_prove(proven):
    one, quantized, x, y = proven
    for batches in ([(x, y)], ([x, y],), iter([(x, y), (x[:1], y[:1])])):
        assert qbsnn.verify(one, quantized, batches).passed


@pytest.mark.parametrize(
    ("batches", "words"),
    [
        (
            lambda x, y: (x, y),
            r"^batches must be a list .* got a tensor as number 0: one batch is \[\(pixels, labels\)\]",
        ),
        (lambda x, y: [x], r"^batches must be a list .* got a tensor as number 0"),
        (lambda x, y: [(x, y), (x, y, y)], "^batches must be a list .* got tuple as number 1"),
        (lambda x, y: None, r"^batches must be a list \(or a loader\) of pairs \(pixels, labels\), got NoneType"),
        (lambda x, y: x, r"^batches must be .*, got Tensor"),
        (lambda x, y: [], "^batches must hold a batch at least, got none"),
        (lambda x, y: [None], "^batches must be .*, got NoneType as number 0"),
        (lambda x, y: [(x[:0], y[:0])], r"^pixels of batch 0 must hold a sample at least, got \[0, 1, 4, 4\]"),
        (
            lambda x, y: [(x, y), (x, y[:5])],
            r"^labels of batch 1 must be a tensor of integers \[6\], .* torch.int64 \[5\]",
        ),
        (lambda x, y: [(x, None)], r"^labels of batch 0 must be .*, got NoneType"),
        (lambda x, y: [(x, y.float())], r"^labels of batch 0 must be .*, got torch.float32 \[6\]"),
        (lambda x, y: [(x.numpy(), y)], "^pixels of batch 0 must be a tensor .*, got ndarray"),
        (lambda x, y: [((255 * x).byte(), y)], "^pixels of batch 0 must be of a floating-point type, got torch.uint8"),
        (lambda x, y: [(x * 255, y)], r"^pixels of batch 0 must be numbers in \[0, 1\], got .* to 2\d\d"),
        (lambda x, y: [(x - 0.5, y)], r"^pixels of batch 0 must be numbers in \[0, 1\], got -0"),
        (
            lambda x, y: [(x.index_fill(0, torch.tensor([2]), torch.nan), y)],
            r"must be numbers in \[0, 1\], got nan to nan",
        ),
    ],
)
def test_batches_that_are_none_are_refused(proven, batches, words):
    one, quantized, x, y = proven
    with pytest.raises(ArgumentError, match=words):
        qbsnn.verify(one, quantized, batches(x, y))


def test_an_engine_says_which_inputs_its_bounds_hold_for(proven):
    _, quantized, x, _ = proven
    with pytest.raises(
        DeployError, match=r"J must be within ±\d+, as it is for pixels in \[0, 1\] and frames in \[0, 255\], got "
    ):
        Int8Engine(quantized).run(quantized.current_of(quantized.front.encoder(200 * x)))
    with pytest.raises(DeployError, match=r"is not a number; the inputs must be numbers in \[0, 1\]"):
        quantized.current_of(quantized.front.encoder(torch.nan * x))
    for run in (Int8Engine(quantized).predict, quantized.current):
        with pytest.raises(DeployError, match=r"^pixels must be numbers in \[0, 1\], got "):
            run(200 * x)


@pytest.mark.parametrize(
    ("settings", "calibration", "words"),
    [
        (8, None, r"^settings must be DeploySettings, such as DeploySettings\(bits=8\), got 8"),
        ({"bits": 8}, None, r"^settings must be DeploySettings, .* got \{'bits': 8\}"),
        (None, [1.0], r"^calibration must be a tensor \[N, C, H, W\], got list"),
        (None, torch.zeros(0, 1, 4, 4), r"^calibration must hold an image at least, got \[0, 1, 4, 4\]"),
    ],
)
def test_quantize_names_what_does_not_fit(proven, settings, calibration, words):
    with pytest.raises(ArgumentError, match=words):
        qbsnn.quantize(qbsnn.absorb(proven[0]), settings, calibration)


@pytest.mark.parametrize("T", [0, -1, 2.0])
def test_an_integer_network_has_steps_too(proven, T):
    absorbed = qbsnn.absorb(proven[0])
    absorbed.T = T  # behind the back of the constructor
    with pytest.raises(DeployError, match=f"network: T must be an integer of at least 1, got {T}"):
        qbsnn.quantize(absorbed)


@pytest.mark.parametrize("bad", [3, None, ""])
def test_what_is_no_path_is_named(bad):
    with pytest.raises(ArgumentError, match="path must be the path of a checkpoint or of a run's folder, got"):
        qbsnn.load(bad)
    with pytest.raises(ArgumentError, match="folder must be the path of a folder of runs, got"):
        qbsnn.results.frame(bad)
    with pytest.raises(ArgumentError, match=r"path must be the path of a result\.json, got"):
        qbsnn.results.read_result(bad)
    with pytest.raises(ArgumentError, match="root must be the path of a folder, got"):
        ImageFolder(root=bad)
