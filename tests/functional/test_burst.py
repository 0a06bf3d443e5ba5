"""The burst step against numbers worked out by hand and closed forms in float64."""

import math
from functools import partial

import pytest
import torch

from qbsnn.functional import RESETS, burst, burst_step, relsg_et, scan
from qbsnn.neurons import LIF, QBLIF

D = torch.float64


def run(currents, delta=0.5, s_max=4, tau=2.0, reset="detach", graded=False, alpha=0.5, beta=3.0, tail="document"):
    """(outputs, membranes, currents, delta) of one neuron, with gradients on currents and delta."""
    i = torch.tensor(currents, dtype=D).view(-1, 1).requires_grad_()
    d = torch.tensor(delta, dtype=D, requires_grad=True)
    step = partial(
        burst_step,
        delta=d,
        decay=1 - 1 / tau,
        s_max=s_max,
        surrogate=partial(relsg_et, alpha=alpha, beta=beta, tail=tail),
        reset=RESETS[reset],
        graded=graded,
    )
    o, u = scan(step, i, keep=True)
    return o, u, i, d


def test_bursts_and_membranes_worked_out_by_hand():
    # Δ = 0.5, s_max = 4, λ = 1/2:
    # t=1: V = 1.25           s = ⌊2.5⌋ = 2      U = 0.25
    # t=2: V = 0.125 + 3      s = ⌊6.25⌋ -> 4    U = 3.125 − 2 = 1.125     (saturated)
    # t=3: V = 0.5625 − 1     s = 0              U = −0.4375               (negative)
    # t=4: V = −0.21875 + 0.71875 = 0.5, s = 1   U = 0                     (exactly at the threshold)
    # t=5: V = 0.49           s = 0              U = 0.49
    o, u, _, _ = run([1.25, 3.0, -1.0, 0.71875, 0.49])
    assert o.flatten().tolist() == [2, 4, 0, 1, 0]
    assert u.flatten().tolist() == [0.25, 1.125, -0.4375, 0.0, 0.49]


def test_graded_output_is_the_burst_times_delta():
    counts, u_counts, _, _ = run([1.25, 3.0, -1.0, 0.71875])
    graded, u_graded, _, _ = run([1.25, 3.0, -1.0, 0.71875], graded=True)
    assert torch.equal(graded, counts * 0.5)
    assert torch.equal(u_counts, u_graded)


def test_no_leak_and_full_leak():
    assert run([0.4, 0.4, 0.4], tau=1.0)[0].flatten().tolist() == [0, 0, 0]  # τ = 1 forgets everything
    assert run([0.4, 0.4, 0.4], tau=1e9, delta=0.5)[0].flatten().tolist() == [0, 1, 1]  # 0.4; 0.8 -> 0.3; 0.7 -> 0.2


@pytest.mark.parametrize("alpha", [0.2, 0.3, 0.5, 0.7])
@pytest.mark.parametrize("tail", ["document", "continuous"])
def test_surrogate_closed_form(alpha, tail):
    # s_max = 3; points: far below, below, on levels, between levels, exact halves, saturated, far above.
    points = [-2.0, -0.1, 0.0, 0.25, 0.5, 0.85, 1.0, 1.45, 1.5, 2.0, 2.6, 3.0, 3.3, 3.5, 4.0, 9.0]
    expected = []
    for u in points:
        d = min(abs(u - k) for k in (1, 2, 3))
        shift = alpha if tail == "continuous" else 0.0
        expected.append(1.0 if d <= alpha else math.exp(-3.0 * (d - shift)))
    g = relsg_et(torch.tensor(points, dtype=D), 3, alpha, 3.0, tail)
    # d ≤ α is decided on rounded numbers here and there; no point above lies on that edge except exact ones.
    assert torch.allclose(g, torch.tensor(expected, dtype=D), rtol=1e-14, atol=0)


def test_tails_lie_between_levels_when_alpha_is_below_a_half():
    g = relsg_et(torch.tensor([1.5], dtype=D), 4, alpha=0.3, beta=2.0)
    assert g.item() == pytest.approx(math.exp(-1.0), rel=1e-15)


@pytest.mark.parametrize("v", [-0.7, 0.2, 0.5, 0.75, 1.1, 1.9, 2.0, 2.3, 7.0])  # Δ = 0.5: negative, ties, saturated
@pytest.mark.parametrize("alpha", [0.3, 0.5])
@pytest.mark.parametrize("graded", [False, True])
def test_gradients_of_one_step_in_closed_form(v, alpha, graded):
    delta, s_max = 0.5, 4
    o, _, i, d = run([v], delta, s_max, graded=graded, alpha=alpha)
    o.sum().backward()
    u = v / delta
    distance = min(abs(u - k) for k in range(1, s_max + 1))
    g = 1.0 if distance <= alpha else math.exp(-3.0 * distance)
    s = min(max(math.floor(u), 0), s_max)
    assert i.grad.item() == pytest.approx(g if graded else g / delta, rel=1e-12)
    assert d.grad.item() == pytest.approx(s - u * g if graded else -u * g / delta, rel=1e-12)


@pytest.mark.parametrize("reset", ["detach", "detach_s", "full"])
@pytest.mark.parametrize("alpha", [0.3, 0.5])
def test_gradients_of_two_steps_in_closed_form(reset, alpha):
    # V1 = I1, u1 = V1/Δ; V2 = λ U1 + I2. L = o2 (counts), so with g = g(u):
    # ∂L/∂I2 = g2/Δ;  ∂L/∂I1 = g2/Δ · λ · ∂U1/∂V1;  ∂L/∂Δ = −u2 g2/Δ + g2/Δ · λ · ∂U1/∂Δ
    # detach:   ∂U1/∂V1 = 1,       ∂U1/∂Δ = 0
    # detach_s: ∂U1/∂V1 = 1,       ∂U1/∂Δ = −s1
    # full:     ∂U1/∂V1 = 1 − g1,  ∂U1/∂Δ = −s1 + u1 g1
    i1, i2, delta, lam = 1.35, 0.9, 0.5, 0.5
    o, _, i, d = run([i1, i2], delta, 8, reset=reset, alpha=alpha)
    o[1].sum().backward()
    u1 = i1 / delta
    s1 = math.floor(u1)
    u2 = (lam * (i1 - delta * s1) + i2) / delta
    g1, g2 = (relsg_et(torch.tensor(u, dtype=D), 8, alpha, 3.0).item() for u in (u1, u2))
    by_v, by_delta = {"detach": (1, 0), "detach_s": (1, -s1), "full": (1 - g1, -s1 + u1 * g1)}[reset]
    assert i.grad.flatten().tolist() == pytest.approx([g2 / delta * lam * by_v, g2 / delta], rel=1e-12)
    assert d.grad.item() == pytest.approx(-u2 * g2 / delta + g2 / delta * lam * by_delta, rel=1e-12)


def homogeneity(reset, graded, seed=0):
    """Σ I·∂L/∂I + Δ·∂L/∂Δ and Σ o·∂L/∂o for a random loss and 200 random currents over five steps."""
    gen = torch.Generator().manual_seed(seed)
    i = (torch.rand(5, 200, generator=gen, dtype=D) * 5 - 1).requires_grad_()
    d = torch.tensor(0.37, dtype=D, requires_grad=True)
    surrogate = partial(relsg_et, alpha=0.3, beta=2.5)
    step = partial(burst_step, delta=d, decay=0.75, s_max=3, surrogate=surrogate, reset=RESETS[reset], graded=graded)
    o, _ = scan(step, i)
    w = torch.randn(o.shape, generator=gen, dtype=D)
    (o * w).sum().backward()
    return ((i.grad * i).sum() + d * d.grad).item(), (o * w).sum().item()


@pytest.mark.parametrize("reset", ["detach_s", "full"])
def test_scaling_currents_and_delta_together_changes_no_count(reset):
    # Counts are homogeneous of degree 0 in (I, Δ), graded outputs of degree 1: Euler's identity, exactly.
    left, _ = homogeneity(reset, graded=False)
    assert abs(left) < 1e-9
    left, right = homogeneity(reset, graded=True)
    assert left == pytest.approx(right, rel=1e-12)


def test_the_identity_does_not_hold_for_detach():
    assert abs(homogeneity("detach", graded=False)[0]) > 1.0


@pytest.mark.parametrize("s_max", [1, 3, 127])
def test_burst_never_leaves_its_range(s_max):
    u = torch.tensor([-1e30, -1.0, -0.0, 0.999999, 1.0, s_max - 0.5, s_max, s_max + 0.5, 1e30], dtype=D)
    s = burst(u, s_max, relsg_et)
    assert s.tolist() == [0, 0, 0, 0, 1, s_max - 1 if s_max > 1 else 0, s_max, s_max, s_max]


def test_membrane_stays_float32_under_half_precision():
    neuron = QBLIF(s_max=4)
    x = torch.full((3, 2, 5), 0.3, dtype=torch.bfloat16)
    outputs, membranes = neuron.run(x)
    assert outputs.dtype == torch.bfloat16 and membranes.dtype == torch.float32


def test_hard_reset_by_hand():
    # λ = 1/2, threshold 1: V = 1.5 -> fires, U = 0; V = 0.9; V = 0.45 + 0.6 = 1.05 -> fires, U = 0
    o, u = LIF(reset="hard").run(torch.tensor([1.5, 0.9, 0.6]).view(3, 1))
    assert o.flatten().tolist() == [1, 0, 1]
    assert u.flatten().tolist() == pytest.approx([0, 0.9, 0])


def test_any_dense_strides_give_the_same_result():
    x = torch.randn(3, 2, 4, 5, 5) * 2
    swapped = x.permute(0, 1, 3, 4, 2).contiguous().permute(0, 1, 4, 2, 3)  # channels last in memory
    assert torch.equal(QBLIF()(x), QBLIF()(swapped))


@pytest.mark.parametrize("output", ["counts", "graded"])
def test_a_second_derivative_is_refused(output):
    current = torch.randn(2, 2, 3, requires_grad=True)
    loss = QBLIF(output=output)(current).square().sum()
    (first,) = torch.autograd.grad(loss, current, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        first.square().sum().backward()
