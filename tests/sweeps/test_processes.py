"""Sweeps whose processes are killed, or run by another launcher than Hydra's plain one."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest
import torch

from tests.sweeps.sweeping import SMALL, numbers, results, steps
from tests.tool import ROOT


@pytest.fixture(autouse=True)
def one_thread():
    """A launcher's processes share out the cores, so that they have as many only where all have one."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def environment():
    """With as many threads as this process has: sums depend on their number in the last digit."""
    return os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": str(torch.get_num_threads())}


def started(folder, *arguments):
    """A process of its own, as a user starts it."""
    return subprocess.run([sys.executable, *arguments], cwd=folder, env=environment(), capture_output=True, text=True,
                          timeout=600)  # fmt: skip


@pytest.mark.slow
def test_a_sweep_killed_in_an_epoch_and_in_a_checkpoint_write_ends_as_an_undisturbed_one(tool, sweep):
    arguments = ("train.py", "--config-dir", "conf", "sweep=small")
    assert sweep() == 0
    whole = numbers(sweep.folder)
    sweep.folder.rename(tool.folder / "undisturbed")

    killed = started(tool.folder, "-m", "tests.killed", "step", "7", *arguments)  # in the second epoch
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    (run,) = sweep.folder.glob("neuron-lif_seed-0_*")
    assert steps(run) == [[(0, 0), (1, 4)]]
    assert json.loads((run / "result.json").read_text())["status"] == "running"

    # The first cell's second epoch writes at least last.ckpt; the second cell's checkpoints follow.
    killed = started(tool.folder, "-m", "tests.killed", "write", "4", *arguments)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    parts = list(sweep.folder.rglob(".*.ckpt.part"))
    assert len(parts) == 1 and parts[0].stat().st_size > 0
    after_two_kills = {cell: steps(run) for cell, (_, run) in results(sweep.folder).items()}
    assert 1 <= len(after_two_kills) < 4

    done = started(tool.folder, str(ROOT / "train.py"), *arguments[1:])
    assert done.returncode == 0, done.stderr
    assert "4 cells: 4 done, 0 running, 0 failed, 0 missing" in done.stdout
    assert numbers(sweep.folder) == whole
    assert not list(sweep.folder.rglob("*.part"))
    for cell, (_, run) in results(sweep.folder).items():
        if cell in after_two_kills:
            assert steps(run) == after_two_kills[cell], "a finished cell was trained again"
        for earlier, later in zip(steps(run), steps(run)[1:], strict=False):
            assert later[0] in (earlier[-1], (earlier[-1][0] + 1, earlier[-1][1] + 4))  # at most one epoch again


@pytest.mark.slow
@pytest.mark.parametrize(
    ("launcher", "settings"),
    [("joblib", ["hydra.launcher.n_jobs=2"]), ("submitit_local", ["hydra.launcher.timeout_min=10"])],
)
def test_launchers_give_the_numbers_of_the_plain_one(tool, sweep, monkeypatch, launcher, settings):
    rows = "rows:\n  - {label: wrong, overrides: [neuron.s_max=0]}\n"
    sweep.write(SMALL.replace("rows:\n", rows).replace("[0, 1]", "[0]"))
    assert sweep() == 1
    whole = numbers(sweep.folder)
    sweep.folder.rename(tool.folder / "undisturbed")
    done = started(tool.folder, str(ROOT / "train.py"), "--config-dir", "conf", "sweep=small",
                   f"hydra/launcher={launcher}", *settings)  # fmt: skip
    assert done.returncode == 1, done.stdout + done.stderr
    assert "3 cells: 2 done, 0 running, 1 failed, 0 missing" in done.stdout
    assert "failed: wrong, seed 0: neuron.s_max must be an integer from 1 to 127, got 0" in done.stderr
    assert "Traceback" not in done.stderr
    assert numbers(sweep.folder) == whole
    pids = {
        json.loads((run / "steps.jsonl").read_text().splitlines()[0])["pid"]
        for _, run in results(sweep.folder).values()
    }
    assert len(pids) == 2


@pytest.mark.slow
def test_a_killed_job_of_a_launcher_goes_on_from_its_checkpoint(tool, sweep):
    sweep.write(SMALL.replace("[0, 1]", "[0]"))
    command = [sys.executable, str(ROOT / "train.py"), "--config-dir", "conf", "sweep=small", "trainer.max_epochs=60"]
    with subprocess.Popen(
        [*command, "hydra/launcher=submitit_local"],
        cwd=tool.folder,
        env=environment(),
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        while process.poll() is None and not (victims := [log for log in logs(sweep.folder) if len(log) > 2]):
            time.sleep(0.05)
        os.kill(victims[0][0]["pid"], signal.SIGKILL)
        shown = process.stdout.read()
    assert process.returncode == 0, shown
    assert "2 cells: 2 done, 0 running, 0 failed, 0 missing" in shown
    for log in logs(sweep.folder):
        starts = [line["epoch"] for line in log]
        assert len({line["pid"] for line in log}) == (2 if log[0]["pid"] == victims[0][0]["pid"] else 1)
        assert sorted(set(starts)) == list(range(60)) and len(starts) <= 61


def logs(folder):
    """The lines of every cell's ``steps.jsonl`` so far."""
    texts = [path.read_text().split("\n")[:-1] for path in folder.rglob("steps.jsonl")]
    return [[json.loads(line) for line in lines] for lines in texts]
