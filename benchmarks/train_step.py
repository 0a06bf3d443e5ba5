"""Time and memory of a training step of ResNet-19 (or VGG-9) beside the ReLU twin and the peers.

The twin is the same network with ReLU on T·B images, in plain torch and compiled as ours is. A step is forward, loss,
backward and SGD with momentum. Times are medians over rounds in which all contenders take turns in one process; memory
is measured in a process each (:mod:`benchmarks.memory`). bf16 (autocast) runs where the processor or the card
multiplies it.
On a card also TF32, and bf16 beside the twin in bf16.
``python -m benchmarks.train_step [model=resnet19] [batch=8] [rounds=3] [channels_last=true] [only=NAME,NAME]``
"""

from __future__ import annotations

import statistics
from dataclasses import asdict
from functools import partial
from typing import Literal

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
    bf16_supported,
    trainings,
)
from benchmarks.harness import BenchmarkKeys, Goal, Result, Unavailable, device, interleaved, where
from qbsnn.checks import choice
from qbsnn.cli import launch as cli
from qbsnn.training.devices.allocator import keep_freed_memory
from qbsnn.training.devices.host import host_info

BF16 = ("QB-LIF block", "SpikingJelly compiled", TWIN, COMPILED_TWIN)
CHOSEN = "QB-LIF block"
MEMORY = (TWIN, "QB-LIF block", "QB-LIF packed", "QB-LIF checkpoint", "SpikingJelly", "snnTorch", "Norse")
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
    keep = measure_memory(result, names, problem)
    measure_time(result, names, problem, args.rounds)
    if CHOSEN in names:
        measure_budget(result, problem, args.rounds)
    if not keep:
        result.skip("memory", "no contender could be measured")
    result.write(args.out)


def measure_time(result: Result, names: tuple[str, ...], problem: Problem, rounds: int) -> None:
    """Seconds of a step, fp32 and bf16 in the same rounds."""
    keep_freed_memory()  # for every contender
    titles = {name: f"{name}|fp32" for name in names}
    if bf16_supported(device(), host_info().isa):
        titles |= {f"{name}, bf16": f"{name}|bf16" for name in BF16 if name in names}
    else:
        result.skip("bf16", "this processor has no bf16 instructions")
    if device().type == "cuda":
        titles |= {f"{name}, tf32": f"{name}|tf32" for name in BF16 if name in names}
    contenders = able(trainings(titles, problem, device(), result.skip), result.skip)
    times = interleaved({title: training.step for title, training in contenders.items()}, rounds)
    if device().type == "cuda":
        add_card_rows(result, times)
    peers = [name for name in KITS if name in times]
    best = min(peers, key=lambda name: statistics.median(times[name]), default=None)
    table, twin = "Step time, fp32", TWIN if TWIN in times else None  # with T·B images it may not fit a card
    for name in (name for name in times if not name.endswith(("bf16", "tf32"))):
        goal = STEP if name == CHOSEN and twin else None
        result.add(table, name, times[name], "s", to=twin, goal=goal)
    table = "Step time, bf16, against the best peer in fp32"
    fast = [name for name in times if name.endswith("bf16")]
    if fast and best is not None:
        result.add(table, best, times[best], "s", to=best)
        for name in fast:
            goal = HALF if name == f"{CHOSEN}, bf16" else None
            result.add(table, name, times[name], "s", to=best, goal=goal)
    table = "Step time of binary neurons, against the best peer in fp32"
    binary = [name for name in times if name in ("QB-LIF s_max=1", "qbsnn LIF")]
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
    """Steps in TF32 and in bf16 beside the twin and beside SpikingJelly in the same precision."""
    for precision in ("tf32", "bf16"):
        twin, peer, ours = (f"{name}, {precision}" for name in (TWIN, "SpikingJelly compiled", CHOSEN))
        for other, kind in ((twin, "twin"), (peer, "peer")):
            if other not in times:
                continue
            for name in dict.fromkeys((other, *(name for name in times if name.endswith(precision)))):
                goal = CARD[kind] if name == ours and precision == "bf16" else None
                table = f"Step time, {precision}, beside {other.rpartition(', ')[0]}"
                result.add(table, name, times[name], "s", to=other, goal=goal)


def measure_memory(result: Result, names: tuple[str, ...], problem: Problem) -> bool:
    """Peak and saved bytes of each contender; whether there are any."""
    found = {}
    for name in (name for name in MEMORY if name in names):
        try:
            found[name] = memory.measure(name, problem)
        except Unavailable as why:
            result.skip(f"{name}, memory", why)
    tables = {"peak": "Memory, peak over the step", "saved": "Memory, saved for the backward pass"}
    goals = {CHOSEN: "≤ 1.0", "QB-LIF packed": "≤ 0.8"}
    for key, table in tables.items():
        add = partial(result.add, table, unit="MiB", to=TWIN if TWIN in found else None)
        for name, sizes in found.items():
            label = f"{table.lower()} ÷ ReLU twin" + (", packed bursts" if name == "QB-LIF packed" else "")
            goal = Goal(label, goals[name]) if name in goals else None
            add(name, [sizes[key] / memory.MIB], goal=goal)
    return bool(found)


if __name__ == "__main__":
    cli.script(main, TrainStepKeys, __doc__)
