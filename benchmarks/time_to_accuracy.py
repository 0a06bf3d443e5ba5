"""Time to 97 % on digits, to 90 % on Fashion-MNIST and to 80 and 88 % on CIFAR-10, beside SpikingJelly.

On digits and Fashion-MNIST both train vgg5 on the same batches in the same order, with the same AdamW, schedule,
clipping and initialisation; ours through ``train.py``'s own path (Lightning, its training callbacks, no progress bar
and no checkpoints), SpikingJelly in a plain loop. The clock starts before the first step, so compilation counts, and
stands still during validation, which both do at the same intervals; it ends at the first validation accuracy at or
above the target. Test accuracy at that moment is shown beside it. Each run is a process of its own with an empty
compiler cache.

On CIFAR-10 each has a recipe of its own: ours is ``experiment=cifar10_fast``; SpikingJelly has steps, batch, optimiser
and schedule of its example ``conv_fashion_mnist`` (T = 4, 128 images, SGD 0.1 with momentum 0.9, a cosine over 64
epochs), cross-entropy, shifts and flips, in a VGG-9 as wide as gives it as many parameters as ours has; both in bf16
where the processor multiplies it. SpikingJelly is stopped once it has trained so long that our goal is met whatever
follows; its time is then a lower bound, and our ratio an upper one. This takes more than an hour on a CPU, so it is
asked for by ``sets=cifar10``; every validation is printed, and so is every training that has ended. With
``QBSNN_VERIFY=false`` in the environment files are taken whose checksums are not the published ones.
``python -m benchmarks.time_to_accuracy [sets=digits,fashion_mnist] [root=data] [small=true]``
"""

from __future__ import annotations

import json
import os
import statistics
import sys
import tempfile
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from benchmarks.harness import UNAVAILABLE, BenchmarkKeys, Goal, Result, Unavailable, child, parsed, where
from qbsnn.cli import launch as cli

OURS, PEER = "QB-LIF", "SpikingJelly"


@dataclass(frozen=True)
class Task:
    """A data set, the accuracies to reach, and the settings that both contenders share.

    targets: in rising order; training ends at the last one. checks: validations per epoch. epochs: at most, and the
    length of the cosine schedule. val: share of the training images that is held out. val_limit, train_limit: images at
    most. compiled: whether training lasts long enough for both to gain from compiled neurons. goal: of our time over
    SpikingJelly's. own: each has its own recipe; ``epochs``, ``T`` and ``batch`` are then SpikingJelly's, and ``width``
    is not read.
    """

    data: str
    targets: tuple[float, ...]
    seeds: tuple[int, ...]
    epochs: int
    checks: int
    T: int
    width: float
    val: float
    val_limit: int | None = None
    train_limit: int | None = None
    batch: int = 64
    compiled: bool = False
    goal: str = "≤ 0.5"
    recipe: tuple[str, ...] = ()

    def longest(self, seconds: float | None) -> float | None:
        """Seconds after which SpikingJelly is stopped where ours needed ``seconds``, if it reached the target."""
        if not self.recipe or seconds is None:
            return None
        return seconds / parsed(self.goal)[1]


TASKS = {
    "digits": Task("digits", (0.97,), (0, 1, 2), epochs=20, checks=1, T=4, width=0.5, val=0.2),
    "fashion_mnist": Task(
        "fashion_mnist",
        (0.90,),
        (0,),
        epochs=4,
        checks=4,
        T=2,
        width=0.5,
        val=0.1,
        val_limit=3000,
        batch=128,
        compiled=True,
    ),
    "cifar10": Task(
        "cifar10",
        (0.80, 0.88),
        (0,),
        epochs=64,
        checks=2,
        T=4,
        width=1.0,
        val=0.04,
        batch=128,
        compiled=True,
        goal="≤ 0.3",
        recipe=("experiment=cifar10_fast",),
    ),
}
QUICK = ("digits", "fashion_mnist")
"""Sets that take minutes."""


class TimeKeys(BenchmarkKeys):
    """The keys of this benchmark; the last four are of a child process, which trains one contender once."""

    sets: list[Literal["digits", "fashion_mnist", "cifar10"]] = Field(default=[*QUICK], description="data sets")
    root: Path = Field(default=Path(os.environ.get("QBSNN_DATA", "data")), description="where the data lie")
    contender: str | None = None
    task: str = ""
    seed: int = 0
    longest: float | None = None


def main(args: TimeKeys) -> None:
    if args.contender is not None:
        sys.exit(run_here(args, Task(**json.loads(args.task))))
    tasks = [small(TASKS[name]) if args.small else TASKS[name] for name in args.sets]
    result = Result("time_to_accuracy", {"tasks": [asdict(task) for task in tasks]}, args.small)
    print(where(), flush=True)
    for task in tasks:
        measure(result, task, args.root.absolute())
    result.write(args.out)


def small(task: Task) -> Task:
    """The same task in seconds, with a target that any network reaches."""
    zero = (0.0,) * len(task.targets)
    return replace(task, targets=zero, seeds=(0,), epochs=1, val_limit=64, train_limit=256, width=0.125, compiled=False)


def measure(result: Result, task: Task, root: Path) -> None:
    """The rows of one task; contenders take turns, seed by seed."""
    runs: dict[str, list[dict[str, Any]]] = {OURS: [], PEER: []}
    for seed in task.seeds:
        longest = None
        for name, found in runs.items():
            try:
                found.append(run(name, task, seed, root, longest))
            except Unavailable as why:
                result.skip(f"{name} on {task.data}", why)
                if name == OURS:
                    return
            else:
                print(f"{task.data}, seed {seed}, {name}: {found[-1]}", flush=True)
                longest = task.longest(found[-1]["reached"][-1])
    add_rows(result, task, {name: found for name, found in runs.items() if found})


def add_rows(result: Result, task: Task, runs: dict[str, list[dict[str, Any]]]) -> None:
    """Tables of time, of what compilation took of it, and of accuracy; a missed target leaves a row without value."""
    runs = {name: runs[name] for name in (PEER, OURS) if name in runs}  # a ratio is to a row above
    for index, target in enumerate(task.targets):
        shown = f"{task.data}: time to {target:.0%} validation accuracy"
        goal = Goal(f"time to {target:.0%} on {task.data} ÷ SpikingJelly", task.goal)
        to = None
        for name, found in runs.items():
            row, times = name, [entry["reached"][index] for entry in found]
            if missed := times.count(None):
                result.skip(f"{name} on {task.data}", f"{missed} of {len(found)} runs missed {target:.0%}")
                times = []
                if name == PEER:  # stopped, by its last epoch or by our goal: its time is a lower bound
                    row, times = f"{name}, stopped without it", [e["reached"][index] or e["seconds"] for e in found]
            to = row if name == PEER else to
            result.add(shown, row, times, "s", to=to, goal=goal if name == OURS and to else None)
    parts = {
        "first step beyond the median step (compilation)": ("compile", "s"),
        "median step": ("step", "s"),
        "epochs": ("epochs", ""),
        "test accuracy when the last target was reached": ("test", ""),
        "parameters": ("parameters", ""),
    }
    for title, (key, unit) in parts.items():
        for name, found in runs.items():
            result.add(f"{task.data}: {title}", name, [v for entry in found if (v := entry[key]) is not None], unit)


def run(contender: str, task: Task, seed: int, root: Path, longest: float | None) -> dict[str, Any]:
    """One training in a new process: see :func:`run_here`. Raises Unavailable with the child's reason."""
    with tempfile.TemporaryDirectory() as cache:
        given = {"root": root, "contender": contender, "task": json.dumps(asdict(task)), "seed": seed}
        given |= {} if longest is None else {"longest": longest}
        arguments = [f"{key}={value}" for key, value in given.items()]
        environment = {**os.environ, "TORCHINDUCTOR_CACHE_DIR": cache, "TRITON_CACHE_DIR": cache}
        what = f"training {contender} on {task.data}"
        return child("benchmarks.time_to_accuracy", arguments, environment, what, watched=True)


def run_here(given: TimeKeys, task: Task) -> int:
    """Train in this process and print what was measured as JSON."""
    from benchmarks.loops import Stopwatch, ours, peer
    from qbsnn.errors import DataError

    try:
        with tempfile.TemporaryDirectory() as folder:
            clock = Stopwatch(task.targets, given.longest)
            train = ours if given.contender == OURS else peer
            epochs, test, parameters = train(task, given.seed, given.root, Path(folder), clock)
    except (Unavailable, DataError) as why:
        print(" ".join(str(why).split()))
        return UNAVAILABLE
    step = statistics.median(clock.steps[1:] or clock.steps)
    found: dict[str, Any] = {"reached": clock.reached, "step": step, "compile": max(0.0, clock.steps[0] - step)}
    found |= {"seconds": clock.seconds, "val": clock.accuracy}
    print(json.dumps({**found, "epochs": epochs, "test": test, "parameters": parameters}))
    return 0


if __name__ == "__main__":
    cli.script(main, TimeKeys, __doc__)
