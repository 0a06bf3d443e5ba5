"""The command that shows what is promised, with few of each; the page is made of the figures that are kept."""

import json
import os
import random
import subprocess
import sys

import pytest

from qbsnn.training import checkpoints
from tests.reliability import damage, overrides, page
from tests.tool import ROOT


def test_the_page_is_made_of_the_figures_of_the_last_run():
    assert page.PAGE.read_text(encoding="utf-8") == page.text(page.figures())


def test_overrides_are_different_and_of_every_kind():
    found = overrides.generate(500, seed=0)
    assert len({override for _, override in found}) == 500
    assert {kind for kind, _ in found} == set(overrides.KINDS)
    assert overrides.generate(20, seed=0) == found[:20]


def test_damage_that_passes_is_counted(tmp_path):
    path = tmp_path / "a.ckpt"
    checkpoints.AtomicCheckpointIO().save_checkpoint({"k": 1}, path)
    assert damage.measure(path, checkpoints.load, 20, 5, seed=0)["refused"] == 25
    found = damage.measure(path, lambda path: path.read_bytes(), 2, 1, seed=0)
    assert found["refused"] == 0 and len(found["passed"]) == 3
    whole = bytes(range(100))
    assert damage._flipped(whole, random.Random(0))[1] != whole and len(damage._cut(whole, random.Random(0))[1]) < 100


@pytest.mark.slow
def test_the_command_prints_figures_and_writes_the_page(tmp_path):
    words = ["parts=damage,overrides,kills", "kills=4", "kinds=no loader processes", "settings=12", "flips=8",
             "cuts=4", f"figures={tmp_path / 'a.json'}", f"page={tmp_path / 'a.md'}"]  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-m", "tests.reliability", *words], cwd=ROOT, capture_output=True, text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads((tmp_path / "a.json").read_text())
    assert found["kills"]["found"]["no loader processes"]["equal"] == 4
    assert "| 4 of 4 equal (" in (tmp_path / "a.md").read_text()
    assert "overrides: 12 of 12 as promised" in done.stdout
