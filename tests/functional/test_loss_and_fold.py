"""Losses by hand, folding against torch's own batch norm in float64."""

import math

import pytest
import torch
from torch import nn

from qbsnn.functional import absorb_scale, decided_cross_entropy, fold_norm, tet
from qbsnn.layers import TDBatchNorm, affine


def test_cross_entropy_is_of_the_mean_logits():
    # Two steps whose mean is (1, 0): −log(e / (e + 1)).
    logits = torch.tensor([[[3.0, -1.0]], [[-1.0, 1.0]]])
    assert decided_cross_entropy(logits, torch.tensor([0])).item() == pytest.approx(math.log1p(math.exp(-1)), rel=1e-6)


def test_tet_by_hand():
    # CE of the steps: log(1 + e^−2) for (2, 0) and log(2) for (0, 0); MSE to 1: (1 + 1)/2 and (1 + 1)/2.
    logits = torch.tensor([[[2.0, 0.0]], [[0.0, 0.0]]])
    each = (math.log1p(math.exp(-2)) + math.log(2)) / 2
    assert tet(logits, torch.tensor([0]), lam=0.1).item() == pytest.approx(0.9 * each + 0.1 * 1.0, rel=1e-6)
    assert tet(logits, torch.tensor([0]), lam=0.0).item() == pytest.approx(each, rel=1e-6)


def test_losses_agree_where_all_steps_are_equal():
    logits, target = torch.randn(1, 6, 4).expand(3, 6, 4), torch.randint(0, 4, (6,))
    assert torch.allclose(tet(logits, target, lam=0.0), decided_cross_entropy(logits, target))


def lively(norm):
    norm.double().eval()
    nn.init.uniform_(norm.weight, -2, 2)
    nn.init.uniform_(norm.bias, -1, 1)
    norm.running_mean.uniform_(-1, 1)
    norm.running_var.uniform_(0.2, 3)
    return norm


@pytest.mark.parametrize("norm", [nn.BatchNorm2d(5), TDBatchNorm(5, v_th=0.6, fan_in=2)])
@pytest.mark.parametrize("bias", [True, False])
def test_folded_convolution_equals_convolution_then_norm(norm, bias):
    conv, norm = nn.Conv2d(3, 5, 3, padding=1, bias=bias).double(), lively(norm)
    x = torch.randn(4, 3, 6, 6, dtype=torch.float64)
    b = conv.bias if bias else torch.zeros(5, dtype=torch.float64)
    with torch.no_grad():
        weight, shift = fold_norm(conv.weight, b, *affine(norm))
        folded = nn.functional.conv2d(x, weight, shift, padding=1)
        assert torch.allclose(folded, norm(conv(x)), rtol=1e-12, atol=1e-12)


def test_absorption_of_a_layer_by_hand():
    weight, bias = torch.tensor([[2.0, -4.0], [1.0, 3.0]]), torch.tensor([1.0, -2.0])
    w, b = absorb_scale(weight, bias, torch.tensor(0.5), torch.tensor(4.0))
    assert w.tolist() == [[0.25, -0.5], [0.125, 0.375]] and b.tolist() == [0.25, -0.5]
    w, b = absorb_scale(weight, bias, torch.tensor(1.0), torch.tensor([2.0, 4.0]))  # one Δ per output channel
    assert w.tolist() == [[1.0, -2.0], [0.25, 0.75]] and b.tolist() == [0.5, -0.5]
