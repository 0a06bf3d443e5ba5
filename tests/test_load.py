"""Many runs: equal weights from equal settings, nothing left behind in a process, nothing mixed up on one root."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.data.images.test_image_folder import pictures
from tests.tool import ROOT, TINY


def run(program: str, folder: Path, *arguments: str) -> str:
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments], cwd=folder, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_deterministic_runs_end_with_equal_weights(tool):
    settings = (*TINY, "model.encoding=rate", "data.crop=1", "trainer.deterministic=true", "test=false", "report=false")
    states = []
    for name in "ab":
        assert tool("train.py", *settings, f"hydra.run.dir=outputs/{name}") == 0
        path = tool.folder / f"outputs/{name}/checkpoints/last.ckpt"
        states.append(torch.load(path, weights_only=True)["state_dict"])
    first, second = states
    assert first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


MANY = """
import gc, os, sys, threading
from pathlib import Path
import pytest
from tests.tool import TINY, Tool

runs = int(sys.argv[1])  # the tools have command lines of their own
tool = Tool(pytest.MonkeyPatch(), Path.cwd())
quiet = ["callbacks.progress=null", "+trainer.enable_progress_bar=false", "report=false", "callbacks.integer=null"]

def use():
    gc.collect()
    kib = int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") // 1024
    return kib, len(os.listdir("/proc/self/fd")), threading.active_count(), len(os.listdir("/proc/self/task"))

for number in range(runs):
    assert tool("train.py", *TINY, "model=mlp", "model.hidden=[8]", *quiet, f"hydra.run.dir=outputs/{number}") == 0
    if number in (runs // 10, runs - 1):
        print("use", *use())
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs /proc")
def test_200_runs_in_one_process_leave_nothing_behind(tmp_path):
    early, late = (
        [int(word) for word in line.split()[1:]]
        for line in run(MANY, tmp_path, "200").splitlines()
        if line.startswith("use ")
    )
    assert late[1:] == early[1:]  # open files, threads
    assert late[0] - early[0] < 64 * 1024  # KiB; 180 runs that kept their weights and data would need more


EIGHT = """
import sys
from pathlib import Path
from tests.reliability.runs import begin, ended, shown

settings = ["data=image_folder", f"data.root={sys.argv[1]}", "data.size=12", "data.cache=disk", "data.batch_size=8",
            "model=mlp", "model.hidden=[8]", "T=2", "trainer=cpu", "trainer.max_epochs=2", "report=false",
            "callbacks.progress=null", "+trainer.enable_progress_bar=false", "callbacks.integer=null"]
folders = [Path.cwd() / str(number) for number in range(8)]
for folder in folders:
    folder.mkdir()
for folder, pid in [(folder, begin(folder, settings)) for folder in folders]:
    assert ended(pid, 600) == 0, shown(folder, "err").read_text()
"""


@pytest.mark.slow
def test_8_runs_at_once_on_one_root_are_one_run(tmp_path):
    root = pictures(tmp_path / "pets", {"train": 16, "val": 4, "test": 4})
    (tmp_path / "runs").mkdir()
    run(EIGHT, tmp_path / "runs", str(root))
    results = [json.loads(path.read_text()) for path in (tmp_path / "runs").rglob("result.json")]
    assert len(results) == 8
    assert all(result["metrics"] == results[0]["metrics"] for result in results)
    assert not [path for path in root.rglob("*") if path.name.endswith(".part")]
