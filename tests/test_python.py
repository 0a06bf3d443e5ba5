"""``import qbsnn``: what it gives, what it costs, and what it says to what does not fit."""

import subprocess
import sys

import pytest
import torch
from torch import nn

import qbsnn
from qbsnn.errors import ArgumentError, CheckpointError, DataError, DeployError
from qbsnn.functional import RESETS, Reset
from qbsnn.layers import INPUT, Branch, Encoder, Stage
from tests.tool import TINY


def network(neuron=qbsnn.QBLIF, **options) -> qbsnn.SpikingNetwork:
    torch.manual_seed(0)
    return qbsnn.mlp(neuron, in_shape=(1, 4, 4), num_classes=3, mean=[0.5], std=[0.3], hidden=(8,), T=3, **options)


def test_importing_it_imports_nothing_else():
    code = "import sys, qbsnn; print([name for name in ('torch', 'numpy', 'lightning') if name in sys.modules])"
    assert subprocess.check_output([sys.executable, "-c", code], text=True) == "[]\n"


@pytest.mark.parametrize("name", qbsnn.__all__)
def test_every_name_is_there(name):
    assert getattr(qbsnn, name) is not None and name in dir(qbsnn)


def test_a_name_that_is_not_there_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'QBLF'"):
        _ = qbsnn.QBLF


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: qbsnn.absorb(nn.Sequential(nn.Linear(2, 2))), "network must be a SpikingNetwork.* got Sequential"),
        (lambda: qbsnn.quantize(nn.Linear(2, 2)), "absorbed must be a SpikingNetwork.* got Linear"),
        (lambda: qbsnn.verify(nn.Linear(2, 2), None, []), "network must be a SpikingNetwork.* got Linear"),
        (lambda: qbsnn.verify(network(), network(), []), r"quantized must be what quantize\(\) returns"),
        (lambda: qbsnn.SpikingNetwork(None, {}, 2, (1, 4, 4)), "stages must hold a stage at least"),
        (
            lambda: qbsnn.SpikingNetwork(None, {"a": Stage([Branch("b", nn.Linear(2, 2))])}, 2, (1, 4, 4)),
            "stages.a reads 'b', which is none of input",
        ),
        (lambda: qbsnn.SpikingNetwork(None, {"a": nn.ReLU()}, 2, (1, 4, 4)), "stages.a must be a Stage, got ReLU"),
        (lambda: qbsnn.QBLIF(reset=3), "reset must be one of detach, detach_s, full, got 3"),
        (lambda: qbsnn.LIF(surrogate=3), "surrogate must be one of .* got 3"),
    ],
)
def test_what_does_not_fit_is_named(call, words):
    with pytest.raises(ArgumentError, match=words):
        call()


def test_a_network_that_was_not_absorbed_cannot_be_quantised():
    with pytest.raises(DeployError, match=r"fc1: QBLIF is not absorbed; call absorb\(network\) first"):
        qbsnn.quantize(network())


# What a user may write: the document's ReLSG-ET without tails, and a soft reset that hides s.
def window(p, s_max):
    return ((p - p.round().clamp(1, s_max)).abs() <= 0.5).to(p.dtype)


def hides_s(v, s, delta):
    return v - delta * s.detach()


@pytest.mark.parametrize("neuron", [qbsnn.QBLIF, qbsnn.LIF, qbsnn.TernaryBurst, qbsnn.MultiCompartment])
def test_functions_serve_as_well_as_names(neuron):
    x = torch.randn(4, 2, 16).mul(2).requires_grad_()
    soft = {"reset": "soft"} if neuron is qbsnn.LIF else {"reset": "detach_s"}
    named = neuron(surrogate="rectangular", **(soft if neuron is not qbsnn.LIF else soft | {"detach_reset": True}))
    given = neuron(surrogate=window, reset=RESETS["detach"] if neuron is qbsnn.LIF else hides_s)
    grads = []
    for each in (named, given):
        out = each(x)
        grads.append((out, *torch.autograd.grad(out.square().sum(), x)))
    assert torch.equal(grads[0][0], grads[1][0]) and torch.equal(grads[0][1], grads[1][1])


@pytest.mark.filterwarnings("ignore:.torch.jit.script.*is deprecated:DeprecationWarning")
@pytest.mark.parametrize("compiled", [False, True])
def test_functions_run_in_kernels_too(compiled):
    x = torch.randn(3, 2, 16).mul(2).requires_grad_()
    neuron = qbsnn.QBLIF(surrogate=lambda p, s_max: p * 0 + 1, reset=lambda v, s, delta: v - delta * s)
    plain = torch.autograd.grad(neuron(x).square().sum(), x)[0]
    neuron.compiled = compiled
    assert torch.equal(torch.autograd.grad(neuron(x).square().sum(), x)[0], plain)


def test_a_surrogate_may_return_its_argument_and_not_another_shape():
    x = torch.randn(3, 2, 16, requires_grad=True)
    torch.autograd.grad(qbsnn.QBLIF(surrogate=lambda p, s_max: p)(x).sum(), x)
    with pytest.raises(ArgumentError, match=r"surrogate must return the shape of p, \[2, 16\], got \[\]"):
        qbsnn.QBLIF(surrogate=lambda p, s_max: p.sum())(x).sum().backward()


def test_a_reset_of_ones_own_has_no_integer_form_unless_it_says_which_it_is():
    with pytest.raises(DeployError, match=r"fc1: QBLIF has a reset of its own .hides_s., and QB-INT 1 has a soft"):
        qbsnn.absorb(network(lambda: qbsnn.QBLIF(reset=hides_s)))
    assert qbsnn.absorb(network(lambda: qbsnn.QBLIF(reset=Reset(hides_s, "soft")))).T == 3


@pytest.mark.parametrize("dtype", [torch.int64, torch.uint8, torch.bool])
@pytest.mark.parametrize("call", [qbsnn.QBLIF(), qbsnn.LIF().run], ids=["forward", "run"])
def test_currents_that_are_no_real_numbers_are_refused(call, dtype):
    with pytest.raises(ArgumentError, match=rf"current must be of a floating-point type, got {dtype} \[2, 3\]"):
        call(torch.ones(2, 3, dtype=dtype))


def test_the_first_layer_says_which_dimension_is_time():
    for layer, x, right in (
        (nn.Conv2d(1, 2, 3), torch.rand(32, 128), "B, C, H, W"),
        (nn.Linear(128, 2), torch.rand(32, 128), "B, ..."),
    ):
        words = rf"from input must be \[T, {right}\], where dimension 0 is time, got \[32, 128\]"
        with pytest.raises(ArgumentError, match=words):
            Branch(INPUT, layer)(x)
    for shape in ([32, 128], [2, 1, 4, 4], [2, 1, 3, 4, 4]):
        with pytest.raises(DataError, match=r"pixels must be \[B, C = 3, H, W\], got .*; time is made here, T = 3"):
            Encoder("direct", 3, [0.5] * 3, [0.3] * 3)(torch.rand(shape))


def test_a_run_and_its_checkpoint_load_as_the_network_that_was_trained(tool):
    assert tool("train.py", *TINY, "report=false", "model=mlp", "callbacks.energy=null") == 0
    (run,) = tool.runs()
    loaded = qbsnn.load(run)
    state = torch.load(run / "checkpoints/best.ckpt", weights_only=True)["state_dict"]
    assert not loaded.training
    assert all(torch.equal(value, state[f"network.{name}"]) for name, value in loaded.state_dict().items())
    assert qbsnn.load(run / "checkpoints/last.ckpt").T == loaded.T
    with pytest.raises(CheckpointError, match=r"best\.ckpt does not exist"):
        qbsnn.load(run / "checkpoints")
