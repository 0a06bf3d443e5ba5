"""Static ranges of the integer network, (I9) and (I10): what no input can exceed, and the bits that needs."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from qbsnn.deploy.format.network import INPUT, IntBranch, IntegerNetwork, IntStage


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


def output_range(net: IntegerNetwork, source: int) -> tuple[int, int]:
    """(a_min, a_max): the smallest and the largest value that leave a stage, after its pool; |a_min| ≤ a_max."""
    stage = net.stages[source]
    pool = stage.pool
    positions = pool.kernel[0] * pool.kernel[1] if pool is not None and pool.kind == "sum" else 1
    return stage.s_min * positions, stage.s_max * positions


def membrane_bound(stage: IntStage, accumulator: int, steps: int) -> int:
    """Largest |V|, before and after the reset, in ``steps`` steps whose sums are at most A, in a register wide enough.

    Without leak A·T. No leak grows |V|, so that holds for all; shift leaks also have the fixed point A·2ⁿ + 2ⁿ − 1 of
    M = M·(1 − 2⁻ⁿ) + (1 − 2⁻ⁿ) + A, and mul12 ⌊A·4096/d⌋ that of M = M·(1 − d/4096) + A. A reset lowers |V|, but for
    one: a signed soft reset with ``floor`` takes V = −1 to θ − 1, of which the leak leaves a part to the next step.
    """
    kind, n = stage.leak.kind, stage.leak.amount
    jump = int(stage.theta.max()) - 1 if stage.s_min < 0 and stage.rounding == "floor" else 0
    bound = max(accumulator, jump) + (steps - 1) * accumulator
    if kind in ("shift_floor", "shift_xylo"):
        return min(bound, max(accumulator * 2**n + 2**n - 1, jump - (jump >> n) + accumulator, jump))
    if kind == "mul12_to_zero" and n > 0:
        return min(bound, max(accumulator * 4096 // n, jump * (4096 - n) // 4096 + accumulator, jump))
    return bound


def bounds(net: IntegerNetwork, current: tuple[NDArray[np.int64], NDArray[np.int64]]) -> list[Bound]:
    """One bound per stage, then one for the readout, whose accumulator runs over all T steps.

    current: the smallest and the largest input current J of a channel, int64 ``[O]`` each.

    A = max(Σ q⁺·a_max + q⁻·a_min + b⁺ + ..., |Σ q⁻·a_max + q⁺·a_min + b⁻ + ...|), which no partial sum exceeds.
    """
    result = []
    for stage in net.stages:
        high = np.maximum(stage.bias, 0).astype(np.int64)
        low = np.minimum(stage.bias, 0).astype(np.int64)
        for branch in stage.branches:
            below, above = current if branch.source == INPUT else _range(net, branch)
            high, low = high + np.maximum(above, 0), low + np.minimum(below, 0)
        total = int(max(high.max(), -low.min()))
        result.append(Bound(total, membrane_bound(stage, total, net.T)))
    below, above = _range(net, net.readout.branch)
    high, low = above + np.maximum(net.readout.bias, 0), below + np.minimum(net.readout.bias, 0)
    result.append(Bound(int(max(high.max(), -low.min())) * net.T, 0))
    return result


def _range(net: IntegerNetwork, branch: IntBranch) -> tuple[np.ndarray, np.ndarray]:
    """Smallest and largest contribution of a branch per output channel (int64 ``[O]``)."""
    a_min, a_max = output_range(net, branch.source)
    if branch.scale is not None:
        ends = np.stack([branch.scale.astype(np.int64) * a for a in (a_min, a_max)])
        return ends.min(0), ends.max(0)
    assert branch.weight is not None
    q = branch.weight.reshape(len(branch.weight), -1).astype(np.int64)
    positive, negative = np.maximum(q, 0).sum(1), np.minimum(q, 0).sum(1)
    return negative * a_max + positive * a_min, positive * a_max + negative * a_min
