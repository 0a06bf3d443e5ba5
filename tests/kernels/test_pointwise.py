"""Steps that look beyond their own position, or draw random numbers, run as the plain scan; others run flat."""

import copy
import logging
from functools import partial
from typing import ClassVar

import pytest
import torch

from qbsnn.functional import burst, parameters
from qbsnn.functional.burst import burst_step
from qbsnn.functional.drive import Drive, Part
from qbsnn.functional.reset import RESETS
from qbsnn.functional.surrogate import arctan
from qbsnn.kernels import fused
from qbsnn.kernels.pointwise import ours, why_not
from qbsnn.models import mlp, vgg
from qbsnn.models.execution import prepare
from qbsnn.neurons import IF, ILIF, LIF, PLIF, QBLIF, MultiCompartment, Operations, QuantReLU, TernaryBurst

ELSEWHERE = "a neuron runs eagerly: its step, its reset or its surrogate looks at other positions than its own"
SHAPES = "a neuron runs eagerly: its step does not take currents of any shape: IndexError: Dimension out of range"
RANDOM = "a neuron runs eagerly: its step draws random numbers, and a backward pass that computes it again would draw"
WAYS = [("none", "packed"), ("none", "checkpoint"), ("block", "none"), ("neuron", "packed")]


class Own(QBLIF):
    """A neuron with a step of its own: ``function`` says what happens to V before it fires."""

    no_integer_form = "is a test"
    function = None
    settings: ClassVar = {}

    def operations(self):
        return Operations(leaks=1, compares=1, resets=1, keeps=True)

    def bound_step(self):
        return partial(
            type(self).function, delta=self.scale(), decay=self.decay, s_max=self.s_max, surrogate=self.surrogate,
            **self.settings,
        )  # fmt: skip


def fire(v, delta, s_max, surrogate):
    s = burst(v / delta, s_max, surrogate)
    return v - delta * s.detach(), s


def inhibited_step(u, current, delta, *, decay, kappa, s_max, surrogate):
    v = decay * u + current
    return fire(v - kappa * v.mean(-1, keepdim=True), delta, s_max, surrogate)


def noisy_step(u, current, delta, *, decay, s_max, surrogate):
    return fire(decay * u + current + torch.randn_like(current), delta, s_max, surrogate)


def pointwise_step(u, current, delta, *, decay, s_max, surrogate):
    return fire(decay * u + current.tanh(), delta, s_max, surrogate)


def winner_step(u, current, delta, *, decay, s_max, surrogate):
    v = decay * u + current
    state, s = fire(v, delta, s_max, surrogate)
    return state, s * (v == v.amax(1, keepdim=True)).to(s.dtype)  # of the channels at a position


def pixels_step(u, current, delta, *, decay, s_max, surrogate):
    v = decay * u + current
    return fire(v + v.roll((1, 1), (2, 3)), delta, s_max, surrogate)  # fails on a flat current


class Inhibited(Own):
    function, settings = staticmethod(inhibited_step), {"kappa": 0.5}


class Learned(Own):
    """Its coupling begins at 0, where it looks at nothing else."""

    function = staticmethod(inhibited_step)

    def __init__(self, **options):
        super().__init__(**options)
        self.kappa = torch.nn.Parameter(torch.zeros(()))

    @property
    def settings(self):
        return {"kappa": self.kappa}


class Noisy(Own):
    function = staticmethod(noisy_step)


class Pointwise(Own):
    function = staticmethod(pointwise_step)


class Winner(Own):
    function = staticmethod(winner_step)


class Pixels(Own):
    function = staticmethod(pixels_step)


def normed(p, s_max):
    g = torch.exp(-(p - 1).abs())
    return g / g.sum(-1, keepdim=True)


def shared(v, s, delta):
    return v - delta * s.detach().mean(-1, keepdim=True)


@pytest.fixture
def logged(monkeypatch, caplog):
    """The reasons that are logged, from the first one on."""
    monkeypatch.setattr(fused, "_programs", {})
    monkeypatch.setattr(fused, "_reasons", {})
    monkeypatch.setattr(torch, "compile", lambda graph, **options: graph)
    fused._log_once.cache_clear()
    caplog.set_level(logging.WARNING, logger=fused.__name__)
    return lambda: [record.message for record in caplog.records if "eagerly" in record.message]


def trained(network, pixels, compile, memory):
    """Logits, and gradients of everything, of a training step with one seed."""
    network = prepare(copy.deepcopy(network).train(), compile, memory)
    torch.manual_seed(3)
    logits = network(pixels)
    (logits * torch.linspace(-1, 1, logits.numel(), dtype=logits.dtype).view_as(logits)).sum().backward()
    return [logits.detach(), *(p.grad for p in network.parameters())]


def assert_plain(network, pixels):
    """Every way to run gives the bits of the plain one, for it is the plain one."""
    plain = trained(network, pixels, "none", "none")
    assert plain[0].any() and all(grad.any() for grad in plain[1:3])
    for way in WAYS:
        outputs, *grads = trained(network, pixels, *way)
        assert torch.equal(outputs, plain[0]), way
        for grad, expected in zip(grads, plain[1:], strict=True):
            torch.testing.assert_close(grad, expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("norm", ["bn", "none"])
@pytest.mark.parametrize(
    ("neuron", "reason"),
    [
        (Inhibited, ELSEWHERE), (Learned, ELSEWHERE), (Noisy, RANDOM), (partial(QBLIF, surrogate=normed), ELSEWHERE),
        (partial(QBLIF, reset=shared), ELSEWHERE), (partial(Inhibited, granularity="channel"), ELSEWHERE),
    ],
    ids=["step", "coupling from 0", "random", "surrogate", "reset", "per channel"],
)  # fmt: skip
def test_a_step_that_is_not_pointwise_gives_the_same_however_it_runs(norm, neuron, reason, logged):
    torch.manual_seed(0)
    network = mlp(neuron, (1, 4, 4), 3, [0.5], [0.2], hidden=(32,), norm=norm, T=3).double()
    assert_plain(network, torch.rand(5, 1, 4, 4, dtype=torch.float64))
    (line,) = logged()
    assert line.startswith(reason)


@pytest.mark.parametrize("norm", ["bn", "none"])
@pytest.mark.parametrize("neuron", [Winner, Pixels])
def test_maps_are_no_rows(norm, neuron, logged):
    torch.manual_seed(0)
    network = vgg(neuron, (1, 8, 8), 3, [0.5], [0.2], name="vgg5", width=0.05, norm=norm, T=2, neurons={"fc1": QBLIF})
    assert_plain(network.double(), torch.rand(3, 1, 8, 8, dtype=torch.float64))
    assert logged() and all(line.startswith((ELSEWHERE, SHAPES)) for line in logged())


def test_a_pointwise_step_of_a_user_runs_flat_and_says_nothing(logged):
    torch.manual_seed(0)
    network = mlp(Pointwise, (1, 4, 4), 3, [0.5], [0.2], hidden=(32,), T=3).double()
    assert_plain(network, torch.rand(5, 1, 4, 4, dtype=torch.float64))
    assert not logged() and fused._programs and list(fused._reasons.values()) == [None] * len(fused._reasons)


@pytest.mark.parametrize(
    "neuron",
    [
        QBLIF(surrogate="sigmoid"), LIF(reset="hard"), PLIF(), IF(), ILIF(), MultiCompartment(), QuantReLU(),
        TernaryBurst(), QBLIF(granularity="channel", learn_tau=True, output="graded"),
    ],
    ids=lambda neuron: type(neuron).__name__,
)  # fmt: skip
def test_neurons_of_the_package_are_known_and_would_pass(neuron):
    neuron.size_to((6, 5))
    step, y = neuron.bound_step(), torch.zeros(3, 4, 6, 5)
    constants = [value for value in step.keywords.values() if not isinstance(value, torch.Tensor)]
    assert ours((step.func, *constants))
    before = torch.get_rng_state()
    with torch.inference_mode():
        assert why_not(step, y, neuron.compartments, channels=True) is None
        if all(not value.dim() for value in step.keywords.values() if isinstance(value, torch.Tensor)):
            assert why_not(step, y, neuron.compartments, channels=False) is None
    assert torch.equal(torch.get_rng_state(), before)


def test_what_is_not_of_the_package_is_looked_at():
    bound = partial(burst_step, delta=torch.tensor(0.5), decay=0.5, s_max=4, surrogate=arctan, reset=RESETS["full"])
    assert ours(tuple(value for value in bound.keywords.values() if not isinstance(value, torch.Tensor)))
    assert not any(map(ours, (normed, partial(normed), inhibited_step, torch.softmax, Inhibited)))
    assert ours(parameters.integer_cap)


def test_random_numbers_that_follow_the_first_look_are_those_of_the_seed(logged):
    x = torch.randn(2, 3, 8)
    drawn = []
    for _ in range(2):  # the first of which looks
        torch.manual_seed(5)
        with torch.no_grad():
            Noisy()(Drive((Part(x),), 2))
        drawn.append(torch.rand(3))
    assert torch.equal(*drawn)
