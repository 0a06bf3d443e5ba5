"""What early exit of an integer network gives: accuracy, steps and accumulates, counted exactly."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from qbsnn.deploy.engines.reference import pool
from qbsnn.deploy.format.network import IntegerNetwork, Trace
from qbsnn.deploy.format.operations import branch_fanout
from qbsnn.deploy.format.validation import check
from qbsnn.results.exit_schema import EarlyExit


def accumulates(net: IntegerNetwork, trace: Trace) -> NDArray[np.int64]:
    """Accumulates of every step and sample behind the first layer, ``[T, B]``; a burst of s counts s times."""
    shapes = check(net)
    branches = [branch for stage in net.stages for branch in stage.branches] + [net.readout.branch]
    total = np.zeros(trace.spikes[0].shape[:2], np.int64)
    for index, (stage, shape) in enumerate(zip(net.stages, shapes, strict=True)):
        fans = [branch_fanout(b, shape) for b in branches if b.source == index and b.weight is not None]
        if fans:
            spikes = trace.spikes[index].astype(np.int64)
            read = np.abs(spikes if stage.pool is None else pool(stage.pool, spikes))
            total += (read.sum(2) * sum(fans)).reshape(*total.shape, -1).sum(2)
    return total


def count(block: EarlyExit, net: IntegerNetwork, trace: Trace, labels: NDArray[np.integer]) -> None:
    """Add a batch to a block of the result; ``labels`` ``[B]``."""
    assert trace.exits is not None
    steps, classes = trace.exits
    block.add(steps.tolist(), (classes == labels).tolist(), (trace.logits.argmax(1) == labels).tolist())
    spent = accumulates(net, trace).cumsum(0)
    block.acs += int(spent[steps - 1, np.arange(len(steps))].sum())
    block.acs_whole += int(spent[-1].sum())
