"""How networks and traces of two engines are compared, and the changed weight that every comparison must notice."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from qbsnn.deploy.engines.reference import pool
from qbsnn.deploy.format.network import IntBranch, IntegerNetwork, Trace
from qbsnn.deploy.format.seal import digest


def compare(a: Trace, b: Trace) -> int:
    """Number of spikes, membranes, logits, and steps and classes of early exit, in which two traces differ."""
    pairs = [*zip(a.spikes, b.spikes, strict=True), *zip(a.membranes, b.membranes, strict=True), (a.logits, b.logits)]
    return sum(differences(x, y) for x, y in pairs) + exit_differences(a, b)


def exit_differences(a: Trace, b: Trace) -> int:
    """Number of steps and classes of early exit in which two traces differ; 0 without an exit margin."""
    if a.exits is None and b.exits is None:
        return 0
    if a.exits is None or b.exits is None:
        raise ValueError("only one of the engines says when a sample leaves")
    return differences(a.exits, b.exits)


def same_overflows(a: Trace, b: Trace) -> bool:
    """Whether two engines report equally many overflows and the same first one."""
    return a.overflows == b.overflows and a.first_overflow == b.first_overflow


def flip_weight(net: IntegerNetwork, trace: Trace) -> IntegerNetwork:
    """The network with one weight changed by one unit: in the last layer of weights, from its busiest input.

    That a comparison notices this small change shows that it can notice anything at all. The weight leads to the
    neuron that fires least, because a hard reset wipes out what reached a neuron that fires.
    """
    for i in reversed(range(len(net.stages))):
        stage = net.stages[i]
        for j, branch in enumerate(stage.branches):
            if branch.weight is not None:
                flipped = _flip(branch, _arriving(net, trace, branch), int(_per_channel(trace.spikes[i]).argmin()))
                branches = (*stage.branches[:j], flipped, *stage.branches[j + 1 :])
                stages = (*net.stages[:i], replace(stage, branches=branches), *net.stages[i + 1 :])
                return replace(net, stages=stages)
    flipped = _flip(net.readout.branch, _arriving(net, trace, net.readout.branch), 0)
    return replace(net, readout=replace(net.readout, branch=flipped))


def _arriving(net: IntegerNetwork, trace: Trace, branch: IntBranch) -> NDArray[np.int64]:
    """The size of what reaches a branch, ``[T, B, C, ...]``: the spikes of its source, pooled."""
    spikes, spec = trace.spikes[branch.source].astype(np.int64), net.stages[branch.source].pool
    return np.abs(spikes if spec is None else pool(spec, spikes))


def _flip(branch: IntBranch, source: NDArray[np.int64], row: int) -> IntBranch:
    """Change the weight from the busiest input of ``source [T, B, C, ...]`` to output ``row``."""
    assert branch.weight is not None
    weight = branch.weight.copy()
    if branch.kind == "conv":
        group, inputs = row // (len(weight) // branch.groups), weight.shape[1]
        channel = int(_per_channel(source)[group * inputs : (group + 1) * inputs].argmax())
        where: tuple[int, ...] = (row, channel, weight.shape[2] // 2, weight.shape[3] // 2)
    else:
        where = (row, int(source.reshape(*source.shape[:2], -1).sum((0, 1)).argmax()))
    weight[where] += -1 if weight[where] == 127 else 1
    return replace(branch, weight=weight)


def _per_channel(spikes: NDArray[np.integer]) -> NDArray[np.int64]:
    """Spikes ``[T, B, C, ...]`` summed to ``[C]``."""
    return np.abs(spikes.astype(np.int64)).reshape(*spikes.shape[:3], -1).sum((0, 1, 3))


def differences(a: NDArray[Any], b: NDArray[Any]) -> int:
    """Number of positions in which two arrays of integers differ, whatever their types."""
    if a.shape != b.shape:
        raise ValueError(f"engines returned different shapes: {a.shape} and {b.shape}")
    return int(np.count_nonzero(a != b))


def identical(a: Any, b: Any) -> bool:
    """Whether two networks, or parts of them, are equal in every field, array element and dtype."""
    return digest(a) == digest(b)
