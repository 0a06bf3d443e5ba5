"""Time and memory of a training step of ResNet-19 (or VGG-9) beside the ReLU twin and the peers.

The twin is the same network with ReLU on T·B images, in plain torch and compiled as ours is. A step is forward, loss,
backward and SGD with momentum. Times are medians over rounds in which all contenders take turns in one process; memory
is measured in a process each (:mod:`benchmarks.memory`). bf16 (autocast) runs where the processor or the card
multiplies it.
On a card also TF32, and bf16 beside the twin and SpikingJelly's best in bf16; there no budget of energy, and memory of
fewer contenders.
``python -m benchmarks.train_step [model=resnet19] [batch=8] [rounds=3] [channels_last=true] [only=NAME,NAME]``
"""

from __future__ import annotations

import gc
import statistics
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from functools import partial
from typing import Literal

import torch
from pydantic import Field, field_validator

from benchmarks import memory
from benchmarks.contenders import (
    COMPILED_TWIN,
    KITS,
    NAMES,
    TWIN,
    Budgeted,
    Problem,
    Training,
    able,
    trainings,
)
from benchmarks.harness import BenchmarkKeys, Goal, Result, Unavailable, device, where
from benchmarks.rounds import interleaved, timed
from qbsnn.checks import choice
from qbsnn.cli import launch as cli
from qbsnn.training.devices.allocator import keep_freed_memory
from qbsnn.training.devices.host import host_info
from qbsnn.training.devices.precision import computes_bfloat16

BF16 = ("QB-LIF block", "SpikingJelly", "SpikingJelly compiled", TWIN, COMPILED_TWIN)
CHOSEN = "QB-LIF block"
MEMORY = (TWIN, "QB-LIF block", "QB-LIF packed", "QB-LIF checkpoint", "SpikingJelly", "snnTorch", "Norse")
MEMORY_OF_CARD = MEMORY[:3]
STEP = Goal("training step time ÷ ReLU twin, ResNet-19", "≤ 1.05")
BUDGET = Goal("training step with a budget of energy ÷ without", "≤ 1.02")
CARD = {
    "twin": Goal("training step in bf16 ÷ ReLU twin in bf16, on a card", "≤ 1.05"),
    "peer": Goal("training step in bf16 ÷ SpikingJelly's best in bf16, on a card", "≤ 0.7"),
}
HALF = Goal("training step in bf16 ÷ best peer's in fp32", "≤ 0.5")


class TrainStepKeys(BenchmarkKeys):
    """The keys of this benchmark."""

    rounds: int = Field(default=3, ge=1, description="rounds, of which the median is taken")
    batch: int = Field(default=8, ge=1, description="images; the twin has T times as many")
    model: Literal["resnet19", "vgg9"] = Field(default="resnet19", description="network: resnet19, vgg9")
    channels_last: bool = Field(default=False, description="true: channels last in memory, for all")
    steps: int = Field(default=4, ge=1, description="time steps T")
    only: list[str] = Field(default=[*NAMES], description="these contenders")

    @field_validator("only")
    @classmethod
    def _known(cls, only: list[str]) -> list[str]:
        return [choice("only", name, NAMES) for name in only]


def main(args: TrainStepKeys) -> None:
    problem = Problem(args.model, T=args.steps, batch=args.batch, channels_last=args.channels_last)
    if args.small:
        problem = Problem(args.model, 2, 2, 1 / 16, (3, 16, 16), channels_last=args.channels_last)
    names = tuple(name for name in NAMES if name in {TWIN, *args.only})
    result = Result("train_step", {**asdict(problem), "rounds": args.rounds, "optimiser": "SGD"}, args.small)
    print(f"{where()}; {problem}", flush=True)
    with result.written(args.out):
        measure_time(result, names, problem, args.rounds)
        if CHOSEN in names and device().type == "cpu":
            measure_budget(result, problem, args.rounds)
        gc.collect()
        torch.cuda.empty_cache()  # what is measured next has processes of its own
        measure_memory(result, names, problem)


def measure_time(result: Result, names: tuple[str, ...], problem: Problem, rounds: int) -> None:
    """Seconds of a step, fp32 and bf16 in the same rounds."""
    keep_freed_memory()  # for every contender
    titles = {name: f"{name}|fp32" for name in names}
    if computes_bfloat16(device().type, host_info().isa):
        titles |= {f"{name}, bf16": f"{name}|bf16" for name in BF16 if name in names}
    else:
        result.skip("bf16", "this processor has no bf16 instructions")
    if device().type == "cuda":
        titles |= {f"{name}, tf32": f"{name}|tf32" for name in BF16 if name in names}
    contenders = able(trainings(titles, problem, device(), result.skip), result.skip)
    with timed(result, {title: training.step for title, training in contenders.items()}, rounds) as found:
        add_times(result, names, {title: found.get(title, []) for title in titles})


def add_times(result: Result, names: tuple[str, ...], times: dict[str, list[float]]) -> None:
    """The rows of the step time; [] stands for a contender that failed."""
    if device().type == "cuda":
        add_card_rows(result, times)
    add_beside(result, "Step time, fp32", TWIN, {name: times[name] for name in names}, STEP)
    best = fastest(times, KITS)
    table = "Step time, bf16, against the best peer in fp32"
    fast = [name for name in times if name.endswith("bf16") and (times[name] or name.startswith(CHOSEN))]
    if fast and best is not None:
        result.add(table, best, times[best], "s", to=best)
        for name in fast:
            goal = HALF if name == f"{CHOSEN}, bf16" else None
            result.add(table, name, times[name], "s", to=best, goal=goal, compiled=True)
    table = "Step time of binary neurons, against the best peer in fp32"
    binary = [name for name in ("QB-LIF s_max=1", "qbsnn LIF") if times.get(name)]
    if binary and best is not None:
        for name in (best, *binary):
            result.add(table, name, times[name], "s", to=best)


def measure_budget(result: Result, problem: Problem, rounds: int) -> None:
    """Seconds of as many steps as lie between two penalties, with and without a budget of energy."""
    plain, limited = Training(CHOSEN, problem, device()), Budgeted(CHOSEN, problem, device())
    every = limited.budget.every

    def several(training: Training) -> None:
        for _ in range(every):
            training.step()

    names = {"without": plain, "with a budget of energy": limited}
    times = interleaved({name: partial(several, training) for name, training in names.items()}, rounds)
    for name, seconds in times.items():
        goal = BUDGET if name != "without" else None
        result.add(
            "Step time with a budget of energy", name, [s / every for s in seconds], "s", to="without", goal=goal
        )


def add_card_rows(result: Result, times: dict[str, list[float]]) -> None:
    """Steps in TF32 and bf16 beside the twin and SpikingJelly's best in the same precision; [] stands for a failure."""
    for precision in ("tf32", "bf16"):
        those = {name: seconds for name, seconds in times.items() if name.endswith(precision)}
        peers = [name for name in those if name.startswith("SpikingJelly")]
        for kind, other in (("twin", f"{TWIN}, {precision}"), ("peer", fastest(times, peers) or next(iter(peers), ""))):
            if other in times:
                table = f"Step time, {precision}, beside {other.rpartition(', ')[0]}"
                add_beside(result, table, other, those, CARD[kind] if precision == "bf16" else None)


def fastest(times: Mapping[str, list[float]], names: Iterable[str]) -> str | None:
    """The one of these with the smallest median; None where none has seconds."""
    measured = [name for name in names if times.get(name)]
    return min(measured, key=lambda name: statistics.median(times[name]), default=None)


def add_beside(result: Result, table: str, base: str, times: Mapping[str, list[float]], goal: Goal | None) -> None:
    """Rows beside ``base``, which comes first; ours has one without seconds too, and without either no ratio."""
    for name in dict.fromkeys((base, *times)):
        ours = name.startswith(CHOSEN)
        if times[name] or ours or name == base:
            result.add(table, name, times[name], "s", to=base, goal=goal if ours else None, compiled=ours)


def measure_memory(result: Result, names: tuple[str, ...], problem: Problem) -> None:
    """Peak and saved bytes of each contender."""
    found = {}
    asked = [name for name in (MEMORY if device().type == "cpu" else MEMORY_OF_CARD) if name in names]
    for name in asked:
        try:
            found[name] = memory.measure(name, problem)
        except (Unavailable, RuntimeError) as why:
            result.skip(f"{name}, memory", str(why).rpartition("\n")[2])  # of a stack trace the reason
    if not found:
        result.skip("memory", "no contender could be measured")
        return
    tables = {"peak": "Memory, peak over the step", "saved": "Memory, saved for the backward pass"}
    goals = {CHOSEN: "≤ 1.0", "QB-LIF packed": "≤ 0.8"}
    for key, table in tables.items():
        for name in asked:
            label = f"{table.lower()} ÷ ReLU twin" + (", packed bursts" if name == "QB-LIF packed" else "")
            goal = Goal(label, goals[name]) if name in goals else None
            samples = [found[name][key] / memory.MIB] if name in found else []
            if samples or goal or name == TWIN:
                result.add(table, name, samples, "MiB", to=TWIN, goal=goal)


if __name__ == "__main__":
    cli.script(main, TrainStepKeys, __doc__)
