"""Everything that needs a graphics card, within a time limit: tests, benchmarks, trainings; one summary.

Each part is a process with a limit of its own. ``docs/checks/gpu_CARD.json`` is written before and after every part,
so that what was measured survives a kill; a part that was running then says so. A part that reaches its limit is
interrupted and has ``GRACE`` seconds to write what it has. Parts that no longer fit into the time are left out and
named. What a part printed lies in the folder ``gpu_CARD`` beside the summary. The exit code is 1 where a test failed or
a part did not finish.
``python -m benchmarks.gpu [minutes=25] [data=data] [parts=tests,neuron] [out=FILE]``
"""

from __future__ import annotations

import ctypes
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import torch
from pydantic import Field

from benchmarks.gpu_summary import LAST, code, earlier, of_benchmark, of_run, of_tests, text, trouble, write
from benchmarks.harness import ROOT, first_line, where
from qbsnn.checks import choice
from qbsnn.cli import launch as cli
from qbsnn.cli.keys import Keys
from qbsnn.errors import SettingsError
from qbsnn.training.devices.host import git_state, host_info

GRACE = 20.0  # seconds between SIGINT and SIGKILL
SET_PDEATHSIG = 1  # of prctl(2)


@dataclass(frozen=True)
class Part:
    """A command, ``{out}`` and ``{data}`` filled in, its time limit in seconds and what reads the file it leaves.

    least: with less time left, in seconds, it is not begun.
    """

    name: str
    command: tuple[str, ...]
    seconds: float
    read: Callable[[str], dict[str, Any]]
    leaves: str = "result.json"  # in the folder of the part
    least: float = 30.0
    environment: tuple[tuple[str, str], ...] = ()  # variables beside those of this process


def _benchmark(name: str, script: str, seconds: float, *keys: str) -> Part:
    return Part(name, ("-m", f"benchmarks.{script}", "out={out}", *keys), seconds, of_benchmark)


def _training(name: str, seconds: float, *keys: str) -> Part:
    given = ("data.root={data}", "data.download=false", "data.verify=false", "trainer=gpu", "report=false")
    command = ("train.py", *keys, *given, "hydra.run.dir={folder}/run")
    return Part(name, command, seconds, of_run, "run/result.json", least=120)


# A warning of another torch fails no test here, only files with tests of a card are collected, and of the plugins that
# another machine may have only those that are needed here are loaded.
TESTS = ("-m", "pytest", "-p", "xdist", "-p", "hypothesispytest", "-m", "gpu", "-q", "-n", "4",
         "-W", "default", "--tb=short", "--junitxml={out}",
         "tests/test_gpu.py", "tests/deploy/engines/test_int8.py")  # fmt: skip
STEP = ("rounds=5", "channels_last=true")
LARGE = "only=QB-LIF block,QB-LIF packed,SpikingJelly compiled"
# The int64 engine of the proof runs on the CPU: it sees the first batch of the test images.
FAST = ("experiment=cifar10_fast_gpu", "callbacks.integer.max_batches=1", "callbacks.absorption.max_batches=1")
SHORT = ("trainer.max_epochs=2", "callbacks=no_deploy")
PARTS = (
    Part("tests", TESTS, 420, of_tests, environment=(("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1"),)),
    _benchmark("neuron", "neuron", 150, "batch=256", "rounds=10"),
    _training("cifar10_fast_gpu", 420, *FAST),
    _benchmark("step_resnet19_128", "train_step", 240, "batch=128", *STEP),
    _benchmark("step_resnet19_512", "train_step", 180, "batch=512", LARGE, *STEP),
    _benchmark("step_vgg9_256", "train_step", 150, "model=vgg9", "batch=256", *STEP),
    _benchmark("inference", "inference", 120, "models=resnet19", "s_max=8", "batch=256", "threads=1"),
    _benchmark("loader", "data", 90, "only=pictures"),
    *(_training(f"{row}, 2 epochs", 300, f"experiment={row}", *SHORT) for row in ("cifar10_qb_t4", "cifar10_lif_t4")),
    *(_training(f"cifar10_fast_gpu {row}", 300, *FAST, row)
      for row in ("neuron=relu", "neuron=lif", "neuron.s_max=1", "seed=1", "seed=2")),
)  # fmt: skip


class GpuKeys(Keys):
    """The keys of this tool."""

    minutes: float = Field(default=25, gt=0, description="minutes for everything")
    data: Path = Field(default=Path(os.environ.get("QBSNN_DATA", "data")), description="where cifar-10-batches-py lies")
    parts: list[str] = Field(default=[part.name for part in PARTS], description="these parts, separated by commas")
    out: Path | None = Field(default=None, description="the summary; default: docs/checks/gpu_CARD.json")


def main(given: GpuKeys) -> None:
    try:
        torch.cuda.init()
    except (RuntimeError, AssertionError) as error:
        why = f"torch {torch.__version__} finds no CUDA device here: see docs/gpu.md; it says: {first_line(error)}"
        raise SettingsError(why) from error
    card = re.sub(r"[^a-z0-9]+", "_", torch.cuda.get_device_name().lower()).strip("_")
    known = {part.name: part for part in PARTS}
    wanted = [known[name] for name in known if name in {choice("parts", name, known) for name in given.parts}]
    path = given.out or ROOT / f"docs/checks/gpu_{card}.json"
    summary = run(wanted, path, 60 * given.minutes, given.data.absolute())
    print(f"\n{where()}\n{text(summary)}\nwritten to {path}")
    names = {part.name for part in wanted}
    if trouble({"parts": [entry for entry in summary["parts"] if entry["name"] in names]}):
        sys.exit(1)


def driver() -> str | None:
    """The version of the card's driver, if ``nvidia-smi`` tells it."""
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout.split()[0]
    except (OSError, subprocess.SubprocessError, IndexError):
        return None


def run(parts: Sequence[Part], path: Path, seconds: float, data: Path) -> dict[str, Any]:
    """Run parts until the time is over, writing the summary to ``path`` as it grows; returns it.

    A summary of the same code, host and torch that lies there keeps its parts, except those that run again.
    """
    commit, dirty = git_state(ROOT, ":(top)benchmarks")
    summary: dict[str, Any] = {
        "host": vars(host_info()), "cuda": torch.version.cuda, "cudnn": torch.backends.cudnn.version(),
        "driver": driver(), "git_commit": commit, "git_dirty": dirty, "code": code(ROOT), "seconds": seconds,
        "started": _now(), "parts": [],
    }  # fmt: skip
    begun = time.monotonic()
    path.parent.mkdir(parents=True, exist_ok=True)
    entries = {entry["name"]: entry for entry in earlier(path, summary)}
    for part in parts:
        left = seconds - GRACE - (time.monotonic() - begun)
        entry: dict[str, Any] = {"name": part.name, "command": " ".join(part.command), "started": _now()}
        if left >= part.least:
            entries[part.name] = entry | {"status": "running"}
            write(path, summary | {"parts": [*entries.values()]})
            print(f"{part.name}: at most {min(left, part.seconds):.0f} s", flush=True)
            log = path.with_suffix("") / (re.sub(r"[^A-Za-z0-9_.=]+", "_", part.name) + ".txt")
            entries[part.name] = entry | one(part, min(left, part.seconds), data, log)
        else:  # an earlier call may have run it
            entries.setdefault(part.name, entry | {"status": "left out: no time"})
        summary["parts"] = [*entries.values()]
        write(path, summary)
        print(text({"parts": [entries[part.name]]}), flush=True)
    return summary


def _now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="seconds")


def one(part: Part, seconds: float, data: Path, log: Path) -> dict[str, Any]:
    """Run one part, which is interrupted after so long: its status, seconds, and what it left; ``log`` gets its output.

    Where it does not end well, the last lines of its output are kept too.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / part.leaves
        command = [word.format(out=out, data=data, folder=folder) for word in part.command]
        begun = time.monotonic()
        with log.open("wb") as output:
            process = subprocess.Popen(
                [sys.executable, *command], cwd=ROOT, env={**os.environ, **dict(part.environment)},
                stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, start_new_session=True,
                preexec_fn=_ending_with(os.getpid()),
            )  # fmt: skip
            try:
                ended: int | None = process.wait(seconds)
            except subprocess.TimeoutExpired:
                ended = None
                os.killpg(process.pid, signal.SIGINT)
                with suppress(subprocess.TimeoutExpired):
                    process.wait(GRACE)
            finally:
                with suppress(ProcessLookupError):  # all are gone
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        last = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()[-LAST:]
        found: dict[str, Any] = {"seconds": round(time.monotonic() - begun, 1), "log": f"{log.parent.name}/{log.name}"}
        found["status"] = {None: "out of time", 0: "finished"}.get(ended, f"exit code {ended}")
        try:
            found |= {f"run_{key}" if key in found else key: value for key, value in part.read(out.read_text()).items()}
            unread = False
        except (OSError, ValueError, KeyError, ElementTree.ParseError):
            unread = True
        if unread or ended != 0:
            found["output"] = last
        return found


def _ending_with(parent: int) -> Callable[[], None]:
    """What a child does before it runs: hear of Ctrl-C, and on Linux end when its parent is killed."""
    prctl = ctypes.CDLL(None).prctl if sys.platform == "linux" else None

    def prepare() -> None:
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # a shell's background job ignores it
        if prctl is not None:
            prctl(SET_PDEATHSIG, signal.SIGKILL)
            if os.getppid() != parent:  # it was killed before
                os._exit(1)

    return prepare


if __name__ == "__main__":
    cli.script(main, GpuKeys, __doc__)
