"""What a datapath has to do for a network of QB-INT 1: where it multiplies, whom a spike reaches, what weights take.

A burst and its reset are one loop of at most s_max rounds: while V ≥ θ, count a spike and subtract θ; nothing is
divided or multiplied. Where θ is a power of two, ⌊V/θ⌋ may be a shift instead. An accumulate adds a weight once per
spike, so a burst of s costs s of them; a shortcut constant m is added s times likewise.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from qbsnn.deploy.format.network import IntBranch, IntegerNetwork


def multiplying_stages(net: IntegerNetwork) -> list[str]:
    """Names of the stages whose integer operations include a product: those that leak by one."""
    return [stage.name for stage in net.stages if stage.leak.kind == "mul12_to_zero"]


def axis_fanout(size: int, kernel: int, stride: int, padding: int, dilation: int, outputs: int) -> NDArray[np.int64]:
    """Of each of ``size`` positions along one axis, how many (output, tap) pairs read it: int64 ``[size]``.

    Output o reads the positions o·stride − padding + k·dilation, k = 0..kernel − 1; those outside are padding.

    >>> axis_fanout(4, kernel=3, stride=1, padding=1, dilation=1, outputs=4).tolist()
    [2, 3, 3, 2]
    >>> axis_fanout(5, kernel=3, stride=2, padding=0, dilation=1, outputs=2).tolist()
    [1, 1, 2, 1, 1]
    """
    read = np.arange(outputs)[:, None] * stride - padding + np.arange(kernel) * dilation
    return np.bincount(read[(read >= 0) & (read < size)], minlength=size).astype(np.int64)


def branch_fanout(branch: IntBranch, source: tuple[int, ...]) -> NDArray[np.int64]:
    """Weights that one spike at a position of a source ``[C, H, W]`` or ``[C]`` meets: int64 ``[H, W]`` or a scalar."""
    assert branch.weight is not None
    if branch.kind == "linear":
        return np.full(source[1:], len(branch.weight), np.int64)
    axes = zip(source[1:], branch.weight.shape[2:], branch.stride, branch.padding, strict=True)
    rows, columns = (axis_fanout(n, k, d, p, 1, (n + 2 * p - k) // d + 1) for n, k, d, p in axes)
    return rows[:, None] * columns * (len(branch.weight) // branch.groups)


def weight_bytes(net: IntegerNetwork, bits: int) -> int:
    """Bytes of all weights behind the analog first layer, the readout's included, packed at ``bits`` each."""
    branches = [branch for stage in net.stages for branch in stage.branches] + [net.readout.branch]
    return -(-bits * sum(branch.weight.size for branch in branches if branch.weight is not None) // 8)
