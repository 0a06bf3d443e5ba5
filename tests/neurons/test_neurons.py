"""The public neurons: statelessness, settings, and SpikingJelly's LIF as an oracle."""

from functools import partial

import pytest
import torch

from qbsnn.errors import SettingsError
from qbsnn.neurons import LIF, QBLIF


@pytest.mark.parametrize("neuron", [QBLIF(), QBLIF(output="graded"), LIF(), LIF(reset="hard")])
def test_two_calls_in_a_row_are_equal(neuron):
    x = torch.randn(4, 8, 16) * 2
    first, second = neuron(x), neuron(x)
    assert torch.equal(first, second)
    assert first.sum() > 0


def test_a_batch_of_another_size_may_follow():
    neuron = QBLIF()
    assert neuron(torch.ones(4, 8, 3)).shape == (4, 8, 3)
    assert neuron(torch.ones(2, 5, 7, 7)).shape == (2, 5, 7, 7)


def test_negative_delta_acts_as_its_size_and_gets_the_other_sign_of_gradient():
    x = torch.randn(4, 50) * 2
    grads = []
    for sign in (1, -1):
        neuron = QBLIF(s_max=4)
        neuron.delta.data.fill_(sign * 0.4)
        out = neuron(x)
        out.sum().backward()
        grads.append((out.detach(), neuron.delta.grad))
    assert torch.equal(grads[0][0], grads[1][0])
    assert grads[0][1] == -grads[1][1] != 0


def test_fixed_delta_is_no_parameter():
    assert list(QBLIF(learn_delta=False).parameters()) == []
    assert [p.shape for p in QBLIF().parameters()] == [torch.Size([])]


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (partial(QBLIF, s_max=0), "neuron.s_max must be an integer from 1 to 127, got 0"),
        (partial(QBLIF, s_max=128), "got 128"),
        (partial(QBLIF, s_max=True), "got True"),
        (partial(QBLIF, s_max=2.0), "got 2.0"),
        (partial(QBLIF, tau=0.5), "neuron.tau must be a number of at least 1, got 0.5"),
        (partial(QBLIF, delta=0), "neuron.delta must be a number above 0, got 0"),
        (partial(QBLIF, delta=float("nan")), "got nan"),
        (partial(QBLIF, output="burst"), "neuron.output must be one of counts, graded, got 'burst'"),
        (partial(QBLIF, reset="hard"), "detach, detach_s, full"),
        (partial(QBLIF, tail=3), "neuron.tail"),
        (partial(QBLIF, learn_delta=1), "neuron.learn_delta must be true or false, got 1"),
        (partial(LIF, v_th=-1.0), "neuron.v_th"),
        (partial(LIF, reset="none"), "soft, hard"),
    ],
)
def test_bad_settings_name_the_setting_the_value_and_the_remedy(make, words):
    with pytest.raises(SettingsError) as caught:
        make()
    assert words in str(caught.value)


@pytest.mark.parametrize("tau", [2.0, 4.0])
@pytest.mark.parametrize("reset", ["soft", "hard"])
@pytest.mark.parametrize("detach", [True, False])
def test_lif_equals_spikingjelly(tau, reset, detach):
    theirs_module = pytest.importorskip("spikingjelly.activation_based.neuron", reason="needs the peers extra")
    surrogate = pytest.importorskip("spikingjelly.activation_based.surrogate")
    theirs = theirs_module.LIFNode(
        tau=tau,
        decay_input=False,
        v_threshold=1.0,
        v_reset=None if reset == "soft" else 0.0,
        detach_reset=detach,
        surrogate_function=surrogate.ATan(alpha=2.0),
        step_mode="m",
    )
    ours = LIF(tau=tau, reset=reset, detach_reset=detach, alpha=2.0)
    gen = torch.Generator().manual_seed(0)
    # Multiples of 1/8 give many exact ties; with τ a power of two both sides are exact there.
    x = torch.randint(-8, 17, (6, 7, 33), generator=gen) / 8
    a, b = x.clone().requires_grad_(), x.clone().requires_grad_()
    w = torch.randn(x.shape, generator=gen)
    out, reference = ours(a), theirs(b)
    (out * w).sum().backward()
    (reference * w).sum().backward()
    assert torch.equal(out, reference)
    assert 0 < out.mean() < 1
    assert torch.allclose(a.grad, b.grad, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("tau", [2.0, 4.0])
def test_qb_lif_at_s_max_1_equals_soft_reset_lif_and_spikingjelly(tau):
    gen = torch.Generator().manual_seed(1)
    x = torch.randint(-8, 17, (6, 7, 33), generator=gen) / 8
    out = QBLIF(s_max=1, tau=tau, delta=1.0)(x)
    assert out.sum() > 0
    assert torch.equal(out, LIF(tau=tau)(x))
    module = pytest.importorskip("spikingjelly.activation_based.neuron", reason="needs the peers extra")
    theirs = module.LIFNode(tau=tau, decay_input=False, v_reset=None, step_mode="m")
    assert torch.equal(out, theirs(x))
