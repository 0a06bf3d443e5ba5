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
import json
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

from benchmarks.harness import ROOT, first_line, where
from qbsnn.checks import choice
from qbsnn.cli import launch as cli
from qbsnn.cli.keys import Keys
from qbsnn.errors import SettingsError
from qbsnn.results.files import write_atomically
from qbsnn.training.devices.host import git_state, host_info

GRACE = 20.0  # seconds between SIGINT and SIGKILL
SET_PDEATHSIG = 1  # of prctl(2)
LAST = 15  # lines that are kept of a failed test's text and of a failed part's output
METRICS = ("status", "error", "metrics", "timing", "precision", "execution", "absorption", "integer", "energy")


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


def of_benchmark(text: str) -> dict[str, Any]:
    """Rows, reasons and the peers' versions of a benchmark's result file."""
    found = json.loads(text)
    return {key: found[key] for key in ("settings", "versions", "rows", "skipped")}


def of_tests(text: str) -> dict[str, Any]:
    """Numbers of tests, and what failed, of pytest's XML; tests that were interrupted have no name and do not count.

    >>> of_tests('<a><testcase name="x"/><testcase name="y"><failure message="no">1 != 2</failure></testcase></a>')
    {'passed': 1, 'skipped': 0, 'failed': ['y: no'], 'names': ['x'], 'reasons': {'y': ['1 != 2']}}
    """
    cases = ElementTree.fromstring(text).iterfind(".//testcase[@name]")
    passed, skipped, failed, reasons = [], 0, [], {}
    for case in cases:
        if (bad := next((child for child in case if child.tag in ("failure", "error")), None)) is not None:
            first = next(iter((bad.get("message") or "no message").splitlines()))
            failed.append(f"{case.get('name')}: {first[:200]}")
            reasons[case.get("name")] = (bad.text or "").strip().splitlines()[-LAST:]
        elif case.find("skipped") is not None:
            skipped += 1
        else:
            passed.append(case.get("name"))
    return {"passed": len(passed), "skipped": skipped, "failed": failed, "names": passed, "reasons": reasons}


def of_run(text: str) -> dict[str, Any]:
    """What a run says of itself."""
    found = json.loads(text)
    return {key: found[key] for key in METRICS if key in found}


def _benchmark(name: str, script: str, seconds: float, *keys: str) -> Part:
    return Part(name, ("-m", f"benchmarks.{script}", "out={out}", *keys), seconds, of_benchmark)


def _training(name: str, seconds: float, *keys: str) -> Part:
    given = ("data.root={data}", "data.download=false", "data.verify=false", "trainer=gpu", "report=false")
    command = ("train.py", *keys, *given, "hydra.run.dir={folder}/run")
    return Part(name, command, seconds, of_run, "run/result.json", least=120)


# A warning of another torch fails no test here, and only files with tests of a card are collected.
TESTS = ("-m", "pytest", "-m", "gpu", "-q", "-n", "4", "-W", "default", "--tb=short", "--junitxml={out}",
         "tests/test_gpu.py", "tests/deploy/engines/test_int8.py")  # fmt: skip
STEP = ("rounds=5", "channels_last=true")
LARGE = "only=QB-LIF block,QB-LIF packed,SpikingJelly compiled"
# The int64 engine of the proof runs on the CPU: it sees the first batch of the test images.
FAST = ("experiment=cifar10_fast_gpu", "callbacks.integer.max_batches=1", "callbacks.absorption.max_batches=1")
SHORT = ("trainer.max_epochs=2", "callbacks=no_deploy")
PARTS = (
    Part("tests", TESTS, 420, of_tests),
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
    if trouble(summary):
        sys.exit(1)


def trouble(summary: dict[str, Any]) -> bool:
    """Whether a test failed, or a part neither finished nor was left out."""
    parts = summary["parts"]
    return any(part.get("failed") or not part["status"].startswith(("finished", "left out")) for part in parts)


def driver() -> str | None:
    """The version of the card's driver, if ``nvidia-smi`` tells it."""
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout.split()[0]
    except (OSError, subprocess.SubprocessError, IndexError):
        return None


def run(parts: Sequence[Part], path: Path, seconds: float, data: Path) -> dict[str, Any]:
    """Run parts until the time is over, writing the summary to ``path`` as it grows; returns it."""
    commit, dirty = git_state(ROOT, ":(top)benchmarks")
    summary: dict[str, Any] = {
        "host": vars(host_info()), "cuda": torch.version.cuda, "cudnn": torch.backends.cudnn.version(),
        "driver": driver(), "git_commit": commit, "git_dirty": dirty, "seconds": seconds,
        "started": datetime.now(timezone.utc).isoformat(timespec="seconds"), "parts": [],
    }  # fmt: skip
    begun = time.monotonic()
    path.parent.mkdir(parents=True, exist_ok=True)
    for part in parts:
        entry: dict[str, Any] = {"name": part.name, "command": " ".join(part.command), "status": "running"}
        summary["parts"].append(entry)
        _write(path, summary)
        left = seconds - GRACE - (time.monotonic() - begun)
        if left >= part.least:
            print(f"{part.name}: at most {min(left, part.seconds):.0f} s", flush=True)
            log = path.with_suffix("") / (re.sub(r"[^A-Za-z0-9_.=]+", "_", part.name) + ".txt")
            entry |= one(part, min(left, part.seconds), data, log)
        else:
            entry["status"] = "left out: no time"
        _write(path, summary)
        print(text({"parts": [entry]}), flush=True)
    return summary


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
                [sys.executable, *command], cwd=ROOT, stdin=subprocess.DEVNULL, stdout=output,
                stderr=subprocess.STDOUT, start_new_session=True, preexec_fn=_ending_with(os.getpid()),
            )  # fmt: skip
            try:
                code: int | None = process.wait(seconds)
            except subprocess.TimeoutExpired:
                code = None
                os.killpg(process.pid, signal.SIGINT)
                with suppress(subprocess.TimeoutExpired):
                    process.wait(GRACE)
            finally:
                with suppress(ProcessLookupError):  # all are gone
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        last = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()[-LAST:]
        found: dict[str, Any] = {"seconds": round(time.monotonic() - begun, 1), "log": f"{log.parent.name}/{log.name}"}
        found["status"] = {None: "out of time", 0: "finished"}.get(code, f"exit code {code}")
        try:
            found |= {f"run_{key}" if key in found else key: value for key, value in part.read(out.read_text()).items()}
            unread = False
        except (OSError, ValueError, KeyError, ElementTree.ParseError):
            unread = True
        if unread or code != 0:
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


def text(summary: dict[str, Any]) -> str:
    """A line per part, and one per goal, failed test and test accuracy."""
    lines = []
    for part in summary["parts"]:
        lines.append(f"{part['name']:<34} {part['status']:<18} {part.get('seconds', 0):>6.0f} s")
        if "passed" in part:
            lines.append(f"    {part['passed']} passed, {len(part['failed'])} failed, {part['skipped']} skipped")
            lines += [f"    {line}" for line in part["failed"]]
        for row in part.get("rows", ()):
            if row["goal"]:
                value = row["ratio"] if row["to"] or row["ratio"] is not None else row["median"]
                shown = "no value" if value is None else f"{value:.3g}"
                lines.append(f"    {row['goal_name']}: {shown}, goal {row['goal']}, {'' if row['met'] else 'not '}met")
        accuracy = (part.get("metrics") or {}).get("best", {}).get("test/acc")
        if accuracy is not None:
            lines.append(f"    test accuracy {accuracy:.2%}")
        if part.get("error"):
            lines.append(f"    {part['error']}")
        lines += [f"    {line}" for line in part.get("output", ())]
    return "\n".join(lines)


def _write(path: Path, summary: dict[str, Any]) -> None:
    write_atomically(path, (json.dumps(summary, indent=1, ensure_ascii=False, default=str) + "\n").encode())


if __name__ == "__main__":
    cli.script(main, GpuKeys, __doc__)
