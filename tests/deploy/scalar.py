"""QB-INT 1 in plain Python integers and loops, one sample, step, neuron and synapse at a time: the oracle of the tests.

Nothing here is merged, vectorised or shared with another engine; it is only fit for tiny networks.
"""

from itertools import product

import numpy as np
from numpy.typing import NDArray

from qbsnn.deploy.integer import IntBranch, IntegerNetwork, IntPool, IntStage, Trace


def run(net: IntegerNetwork, current: NDArray[np.int32]) -> Trace:
    """Same contract as ``qbsnn.deploy.reference.run``."""
    samples = current.shape[1]
    spikes = [np.zeros((net.T, samples, *stage.shape), np.int64) for stage in net.stages]
    membranes = [np.zeros_like(array) for array in spikes]
    logits = np.zeros((samples, len(net.readout.bias)), np.int64)
    overflows = 0
    for sample in range(samples):
        states = [dict.fromkeys(positions(stage.shape), 0) for stage in net.stages]
        totals = [0] * len(net.readout.bias)
        for t in range(net.T):
            injected = current[0 if len(current) == 1 else t, sample]
            outputs: list[dict[tuple[int, ...], int]] = []
            for k, stage in enumerate(net.stages):
                bursts = {}
                for at in positions(stage.shape):
                    drive = int(stage.bias[at[0]])
                    for branch in stage.branches:
                        drive += int(injected[at]) if branch.kind == "input" else synapses(branch, outputs, at)
                    s, v, overflow = neuron(stage, at[0], states[k][at], drive)
                    bursts[at], states[k][at] = s, v
                    overflows += overflow
                    spikes[k][(t, sample, *at)] = s
                    membranes[k][(t, sample, *at)] = v
                outputs.append(bursts if stage.pool is None else pooled(stage.pool, stage.shape, bursts))
            for o in range(len(totals)):
                drive = int(net.readout.bias[o]) + synapses(net.readout.branch, outputs, (o,))
                totals[o] += drive
                overflows += outside(drive) or outside(totals[o])
        logits[sample] = totals
    return Trace(list(spikes), list(membranes), logits, overflows)


def positions(shape: tuple[int, ...]) -> product:
    return product(*(range(n) for n in shape))


def outside(value: int) -> bool:
    return not -(2**31) <= value < 2**31


def neuron(stage: IntStage, channel: int, v: int, drive: int) -> tuple[int, int, bool]:
    """One neuron, one step: spikes, V after the reset, whether something left int32. Python's // is the floor."""
    theta = int(stage.theta[channel])
    if stage.leak_shift is not None:
        v = v - v // 2**stage.leak_shift
    v = v + drive
    s = min(max(v // theta, 0), stage.s_max)
    overflow = outside(drive) or outside(v)
    if stage.reset == "soft":
        return s, v - theta * s, overflow
    return s, 0 if s > 0 else v, overflow


def synapses(branch: IntBranch, outputs: list[dict[tuple[int, ...], int]], at: tuple[int, ...]) -> int:
    """What one branch adds to the neuron at ``at`` in one step."""
    source, o = outputs[branch.source], at[0]
    if branch.scale is not None:
        return int(branch.scale[o]) * source[at]
    assert branch.weight is not None
    if branch.kind == "linear":
        # a dict keeps insertion order, and positions are inserted in the order C, H, W
        return sum(int(q) * s for q, s in zip(branch.weight[o], source.values(), strict=True))
    total = 0
    outputs_per_group = branch.weight.shape[0] // branch.groups
    _, inputs_per_group, kh, kw = branch.weight.shape
    for i, y, x in product(range(inputs_per_group), range(kh), range(kw)):
        channel = (o // outputs_per_group) * inputs_per_group + i
        row = at[1] * branch.stride[0] + y - branch.padding[0]
        column = at[2] * branch.stride[1] + x - branch.padding[1]
        total += int(branch.weight[o, i, y, x]) * source.get((channel, row, column), 0)
    return total


def pooled(pool: IntPool, shape: tuple[int, ...], bursts: dict[tuple[int, ...], int]) -> dict[tuple[int, ...], int]:
    size = [(shape[d + 1] + 2 * pool.padding[d] - pool.kernel[d]) // pool.stride[d] + 1 for d in (0, 1)]
    result = {}
    for c, y, x in positions((shape[0], *size)):
        window = [
            bursts.get((c, y * pool.stride[0] + i - pool.padding[0], x * pool.stride[1] + j - pool.padding[1]), 0)
            for i, j in product(range(pool.kernel[0]), range(pool.kernel[1]))
        ]
        result[c, y, x] = max(window) if pool.kind == "max" else sum(window)
    return result
