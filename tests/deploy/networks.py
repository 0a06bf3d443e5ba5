"""Random integer networks, currents and comparisons for the tests of the engines.

In every network channel 0 of every stage has non-negative weights and a bias of at least θ, so every stage fires from
the first step: a silent network would make any two engines look equal.
"""

import math
from dataclasses import replace
from fractions import Fraction
from functools import cache
from itertools import product
from types import SimpleNamespace
from typing import Any, Literal

import numpy as np
from hypothesis import strategies as st
from numpy.random import Generator
from numpy.typing import NDArray

from qbsnn.deploy.engines import reference
from qbsnn.deploy.format.network import INPUT, IntBranch, IntegerNetwork, IntPool, IntReadout, IntStage, Leak, Trace

Topology = Literal["chain", "residual", "linear"]
TOPOLOGIES: tuple[Topology, ...] = ("chain", "residual", "linear")
S_MAX = (1, 2, 8, 127)
NONE = Leak("none", 0)
LEAKS = (
    NONE,
    *(Leak("shift_floor", n) for n in (0, 1, 2, 3, 30)),
    *(Leak("shift_xylo", n) for n in (0, 1, 2, 5, 30)),
    *(Leak("mul12_to_zero", d) for d in (0, 1, 410, 2048, 4095, 4096)),
)
VARIANTS = tuple(product(("soft", "hard"), ("floor", "round", "to_zero"), (0, -8)))
REGISTERS = (
    (32, "error"),
    *((bits, policy) for bits in (17, 24, 32) for policy in ("saturate", "wrap")),
    (20, "error"),
)


def make(
    rng: Generator,
    topology: Topology,
    *,
    T: int = 3,
    s_max: int = 8,
    theta: Literal["small", "any", "power"] = "small",
    membrane_bits: int = 32,
    overflow: Literal["error", "saturate", "wrap"] = "error",
    **neuron: Any,
) -> IntegerNetwork:
    """A small random network; ``theta`` is drawn from 1..40, from 1..2¹⁵ or from the powers of two up to 2¹⁵.

    ``neuron`` are fields of every stage: leak, reset, rounding, s_min.
    """
    maker = _Maker(rng, s_max, theta, neuron)
    {"chain": _chain, "residual": _residual, "linear": _linear_stack}[topology](maker)
    last = maker.stages[-1]
    classes = 3
    readout = IntReadout(
        IntBranch(len(maker.stages) - 1, "linear", maker.weight(classes, int(np.prod(maker.pooled[-1])))),
        rng.integers(-50, 51, classes).astype(np.int32),
        float(last.theta[0]),
    )
    return IntegerNetwork(tuple(maker.stages), readout, T, membrane_bits, overflow)


class _Maker:
    def __init__(self, rng: Generator, s_max: int, theta: str, neuron: dict[str, Any]) -> None:
        self.rng, self.s_max, self.theta, self.neuron = rng, s_max, theta, neuron
        self.stages: list[IntStage] = []
        self.pooled: list[tuple[int, ...]] = []

    def weight(self, *shape: int) -> NDArray[np.int8]:
        q = self.rng.integers(-127, 128, shape)
        q[0] = np.abs(q[0])
        return q.astype(np.int8)

    def stage(self, name: str, branches: tuple[IntBranch, ...], shape: tuple[int, ...], pool: IntPool | None) -> None:
        channels = shape[0]
        theta = {
            "small": lambda: self.rng.integers(1, 41, channels),
            "any": lambda: self.rng.integers(1, 2**15 + 1, channels),
            "power": lambda: 2 ** self.rng.integers(0, 16, channels),
        }[self.theta]()
        # ties (a multiple of θ), and one to each side of them
        bias = theta * self.rng.integers(-1, 3, channels) + self.rng.integers(-1, 2, channels)
        bias[0] = 0 if branches[0].kind == "input" else theta[0]
        self.stages.append(
            IntStage(
                name=name,
                branches=branches,
                bias=bias.astype(np.int32),
                theta=theta.astype(np.int32),
                s_max=self.s_max,
                shape=shape,
                pool=pool,
                **self.neuron,
            )
        )
        self.pooled.append(
            shape if pool is None else (channels, *_out(shape[1:], pool.kernel, pool.stride, pool.padding))
        )

    def conv(
        self,
        source: int,
        channels: int,
        kernel: tuple[int, int] = (3, 3),
        stride: tuple[int, int] = (1, 1),
        padding: tuple[int, int] = (1, 1),
        groups: int = 1,
    ) -> IntBranch:
        weight = self.weight(channels, self.pooled[source][0] // groups, *kernel)
        return IntBranch(source, "conv", weight, stride=stride, padding=padding, groups=groups)

    def conv_shape(self, branch: IntBranch) -> tuple[int, ...]:
        size = self.pooled[branch.source][1:]
        return (branch.weight.shape[0], *_out(size, branch.weight.shape[2:], branch.stride, branch.padding))

    def pick(self, options: tuple) -> Any:
        return options[self.rng.integers(len(options))]

    def small_pool(self) -> IntPool | None:
        """Sum pools only where the sum of four bursts still has 8 bits."""
        pools: list[IntPool | None] = [
            None,
            IntPool("max", (2, 2), (2, 2)),
            IntPool("max", (3, 3), (2, 2), (1, 1)),
            IntPool("max", (2, 3), (1, 2), (0, 1)),
        ]
        if 4 * self.s_max <= (127 if self.neuron.get("s_min") else 255):
            pools += [IntPool("sum", (2, 2), (2, 2)), IntPool("sum", (2, 2), (1, 1)), IntPool("sum", (1, 2), (2, 1))]
        return self.pick(tuple(pools))


def _out(size: tuple[int, ...], kernel: tuple[int, ...], stride: tuple[int, ...], pad: tuple[int, ...]) -> tuple:
    return tuple((n + 2 * p - k) // d + 1 for n, k, d, p in zip(size, kernel, stride, pad, strict=True))


INPUT_BRANCH = (IntBranch(INPUT, "input"),)


def _chain(maker: _Maker) -> None:
    """Convolutions and pools, one grouped, then a linear layer behind a global sum pool (above 255 if s_max is)."""
    rng = maker.rng
    maker.stage("conv.0", INPUT_BRANCH, (4, *(int(n) for n in rng.integers(4, 7, 2))), maker.small_pool())
    kernel, padding = maker.pick(
        (((1, 1), (0, 0)), ((3, 3), (1, 1)), ((3, 1), (1, 0)), ((2, 3), (0, 1)), ((3, 2), (2, 1)))
    )
    stride, groups = maker.pick(((1, 1), (2, 1), (1, 2))), maker.pick((1, 2, 4))
    branch = maker.conv(0, 4, kernel, stride, padding, groups)
    shape = maker.conv_shape(branch)
    size = shape[1:]
    maker.stage("features/1", (branch,), shape, maker.pick((None, IntPool("sum", size, size))))
    hidden = IntBranch(1, "linear", maker.weight(3, int(np.prod(maker.pooled[1]))))
    maker.stage("head", (hidden,), (3,), None)


def _residual(maker: _Maker) -> None:
    """A block with an identity shortcut, then one with a strided 1x1 convolution as its shortcut."""
    rng = maker.rng
    maker.stage("stem", INPUT_BRANCH, (3, *(int(n) for n in rng.integers(4, 6, 2))), None)
    maker.stage("block0/a", (maker.conv(0, 3),), maker.pooled[0], None)
    scale = rng.integers(-300, 301, 3).astype(np.int32)
    scale[0] = abs(scale[0])
    maker.stage("block0/b", (maker.conv(1, 3), IntBranch(0, "identity", scale=scale)), maker.pooled[0], None)
    down = maker.conv(2, 4, stride=(2, 2))
    maker.stage("block1.a", (down,), maker.conv_shape(down), None)
    shape = maker.pooled[3]
    maker.stage(
        "block1.b",
        (maker.conv(3, 4), maker.conv(2, 4, (1, 1), (2, 2), (0, 0))),
        shape,
        IntPool("sum", shape[1:], (1, 1)),
    )


def _linear_stack(maker: _Maker) -> None:
    widths = [int(n) for n in maker.rng.integers(2, 8, 3)]
    maker.stage("in", INPUT_BRANCH, (widths[0],), None)
    for i, width in enumerate(widths[1:]):
        maker.stage(f"fc{i}", (IntBranch(i, "linear", maker.weight(width, widths[i])),), (width,), None)


def make_current(rng: Generator, net: IntegerNetwork, batch: int, *, static: bool = False) -> NDArray[np.int32]:
    """J of a few thresholds: about half of it exact multiples of θ (ties), channel 0 at least θ."""
    stage = net.stages[0]
    shape = (1 if static else net.T, batch, *stage.shape)
    theta = stage.theta.reshape(-1, *(1,) * (len(stage.shape) - 1)).astype(np.int64)
    j = theta * rng.integers(-2, min(stage.s_max, 9) + 2, shape)
    j += rng.integers(-1, 2, shape) * rng.integers(0, 2, shape) * rng.integers(1, 4, shape)
    j[:, :, 0] = np.maximum(j[:, :, 0], theta[0])
    return j.astype(np.int32)


@st.composite
def cases(draw: st.DrawFn) -> tuple[IntegerNetwork, NDArray[np.int32]]:
    """A random small network and a current for a batch of 1 to 3 samples, some of it near the membrane's ends."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    s_max = draw(st.sampled_from(S_MAX))
    bits, overflow = draw(st.sampled_from(REGISTERS))
    net = make(
        rng,
        draw(st.sampled_from(TOPOLOGIES)),
        T=draw(st.integers(1, 6)),
        s_max=s_max,
        s_min=draw(st.sampled_from((0, -s_max))),
        rounding=draw(st.sampled_from(("floor", "round", "to_zero"))),
        leak=draw(st.sampled_from(LEAKS)),
        reset=draw(st.sampled_from(("soft", "hard"))),
        theta=draw(st.sampled_from(("small", "any", "power"))),
        membrane_bits=bits,
        overflow=overflow,
    )
    current = make_current(rng, net, draw(st.integers(1, 3)), static=draw(st.booleans()))
    if overflow != "error" and draw(st.booleans()):  # not channel 0, which keeps every layer awake
        ends = rng.choice([-(2 ** (bits - 1)), 2 ** (bits - 1) - 1], current.shape) + rng.integers(
            -9, 10, current.shape
        )
        others = (np.arange(current.shape[2]) > 0).reshape(-1, *(1,) * (current.ndim - 3))
        near = (rng.random(current.shape) < 0.3) & others
        current = np.where(near, ends.clip(-(2**31), 2**31 - 1), current).astype(np.int32)
    return net, current


def loose(net: IntegerNetwork, current: NDArray[np.int32]) -> SimpleNamespace:
    """A quantised network without its analog first layer, for integer networks that were never trained."""
    per_channel = np.moveaxis(current, 2, 0).reshape(current.shape[2], -1).astype(np.int64)
    return SimpleNamespace(net=net, current_bounds=(per_channel.min(1), per_channel.max(1)))


def single_stage(theta: NDArray[np.integer], T: int, **settings: object) -> IntegerNetwork:
    """One stage of neurons without bias, fed by J alone, and a readout that adds up their spikes.

    ``settings`` are fields of the stage, ``membrane_bits`` and ``overflow`` of the network.
    """
    n = len(theta)
    register = {key: settings.pop(key) for key in ("membrane_bits", "overflow") if key in settings}
    stage = IntStage("only", INPUT_BRANCH, np.zeros(n, np.int32), theta.astype(np.int32), shape=(n,), **settings)
    ones = IntBranch(0, "linear", np.ones((1, n), np.int8))
    return IntegerNetwork((stage,), IntReadout(ones, np.zeros(1, np.int32), 1.0), T, **register)


@cache
def every_neuron(
    leak: Leak, reset: Literal["soft", "hard"], rounding: str, s_min: int
) -> tuple[IntegerNetwork, NDArray[np.int32], Trace]:
    """All V in [−150, 150] and both ends of int32, for all θ in 1..9, 40, 2¹⁵: step 1 makes V, step 2 leaks the rest.

    The expected trace is computed here, in Python integers.
    """
    theta = [*range(1, 10), 40, 2**15]
    first = [*range(-150, 151), *range(-(2**31), -(2**31) + 9), *range(2**31 - 9, 2**31)]
    second, s_max = 7, 8
    spikes, membranes = np.zeros((2, 2, len(first), len(theta)), np.int64)
    for b, v0 in enumerate(first):
        for o, level in enumerate(theta):
            v = v0
            for t in (0, 1):
                if t == 1:
                    v = left_over(leak, v) + second
                levels = math.trunc(Fraction(v, level)) if rounding == "to_zero" else v // level
                levels = (v + level // 2) // level if rounding == "round" else levels
                s = min(max(levels, s_min), s_max)
                v = v - level * s if reset == "soft" else 0 if s else v
                spikes[t, b, o], membranes[t, b, o] = s, v
    net = single_stage(np.array(theta), 2, s_max=s_max, leak=leak, reset=reset, rounding=rounding, s_min=s_min)
    current = np.full((2, len(first), len(theta)), second, np.int32)
    current[0] = np.array(first)[:, None]
    return net, current, Trace([spikes], [membranes], spikes.sum(axis=(0, 2))[:, None])


@cache
def left_over(leak: Leak, v: int) -> int:
    """What a leak leaves of V, in exact fractions."""
    match leak.kind:
        case "shift_floor":
            return v - math.floor(Fraction(v, 2**leak.amount))
        case "shift_xylo":
            return v - (math.floor(Fraction(v, 2**leak.amount)) or (v > 0) - (v < 0))
        case "mul12_to_zero":
            return math.trunc(v * (1 - Fraction(leak.amount, 4096)))
    return v


def worked_by_hand() -> tuple[IntegerNetwork, NDArray[np.int32], Trace]:
    """Two neurons into one, five steps: leak, tie, saturation, negative V, both resets.

    "in/a": τ = 2 (leak V >> 1), s_max 2, soft reset.
        θ = 4, J = 4, 1, 20, −9, 0
            V = 4                          fires once (V = θ)          U = 0
            V = 0 + 1 = 1                                              U = 1
            V = 1 − 0 + 20 = 21            5 levels, saturates at 2    U = 13
            V = 13 − 6 − 9 = −2                                        U = −2
            V = −2 − (−1) + 0 = −1                                     U = −1
        θ = 3, J = −5, −1, 2, 7, 3
            V = −5                                                     U = −5
            V = −5 − (−3) − 1 = −3         ⌊−5/2⌋ = −3, not −2         U = −3
            V = −3 − (−2) + 2 = 1                                      U = 1
            V = 1 − 0 + 7 = 8              2 levels                    U = 2
            V = 2 − 1 + 3 = 4              1 level                     U = 1
    "fc.1": weights 3, −2, bias 1, θ = 4, no leak, s_max 8, hard reset.
            V = 3·1 + 1 = 4                fires once                  U = 0
            V = 0 + 1 = 1                                              U = 1
            V = 1 + 3·2 + 1 = 8            fires twice                 U = 0
            V = 0 − 2·2 + 1 = −3                                       U = −3
            V = −3 − 2·1 + 1 = −4                                      U = −4
    Readout: weights 5 and −1, bias 1 and 0: Z = 5·3 + 5·1 = 20 and −3.
    """
    first = IntStage(
        "in/a", INPUT_BRANCH, np.zeros(2, np.int32), np.array([4, 3], np.int32), 2, (2,), Leak("shift_floor", 1)
    )
    second = IntStage(
        name="fc.1",
        branches=(IntBranch(0, "linear", np.array([[3, -2]], np.int8)),),
        bias=np.array([1], np.int32),
        theta=np.array([4], np.int32),
        s_max=8,
        shape=(1,),
        leak=NONE,
        reset="hard",
    )
    readout = IntReadout(IntBranch(1, "linear", np.array([[5], [-1]], np.int8)), np.array([1, 0], np.int32), 4.0)
    current = np.array([[4, -5], [1, -1], [20, 2], [-9, 7], [0, 3]], np.int32).reshape(5, 1, 2)
    spikes = [np.array([[1, 0], [0, 0], [2, 0], [0, 2], [0, 1]]), np.array([1, 0, 2, 0, 0])]
    membranes = [np.array([[0, -5], [1, -3], [13, 1], [-2, 2], [-1, 1]]), np.array([0, 1, 0, -3, -4])]
    expected = Trace(
        [s.reshape(5, 1, -1) for s in spikes], [v.reshape(5, 1, -1) for v in membranes], np.array([[20, -3]])
    )
    return IntegerNetwork((first, second), readout, 5), current, expected


def mismatches(a: Trace, b: Trace) -> int:
    """How many spikes, membranes and logits of two traces differ; shapes must be equal."""
    pairs = [*zip(a.spikes, b.spikes, strict=True), *zip(a.membranes, b.membranes, strict=True), (a.logits, b.logits)]
    for x, y in pairs:
        assert x.shape == y.shape
    return sum(int((x.astype(np.int64) != y.astype(np.int64)).sum()) for x, y in pairs)


def flip(net: IntegerNetwork, stage: int, index: tuple[int, ...], branch: int = 0) -> IntegerNetwork:
    """A copy of ``net`` in which one weight of a stage (or of the readout: ``stage = −1``) is one unit off."""
    changed = net.readout.branch if stage < 0 else net.stages[stage].branches[branch]
    weight = changed.weight.copy()
    weight[index] += 1 if weight[index] < 127 else -1
    changed = replace(changed, weight=weight)
    if stage < 0:
        return replace(net, readout=replace(net.readout, branch=changed))
    branches = list(net.stages[stage].branches)
    branches[branch] = changed
    stages = list(net.stages)
    stages[stage] = replace(stages[stage], branches=tuple(branches))
    return replace(net, stages=tuple(stages))


def same_overflows(a: Trace, b: Trace) -> bool:
    """Whether two traces report equally many overflows and the same first one."""
    return a.overflows == b.overflows and a.first_overflow == b.first_overflow


def active(trace: Trace) -> bool:
    return all(bool(spikes.any()) for spikes in trace.spikes)


def assert_active(net: IntegerNetwork, trace: Trace) -> None:
    for stage, spikes in zip(net.stages, trace.spikes, strict=True):
        assert spikes.any(), f"stage {stage.name} is silent"


def flips(net: IntegerNetwork, trace: Trace) -> list[IntegerNetwork]:
    """``net`` with one weight off by one unit, once per weight tensor where the traces must then differ.

    The weight is one that sees channel 0, position 0 of its source. Z changes by the sum of what comes from there. A
    soft reset keeps V, as θ·s + U, so spikes or membranes change; a hard reset or a saturated membrane may hide a unit.
    """
    pooled = [s if stage.pool is None else reference.pool(stage.pool, s.astype(np.int64))
              for s, stage in zip(trace.spikes, net.stages, strict=True)]  # fmt: skip
    corner = [s.reshape(*s.shape[:2], -1)[:, :, 0] for s in pooled]
    changed = [flip(net, -1, (0, 0))] if corner[net.readout.branch.source].sum(0).any() else []
    for k, stage in enumerate(net.stages):
        for i, branch in enumerate(stage.branches):
            seen = branch.weight is not None and corner[branch.source].any()
            if seen and stage.reset == "soft" and net.overflow != "saturate":
                # with this offset into the kernel, output (0, 0) sees input (0, 0)
                offset = branch.padding if branch.kind == "conv" else ()
                changed.append(flip(net, k, (0, 0, *offset), i))
    return changed


def extremes(rng: Generator, shape: tuple[int, ...]) -> NDArray[np.int8]:
    """Weights of −127 and 127 only; all 127 for output 0, so that it fires."""
    q = rng.choice(np.array([-127, 127], np.int8), shape)
    q[0] = 127
    return q
