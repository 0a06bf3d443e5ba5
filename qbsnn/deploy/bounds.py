"""Static ranges of the integer network: what no input can exceed, and the bits that needs."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from qbsnn.deploy.integer import INPUT, IntBranch, IntegerNetwork
from qbsnn.deploy.quantize import Quantized


@dataclass(frozen=True)
class Bound:
    """Largest absolute accumulator A and membrane V of a stage (``membrane`` is 0 for the readout)."""

    accumulator: int
    membrane: int

    @property
    def accumulator_bits(self) -> int:
        """Width of a two's complement register that holds ±A."""
        return bits(self.accumulator)

    @property
    def membrane_bits(self) -> int:
        """Width of a two's complement register that holds ±V."""
        return bits(self.membrane)


def bits(largest: int) -> int:
    """Bits of a signed integer that holds −largest..largest.

    >>> bits(127), bits(128), bits(0)
    (8, 9, 1)
    """
    return int(largest).bit_length() + 1


def largest_output(net: IntegerNetwork, source: int) -> int:
    """a_max: the largest value that leaves a stage, after its pool."""
    stage = net.stages[source]
    pool = stage.pool
    return stage.s_max * (pool.kernel[0] * pool.kernel[1] if pool is not None and pool.kind == "sum" else 1)


def bounds(quantized: Quantized) -> list[Bound]:
    """One bound per stage, then one for the readout, whose accumulator runs over all T steps.

    A = max(Σq⁺·a_max + b⁺ + m·a_src, |Σq⁻·a_max + b⁻|); with shift leak |V| ≤ A·2ⁿ + 2ⁿ − 1, without leak A·T.
    """
    net = quantized.net
    result = []
    for stage in net.stages:
        high = np.maximum(stage.bias, 0).astype(np.int64)
        low = np.minimum(stage.bias, 0).astype(np.int64)
        for branch in stage.branches:
            below, above = quantized.current_bounds if branch.source == INPUT else _range(net, branch)
            high, low = high + np.maximum(above, 0), low + np.minimum(below, 0)
        total = int(max(high.max(), -low.min()))
        n = stage.leak_shift
        result.append(Bound(total, total * net.T if n is None else total * 2**n + 2**n - 1))
    below, above = _range(net, net.readout.branch)
    bias = net.readout.bias.astype(np.int64)
    result.append(Bound(int(max((above + bias).max(), -(below + bias).min(), 0)) * net.T, 0))
    return result


def _range(net: IntegerNetwork, branch: IntBranch) -> tuple[np.ndarray, np.ndarray]:
    a_max = largest_output(net, branch.source)
    if branch.scale is not None:
        m = branch.scale.astype(np.int64) * a_max
        return np.minimum(m, 0), np.maximum(m, 0)
    assert branch.weight is not None
    q = branch.weight.reshape(len(branch.weight), -1).astype(np.int64)
    return np.minimum(q, 0).sum(1) * a_max, np.maximum(q, 0).sum(1) * a_max
