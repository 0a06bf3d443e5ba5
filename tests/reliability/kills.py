"""Runs that are killed at random instants and started again, beside one that nobody disturbed."""

import hashlib
import json
import os
import random
import signal
import time
from collections import Counter
from pathlib import Path
from typing import Any

import torch

from tests.reliability.runs import PHASES, REST, Watched, remove, shown, stop

RUN = "outputs/run"
SETTINGS = (
    "model=mlp", "model.hidden=[16]", "data.limit_train=128", "data.limit_val=32", "data.limit_test=64",
    "data.batch_size=32", "data.crop=1", "model.encoding=rate", "neuron.init=percentile", "T=2",
    "callbacks.delta.penalty=0.1", "callbacks.checkpoint.every_minutes=0.0001", "callbacks.integer.onnx_images=0",
    "callbacks.progress=null", "+trainer.enable_progress_bar=false", "trainer=cpu", "trainer.max_epochs=4",
    "report=false", f"hydra.run.dir={RUN}",
)  # fmt: skip
"""Four epochs of four steps, with everything that draws random numbers, and a checkpoint after nearly every step."""

KINDS = {
    "no loader processes": (1, ()),
    "2 loader processes": (1, ("data.num_workers=2",)),
    "2 training processes (DDP)": (
        2,
        ("trainer.devices=2", "+trainer.strategy=ddp", "+trainer.sync_batchnorm=true"),
    ),
}
SECONDS = 1500


def left(folder: Path) -> dict[str, Any]:
    """What must be equal: weights of best and last, losses of every step, curves, the numbers of the result."""
    run = folder / RUN
    result = json.loads((run / "result.json").read_text())
    names = ("metrics", "layers", "params", "absorption", "integer", "energy", "checkpoints", "cell", "status")
    weights = {}
    for name in ("best", "last"):
        state = torch.load(run / f"checkpoints/{name}.ckpt", weights_only=True)["state_dict"]
        digest = hashlib.sha256()
        for key, value in state.items():
            digest.update(key.encode() + value.contiguous().numpy().tobytes())
        weights[name] = digest.hexdigest()
    losses: dict[str, set[str]] = {}
    for line in folder.with_name(f"{folder.name}.losses.txt").read_text().splitlines():
        rank, step, loss = line.split()
        losses.setdefault(f"{rank} {step}", set()).add(loss)
    return {
        "weights": weights,
        "losses": {step: sorted(found) for step, found in sorted(losses.items())},
        "metrics.csv": (run / "metrics.csv").read_text(),
        "result": {name: result.get(name) for name in names},
        "files": sorted(path.name for path in (run / "checkpoints").iterdir()),
    }


def undisturbed(folder: Path, world: int, words: tuple[str, ...]) -> tuple[dict[str, Any], dict[int, Any]]:
    """What a whole run leaves, and the timeline of each of its processes."""
    folder.mkdir()
    run = Watched(folder, (*SETTINGS, *words), world)
    times = {rank: run.timeline(rank) for rank in range(world)}
    assert run.close(60) == [0] * world, shown(folder, "err").read_text()
    return left(folder), times


def killed(folder: Path, world: int, words: tuple[str, ...], times: dict[int, Any], phase: str, rng: Any) -> str:
    """Kill a process of a run at a random instant of a phase; returns the phase that it was really in."""
    ranks = [rank for rank in times if any(letter == phase for letter, _ in times[rank])]
    rank = rng.choice(ranks)
    spans = [seconds for letter, seconds in times[rank] if letter == phase]
    instant, turn = rng.uniform(0, sum(spans)), 1
    while instant > spans[turn - 1]:
        instant -= spans[turn - 1]
        turn += 1
    run = Watched(folder, (*SETTINGS, *words), world)
    while turn:
        letter = run.next(rank)
        if not letter:
            run.close(60)
            return REST
        turn -= letter == phase
    time.sleep(instant)
    os.kill(run.pids[rank], signal.SIGKILL)
    while run.next(rank):
        pass
    for other in set(range(world)) - {rank}:
        stop(run.pids.pop(other), 30)  # as torch's agent does
    run.close(10)
    return run.seen[rank]


def measure(folder: Path, kind: str, count: int, seed: int) -> dict[str, Any]:
    """Kill runs of one kind ``count`` times.

    Returns:
        ``asked``, ``equal``, ``killed_in`` (phase -> kills), ``unequal`` (what differed, one text for each run).
    """
    world, words = KINDS[kind]
    rng = random.Random(f"{seed} {kind}")
    whole, times = undisturbed(folder / "whole", world, words)
    phases: Counter[str] = Counter()
    unequal = []
    while sum(phases.values()) < count:
        number = sum(phases.values())
        parts = folder / f"killed{number}"
        parts.mkdir()
        where = killed(parts, world, words, times, "tvwc"[number % 4], rng)
        if where == REST:  # the run was over before
            remove(parts)
            continue
        phases[PHASES[where]] += 1
        again = Watched(parts, (*SETTINGS, *words), world)
        codes = again.close(SECONDS)
        if any(codes):
            unequal.append(f"{PHASES[where]}: exit codes {codes}: {shown(parts, 'err').read_text()[-2000:]}")
        elif wrong := [name for name, found in left(parts).items() if found != whole[name]]:
            unequal.append(f"{PHASES[where]}: {', '.join(wrong)}")
        else:
            remove(parts)
        print(f"\r{kind}: {number + 1 - len(unequal)}/{number + 1}", end="", flush=True)
    print()
    return {
        "asked": count,
        "equal": count - len(unequal),
        "killed_in": dict(sorted(phases.items())),
        "unequal": unequal,
    }
