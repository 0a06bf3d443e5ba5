"""One neuron of each kind against membranes and bursts worked out on paper."""

import math

import pytest
import torch

from qbsnn.functional import RESETS
from qbsnn.neurons import (
    IF,
    ILIF,
    PLIF,
    QATQBLIF,
    QBLIF,
    AdaptiveQB,
    BurstLIF,
    LeakyIntegrator,
    MultiCompartment,
    QuantReLU,
    TernaryBurst,
)


def run(neuron, currents) -> tuple[list[float], list[float]]:
    with torch.no_grad():
        outputs, states = neuron.run(torch.tensor(currents).view(-1, 1, 1))
    return outputs.flatten().tolist(), states[..., 0, 0].flatten().tolist()


def test_burst_lif():
    # Δ = 0.5, s_max = 2, τ = 2: V = 0.75 -> 1, U = 0.25; V = 0.125 + 2 = 2.125 -> 4, cut to 2, U = 1.125;
    # V = 0.5625 -> 1, U = 0.0625
    assert run(BurstLIF(s_max=2), [0.75, 2.0, 0.0]) == ([1, 2, 1], [0.25, 1.125, 0.0625])


def test_plif():
    # τ = 4, λ = 3/4: V = 0.8, 0.6 + 0.8 = 1.4 -> 1, U = 0.4; V = 0.3 + 0.8 = 1.1 -> 1, U = 0.1
    spikes, states = run(PLIF(tau=4.0), [0.8, 0.8, 0.8])
    assert spikes == [0, 1, 1] and states == pytest.approx([0.8, 0.4, 0.1], rel=1e-5)


def test_if():
    # no leak: 0.75; 1.5 -> 1, U = 0.5; 1.25 -> 1, U = 0.25; hard reset: U = 0 after a spike
    assert run(IF(), [0.75, 0.75, 0.75]) == ([0, 1, 1], [0.75, 0.5, 0.25])
    assert run(IF(reset="hard"), [0.75, 0.75, 0.75]) == ([0, 1, 0], [0.75, 0, 0.75])


def test_ilif():
    # λ = 1/4: V = 2.6 -> 3, U = −0.4; V = −0.1 + 0.5 = 0.4 -> 0; V = 0.1 + 9 = 9.1 -> 4, U = 5.1
    spikes, states = run(ILIF(), [2.6, 0.5, 9.0])
    assert spikes == [3, 0, 4] and states == pytest.approx([-0.4, 0.4, 5.1])


def test_ternary_burst():
    # Δ = 1/2, s_max = 2, λ = 1/2: V = −0.75 -> −1, U = −0.25; V = −0.125 − 0.25 = −0.375 -> 0;
    # V = −0.1875 + 2.1875 = 2 -> 4, cut to 2, U = 1; V = 0.5 − 3 = −2.5 -> −5, cut to −2, U = −1.5
    neuron = TernaryBurst(s_max=2)
    assert run(neuron, [-0.75, -0.25, 2.1875, -3.0]) == ([-1, 0, 2, -2], [-0.25, -0.375, 1.0, -1.5])
    assert neuron.s_min == -2


@pytest.mark.parametrize("reset", ["hard", "hard_full"])
def test_a_hard_reset_of_signed_bursts(reset):
    # Δ = 1, no leak: V = −2.5 -> −2, U = 0; V = −0.5 -> 0, U = −0.5; V = 2 -> 2, U = 0
    neuron = TernaryBurst(s_max=4, delta=1.0, tau=math.inf, reset=RESETS[reset])
    assert run(neuron, [-2.5, -0.5, 2.5]) == ([-2, 0, 2], [0, -0.5, 0])


def test_the_gradient_of_a_hard_reset_sees_the_size_of_a_burst():
    # U = V·(1 − |s|), whose derivative by s has the sign of s, at s = ±0 that of V
    v, s = torch.full((4,), 3.0), torch.tensor([-1.0, -0.0, 0.0, 1.0], requires_grad=True)
    RESETS["hard_full"](v, s, torch.ones(())).sum().backward()
    assert s.grad.tolist() == [3.0, 3.0, -3.0, -3.0]


def test_quant_relu():
    # 2 bits, Δ = 1/2: −1 -> 0, 0.25 -> half up 1, 0.7 -> 1, 0.8 -> 2, 9 -> 3; times Δ, with no memory
    assert run(QuantReLU(bits=2), [-1.0, 0.25, 0.7, 0.8, 9.0])[0] == [0, 0.5, 0.5, 1.0, 1.5]


def test_learnt_tau_and_rounding_of_qb_lif():
    # τ = 4, Δ = 1/2, rounded: V = 0.8 -> round(1.6) = 2, U = −0.2; V = −0.15 + 0.5 = 0.35 -> 1, U = −0.15
    spikes, states = run(QBLIF(s_max=4, tau=4.0, learn_tau=True, rounding="round"), [0.8, 0.5])
    assert spikes == [2, 1] and states == pytest.approx([-0.2, -0.15])


def test_adaptive_qb():
    # A network of zeros gives σ(0) = 1/2: n = 1 + 4/2 = 3 of s_max = 5.
    # Δ = 1: V = 4.5 -> 3, U = 1.5; V = 0.75 + 1.5 = 2.25 -> 2, U = 0.25
    neuron = AdaptiveQB(s_max=5, delta=1.0)
    for p in neuron.cap_net.parameters():
        p.data.zero_()
    assert run(neuron, [4.5, 1.5]) == ([3, 2], [1.5, 0.25])
    # A bias of +20 gives n = 5, one of −20 gives n = 1.
    neuron.cap_net[2].bias.data.fill_(20.0)
    assert run(neuron, [4.5]) == ([4], [0.5])
    neuron.cap_net[2].bias.data.fill_(-20.0)
    assert run(neuron, [4.5]) == ([1], [3.5])


def test_multi_compartment():
    # a = b = σ(0) = 1/2, γ = 1/2, Δ = 1/2, counts:
    # D = 2, V = 0 + 1 = 1 -> 2, S = 0, D = 2 − 1/2·1 = 1.5
    # D = 1.5 − 0 + 0 = 1.5, V = 0.75 -> 1, S = 0.25, D = 1.5 − 0.25 = 1.25
    # D = 1.25 − 0.125 − 2 = −0.875, V = 0.25 − 0.4375 = −0.1875 -> 0
    spikes, states = run(MultiCompartment(output="counts"), [2.0, 0.0, -2.0])
    assert spikes == [2, 1, 0]
    assert states == [1.5, 0.0, 1.25, 0.25, -0.875, -0.1875]
    assert run(MultiCompartment(), [2.0, 0.0, -2.0])[0] == [1.0, 0.5, 0.0]  # graded


def test_leaky_integrator():
    assert LeakyIntegrator(4.0)(torch.tensor([4.0, 4.0, 0.0]).view(3, 1)).flatten().tolist() == [4, 7, 5.25]


def test_quantised_weights_lie_on_a_grid_and_their_gradient_goes_straight_through():
    from qbsnn.functional.parameters import quantise_weight

    # 3 bits: ±3 steps. Rows: max 0.9, step 0.3; max 6, step 2 (a tie to even: 1/2 of a step is 0).
    weight = torch.tensor([[0.9, -0.4, 0.1], [6.0, 1.0, -3.5]], dtype=torch.float64, requires_grad=True)
    found = quantise_weight(weight, 3)
    assert found.flatten().tolist() == pytest.approx([0.9, -0.3, 0.0, 6.0, 0.0, -4.0])
    (found * torch.arange(6).view(2, 3)).sum().backward()
    assert weight.grad.flatten().tolist() == [0, 1, 2, 3, 4, 5]
    assert QATQBLIF(num_bits=3).weight_bits == 3
