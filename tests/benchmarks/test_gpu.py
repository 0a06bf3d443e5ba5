"""The run on a card: what is kept when parts fail, hang or are killed, and what is said without a card."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest
import torch

from benchmarks import gpu
from benchmarks.gpu import PARTS, GpuKeys, Part, main, of_benchmark, of_tests, run, text
from benchmarks.harness import Goal, Result
from benchmarks.train_step import add_card_rows
from qbsnn.errors import SettingsError
from tests.tool import ROOT

WRITES = "import sys; open(sys.argv[1], 'w').write(sys.argv[2])"
XML = '<a><testcase name="x"/><testcase name="y"><failure message="off by one"/></testcase></a>'


def part(name, code, *arguments, seconds=60.0):
    return Part(name, ("-c", code, "{out}", *arguments), seconds, of_tests)


def test_what_was_measured_stays_when_others_fail_or_hang(tmp_path, monkeypatch):
    monkeypatch.setattr(gpu, "SHORTEST", 0.0)
    out = tmp_path / "gpu.json"
    parts = [
        part("works", WRITES, XML),
        part("fails", "raise SystemExit('no such card')"),
        part("hangs", "import time; time.sleep(600)", seconds=1.0),
    ]
    found = run(parts, out, 600, tmp_path)
    assert json.loads(out.read_text())["parts"] == found["parts"]
    works, fails, hangs = found["parts"]
    assert works["status"] == "finished" and works["passed"] == 1 and works["failed"] == ["y: off by one"]
    assert fails["status"] == "exit code 1" and fails["output"] == ["no such card"]
    assert hangs["status"] == "out of time" and hangs["seconds"] >= 1
    assert "1 passed, 1 failed" in text(found) and "no such card" in text(found)


def test_parts_that_no_longer_fit_are_named(tmp_path):
    found = run([part("late", WRITES, XML)], tmp_path / "gpu.json", gpu.SHORTEST - 1, tmp_path)
    assert found["parts"][0]["status"] == "left out: no time"


KILLED = """
from benchmarks import gpu
from pathlib import Path
parts = [gpu.Part("slow", ("-c", "import time; time.sleep(600)", "{out}"), 600.0, gpu.of_tests)]
gpu.run(parts, Path("gpu.json"), 3600, Path("."))
"""


def test_a_kill_leaves_the_summary(tmp_path):
    process = subprocess.Popen(
        [sys.executable, "-c", KILLED], cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)},
        start_new_session=True, stdout=subprocess.DEVNULL,
    )  # fmt: skip
    deadline = time.monotonic() + 300
    while not (tmp_path / "gpu.json").exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait(60)
    assert json.loads((tmp_path / "gpu.json").read_text())["parts"][0]["status"] == "running"


def test_the_goals_of_a_card_are_those_of_the_same_precision():
    result = Result("train_step", {})
    times = {"ReLU twin": [9.0], "ReLU twin, bf16": [2.0], "SpikingJelly compiled, bf16": [4.0],
             "QB-LIF block, bf16": [2.06], "QB-LIF block, tf32": [5.0]}  # fmt: skip
    add_card_rows(result, times)
    goals = {row.goal_name: (row.ratio, row.met) for row in result.rows if row.goal}
    assert goals == {
        "training step in bf16 ÷ ReLU twin in bf16, on a card": (1.03, True),
        "training step in bf16 ÷ SpikingJelly's best in bf16, on a card": (0.515, True),
    }


def test_a_summary_shows_the_goals():
    result = Result("x", {})
    result.add("t", "a", [2.0], "s", goal=Goal("a goal", "≤ 1"))
    entry = {"name": "p", "status": "finished", "seconds": 1.0, **of_benchmark(json.dumps(result.as_dict()))}
    assert "a goal: 2, goal ≤ 1, not met" in text({"parts": [entry]})


@pytest.mark.skipif(torch.cuda.is_available(), reason="tells what is said without a card")
def test_without_a_card_it_says_so():
    with pytest.raises(SettingsError, match="finds no CUDA device"):
        main(GpuKeys())


def test_names_of_parts_are_different():
    assert len({part.name for part in PARTS}) == len(PARTS)
