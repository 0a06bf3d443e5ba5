"""Numbers and commands of README.md and of the pages of results: each has a source, each command composes."""

import re
import shlex

import pytest
import yaml

from qbsnn.cli.summary import summarise
from qbsnn.report.tables.stored import read_stored
from qbsnn.sweeps.plan import cells, read
from tests.test_configs import composed, options
from tests.tool import ROOT

SOURCES = {
    "2604.25688": "arXiv number of the paper",
    "3.10": "requires-python of pyproject.toml",
    "5.5": "size of PyTorch and its CUDA libraries on disk, GB",
    "6": "disk for the whole environment, GB",
    "1.6": "what the libraries add to the page of all runs, MB",
    "512": "images of onnxruntime: callbacks.integer.onnx_images",
    "4": "bits of the row with the quantised ReLU network",
    "15": "budget.target of conf/budget/energy.yaml, %",
    "100": "the dense ReLU network, %",
}
"""Numbers of README.md in words, besides those from stored runs, and where they come from."""
PAGES = ["benchmark_details.md", "ablation_studies.md", "findings.md", "best_practices.md", "results.md"]


def readme() -> str:
    return (ROOT / "README.md").read_text(encoding="utf-8")


def test_every_number_of_the_readme_has_a_source():
    text = re.sub(r"```.*?```|<!-- begin:.*?<!-- end -->|<!--=.*?<!--/-->", "", readme(), flags=re.DOTALL)
    text = re.sub(
        r"`[^`]*`|\]\([^)]*\)|Δ = 1\b|[T n] = \d+|s_max \+ 1|(?:CIFAR|QB-INT|VGG|ResNet|MNIST)[- ]\d+", "", text
    )
    found = set(re.findall(r"(?<![\w.])\d+(?:[.,]\d+)*(?!\w)", text))
    assert found == set(SOURCES)


def test_the_printed_run_is_a_stored_one(tmp_path, capsys):
    """``make train`` is the cell of 15 % of the front on digits."""
    stored = read_stored(ROOT / "docs/results/energy_front.json")
    (cell,) = (c for c in stored if c.label == "QB-LIF, T = 4, budget.target=0.15" and c.seed == 0)
    (printed,) = re.findall(r"^(qbsnn: [^\n]*\n.*?)```", readme(), re.MULTILINE | re.DOTALL)
    result = cell.result
    result.config |= {"paths": {"run": str(tmp_path)}, "neuron": {**result.config["neuron"]}}
    summarise(result)
    mine = dict(re.findall(r"^  (\S.*?) {2,}(.*)$", capsys.readouterr().out, re.MULTILINE))
    shown = dict(re.findall(r"^  (\S.*?) {2,}(.*)$", printed, re.MULTILINE))
    files = {"report", "numbers", "checkpoint", "training"}  # places, and seconds
    assert set(shown) - files and {name: mine[name] for name in set(shown) - files} == {
        name: text for name, text in shown.items() if name not in files
    }


def test_without_a_chosen_epoch_the_accuracy_is_that_of_the_last(tmp_path, capsys):
    stored = read_stored(ROOT / "docs/results/energy_front.json")
    result = next(cell.result for cell in stored if cell.result)
    result.config |= {"paths": {"run": str(tmp_path)}}
    result.metrics.best = dict(result.metrics.last)
    summarise(result)
    (line,) = re.findall(r"^  test accuracy .*$", capsys.readouterr().out, re.MULTILINE)
    assert "(last epoch)" in line and "best by validation" not in line


def commands(page: str) -> set[str]:
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    lines = [
        line.split("  #")[0].strip()
        for block in re.findall(r"```sh\n(.*?)```", text, re.DOTALL)
        for line in block.splitlines()
    ]
    return {found.strip() for found in [*lines, *re.findall(r"`(python [^`]+|make [^`]+)`", text)] if found.strip()}


@pytest.mark.parametrize("page", PAGES)
def test_every_command_of_a_page_names_what_there_is(tmp_path, page):
    found = commands(page)
    assert found
    seen = set()
    for line in sorted(found):
        program, *words = shlex.split(line)
        if program == "make":
            assert re.search(rf"^{words[0]}:", (ROOT / "Makefile").read_text(), re.MULTILINE), line
            continue
        script, *words = words
        assert (ROOT / script).is_file(), line
        if script == "scripts/make_tables.py":
            assert {word.split("=")[0] for word in words} <= {"table", "store", "docs", "figure", "out", "sweeps"}, line
            continue
        assert script == "train.py", line
        overrides = [word for word in words if word not in ("--list", "-m")]
        for word in [word for word in overrides if word.startswith("sweep=")]:
            assert word.removeprefix("sweep=") in options("sweep"), line
            overrides.remove(word)
        first = tuple(f"{key}={value.split(',')[0]}" for key, value in (word.split("=", 1) for word in overrides))
        if overrides and first not in seen:
            seen.add(first)
            composed(tmp_path, *first)


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in options("sweep") if name.startswith("cifar10_")])
def test_every_cell_of_the_cifar10_studies_composes(tmp_path, name):
    sweep = read(yaml.safe_load((ROOT / f"conf/sweep/{name}.yaml").read_text(encoding="utf-8")), name)
    made = [composed(tmp_path, *cell.overrides) for cell in cells(sweep) if cell.seed == sweep.seeds[0]]
    assert len(made) >= 1 and len({str(one) for one in made}) == len(made)
