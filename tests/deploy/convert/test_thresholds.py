"""The grid of a layer: searched thresholds, weights that lie on a grid already, leaks."""

import math
from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from qbsnn.deploy.convert.absorb import absorb
from qbsnn.deploy.convert.calibration import branch_inputs
from qbsnn.deploy.convert.plan import leak_of, make_plan
from qbsnn.deploy.convert.quantize import quantize
from qbsnn.deploy.convert.settings import DeploySettings
from qbsnn.deploy.convert.thresholds import (
    Grid,
    candidates,
    on_grid,
    power_of_two_theta,
    rounded,
    search,
    search_scale,
)
from qbsnn.deploy.engines.reference import run
from qbsnn.deploy.format.network import Leak
from qbsnn.errors import DeployError, SettingsError
from qbsnn.neurons import QATQBLIF, QBLIF
from tests.deploy.spiking import batches, make


def weight_error(weight, theta, q_max):
    q = [max(-q_max, min(q_max, round(float(w) * theta))) for w in weight]
    return sum((a / theta - float(w)) ** 2 for a, w in zip(q, weight, strict=True))


@pytest.mark.parametrize("bits", [2, 3, 4])
def test_search_finds_the_best_of_all_integers(bits):
    """Against a plain loop over every integer of the range."""
    rng = np.random.default_rng(bits)
    q_max = 2 ** (bits - 1) - 1
    weight = rng.normal(0, 0.3, (6, 20))
    found = search([weight], np.zeros(6), q_max, 2**15)
    for row, theta in zip(weight, found.theta, strict=True):
        finest = q_max / abs(row).max()
        every = range(max(1, math.floor(finest / 4)), math.ceil(finest * 4) + 1)
        assert len(every) <= 64
        assert weight_error(row, int(theta), q_max) == pytest.approx(
            min(weight_error(row, t, q_max) for t in every), rel=1e-12
        )


def test_search_minimises_the_error_of_the_current_on_the_inputs_it_is_given():
    """Only the first input is ever active, so only its weight matters; then the bias does."""
    weight = np.array([[0.3, 0.77, -0.1]])
    active = np.array([[[4.0, 0.0, 0.0], [8.0, 0.0, 0.0]]])
    theta = int(search([weight], np.zeros(1), 7, 2**15, [active]).theta[0])
    assert rounded(weight, np.array([theta / 1.0]), 7)[0, 0] / theta == 0.3
    other = int(search([weight], np.zeros(1), 7, 2**15).theta[0])
    assert rounded(weight, np.array([other / 1.0]), 7)[0, 0] / other != 0.3
    silent = np.zeros((1, 2, 3))
    theta = int(search([weight], np.array([1 / 7]), 7, 2**15, [silent]).theta[0])
    assert theta % 7 == 0


def test_branches_share_a_threshold_and_their_errors_add_up():
    rng = np.random.default_rng(0)
    first, second = rng.normal(0, 0.2, (3, 4, 3, 3)), rng.normal(0, 0.2, (3, 2))
    together = search([first, second], np.zeros(3), 3, 2**15)
    joined = search([np.concatenate([first.reshape(3, -1), second], 1)], np.zeros(3), 3, 2**15)
    assert np.array_equal(together.theta, joined.theta)
    x, y = rng.integers(0, 5, (1, 30, 36)).astype(float), rng.integers(0, 5, (1, 30, 2)).astype(float)
    together = search([first, second], np.zeros(3), 3, 2**15, [x, y])
    joined = search(
        [np.concatenate([first.reshape(3, -1), second], 1)], np.zeros(3), 3, 2**15, [np.concatenate([x, y], 2)]
    )
    assert np.array_equal(together.theta, joined.theta)


def test_candidates_are_integers_of_the_range_within_the_limit():
    found = candidates(np.array([0.5, 1e-4, 300.0, 0.0]), 127, 1000)
    assert found.min() >= 1 and found.max() <= 1000
    assert {63, 1000} <= set(found[0].tolist()) and set(found[2].tolist()) <= {1, 2}
    small = candidates(np.array([0.5]), 1, 1000)[0]
    assert set(small.tolist()) == set(range(1, 9))


@settings(max_examples=200, deadline=None, derandomize=True)
@given(
    bits=st.sampled_from([2, 4, 8]),
    trained=st.sampled_from([2, 4, 8]),
    largest=st.floats(0.02, 1.0),
    seed=st.integers(0, 2**32 - 1),
)
def test_weights_on_a_grid_come_out_on_it(bits, trained, largest, seed):
    """Integers times a step, at most as wide as the format, in float32 as absorption leaves them: q = m·n, exactly.

    The largest weight is at most one threshold: where θ is far from 1/step, another grid may be nearer.
    """
    q_max = 2 ** (min(bits, trained) - 1) - 1
    step = largest / q_max
    rng = np.random.default_rng(seed)
    n = rng.integers(-q_max, q_max + 1, (5, 40))
    n[:, 0] = q_max
    n[:, 1] = 1
    weight = (np.float32(step) * n.astype(np.float32)).astype(np.float64)
    found = search([weight], np.zeros(5), 2 ** (bits - 1) - 1, 2**15)
    q = rounded(weight, found.unit, 2 ** (bits - 1) - 1)
    m = q[:, 1]
    assert (m >= 1).all() and np.array_equal(q, m[:, None] * n)
    # θ is an integer next to m/step
    assert np.abs(found.theta - np.maximum(m / step, 1)).max() <= 1 + 1e-3 * (m / step).max()


@pytest.mark.parametrize("calibrated", [False, True])
def test_a_grid_that_thresholds_are_too_coarse_for_is_not_kept(calibrated):
    """Weights 0.7·n, |n| ≤ 7: q = n asks for θ = 1/0.7, and with θ = 1 every current is 1.4 times too large."""
    rng = np.random.default_rng(0)
    weight = 0.7 * np.concatenate([[[7, 1]] * 4, rng.integers(-7, 8, (4, 62))], axis=1)
    x = rng.integers(0, 3, (256, 64)).astype(float)
    seen = x if calibrated else np.eye(64)
    found = search([weight], np.zeros(4), 7, 2**15, [x[None]] if calibrated else None)
    for row, theta, unit in zip(weight, found.theta, found.unit, strict=True):

        def error(theta, unit, row=row):
            q = np.array([max(-7, min(7, round(float(w) * unit))) for w in row])
            return np.square(seen @ (q / theta - row)).sum()

        assert error(theta, unit) == pytest.approx(min(error(t, t) for t in range(1, 8)))
        assert error(1, 1 / 0.7) > 4 * error(theta, unit)


def test_a_coarser_grid_uses_the_multiple_that_fits_theta_best():
    # step 0.3: 1/0.3 = 3.33, 2/0.3 = 6.67, 3/0.3 = 10 exactly, and 6/0.3 = 20
    weight = 0.3 * np.array([[1.0, -2.0, 3.0]])
    found = search([weight], np.zeros(1), 127, 2**15)
    m = rounded(weight, found.unit, 127)[0, 0]
    assert m % 3 == 0 and found.theta[0] * 0.3 == pytest.approx(m)


def test_random_weights_are_no_grid():
    weight = np.random.default_rng(0).normal(0, 0.2, (200, 50))
    otherwise = power_of_two_theta(np.abs(weight).max(1))
    kept = on_grid(weight, Grid(otherwise, otherwise.astype(float)), 127, 2**15)
    assert np.array_equal(kept.theta, otherwise)


def test_a_readout_on_a_grid_keeps_it_and_another_is_no_worse_than_unclipped():
    rng = np.random.default_rng(1)
    n = rng.integers(-7, 8, (10, 30))
    n[0, :2] = 7, 1
    scale = search_scale(0.037 * n, np.zeros(10), 7)
    assert np.array_equal(np.rint(0.037 * n * scale), n)
    weight = rng.normal(0, 1, (10, 30))
    for bits in (2, 4, 8):
        q_max = 2 ** (bits - 1) - 1

        def error(scale, q_max=q_max):
            return np.square(np.clip(np.rint(weight * scale), -q_max, q_max) / scale - weight).sum()

        assert error(search_scale(weight, np.zeros(10), q_max)) <= error(q_max / np.abs(weight).max())


@pytest.mark.parametrize("family", ["mlp", "vgg9-avg", "resnet20"])
def test_sampled_inputs_give_entries_of_the_current(family):
    """The columns times the weights, plus the bias, are currents that the layer itself computes."""
    network = absorb(make(family, QBLIF))
    pixels = batches(network)[0][0]
    inputs = branch_inputs(network, pixels)
    checked = 0

    def visit(name, stage, values):
        nonlocal checked
        current = stage.current(values, network.T)
        if all(branch.weight is not None for branch in stage.parts):
            expected = np.sort(current[:, :, 0].flatten().double().numpy())
            sums = [
                x[0] @ b.weight.weight[0].double().flatten().numpy() + float(b.weight.bias[0])
                for x, b in zip(inputs[name], stage.parts, strict=True)
            ]
            sampled = np.sum(sums, axis=0)
            nearest = expected[np.clip(np.searchsorted(expected, sampled), 1, len(expected) - 1) - [[0], [1]]]
            assert np.abs(nearest - sampled).min(0).max() < 1e-4
            assert len(set(sampled.round(4).tolist())) > 5
            checked += 1
        return current if stage.neuron is None else stage.emit(stage.neuron(current))

    with torch.no_grad():
        network.walk(network.encoder(pixels), visit)
    assert checked >= 3


def test_calibration_lowers_the_error_of_the_logits():
    network = make("vgg5-max", QBLIF)
    absorbed = absorb(network)
    pixels = torch.cat([x for x, _ in batches(network, 64)])
    with torch.no_grad():
        true = absorbed(pixels).mean(0)
    errors = []
    for calibration in (None, pixels):
        found = quantize(absorbed, DeploySettings(bits=3, theta="integer"), calibration)
        logits = torch.from_numpy(run(found.net, found.current(pixels)).logits) / (found.plan.scale * absorbed.T)
        errors.append(float(F.mse_loss(logits, true.double())))
    assert errors[1] < errors[0]


TAUS = {
    ("auto", 1.0): Leak("shift_floor", 0),
    ("auto", 2.0): Leak("shift_floor", 1),
    ("auto", 64.0): Leak("shift_floor", 6),
    ("auto", 3.0): Leak("mul12_to_zero", 1365),
    ("auto", 1.7): Leak("mul12_to_zero", 2409),
    ("auto", math.inf): Leak("none", 0),
    ("none", math.inf): Leak("none", 0),
    ("shift_xylo", 4.0): Leak("shift_xylo", 2),
    ("mul12_to_zero", 4.0): Leak("mul12_to_zero", 1024),
    ("shift_floor", math.inf): Leak("none", 0),
}


@pytest.mark.parametrize(("kind", "tau"), TAUS)
def test_leaks_follow_from_tau(kind, tau):
    assert leak_of("x", 1 - 1 / tau, 4, kind) == TAUS[kind, tau]


def test_a_single_step_leaks_nothing():
    assert leak_of("x", 0.5, 1, "none") == Leak("none", 0)


@pytest.mark.parametrize(
    ("kind", "words"), [("shift_xylo", "leak=shift_xylo .* power of two"), ("none", "leak=none has no leak")]
)
def test_leaks_that_tau_does_not_have_are_refused(kind, words):
    with pytest.raises(DeployError, match=f"conv3: .*{words}"):
        leak_of("conv3", 1 - 1 / 3, 4, kind)


@pytest.mark.parametrize(
    "fields",
    [
        {"bits": 1},
        {"bits": 9},
        {"theta": "any"},
        {"leak": "half"},
        {"membrane_bits": 33},
        {"overflow": "clip"},
        {"profile": "tpu"},
    ],
)
def test_bad_settings_are_named(fields):
    ((key, value),) = fields.items()
    with pytest.raises(SettingsError, match=rf"{key} must be .*got {value!r}"):
        DeploySettings(**fields)


@pytest.mark.parametrize("theta", ["pow2", "integer"])
@pytest.mark.parametrize("bits", [2, 4, 8])
def test_weights_fit_their_bits_and_thresholds_their_membrane(bits, theta):
    network = absorb(make("resnet20", QBLIF))
    for membrane_bits in (10, 16, 32):
        found = quantize(network, DeploySettings(bits=bits, theta=theta, membrane_bits=membrane_bits, overflow="wrap"))
        weights = [b.weight for s in found.net.stages for b in s.branches if b.weight is not None]
        weights.append(found.net.readout.branch.weight)
        assert max(int(np.abs(w.astype(int)).max()) for w in weights) <= 2 ** (bits - 1) - 1
        for stage in found.net.stages:
            assert 2 * int(stage.theta.max()) * (stage.s_max + 1) <= 2 ** (membrane_bits - 1)
            assert theta != "pow2" or np.array_equal(2 ** np.log2(stage.theta).astype(int), stage.theta)


def test_a_network_whose_sums_may_leave_32_bits_is_refused():
    network = absorb(make("mlp", QBLIF))
    network.stages["fc2"].parts[0].weight.bias.data.fill_(2.0**31 / 2**15)
    network.stages["fc2"].parts[0].weight.weight.data.mul_(1e-4)
    with pytest.raises(DeployError, match=r"fc2: (bias does not fit int32|a sum may reach)"):
        quantize(network)


def test_first_layer_keeps_the_grid_of_eight_bits():
    network = absorb(make("mlp", QBLIF))
    plans = [make_plan(network, DeploySettings(bits=bits, theta="integer")) for bits in (2, 8)]
    assert np.array_equal(plans[0].grids["fc1"].theta, plans[1].grids["fc1"].theta)


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("family", ["mlp", "vgg5-max"])
def test_a_network_trained_on_a_grid_is_converted_to_that_grid(family, bits):
    """Weights quantised to 4 bits in training, norms of both signs and Δ folded in: ±m times the trained integers."""
    network = make(family, partial(QATQBLIF, num_bits=4))
    found = quantize(absorb(network), DeploySettings(bits=bits, theta="integer"))
    assert sum(found.clipped.values()) == 0
    trained = {name: stage.parts[0].weight.weight.detach().numpy() for name, stage in network.named_stages()}
    layers = [(stage.name, stage.branches[0].weight) for stage in found.net.stages[1:]]
    for name, q in [*layers, ("readout", found.net.readout.branch.weight)]:
        w, q = trained[name].reshape(len(q), -1), q.reshape(len(q), -1).astype(int)
        top = np.abs(w).max(axis=None if name == "readout" else 1, keepdims=True)
        n = np.rint(w / (top / 7)).astype(int)
        assert np.abs(w - n * top / 7).max() < 1e-6 and len(np.unique(n)) > 8
        at = np.abs(n).argmax(1)
        m = q[np.arange(len(q)), at] // n[np.arange(len(q)), at]
        assert (np.abs(m) >= 1).all() and np.array_equal(q, m[:, None] * n), name
