"""Signals and lost parents: runs of several processes end together, soon, and can go on."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.tool import ROOT

SETTINGS = (
    "model=mlp", "model.hidden=[32]", "model.norm=none", "data.limit_train=256", "data.limit_val=32",
    "data.limit_test=64", "data.batch_size=16",
    "trainer.max_epochs=400",
    "report=false", "callbacks.integer=null", "callbacks.energy=null",
    "callbacks.progress=null", "+trainer.enable_progress_bar=false", "hydra.run.dir=outputs/run",
)  # fmt: skip
SOON = 15  # seconds; the bound is generous, since the machine may be busy


def start(folder: Path, *arguments: str) -> subprocess.Popen:
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(ROOT / "train.py"), *SETTINGS, *arguments]
    with (folder / "shown.txt").open("w") as shown:
        return subprocess.Popen(command, cwd=folder, env=environment, stdout=shown, stderr=subprocess.STDOUT)


def shown(folder: Path) -> str:
    return (folder / "shown.txt").read_text()


def until(happened, seconds: float = 90) -> None:
    end = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < end, "nothing happened"
        time.sleep(0.1)


def epochs(folder: Path) -> int:
    path = folder / "outputs/run/steps.jsonl"
    return len(path.read_text().splitlines()) if path.is_file() else 0


def workers(folder: Path) -> list[int]:
    """Processes that run in a folder."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            if (path / "cwd").resolve() == folder and (path / "stat").read_text().split(")")[1].split()[0] != "Z":
                found.append(int(path.name))
        except OSError:
            continue
    return found


def status(folder: Path) -> str:
    return json.loads((folder / "outputs/run/result.json").read_text())["status"]


@pytest.mark.slow
@pytest.mark.parametrize("devices", ["default", "ddp_cpu"])
def test_sigterm_ends_a_run_soon_with_its_code_and_its_state(tmp_path, devices):
    run = start(tmp_path, f"trainer={devices}")
    until(lambda: epochs(tmp_path) >= 3)
    began = time.monotonic()
    run.send_signal(signal.SIGTERM)
    assert run.wait(60) == 128 + signal.SIGTERM
    assert time.monotonic() - began < SOON
    assert status(tmp_path) == "interrupted" and not workers(tmp_path)
    again = start(tmp_path, f"trainer={devices}", "overwrite=true", "trainer.max_epochs=2")
    assert again.wait(120) == 0, shown(tmp_path)
    assert status(tmp_path) == "finished"


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/cwd").exists(), reason="needs /proc")
def test_workers_end_when_their_launcher_is_killed(tmp_path):
    run = start(tmp_path, "trainer=ddp_cpu")
    until(lambda: epochs(tmp_path) >= 3)
    assert len(workers(tmp_path)) >= 3
    run.kill()
    run.wait(10)
    until(lambda: not workers(tmp_path), SOON)
    assert status(tmp_path) == "interrupted"


@pytest.mark.slow
def test_two_starts_in_one_directory_do_not_meet(tmp_path):
    first = start(tmp_path)
    until(lambda: epochs(tmp_path) >= 2)
    second = start(tmp_path)
    assert second.wait(90) == 1 and "another process writes into" in shown(tmp_path), shown(tmp_path)
    before = epochs(tmp_path)
    until(lambda: epochs(tmp_path) > before)  # the first one goes on
    first.terminate()
    first.wait(60)
