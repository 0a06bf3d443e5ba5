"""The recipes of the docs: their code is written to an empty folder, and their commands are run."""

import csv
import importlib
import re
import shlex
import sys

import numpy as np
import pytest
import torch

from qbsnn import results
from qbsnn.deploy.convert.profiles import LIMITS
from qbsnn.deploy.convert.settings import PROFILES
from qbsnn.deploy.export.write import FORMATS
from qbsnn.energy.price import MODELS
from qbsnn.functional.surrogate import SURROGATES
from qbsnn.layers import NORMS
from tests.tool import ROOT, TINY

TABLES = (NORMS, SURROGATES, MODELS, PROFILES, LIMITS, FORMATS)
SWIFT = (*TINY, "report=false", "callbacks.diagnostics=null", "callbacks.integer.onnx_images=0")


class Recipe:
    """``recipe(page, title)`` writes the files of a section and returns its command; ``run`` runs that command."""

    def __init__(self, tool, monkeypatch):
        self.tool, self.monkeypatch, self.modules = tool, monkeypatch, []

    def __call__(self, page, title=None):
        text = (ROOT / "docs" / page).read_text(encoding="utf-8")
        if title is not None:
            (text,) = re.findall(rf"^## {title}\n(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL)
        files = re.findall(r"^`([\w./]+)`[^\n]*:\n\n```\w+\n(.*?)```", text, re.MULTILINE | re.DOTALL)
        for name, content in files:
            path = self.tool.folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content, encoding="utf-8")
        self.monkeypatch.syspath_prepend(str(self.tool.folder))
        self.modules += [name.removesuffix(".py") for name, _ in files if name.endswith(".py")]
        for module in self.modules:
            importlib.import_module(module)
        (command,) = re.findall(r"^```sh\n(.*?)```", text, re.MULTILINE | re.DOTALL)
        return command

    def run(self, command, *arguments):
        """Run ``[PYTHONPATH=.] python SCRIPT ...`` with more arguments; it must succeed."""
        script, *words = shlex.split(command.split("python ", 1)[1])
        assert self.tool(script, *words, *arguments) == 0
        return self.tool.result()


@pytest.fixture
def recipe(tool, monkeypatch):
    before = [dict(table) for table in TABLES]
    monkeypatch.setattr("qbsnn.results.quantities.QUANTITIES", quantities := list(results.QUANTITIES))
    monkeypatch.setattr(results, "QUANTITIES", quantities)
    made = Recipe(tool, monkeypatch)
    yield made
    for table, rows in zip(TABLES, before, strict=True):
        table.clear()
        table.update(rows)
    for module in made.modules:
        sys.modules.pop(module, None)


def test_neuron(recipe):
    command = recipe("add_a_neuron.md")
    neuron = sys.modules["tiring"].Tiring(s_max=4, kappa=0.5, rho=0.5)
    # Δ = 1/2, λ = 1/2: V = 1.25 -> 2, U = 0.25, a = 2; V = 0.125 + 1.25 − 0.5·0.5·2 = 0.875 -> 1, U = 0.375, a = 2;
    # V = 0.1875 + 1.25 − 0.5 = 0.9375 -> 1
    assert neuron(torch.full((3, 1, 1), 1.25)).flatten().tolist() == [2, 1, 1]
    result = recipe.run(command, *TINY, "report=false")
    assert {layer["neuron"] for layer in result["layers"]} == {"Tiring"}
    assert "has an adaptation variable" in result["integer"]["skipped"]


def test_layer(recipe):
    result = recipe.run(recipe("recipes.md", "Layer"), *SWIFT)
    assert result["config"]["model"]["norm"] == "calm"
    assert result["absorption"]["spike_mismatches"] == 0 and result["status"] == "finished"
    norm = NORMS["calm"](3, 2, 4, 1.0)
    assert norm.weight.tolist() == [0.5] * 3


def test_network(recipe):
    result = recipe.run(recipe("recipes.md", "Network"), *SWIFT)
    assert [layer["name"] for layer in result["integer"]["layers"]] == ["first", "second"]
    assert result["config"]["model"]["channels"] == 32 and result["status"] == "finished"


def test_data_set(recipe, capsys):
    command = recipe("recipes.md", "Data set")
    assert recipe.tool("train.py", *shlex.split(command)[3:], *SWIFT) == 1
    assert "shapes.npz is not there: put the file there" in capsys.readouterr().err
    square, cross = np.zeros((2, 1, 12, 12), np.uint8)
    square[0, 3:9, 3:9], cross[0, 5:7], cross[0, :, 5:7] = 255, 255, 255
    arrays = {}
    for part, count in (("train", 160), ("test", 64)):
        arrays[f"{part}_labels"] = np.arange(count) % 2
        arrays[f"{part}_pixels"] = np.stack([square, cross])[arrays[f"{part}_labels"]]
    np.savez(recipe.tool.folder / "shapes.npz", **arrays)
    result = recipe.run(command, *SWIFT, "data.limit_val=null", "overwrite=true")
    assert result["data"]["samples"] == {"train": 128, "val": 16, "test": 64} and result["status"] == "finished"


def test_surrogate(recipe):
    result = recipe.run(recipe("recipes.md", "Surrogate"), *SWIFT, "test=false")
    assert result["config"]["neuron"]["surrogate"] == "gaussian"
    p = torch.tensor([0.0, 1.0, 1.5, 3.0])
    assert torch.equal(SURROGATES["gaussian"](p, 2, 1.0), torch.tensor([-1.0, 0, -0.25, -1.0]).exp())


def test_column(recipe, capsys):
    recipe.run(recipe("recipes.md", "Column"), *TINY, "report=false", "callbacks.integer=null", "callbacks.energy=null")
    (line,) = [line for line in capsys.readouterr().out.splitlines() if "largest saturation" in line]
    assert "%; share of neuron-steps at s_max" in line
    (value,) = results.frame(recipe.tool.folder / "outputs")["saturated"]
    assert 0 <= value <= 1


def test_energy_model(recipe, capsys):
    result = recipe.run(recipe("recipes.md", "Energy model"), *SWIFT, "callbacks.integer=null")
    assert result["energy"]["models"]["chip"] == "my chip, int8"
    assert sum(result["energy"]["totals"]["chip"]["network"].values()) > 0
    assert "(chip)" in capsys.readouterr().out


def test_callback(recipe):
    recipe.run(recipe("recipes.md", "Callback"), *SWIFT, "test=false")
    with (recipe.tool.runs()[-1] / "metrics.csv").open(newline="") as file:
        (row,) = csv.DictReader(file)
    assert float(row["length/conv1.0"]) > 0 and float(row["length/readout.0"]) > 0


def test_hardware_target(recipe):
    result = recipe.run(recipe("recipes.md", "Hardware target"), *SWIFT)
    assert result["integer"]["profile"] == "tiny-chip" and result["integer"]["register_bits"] == 20
    assert {(found["what"], found["limit"]) for found in result["integer"]["findings"]} >= {("burst", "at most 4")}


def test_export(recipe):
    command = recipe("recipes.md", "Export")
    assert recipe.tool("train.py", *SWIFT, "callbacks.integer=null", "callbacks.energy=null") == 0
    (run,) = recipe.tool.runs()
    recipe.run(command.replace("RUN", run.name), "out=net.zip")
    assert (recipe.tool.folder / "net.zip").read_bytes()[:2] == b"PK"


def test_every_recipe_is_run_and_listed():
    titles = re.findall(r"^## (.+)$", (ROOT / "docs/recipes.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert {f"test_{title.lower().replace(' ', '_')}" for title in titles} <= globals().keys()
