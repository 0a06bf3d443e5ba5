"""Bursts that are kept as bytes come back as they were."""

import pytest
import torch

from qbsnn.kernels.packing import SMALLEST, PackedBursts


@pytest.mark.parametrize(
    ("dtype", "of_unit"),
    [
        (torch.float32, torch.float32),
        (torch.bfloat16, torch.float32),
        (torch.float64, torch.float32),
        (torch.float64, torch.float64),
    ],
)
def test_graded_bursts_are_rounded_once(dtype, of_unit):
    unit = torch.tensor(0.37, dtype=of_unit)
    output = (unit * torch.arange(SMALLEST).remainder(9).to(of_unit)).to(dtype)
    bursts = PackedBursts()
    bursts.note(output, unit)
    with bursts.active():
        factor = torch.ones(SMALLEST, dtype=dtype, requires_grad=True)
        (factor * output).sum().backward()
    assert torch.equal(factor.grad, output)  # which the product kept for this
