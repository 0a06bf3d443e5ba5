"""The compiled scan of every neuron against the eager one: outputs bit for bit, gradients to 1e-5."""

import logging
import sys
from functools import cache, partial
from types import ModuleType

import numpy as np
import numpy.random as npr
import pytest
import torch
from torch._dynamo.utils import counters
from torch._subclasses import FakeTensorMode

from qbsnn.functional.burst import leaky_step
from qbsnn.functional.drive import Drive, Part
from qbsnn.functional.scan import scan
from qbsnn.kernels import compiled, fused
from qbsnn.kernels.fused import fused_scan
from qbsnn.kernels.reads import changing
from qbsnn.neurons import IF, ILIF, LIF, PLIF, QBLIF, AdaptiveQB, MultiCompartment, QuantReLU, TernaryBurst

# torch 2.13's compiler calls what torch 2.13 deprecated
pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit.script.*is deprecated:DeprecationWarning")


def ties(*shape, unit):
    """Currents on a grid of ``unit``, so that many membranes sit exactly on a level."""
    return torch.randint(-8, 24, shape).float() * unit


def run(neuron, x, fast, grad):
    """Outputs, and gradients of the current and of every parameter."""
    neuron.compiled = fast
    neuron.zero_grad()
    leaf = x.detach().requires_grad_()
    out = neuron(leaf)
    out.backward(grad)
    return out.detach(), [leaf.grad, *(p.grad for p in neuron.parameters())]


def assert_agree(neuron, x, tolerance=1e-5):
    """Compiled equals eager; gradients relative to what is added up, for those of parameters are sums that cancel."""
    grad = torch.linspace(-1, 1, x.numel()).view_as(x).to(x)
    eager, eager_grads = run(neuron, x, False, grad)
    fast, fast_grads = run(neuron, x, True, grad)
    assert not compiled._failed
    assert torch.equal(eager, fast) and eager.abs().sum() > 0
    assert fast.stride() == x.stride()
    added = (x * eager_grads[0]).abs().sum().float()
    for a, b in zip(eager_grads, fast_grads, strict=True):
        scale = a.abs().max().float()
        assert (a - b).abs().max() <= tolerance * (scale if a.shape == x.shape else scale.clamp(min=1) + added)


def test_compiled_equals_eager(monkeypatch, caplog):
    monkeypatch.setattr(fused, "_programs", {})
    counters.clear()
    torch.manual_seed(0)
    assert_agree(QBLIF(), ties(4, 3, 17, unit=0.125))
    assert counters["stats"]["unique_graphs"] == 2 and "eagerly" not in caplog.text  # forward and backward


@pytest.mark.slow
@pytest.mark.parametrize(
    "make",
    [
        QBLIF, partial(QBLIF, tau=3.7), partial(QBLIF, output="graded", reset="full"), LIF, partial(LIF, reset="hard"),
        PLIF, IF, ILIF, TernaryBurst, MultiCompartment, partial(MultiCompartment, output="counts", reset="full"),
        partial(QBLIF, granularity="channel"), partial(QBLIF, granularity="channel", output="graded", learn_tau=True),
        *(partial(QBLIF, surrogate=s) for s in ("arctan", "triangular", "sigmoid", "fast_sigmoid")),
    ],
)  # fmt: skip
def test_compiled_equals_eager_on_ties_and_off_them(make):
    torch.manual_seed(0)
    for sizes in ((3, 17), (2, 5, 7, 7)):
        neuron = make()
        neuron.size_to(sizes[1:])
        assert_agree(neuron, ties(4, *sizes, unit=0.125))
        assert_agree(neuron, torch.randn(4, *sizes) * 2)
        assert_agree(neuron, (torch.randn(4, *sizes) * 2).bfloat16(), 1e-2)
        if neuron.delta_module is not None:
            for delta in (0.1, 0.3, 1 / 7):
                neuron.delta_module.raw.data.fill_(delta)
                assert_agree(neuron, ties(4, *sizes, unit=delta))


@pytest.mark.slow
def test_a_gradient_that_cancels_is_compared_in_float64():
    # Δ's gradient of a quantised ReLU adds rounding errors of both signs; in float32 the order of the sum would show.
    torch.manual_seed(0)
    neuron = QuantReLU().double()
    for sizes in ((3, 17), (2, 5, 7, 7)):
        assert_agree(neuron, torch.randn(4, *sizes, dtype=torch.float64) * 2)


@pytest.mark.slow
@pytest.mark.parametrize("granularity", ["layer", "channel"])
def test_channels_last_keeps_its_strides_and_float64_its_precision(granularity):
    x = torch.randn(8, 6, 5, 5).to(memory_format=torch.channels_last).unflatten(0, (4, 2))
    neuron = QBLIF(granularity=granularity)
    neuron.size_to((6, 5, 5))
    assert_agree(neuron, x)
    assert_agree(QBLIF().double(), torch.randn(4, 9, dtype=torch.float64))


def test_a_step_that_calls_a_module_runs_eagerly_and_says_so(caplog):
    fused._log_once.cache_clear()
    neuron, x = AdaptiveQB(), torch.randn(2, 3, 4)
    neuron.compiled = True
    with caplog.at_level(logging.WARNING, logger=fused.__name__):
        outs = [neuron(x) for _ in range(2)]
    neuron.compiled = False
    assert all(torch.equal(out, neuron(x)) for out in outs)
    assert len([r for r in caplog.records if "eagerly" in r.message]) == 1


def test_a_failing_compiler_leaves_the_eager_result_and_one_line(monkeypatch, caplog):
    def broken(graph, **options):
        def call(*inputs):
            raise torch._dynamo.exc.TorchDynamoException("no C++ compiler")

        return call

    monkeypatch.setattr(torch, "compile", broken)
    monkeypatch.setattr(compiled, "_failed", set())
    step, x = partial(leaky_step, decay=0.123), torch.randn(3, 5)
    with caplog.at_level(logging.WARNING, logger=compiled.__name__):
        for _ in range(2):
            assert torch.equal(fused_scan(step, Drive((Part(x),), 3)), scan(step, x)[0])
    assert len(caplog.records) == 1


@pytest.mark.parametrize("name", sorted(compiled.DIVISION))
def test_options_have_the_names_that_this_torch_knows(monkeypatch, name):
    monkeypatch.setattr(torch._inductor, "list_options", lambda: ["emulate_precision_casts", name])
    assert compiled.options() == {"emulate_precision_casts": True, name: True}
    assert compiled.divides_exactly.__wrapped__()


def test_where_a_card_divides_approximately_neurons_run_eagerly_there_and_one_line_says_so(monkeypatch, caplog):
    monkeypatch.setattr(torch._inductor, "list_options", lambda: ["emulate_precision_casts"])
    monkeypatch.setattr(torch, "compile", lambda graph, **options: pytest.fail("compiled"))
    monkeypatch.setattr(compiled, "divides_exactly", cache(compiled.divides_exactly.__wrapped__))
    with FakeTensorMode():
        for _ in range(2):
            kernel = compiled.Kernel(lambda key, x: x + 1)
            assert kernel("key", torch.empty(3, 5, device="cuda")).shape == (3, 5)
    (record,) = caplog.records
    assert "neurons run eagerly on a card" in record.message


def test_a_tensor_of_a_step_that_is_not_per_channel_runs_eagerly_and_says_so(caplog):
    fused._log_once.cache_clear()
    step, x = partial(leaky_step, decay=torch.rand(4)), torch.rand(3, 2, 4, 4, 4)  # per column, of as many as channels
    with caplog.at_level(logging.WARNING, logger=fused.__name__):
        outs = [fused_scan(step, Drive((Part(x),), 3), compiled=False) for _ in range(2)]
    assert all(torch.equal(out, scan(step, x)[0]) for out in outs)
    assert [r.message for r in caplog.records] == [
        "a neuron runs eagerly: its step reads a tensor that is neither one number nor one per channel"
    ]


STATE, ALPHA = {"alpha": 1.0}, 1.0
SETTINGS = sys.modules["settings_of_these_tests"] = ModuleType("settings_of_these_tests")
NOTHING = None


class Annealed:
    alpha = 1.0

    def __call__(self, p, s_max):
        return torch.full_like(p, self.alpha)

    def method(self, p, s_max):
        return torch.full_like(p, self.alpha)


def of_a_dict(p, s_max):
    return torch.full_like(p, STATE["alpha"])


def of_a_number(p, s_max):
    return torch.full_like(p, ALPHA)


def of_a_module(p, s_max):
    return torch.full_like(p, SETTINGS.alpha)


def of_an_import(p, s_max):
    from settings_of_these_tests import alpha

    return torch.full_like(p, alpha)


def of_an_attribute(p, s_max):
    return torch.full_like(p, of_an_attribute.alpha)


def of_an_argument(p, s_max, alpha=1.0):
    return torch.full_like(p, alpha)


def through_another(p, s_max):
    return sum(of_a_number(each, s_max) for each in [p])


def ways_to_read():
    """Surrogates of height α, and what sets α: for each, a pair."""
    annealed, closed, number, default = Annealed(), [1.0], 1.0, [1.0]

    def of_a_cell(p, s_max):
        return torch.full_like(p, number)

    def set_number(alpha):
        nonlocal number
        number = alpha

    yield "object", annealed, partial(setattr, annealed, "alpha")
    yield "method", annealed.method, partial(setattr, annealed, "alpha")
    yield "partial", partial(annealed.method), partial(setattr, annealed, "alpha")
    yield "dict", of_a_dict, partial(STATE.__setitem__, "alpha")
    yield "list", lambda p, s_max: torch.full_like(p, closed[0]), partial(closed.__setitem__, 0)
    yield "default", lambda p, s_max, held=default: torch.full_like(p, held[0]), partial(default.__setitem__, 0)
    yield "global", of_a_number, partial(globals().__setitem__, "ALPHA")
    yield "another", through_another, partial(globals().__setitem__, "ALPHA")
    yield "cell", of_a_cell, set_number
    yield "module", of_a_module, partial(setattr, SETTINGS, "alpha")
    yield "import", of_an_import, partial(setattr, SETTINGS, "alpha")
    yield "attribute", of_an_attribute, partial(setattr, of_an_attribute, "alpha")


def gradient(step_or_neuron):
    current = torch.linspace(-1, 2, 24).view(2, 3, 4).requires_grad_()
    step_or_neuron(current).sum().backward()
    return current.grad


@pytest.mark.parametrize(("surrogate", "set_alpha"), [pytest.param(*way, id=name) for name, *way in ways_to_read()])
def test_what_a_surrogate_reads_may_change(monkeypatch, surrogate, set_alpha):
    monkeypatch.setattr(torch, "compile", lambda graph, **options: graph)
    neuron = QBLIF(s_max=4, surrogate=surrogate)
    for alpha in (1.0, 0.125, 0.5):
        set_alpha(alpha)
        neuron.compiled = True
        fast = gradient(neuron)
        neuron.compiled = False
        assert torch.equal(fast, gradient(neuron)) and fast.any()


def by_numpy(p, s_max):
    return p * float(np.random.default_rng().uniform(1, 2))


def by_numpy_itself(p, s_max):
    import numpy

    return p * float(numpy.random.default_rng().uniform(1, 2))


def by_its_module(p, s_max):
    return p * float(npr.default_rng().uniform(1, 2))


def by_its_function(p, s_max):
    from numpy.random import default_rng

    return p * float(default_rng().uniform(1, 2))


def of_nothing_yet(p, s_max):
    return p if NOTHING is None else p * NOTHING


def of_packages(p, s_max):
    from math import pi

    import torch.nn.functional as F

    return F.relu(p) * pi * float(np.sqrt(2.0))


@pytest.mark.parametrize(
    ("surrogate", "named"),
    [
        (of_an_import, "settings_of_these_tests in of_an_import"), (by_numpy, "numpy.random in by_numpy"),
        (by_numpy_itself, "numpy.random in by_numpy_itself"), (by_its_module, "npr in by_its_module"),
        (by_its_function, "numpy.random in by_its_function"), (of_nothing_yet, "NOTHING in of_nothing_yet"),
        (of_packages, None),
    ],
)  # fmt: skip
def test_what_is_imported_or_drawn_or_not_set_yet_may_change(surrogate, named):
    assert changing(surrogate) == named


def test_what_a_step_reads_may_change(monkeypatch):
    monkeypatch.setattr(torch, "compile", lambda graph, **options: graph)

    def step(v, current, decay):
        return v, STATE["alpha"] * current * decay

    for alpha in (1.0, 0.125):
        STATE["alpha"] = alpha
        x = torch.ones(3, 5)
        assert torch.equal(fused_scan(partial(step, decay=0.5), Drive((Part(x),), 3)), alpha * 0.5 * x)


def test_what_is_read_elsewhere_is_named_and_what_is_bound_is_recorded(monkeypatch, caplog):
    recorded = []
    monkeypatch.setattr(torch, "compile", lambda graph, **options: recorded.append(graph) or graph)
    fused._log_once.cache_clear()
    for surrogate in (partial(of_an_argument, alpha=2.0), of_an_argument, partial(of_an_argument, alpha=2.0)):
        neuron = QBLIF(s_max=3, surrogate=surrogate)
        neuron.compiled = True
        assert gradient(neuron).any()
    assert len(recorded) == 4 and "eagerly" not in caplog.text  # forward and backward of two settings
    neuron = QBLIF(s_max=3, surrogate=through_another)
    neuron.compiled = True
    gradient(neuron)
    assert [r.message for r in caplog.records if "eagerly" in r.message] == [
        "a neuron runs eagerly: its step reads ALPHA in of_a_number, which may change; functools.partial would bind it"
    ]
