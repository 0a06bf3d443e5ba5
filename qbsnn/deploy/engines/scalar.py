"""QB-INT 1 in plain Python integers and loops, one sample, step, neuron and synapse at a time: the slowest oracle.

Nothing here is merged, vectorised or shared with another engine; it is only fit for tiny networks.
"""

from itertools import product

import numpy as np
from numpy.typing import NDArray

from qbsnn.deploy.format.network import IntBranch, IntegerNetwork, IntPool, IntStage, Leak, Overflow, Trace


def run(net: IntegerNetwork, current: NDArray[np.int32]) -> Trace:
    """Same contract as ``qbsnn.deploy.engines.reference.run``."""
    samples = current.shape[1]
    spikes = [np.zeros((net.T, samples, *stage.shape), np.int64) for stage in net.stages]
    membranes = [np.zeros_like(array) for array in spikes]
    logits = np.zeros((samples, len(net.readout.bias)), np.int64)
    overflows: list[Overflow] = []
    exits = np.zeros((2, samples), np.int64)
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
                    s, v, lost = neuron(net, stage, at[0], states[k][at], drive)
                    bursts[at], states[k][at] = s, v
                    if lost is not None:
                        overflows.append(Overflow(t, k, sample, at, stage.name, lost))
                    spikes[k][(t, sample, *at)] = s
                    membranes[k][(t, sample, *at)] = v
                outputs.append(bursts if stage.pool is None else pooled(stage.pool, stage.shape, bursts))
            for o in range(len(totals)):
                drive = int(net.readout.bias[o]) + synapses(net.readout.branch, outputs, (o,))
                totals[o] += drive
                if not fits(drive, 32) or not fits(totals[o], 32):
                    lost = drive if not fits(drive, 32) else totals[o]
                    overflows.append(Overflow(t, len(net.stages), sample, (o,), "readout", lost))
            if net.exit_margin is not None and not exits[0, sample]:
                first = totals.index(max(totals))
                others = [totals[first] - z for o, z in enumerate(totals) if o != first]
                if min(others) >= net.exit_margin or t == net.T - 1:
                    exits[:, sample] = t + 1, first
        logits[sample] = totals
    found = None if net.exit_margin is None else exits
    return Trace(list(spikes), list(membranes), logits, len(overflows), min(overflows, default=None), found)


def positions(shape: tuple[int, ...]) -> product:
    """All index tuples of a shape, the last index fastest."""
    return product(*(range(n) for n in shape))


def fits(value: int, bits: int) -> bool:
    """Whether a two's complement register holds the value."""
    return -(2 ** (bits - 1)) <= value < 2 ** (bits - 1)


def neuron(net: IntegerNetwork, stage: IntStage, channel: int, v: int, drive: int) -> tuple[int, int, int | None]:
    """One neuron, one step: spikes, V after the reset, and what did not fit its register. Python's // is the floor."""
    theta, bits = int(stage.theta[channel]), net.membrane_bits
    v = leaked(stage.leak, v) + drive
    lost = drive if not fits(drive, 32) else v if not fits(v, bits) else None
    if net.overflow == "saturate":
        v = min(max(v, -(2 ** (bits - 1))), 2 ** (bits - 1) - 1)
    elif net.overflow == "wrap":
        while not fits(v, bits):
            v += 2**bits if v < 0 else -(2**bits)
    levels = (v + theta // 2) // theta if stage.rounding == "round" else v // theta
    if stage.rounding == "to_zero" and v < 0:
        levels = -(-v // theta)
    s = min(max(levels, stage.s_min), stage.s_max)
    if stage.reset == "soft":
        return s, v - theta * s, lost
    return s, 0 if s != 0 else v, lost


def leaked(leak: Leak, v: int) -> int:
    """What the leak leaves of V."""
    if leak.kind == "none" or v == 0:
        return v
    if leak.kind == "shift_floor":
        return v - v // 2**leak.amount
    sign = 1 if v > 0 else -1
    if leak.kind == "shift_xylo":
        return v - (v // 2**leak.amount or sign)
    return sign * (abs(v) * (4096 - leak.amount) // 4096)


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
    """The pooled bursts of one step, by position."""
    size = [(shape[d + 1] + 2 * pool.padding[d] - pool.kernel[d]) // pool.stride[d] + 1 for d in (0, 1)]
    result: dict[tuple[int, ...], int] = {}
    for c, y, x in positions((shape[0], *size)):
        inside = [
            (c, y * pool.stride[0] + i - pool.padding[0], x * pool.stride[1] + j - pool.padding[1])
            for i, j in product(range(pool.kernel[0]), range(pool.kernel[1]))
        ]
        window = [bursts[at] for at in inside if at in bursts]
        result[c, y, x] = max(window) if pool.kind == "max" else sum(window)
    return result
