"""The public neurons: statelessness, parameters, settings."""

from functools import partial

import pytest
import torch

from qbsnn import absorb, mlp, quantize, verify
from qbsnn.errors import SettingsError
from qbsnn.functional import parameters
from qbsnn.neurons import (
    IF,
    ILIF,
    LIF,
    PLIF,
    QATQBLIF,
    QBLIF,
    AdaptiveQB,
    BurstLIF,
    MultiCompartment,
    QuantReLU,
    TernaryBurst,
)  # fmt: skip

EVERY = [
    QBLIF, partial(QBLIF, output="graded"), partial(QBLIF, learn_tau=True), LIF, partial(LIF, reset="hard"), PLIF, IF,
    ILIF, QATQBLIF, AdaptiveQB, BurstLIF, MultiCompartment, QuantReLU, TernaryBurst,
]  # fmt: skip


@pytest.mark.parametrize("neuron", [make() for make in EVERY], ids=lambda neuron: type(neuron).__name__)
def test_two_calls_in_a_row_are_equal(neuron):
    x = torch.randn(4, 8, 16) * 2
    first, second = neuron(x), neuron(x)
    assert torch.equal(first, second)
    assert first.abs().sum() > 0


def test_a_batch_of_another_size_may_follow():
    neuron = QBLIF()
    assert neuron(torch.ones(4, 8, 3)).shape == (4, 8, 3)
    assert neuron(torch.ones(2, 5, 7, 7)).shape == (2, 5, 7, 7)


def test_negative_delta_acts_as_its_size_and_gets_the_other_sign_of_gradient():
    x = torch.randn(4, 50) * 2
    grads = []
    for sign in (1, -1):
        neuron = QBLIF(s_max=4)
        neuron.delta.raw.data.fill_(sign * 0.4)
        out = neuron(x)
        out.sum().backward()
        grads.append((out.detach(), neuron.delta.raw.grad))
    assert torch.equal(grads[0][0], grads[1][0])
    assert grads[0][1] == -grads[1][1] != 0


def test_fixed_delta_is_no_parameter():
    assert list(QBLIF(learn_delta=False).parameters()) == []
    assert [p.shape for p in QBLIF().parameters()] == [torch.Size([])]


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (partial(QBLIF, s_max=0), "s_max must be an integer from 1 to 127, got 0"),
        (partial(QBLIF, s_max=128), "got 128"),
        (partial(QBLIF, s_max=True), "got True"),
        (partial(QBLIF, s_max=2.0), "got 2.0"),
        (partial(QBLIF, tau=0.5), "tau must be a number of at least 1, got 0.5"),
        (partial(QBLIF, delta=0), "delta must be a number above 0, got 0"),
        (partial(QBLIF, delta=float("nan")), "got nan"),
        (partial(QBLIF, output="burst"), "output must be one of counts, graded, got 'burst'"),
        (partial(QBLIF, reset="hard"), "detach, detach_s, full"),
        (partial(QBLIF, tail=3), "tail"),
        (partial(QBLIF, learn_delta=1), "learn_delta must be true or false, got 1"),
        (partial(QBLIF, learn_tau=True, tau=1.0), "tau must be a number above 1, got 1.0"),
        (partial(QBLIF, tau=float("nan")), "tau"),
        (partial(QBLIF, granularity="neuron"), "granularity must be one of layer, channel, got 'neuron'"),
        (partial(QBLIF, parametrisation="relu"), "abs, softplus, exp"),
        (partial(QBLIF, init="first"), "init must be one of fixed, percentile"),
        (partial(QBLIF, percentile=0), "percentile must be a number above 0 and at most 100, got 0"),
        (partial(QBLIF, rounding="up"), "rounding must be one of floor, round, to_zero, got 'up'"),
        (partial(QBLIF, surrogate="atan"), "surrogate must be one of relsg_et, rectangular"),
        (partial(LIF, alpha=0), "alpha must be a number above 0, got 0"),
        (partial(PLIF, tau=1), "tau must be a number above 1, got 1"),
        (partial(QATQBLIF, num_bits=1), "num_bits must be an integer from 2 to 8, got 1"),
        (partial(QuantReLU, bits=8), "bits must be an integer from 1 to 7, got 8"),
        (partial(AdaptiveQB, rounding="round"), "rounding must be left out of AdaptiveQB: its bursts round d"),
        (partial(MultiCompartment, rounding="floor"), "rounding must be left out of MultiCompartment: its bursts"),
        (partial(MultiCompartment, tau=3.0), "tau must be left out of MultiCompartment: it has couplings instead of a"),
        (partial(MultiCompartment, learn_tau=True), "learn_tau must be left out of MultiCompartment: it has couplings"),
        (partial(TernaryBurst, rounding="floor"), "rounding must be left out of TernaryBurst: its bursts round toward"),
        (partial(BurstLIF, learn_delta=True), "learn_delta must be left out of BurstLIF: its Δ is fixed, got True"),
        (partial(AdaptiveQB, share="layer"), "share must be one of sample, channel"),
        (partial(AdaptiveQB, hidden=0), "hidden"),
        (partial(MultiCompartment, gamma=1.5), "gamma"),
        (partial(LIF, v_th=-1.0), "v_th"),
        (partial(LIF, v_th=1e-50), "v_th must be a number of at least 1.17549e-38 and at most 3.40282e+38, got 1e-50"),
        (partial(QBLIF, delta=1e-50), "delta must be a number of at least 1.17549e-38 and at most 3.40282e+38, got"),
        (partial(QBLIF, delta=1e39), "delta must be a number of at least 1.17549e-38 and at most 3.40282e+38, got"),
        (partial(LIF, reset=["soft"]), "reset must be one of soft, hard, got ['soft']"),
        (partial(LIF, reset="none"), "soft, hard"),
    ],
)
def test_bad_settings_name_the_setting_the_value_and_the_remedy(make, words):
    with pytest.raises(SettingsError) as caught:
        make()
    assert words in str(caught.value)


def test_a_channel_scale_has_one_value_per_channel_and_needs_its_size():
    neuron = QBLIF(granularity="channel", s_max=4)
    with pytest.raises(SettingsError, match=r"call size_to\(\(C, H, W\)\) first"):
        neuron(torch.ones(2, 3, 5, 4, 4))
    assert "delta=unsized" in repr(neuron)
    neuron.size_to((5, 4, 4))
    assert [tuple(p.shape) for p in neuron.parameters()] == [(5,)]
    neuron.delta.raw.data = torch.tensor([0.25, 0.5, 1.0, 2.0, 4.0])
    out = neuron(torch.full((1, 3, 5, 4, 4), 1.0))
    assert out[0, 0, :, 0, 0].tolist() == [4, 2, 1, 0, 0]


@pytest.mark.parametrize("parametrisation", ["abs", "softplus", "exp"])
def test_every_parametrisation_starts_at_delta_and_can_be_clipped(parametrisation):
    neuron = QBLIF(delta=0.3, parametrisation=parametrisation)
    assert neuron.scale().item() == pytest.approx(0.3, rel=1e-6)
    neuron.delta.clip(0.5, 0.7)
    assert neuron.scale().item() == pytest.approx(0.5, rel=1e-6)


def test_lsq_scales_the_gradient_and_nothing_else():
    x = torch.randn(3, 4, 6, 2, 2, generator=torch.Generator().manual_seed(0)) * 2
    grads = []
    for lsq in (False, True):
        neuron = QBLIF(s_max=3, lsq=lsq)
        neuron.size_to((6, 2, 2))
        out = neuron(x)
        out.square().sum().backward()
        grads.append((out.detach(), neuron.delta.raw.grad))
    assert torch.equal(grads[0][0], grads[1][0])
    assert grads[1][1].item() == pytest.approx(grads[0][1].item() / (24 * 3) ** 0.5, rel=1e-6) != 0


def test_percentile_init_happens_once_in_training_and_is_remembered():
    neuron = QBLIF(s_max=4, init="percentile", percentile=100.0)
    neuron.eval()(torch.full((2, 1, 3), 40.0))
    assert neuron.scale().item() == 0.5  # an evaluation sets nothing
    neuron.train()(torch.tensor([[[-9.0, 1.0, 8.0]]]))
    assert neuron.scale().item() == 2.0
    neuron(torch.tensor([[[80.0]]]))
    assert neuron.scale().item() == 2.0
    again = QBLIF(s_max=4, init="percentile", percentile=100.0)
    again.load_state_dict(neuron.state_dict())
    again(torch.tensor([[[80.0]]]))
    assert again.scale().item() == 2.0


def test_the_elements_that_a_percentile_looks_at_are_not_one_column_of_a_map(monkeypatch):
    monkeypatch.setattr(parameters, "LOOKED_AT", 2**10)
    current = torch.ones(2, 4, 4, 32, 32)
    current[..., 0] = 10.0  # every 32nd element, and 2^15 of them are 32 times as many as are looked at
    before = torch.get_rng_state()
    found = [parameters.percentile_scale(current, 4, percentile).item() for percentile in (50.0, 50.0, 99.5)]
    assert found == [1 / 4, 1 / 4, 10 / 4]
    assert torch.equal(torch.get_rng_state(), before)
    # all of up to twice as many are looked at
    whole = torch.arange(1.0, 2**11)
    assert parameters.percentile_scale(whole, 1, 100.0).item() == 2**11 - 1


def test_the_cap_of_adaptive_qb_differs_by_sample_and_learns():
    torch.manual_seed(0)
    neuron = AdaptiveQB(s_max=15)
    x = torch.cat([torch.full((2, 1, 8), 0.6), torch.full((2, 1, 8), 60.0)], 1)
    caps = neuron.cap(x[0] / neuron.scale()).detach()
    assert caps.shape == (2, 1) and caps[0] != caps[1]
    out = neuron(x)
    assert torch.equal(out[:, 1], caps[1].expand(2, 8))
    out.sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in neuron.cap_net[2].parameters())
    channel = AdaptiveQB(s_max=15, share="channel")
    assert channel.cap(torch.randn(4, 6, 3, 3)).shape == (4, 6, 1, 1)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("autocast", [False, True])
def test_large_bursts_are_counted_in_half_precision_too(dtype, autocast):
    bursts = torch.arange(128.0)
    for delta in (0.3, 0.7137, 0.123):
        neuron = QBLIF(s_max=127, delta=delta, output="graded")
        neuron = neuron if autocast else neuron.to(dtype)
        sent = (neuron.scale() * bursts).to(dtype)
        assert neuron.counts(sent).tolist() == bursts.tolist()


def test_a_quantised_relu_takes_one_step_however_many_the_network_has():
    network = mlp(partial(QuantReLU, bits=3), (1, 4, 4), 3, [0.5], [0.3], hidden=(8,), T=4).eval()
    pixels = torch.rand(5, 1, 4, 4)
    assert network(pixels).shape == (1, 5, 3)
    absorbed = absorb(network)
    torch.testing.assert_close(absorbed(pixels), network(pixels))
    labels = torch.zeros(5, dtype=torch.int64)
    assert verify(network, quantize(absorbed, None, pixels), [(pixels, labels)]).passed
