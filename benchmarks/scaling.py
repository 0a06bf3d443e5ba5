"""Step time and memory of a small VGG as T, the batch and the width grow; draws the curves.

All contenders take turns at every point. Memory is what a forward pass keeps for the backward. Fits are over T: of the
time by its doubling from T/2 to T at the largest T, of the memory by its slope per step, beside the bursts of one step,
a byte each.
``python -m benchmarks.scaling [rounds=3] [small=true]``
"""

from __future__ import annotations

import statistics
from dataclasses import asdict, replace
from typing import Any, cast

import numpy as np
from pydantic import Field

from benchmarks import memory
from benchmarks.contenders import TWIN, Problem, network, trainings
from benchmarks.harness import BenchmarkKeys, Goal, Result, Unavailable, device, where
from benchmarks.plots import draw_scaling
from benchmarks.rounds import interleaved
from qbsnn.cli import launch as cli
from qbsnn.models.network import SpikingNetwork
from qbsnn.training.devices.allocator import keep_freed_memory

S_MAX = 8
CONTENDERS = (TWIN, "QB-LIF block", "QB-LIF packed", "QB-LIF checkpoint", "SpikingJelly")
CHOSEN = {"time": "QB-LIF block", "memory": "QB-LIF checkpoint"}
BASE = Problem("vgg5", T=4, batch=16, width=0.5)
AXES: dict[str, tuple[float, ...]] = {
    "T": (1, 2, 4, 8, 16, 32),
    "batch": (4, 8, 16, 32, 64),
    "width": (0.25, 0.5, 1.0, 2.0),
}
SMALL = {"T": (1, 2, 4), "batch": (2, 4), "width": (0.125, 0.25)}


class ScalingKeys(BenchmarkKeys):
    """The keys of this benchmark."""

    rounds: int = Field(default=3, ge=1, description="rounds, of which the median is taken")


def main(args: ScalingKeys) -> None:
    base = replace(BASE, batch=2, width=0.125, in_shape=(3, 16, 16)) if args.small else BASE
    axes = SMALL if args.small else AXES
    keep_freed_memory()  # for every contender
    settings = {**asdict(base), "rounds": args.rounds, "s_max": S_MAX, "axes": axes}
    result = Result("scaling", settings, args.small)
    print(f"{where()}; {base}", flush=True)
    curves = {axis: curve(result, base, axis, values, args.rounds) for axis, values in axes.items()}
    for axis, points in curves.items():
        for point in points:
            table = f"{axis} = {point[axis]:g}"
            for name, seconds in point["seconds"].items():
                result.add(f"Step time, {table}", name, [seconds], "s", to=TWIN if TWIN in point["seconds"] else None)
    fit(result, curves["T"], base)
    written = result.write(args.out, curves=curves)
    for path in draw_scaling(curves, written.parent):
        print(f"drawn to {path}")


def curve(result: Result, base: Problem, axis: str, values: tuple[float, ...], rounds: int) -> list[dict[str, Any]]:
    """For each value ``{axis: value, seconds: {contender: median}, bytes: {contender: kept for the backward}}``."""
    points = []
    for value in values:
        problem = replace(base, **cast("dict[str, Any]", {axis: value}))
        found = trainings(CONTENDERS, problem, device(), result.skip)
        times = interleaved({name: training.step for name, training in found.items()}, rounds)
        kept: dict[str, int] = {}
        for name, training in found.items():
            try:
                kept[name] = memory.saved_bytes(training)
            except Unavailable as why:
                result.skip("memory", why)
        points.append({axis: value, "seconds": {k: statistics.median(t) for k, t in times.items()}, "bytes": kept})
        print(
            f"{axis} = {value:g}: " + ", ".join(f"{k} {statistics.median(t):.3g} s" for k, t in times.items()),
            flush=True,
        )
    return points


def fit(result: Result, points: list[dict[str, Any]], base: Problem) -> None:
    """Rows on the cost in T: the last doubling of the time, and the slope of the memory."""
    before, last = points[-2:]
    packed = packed_bytes(base)
    for name in (name for name in CONTENDERS if name in last["seconds"]):
        table = f"Cost in T: time at T = {last['T']} ÷ {last['T'] / before['T']:g} × time at T = {before['T']}"
        growth = last["seconds"][name] / before["seconds"][name] / (last["T"] / before["T"])
        goal = Goal("cost in T: no more than linear", "≤ 1.05") if name == CHOSEN["time"] else None
        result.add(table, name, [growth], "", goal=goal)
    for name in (name for name in CONTENDERS if name in last["bytes"]):
        table = "Cost in T: memory kept per further step ÷ packed bursts of one step"
        step = slope([point["T"] for point in points], [point["bytes"][name] for point in points])
        goal = Goal("memory per further step ÷ packed bursts", "≤ 1") if name == CHOSEN["memory"] else None
        result.add(table, name, [step / memory.MIB], "MiB", ratio=step / packed, goal=goal)
    print(f"the bursts of one step take {packed / memory.MIB:.3g} MiB at a byte each")


def slope(steps: list[float], sizes: list[float]) -> float:
    """The slope of the least-squares line through (steps, sizes).

    >>> round(slope([1, 2, 4], [30, 50, 90]), 6)
    20.0
    """
    return float(np.polyfit(steps, sizes, 1)[0])


def packed_bytes(problem: Problem) -> int:
    """Bytes of the bursts of all neurons of a batch in one step, packed."""
    made = network("QB-LIF block", problem)
    assert isinstance(made, SpikingNetwork)
    return sum(neuron.neurons for _, _, neuron in made.spiking_stages()) * problem.batch


if __name__ == "__main__":
    cli.script(main, ScalingKeys, __doc__)
