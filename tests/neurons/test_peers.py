"""SpikingJelly and snnTorch as oracles: spikes equal, at ties too where τ is a power of two; gradients to 1e-5."""

import pytest
import torch

from qbsnn.functional import SURROGATES
from qbsnn.neurons import IF, ILIF, LIF, PLIF, QBLIF


@pytest.fixture
def jelly():
    return pytest.importorskip("spikingjelly.activation_based.neuron", reason="needs the peers extra")


@pytest.fixture
def jelly_surrogate():
    return pytest.importorskip("spikingjelly.activation_based.surrogate", reason="needs the peers extra")


def currents(tau: float) -> torch.Tensor:
    """Multiples of 1/8, which give many exact ties, where τ is a power of two and both sides are exact; else none."""
    gen = torch.Generator().manual_seed(0)
    if tau in (2.0, 4.0, float("inf")):
        return torch.randint(-8, 17, (6, 7, 33), generator=gen) / 8
    return torch.rand(6, 7, 33, generator=gen) * 3 - 1


def same(ours, theirs, x: torch.Tensor, parameters=()) -> None:
    """Spikes exactly, gradients of the input and of pairs of parameters to 1e-5."""
    a, b = x.clone().requires_grad_(), x.clone().requires_grad_()
    w = torch.randn(x.shape, generator=torch.Generator().manual_seed(1))
    out, reference = ours(a), theirs(b)
    (out * w).sum().backward()
    (reference * w).sum().backward()
    assert torch.equal(out, reference)
    assert 0 < out.mean() < 4
    assert torch.allclose(a.grad, b.grad, rtol=1e-5, atol=1e-6)
    for mine, other in parameters:
        assert mine.grad.item() == pytest.approx(other.grad.item(), rel=1e-5) != 0


@pytest.mark.parametrize("tau", [2.0, 4.0, 2.7])
@pytest.mark.parametrize("reset", ["soft", "hard"])
@pytest.mark.parametrize("detach", [True, False])
@pytest.mark.parametrize("kind", ["lif", "plif"])
def test_lif_and_plif(jelly, jelly_surrogate, kind, tau, reset, detach):
    options = {
        "decay_input": False,
        "v_threshold": 1.0,
        "v_reset": None if reset == "soft" else 0.0,
        "detach_reset": detach,
        "surrogate_function": jelly_surrogate.ATan(alpha=2.0),
        "step_mode": "m",
    }
    if kind == "lif":
        same(LIF(tau, 1.0, reset, detach), jelly.LIFNode(tau=tau, **options), currents(tau))
        return
    ours, theirs = PLIF(tau, 1.0, reset, detach), jelly.ParametricLIFNode(init_tau=tau, **options)
    same(ours, theirs, currents(2.7), [(ours.w, theirs.w)])


@pytest.mark.parametrize("reset", ["soft", "hard"])
@pytest.mark.parametrize("detach", [True, False])
def test_if(jelly, jelly_surrogate, reset, detach):
    theirs = jelly.IFNode(
        v_reset=None if reset == "soft" else 0.0,
        detach_reset=detach,
        surrogate_function=jelly_surrogate.ATan(alpha=2.0),
        step_mode="m",
    )
    same(IF(1.0, reset, detach), theirs, currents(float("inf")))


@pytest.mark.parametrize("tau", [4 / 3, 2.0, 2.7])
@pytest.mark.parametrize("detach", [True, False])
def test_ilif_away_from_ties(jelly, jelly_surrogate, tau, detach):
    theirs = jelly.ILIFNode(
        tau=tau,
        v_threshold=0.7,
        surrogate_function=jelly_surrogate.MultiLevelSpikeCount(5),
        detach_reset=detach,
        step_mode="m",
    )
    ours = ILIF(s_max=5, tau=tau, delta=0.7, reset="detach" if detach else "full")
    x = torch.randn(6, 7, 33, generator=torch.Generator().manual_seed(2)) * 2
    same(ours, theirs, x)


def test_ilif_rounds_a_half_up_where_the_peer_rounds_to_even(jelly, jelly_surrogate):
    theirs = jelly.ILIFNode(surrogate_function=jelly_surrogate.MultiLevelSpikeCount(4), step_mode="m")
    x = torch.tensor([0.5, 1.5, 2.5, 3.5]).view(1, 1, 4)
    assert theirs(x).flatten().tolist() == [0, 2, 2, 4]
    assert ILIF()(x).flatten().tolist() == [1, 2, 3, 4]


@pytest.mark.parametrize("tau", [2.0, 4.0])
def test_qb_lif_at_s_max_1_equals_soft_reset_lif(jelly, tau):
    x = currents(tau)
    out = QBLIF(s_max=1, tau=tau, delta=1.0, learn_delta=False)(x)
    assert out.sum() > 0
    assert torch.equal(out, LIF(tau=tau)(x))
    assert torch.equal(out, jelly.LIFNode(tau=tau, decay_input=False, v_reset=None, step_mode="m")(x))


@pytest.mark.parametrize("tau", [2.0, 4.0, 2.7])
@pytest.mark.parametrize("reset", ["soft", "hard"])
def test_lif_equals_snntorch(tau, reset):
    snntorch = pytest.importorskip("snntorch", reason="needs the peers extra")
    leaky = snntorch.Leaky(
        beta=1 - 1 / tau,
        threshold=1.0,
        reset_mechanism="subtract" if reset == "soft" else "zero",
        reset_delay=False,
        spike_grad=snntorch.surrogate.atan(alpha=2.0),
    )

    def theirs(x):
        membrane, spikes = leaky.reset_mem(), []
        for current in x:
            spike, membrane = leaky(current, membrane)
            spikes.append(spike)
        return torch.stack(spikes)

    # snnTorch fires above the threshold, not at it, so there are no ties here; and it resets a second time, one step
    # later, where a membrane is above the threshold after the reset, so V stays below twice that.
    x = torch.rand(6, 7, 33, generator=torch.Generator().manual_seed(0)) * 1.5 - 0.5
    same(LIF(tau, reset=reset, detach_reset=False), theirs, x)


@pytest.mark.parametrize(
    ("name", "theirs"),
    [
        ("arctan", "ATan"),
        ("sigmoid", "Sigmoid"),
        ("super_spike", "SuperSpike"),
        ("rectangular", "Rect"),
        ("triangular", "PiecewiseQuadratic"),
    ],
)
@pytest.mark.parametrize("alpha", [0.8, 2.0])
def test_surrogates_of_a_binary_neuron(jelly_surrogate, name, theirs, alpha):
    u = torch.linspace(-2, 4, 1201, dtype=torch.float64)[:-1] + 1e-4
    x = (u - 1).requires_grad_()
    getattr(jelly_surrogate, theirs)(alpha=alpha)(x).sum().backward()
    assert torch.allclose(SURROGATES[name](u, 1, alpha=alpha), x.grad, rtol=1e-12, atol=1e-14)


def test_fast_sigmoid_is_snntorchs():
    snntorch = pytest.importorskip("snntorch", reason="needs the peers extra")
    x = torch.linspace(-2, 2, 401, dtype=torch.float64).requires_grad_()
    snntorch.surrogate.fast_sigmoid(slope=7)(x).sum().backward()
    assert torch.allclose(SURROGATES["fast_sigmoid"](x.detach() + 1, 1, alpha=7), x.grad, rtol=1e-12, atol=1e-14)
