"""docs/mathematical_derivations.md: each equation once, every number cited in the code is there, and the code obeys."""

import math
import re
from collections import Counter

import numpy as np
import pytest
import torch

from qbsnn.deploy.convert.thresholds import power_of_two_theta
from qbsnn.deploy.engines.reference import leaked
from qbsnn.deploy.format.bounds import membrane_bound
from qbsnn.deploy.format.network import IntStage, Leak
from qbsnn.energy.budget import EnergyBudget
from qbsnn.energy.price import MODELS
from qbsnn.functional.burst import burst_step
from qbsnn.functional.fold import absorb_scale, fold_norm
from qbsnn.functional.parameters import lsq_factor
from qbsnn.functional.reset import RESETS
from qbsnn.functional.scan import scan
from qbsnn.functional.surrogate import relsg_et, straight_through
from tests.tool import ROOT

PAGE = (ROOT / "docs/mathematical_derivations.md").read_text(encoding="utf-8")
DEFINED = Counter(re.findall(r"^    \(([A-Z]\d+)\)  ", PAGE, re.MULTILINE))
CITED = r"\(([A-Z]\d{1,2})\)"


def test_each_equation_stands_there_once_and_all_that_are_cited_exist():
    assert set(DEFINED.values()) == {1}
    assert set(re.findall(CITED, PAGE)) <= set(DEFINED)
    cited = {}
    for path in sorted((ROOT / "qbsnn").rglob("*.py")):
        cited |= dict.fromkeys(re.findall(CITED, path.read_text(encoding="utf-8")), path.name)
    assert {number: name for number, name in cited.items() if number not in DEFINED} == {}
    assert {"N2", "G1", "G5", "S1", "F2", "H1", "I4", "I10", "E2", "P1"} <= set(cited)


def run(current, delta, reset="full", graded=False, s_max=3, decay=0.5):
    step = lambda u, i: burst_step(  # noqa: E731
        u, i, delta, decay=decay, s_max=s_max, surrogate=relsg_et, reset=RESETS[reset], graded=graded
    )
    outputs, states = scan(step, current, keep=True)
    return outputs, states


@pytest.fixture
def current():
    return torch.randn(4, 64, generator=torch.Generator().manual_seed(0), dtype=torch.float64) * 2 + 0.5


def test_the_sum_of_currents_is_told_up_to_the_last_membrane(current):
    """(V1), (V2)."""
    delta = torch.tensor(0.7, dtype=torch.float64)
    s, u = run(current, delta)
    weights = torch.tensor([0.5 ** (3 - t) for t in range(4)], dtype=torch.float64)[:, None]
    assert torch.allclose((weights * current).sum(0), delta * (weights * s).sum(0) + u[-1], rtol=0, atol=1e-12)
    v = u + delta * s
    inside = (v >= 0) & (v < 4 * delta)
    assert inside.any() and not inside.all() and ((u[inside] >= 0) & (u[inside] < delta)).all()


@pytest.mark.parametrize("graded", [False, True])
def test_gradients_of_one_step(current, graded):
    """(G1), (G2)."""
    v, delta = current[0].clone().requires_grad_(), torch.full((64,), 0.7, dtype=torch.float64, requires_grad=True)
    o, _ = run(v[None], delta, graded=graded)
    by_v, by_delta = torch.autograd.grad(o.sum(), (v, delta))
    u = (v / delta).detach()
    s, g = u.floor().clamp(0, 3), relsg_et(u, 3)
    wanted = (g, s - u * g) if graded else (g / 0.7, -u * g / 0.7)
    assert torch.allclose(by_v, wanted[0], rtol=1e-12) and torch.allclose(by_delta, wanted[1], rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("reset", ["detach", "detach_s", "full"])
def test_gradients_of_two_steps(reset):
    """(G4), (G5), the output of the second step as the loss."""
    current = torch.tensor([[1.1], [0.9]], dtype=torch.float64, requires_grad=True)
    delta = torch.tensor(0.7, dtype=torch.float64, requires_grad=True)
    o, _ = run(current, delta, reset)
    by_current, by_delta = torch.autograd.grad(o[1].sum(), (current, delta))
    u1 = 1.1 / 0.7
    g1, s1 = float(relsg_et(torch.tensor(u1), 3)), math.floor(u1)
    r, direct = {"detach": (1.0, 0.0), "detach_s": (1.0, -s1), "full": (1 - g1, -s1 + u1 * g1)}[reset]
    v2 = 0.5 * (1.1 - 0.7 * s1) + 0.9
    g2 = float(relsg_et(torch.tensor(v2 / 0.7), 3))
    assert by_current[:, 0].tolist() == pytest.approx([g2 / 0.7 * 0.5 * r, g2 / 0.7])
    assert float(by_delta) == pytest.approx(-v2 / 0.7 * g2 / 0.7 + g2 / 0.7 * 0.5 * direct)


@pytest.mark.parametrize("graded", [False, True])
@pytest.mark.parametrize("reset", ["detach", "detach_s", "full"])
def test_the_sum_of_eulers_theorem(current, reset, graded):
    """(G6), which does not hold for detach."""
    i, delta = current.clone().requires_grad_(), torch.tensor(0.7, dtype=torch.float64, requires_grad=True)
    o, _ = run(i, delta, reset, graded)
    up = torch.randn(o.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    by_i, by_delta = torch.autograd.grad((o * up).sum(), (i, delta))
    rest = (i * by_i).sum() + delta * by_delta - ((o * up).sum() if graded else 0)
    assert (abs(float(rest.detach())) < 1e-10) == (reset != "detach")


def test_the_clamp_of_k_makes_the_tails():
    """(S1), (S9), and what is left without the clamp: (S8)."""
    u = torch.linspace(-3, 8, 2201, dtype=torch.float64)
    g = relsg_et(u, 4, alpha=0.7)
    inside = (u >= 0.3) & (u <= 4.7)
    edge = ((u - 0.3).abs() < 1e-9) | ((u - 4.7).abs() < 1e-9)
    assert torch.equal((g == 1)[~edge], inside[~edge])
    assert float(relsg_et(torch.zeros(1, dtype=torch.float64), 4)) == pytest.approx(math.exp(-3))
    unclamped = torch.where((u - u.round()).abs() <= 0.5, 1.0, torch.exp(-3 * (u - u.round()).abs()))
    assert torch.equal(unclamped, straight_through(u, 4))
    assert lsq_factor(50, 8) == pytest.approx(0.05)  # (G7)


def test_scaling_leaves_bursts_alone(current):
    """(H1), with a power of two, for which floating point is exact."""
    delta = torch.tensor(0.7, dtype=torch.float64)
    s, u = run(current, delta)
    scaled, membranes = run(8 * current, 8 * delta)
    assert torch.equal(s, scaled) and torch.equal(8 * u, membranes) and s.sum() > 0


def test_a_shortcut_and_a_norm_are_absorbed_by_hand():
    """(F1), (F2), (F3): a current of a normalised branch and a shortcut, each with its own source, over Δ."""
    one = lambda value: torch.tensor([value], dtype=torch.float64)  # noqa: E731
    w, b, mean, var, gamma, beta = one(0.6), one(0.2), one(0.5), one(3.9), one(-1.5), one(0.3)
    c, block, delta, s, shortcut = one(0.4), one(0.9), one(0.8), 3, 2
    normalised = gamma * (w * c * s + b - mean) / math.sqrt(3.9 + 0.1) + beta
    weight, bias = absorb_scale(*fold_norm(w[:, None], b, mean, var, 0.1, gamma, beta), c, delta)
    assert float(weight * s + bias + block / delta * shortcut) == pytest.approx(
        float((normalised + block * shortcut) / delta), rel=1e-14
    )


@pytest.mark.parametrize(
    "leak", [Leak("none", 0), Leak("shift_floor", 1), Leak("shift_floor", 3), Leak("mul12_to_zero", 1365)]
)
def test_no_membrane_leaves_its_bound(leak):
    """(I4), (I10): the largest input of either sign, 200 steps: the bound is kept and nearly met."""
    largest = 37
    stage = IntStage(name="s", shape=(1,), branches=(), bias=np.zeros(1, np.int32), theta=np.full(1, 2**20, np.int32),
                     s_max=1, leak=leak)  # fmt: skip
    bound = membrane_bound(stage, largest, 200)
    v, most = np.zeros(2, np.int64), 0
    for _ in range(200):
        v = leaked(leak, v) + np.array([largest, -largest])
        most = max(most, int(np.abs(v).max()))
    n, formula = leak.amount, largest * 200
    if leak.kind == "shift_floor":
        formula = min(formula, largest * 2**n + 2**n - 1)
    elif leak.kind == "mul12_to_zero":
        formula = min(formula, largest * 4096 // n)
    met = {"none": bound, "shift_floor": largest * 2**n, "mul12_to_zero": 0.95 * bound}[leak.kind]
    assert bound == formula and met <= most <= bound


def test_thresholds_prices_and_the_target_of_a_budget():
    """(I1), (E3), (E4), (P2)."""
    k = math.floor(math.log2(127 / 0.9))
    assert power_of_two_theta(np.array([0.9])).tolist() == [2**k] and 0.9 * 2**k <= 127 < 0.9 * 2 ** (k + 1)
    fp32, integer = MODELS["fp32"], MODELS["int"]
    assert fp32.mac(None) / fp32.add == pytest.approx(5.11, abs=0.005) and integer.mac(
        None
    ) / integer.add == pytest.approx(3)
    assert fp32.mac(6) == pytest.approx(3.7 * 6 / 24 + 0.9)
    budget = EnergyBudget(target=0.15, begin=0.2, end=0.6)
    budget.start = 0.9
    for progress in (0.2, 0.3, 0.5, 0.6, 1.0):
        part = min(max((progress - 0.2) / 0.4, 0), 1)
        assert budget.allowed(progress) == pytest.approx(0.9 * (0.15 / 0.9) ** part)


def test_the_gradient_of_the_budget():
    """(P1), (P3): a linear layer with 5 outputs reads 3 neurons of 2 images; E is 0.9·5·Σs/2 over 4.6·15."""
    from qbsnn.energy.budget import _above

    s = torch.tensor([[1.0, 0, 2], [3, 1, 0]], dtype=torch.float64, requires_grad=True)
    spent = 0.9 * 5 * s.sum() / 2 / (4.6 * 15)
    (found,) = torch.autograd.grad(3.0 * _above(spent, spent.detach(), 0.15), s)
    excess = float(spent.detach()) / 0.15 - 1
    assert excess > 0
    assert found.flatten().tolist() == pytest.approx([2 * 3.0 * excess / 0.15 * 0.9 * 5 / (4.6 * 15 * 2)] * 6)
