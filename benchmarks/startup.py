"""How long a command takes to say what is wrong, to show its help, and to train its first step on digits.

Every command is a process of its own; all take turns. Wall time says what a user waits for on an idle machine. CPU time
(user and system) and its ratio to ``import torch`` say the same on a busy one. One step of torch's own AdamW, in a
process that does nothing else, is the limit beside the first training step.
``python -m benchmarks.startup [rounds=5] [small=true]``
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from benchmarks.harness import ROOT, BenchmarkKeys, Goal, Result, where
from benchmarks.rounds import interleaved
from qbsnn.cli import launch as cli

TORCH = "import torch"
ONE_STEP = (
    "import torch; p = torch.nn.Parameter(torch.ones(3)); o = torch.optim.AdamW([p]); p.sum().backward(); o.step()"
)
ANSWER = "≤ 1.5"
FIRST_STEP = ("+callbacks.end._target_=benchmarks.first_step.EndAtFirstStep", "trust=benchmarks")


@dataclass
class Command:
    """A command, the exit code that it must have, and the CPU seconds of its runs."""

    words: tuple[str, ...]
    code: int = 0
    goal: Goal | None = None
    cpu: list[float] = field(default_factory=list)

    def run(self) -> float:
        """Run it in an empty folder; returns wall seconds. Raises RuntimeError for another exit code."""
        with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryFile() as said:
            start = time.perf_counter()
            process = subprocess.Popen(
                [sys.executable, *self.words], cwd=folder, stdin=subprocess.DEVNULL, stdout=said, stderr=said,
                env={**os.environ, "PYTHONPATH": str(ROOT)},
            )  # fmt: skip
            _, status, usage = os.wait4(process.pid, 0)
            seconds = time.perf_counter() - start
            process.returncode = os.waitstatus_to_exitcode(status)
            if process.returncode != self.code:
                said.seek(0)
                raise RuntimeError(f"{' '.join(self.words)} ended with {process.returncode}: {said.read()[-2000:]!r}")
        self.cpu.append(usage.ru_utime + usage.ru_stime)
        return seconds


def commands() -> dict[str, Command]:
    """What is measured, by its name in the tables."""
    train = str(ROOT / "train.py")

    def wrong(name: str, *words: str) -> Command:
        return Command(words, 1, Goal(f"seconds until {name} is answered", ANSWER))

    step = Goal("seconds from the command to the first training step on digits", "≤ 6")
    return {
        TORCH: Command(("-c", "import torch")),
        "one step of torch.optim.AdamW, nothing else": Command(("-c", ONE_STEP)),
        "import qbsnn": Command(("-c", "import qbsnn"), goal=Goal("import qbsnn ÷ import torch", "≤ 1.2")),
        "a wrong key": wrong("a wrong key", train, "neuron.smax=4"),
        "a wrong value": wrong("a wrong value", train, "neuron.s_max=0"),
        "a wrong option": wrong("a wrong option", train, "model=vgg6"),
        "an absent checkpoint": wrong("an absent checkpoint", str(ROOT / "evaluate.py"), "ckpt=absent.ckpt"),
        "--help": Command((train, "--help"), goal=Goal("seconds until --help is shown", "≤ 1")),
        "first training step": Command((train, *FIRST_STEP), goal=step),
    }


def main(args: BenchmarkKeys) -> None:
    made = commands()
    if args.small:
        made = {name: made[name] for name in (TORCH, "a wrong value")}
    result = Result("startup", {"rounds": args.rounds}, args.small)
    print(where(), flush=True)
    calls: dict[str, Callable[[], object]] = {name: command.run for name, command in made.items()}
    walls = interleaved(calls, args.rounds, lambda call: float(call()))  # type: ignore[arg-type]
    for name, command in made.items():
        to = TORCH if name in (TORCH, "import qbsnn") else None
        result.add("Wall time", name, walls[name], "s", to=to, goal=command.goal)
    for name, command in made.items():
        result.add("CPU time", name, command.cpu[1:], "s", to=TORCH)
    result.write(args.out)


if __name__ == "__main__":
    cli.script(main, BenchmarkKeys, __doc__)
