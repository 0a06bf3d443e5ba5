"""Bursts that are kept as bytes come back as they were."""

import pytest
import torch

from qbsnn.kernels.packing import SMALLEST, PackedBursts


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_graded_bursts_are_rounded_once(dtype):
    unit = torch.tensor(0.37)
    output = (unit * torch.arange(SMALLEST).remainder(9).float()).to(dtype)
    bursts = PackedBursts()
    bursts.note(output, unit)
    with bursts.active():
        factor = torch.ones(SMALLEST, dtype=dtype, requires_grad=True)
        (factor * output).sum().backward()
    assert torch.equal(factor.grad, output)  # which the product kept for this
