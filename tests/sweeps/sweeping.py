"""A small sweep of two neurons and two seeds, run as a user does, and what it leaves."""

import json

from qbsnn.results.fingerprint import fingerprint
from qbsnn.training.settings import identify
from tests.tool import TINY, Tool

SETTINGS = [
    "model=mlp", '"model.hidden=[32]"', *(word for word in TINY if "width" not in word), "data.batch_size=32",
    "report=false", "callbacks.integer=null", "callbacks.energy=null", "trainer.limit_train_batches=null",
    "trainer.max_epochs=2",
]  # fmt: skip  # 4 steps in each of 2 epochs
SMALL = f"""
title: A small sweep
overrides: [{", ".join(SETTINGS)}]
rows:
  - {{label: LIF, overrides: [neuron=lif]}}
  - {{label: QB, overrides: [neuron.s_max=4]}}
seeds: [0, 1]
baseline: LIF
"""


class Sweeping:
    """``sweep(*arguments)`` runs the sweep file ``small`` in the tool's folder; ``sweep.write`` changes its text."""

    def __init__(self, tool: Tool) -> None:
        self.tool = tool
        self.path = tool.folder / "conf/sweep/small.yaml"
        self.path.parent.mkdir(parents=True)
        self.write(SMALL)
        self.folder = tool.folder / "outputs/sweeps/small"

    def __call__(self, *arguments: str) -> int:
        return self.tool("train.py", "--config-dir", "conf", "sweep=small", *arguments)

    def write(self, text: str) -> None:
        self.path.write_text(text)

    def cells(self) -> list[dict]:
        return json.loads((self.folder / "cells.json").read_text())


def results(folder):
    """The finished results below a folder, by fingerprint: the numbers, and the run directory."""
    found = {}
    for path in folder.rglob("result.json"):
        result = json.loads(path.read_text())
        assert result["cell"] not in found, f"{path} was trained twice"
        assert result["cell"] == fingerprint(result["identity"]) and result["identity"] == identify(result["config"])
        if result["status"] == "finished":
            keys = ("metrics", "layers", "params", "absorption", "seed", "checkpoints")
            found[result["cell"]] = ({key: result[key] for key in keys}, path.parent)
    return found


def numbers(folder):
    return {cell: found for cell, (found, _) in results(folder).items()}


def steps(run):
    """(epoch, step) of every start of an epoch, for each process that trained here."""
    by_process = {}
    for line in (run / "steps.jsonl").read_text().splitlines():
        entry = json.loads(line)
        by_process.setdefault(entry["pid"], []).append((entry["epoch"], entry["step"]))
    return list(by_process.values())
