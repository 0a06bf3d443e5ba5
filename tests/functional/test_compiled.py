"""The compiled scan against the eager one: spikes equal, gradients to 1e-5, every neuron with a scalar scale."""

import logging
from functools import partial

import pytest
import torch

from qbsnn.functional import compiled
from qbsnn.functional.burst import leaky_step
from qbsnn.functional.scan import scan
from qbsnn.neurons import IF, ILIF, LIF, PLIF, QBLIF, AdaptiveQB, QuantReLU, TernaryBurst

# torch 2.13's compiler calls what torch 2.13 deprecated
pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit.script.*is deprecated:DeprecationWarning")


def ties(*shape, unit):
    """Currents on a grid of ``unit``, so that many membranes sit exactly on a level."""
    return torch.randint(-8, 24, shape).float() * unit


def both(neuron, x):
    """(outputs, gradients of the current and of every parameter), eager and compiled."""
    results = []
    for neuron.compiled in (False, True):
        neuron.zero_grad()
        leaf = x.detach().requires_grad_()
        out = neuron(leaf)
        out.backward(torch.linspace(-1, 1, out.numel()).view_as(out).to(out))
        results.append((out.detach(), [leaf.grad, *(p.grad for p in neuron.parameters())]))
    return results


def assert_agree(neuron, x):
    (eager, eager_grads), (fast, fast_grads) = both(neuron, x)
    assert not compiled._failed
    assert torch.equal(eager, fast) and eager.abs().sum() > 0
    assert fast.stride() == x.stride()
    for a, b in zip(eager_grads, fast_grads, strict=True):
        assert (a - b).abs().max() <= 1e-5 * a.abs().max().clamp(min=1)


def test_compiled_equals_eager():
    torch.manual_seed(0)
    assert_agree(QBLIF(), ties(4, 3, 17, unit=0.125))


@pytest.mark.slow
@pytest.mark.parametrize(
    "make",
    [
        QBLIF, partial(QBLIF, tau=3.7), partial(QBLIF, output="graded", reset="full"), LIF, partial(LIF, reset="hard"),
        PLIF, IF, ILIF,
        *(partial(QBLIF, surrogate=s) for s in ("arctan", "triangular", "sigmoid", "fast_sigmoid")),
    ],
)  # fmt: skip
def test_compiled_equals_eager_on_ties_and_off_them(make):
    torch.manual_seed(0)
    neuron = make()
    for sizes in ((3, 17), (2, 5, 7, 7)):
        assert_agree(neuron, ties(4, *sizes, unit=0.125))
        assert_agree(neuron, torch.randn(4, *sizes) * 2)
    if neuron.delta_module is not None:
        for delta in (0.1, 0.3, 1 / 7):
            neuron.delta_module.raw.data.fill_(delta)
            assert_agree(neuron, ties(4, 3, 17, unit=delta))


@pytest.mark.slow
@pytest.mark.parametrize("make", [QuantReLU, TernaryBurst])
def test_a_gradient_that_cancels_is_compared_in_float64(make):
    # Δ's gradient of these adds rounding errors of both signs; in float32 the order of the sum would show.
    torch.manual_seed(0)
    neuron = make().double()
    for sizes in ((3, 17), (2, 5, 7, 7)):
        assert_agree(neuron, torch.randn(4, *sizes, dtype=torch.float64) * 2)
        for x in (ties(4, *sizes, unit=0.125), torch.randn(4, *sizes) * 2):
            (eager, _), (fast, _) = both(make(), x)
            assert torch.equal(eager, fast) and eager.abs().sum() > 0


@pytest.mark.slow
def test_channels_last_keeps_its_strides_and_float64_its_precision():
    x = torch.randn(8, 6, 5, 5).to(memory_format=torch.channels_last).unflatten(0, (4, 2))
    assert_agree(QBLIF(), x)
    assert_agree(QBLIF().double(), torch.randn(4, 9, dtype=torch.float64))


def test_settings_that_are_no_constants_run_eagerly_and_say_so(caplog):
    compiled._log_once.cache_clear()
    with caplog.at_level(logging.WARNING, logger=compiled.__name__):
        for neuron, x in ((AdaptiveQB(), torch.randn(2, 3, 4)), (QBLIF(granularity="channel"), torch.randn(2, 3, 4))):
            neuron.size_to((4,))
            neuron.compiled = True
            out = neuron(x)
            neuron.compiled = False
            assert torch.equal(out, neuron(x))
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
            assert torch.equal(compiled.compiled_scan(step, x), scan(step, x)[0])
    assert len(caplog.records) == 1
