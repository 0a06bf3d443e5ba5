"""What the documents show is run."""

import importlib
import re
import runpy
import sys
from pathlib import Path

import pytest
import torch
import yaml

from qbsnn.cli.summary import summarise
from tests.report.samples import make_result
from tests.test_imports import ROOMS
from tests.tool import ROOT, TINY

PAGES = ["README.md", *(f"docs/{path.name}" for path in sorted((ROOT / "docs").glob("*.md")))]


def blocks(page: str, language: str) -> list[str]:
    """The fenced code blocks of a page."""
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


def test_the_plot_of_surrogates_is_drawn(tmp_path, monkeypatch):
    out = tmp_path / "surrogates.png"
    monkeypatch.setattr(sys, "argv", ["plot_surrogates.py", f"out={out}", "s_max=2"])
    runpy.run_path(str(ROOT / "scripts/plot_surrogates.py"), run_name="__main__")
    assert out.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"


def read(page: str) -> str:
    return (ROOT / page).read_text(encoding="utf-8")


def links(page: str) -> list[tuple[str, Path, str]]:
    """Words, file and anchor of every link of a page to a file of the project."""
    found = re.findall(r"\[([^]]*)\]\(([^)#]*)(?:#([^)]*))?\)", read(page))
    return [
        (words, (ROOT / page).parent / target if target else ROOT / page, anchor)
        for words, target, anchor in found
        if "://" not in target
    ]


def anchors(page: Path) -> set[str]:
    """Anchors of the headings of a page, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES)
def test_links_between_files_lead_somewhere(page):
    for words, target, anchor in links(page):
        assert target.exists(), target
        assert not anchor or anchor in anchors(target), f"{target.name}#{anchor}"
        if named := re.fullmatch(r"`([\w/]+\.\w+)`", words):
            assert target.as_posix().endswith(f"/{named[1]}"), f"{named[1]} leads to {target.name}"


@pytest.mark.parametrize("page", PAGES)
def test_modules_that_are_named_exist(page):
    for name in re.findall(r"\bqbsnn(?:\.[A-Za-z_]\w*)+", read(page)):
        module, rest = "qbsnn", name.split(".")[1:]
        found = importlib.import_module(module)
        for part in rest:
            module = f"{module}.{part}"
            found = getattr(found, part) if hasattr(found, part) else importlib.import_module(module)


@pytest.mark.parametrize("page", PAGES)
def test_files_that_are_named_exist(page):
    for name in re.findall(r"`((?:qbsnn|conf|tests|scripts|docs|benchmarks)/[\w./]*)`", read(page)):
        assert (ROOT / name).exists(), name


def test_the_table_of_rooms_is_the_order_of_imports():
    _, table = read("docs/architecture.md").split("\n## Rooms\n")
    assert re.findall(r"^\| `([\w.]+)` \|", table.split("\n## ")[0], re.MULTILINE) == ROOMS


def test_the_equations_of_the_neuron_are_those_of_the_code():
    page = dict(re.findall(r"^    \((N\d)\)  (.+)$", read("docs/neurons.md"), re.MULTILINE))
    source = importlib.import_module("qbsnn.functional.burst").__doc__  # the package has a function of that name
    code = dict(re.findall(r"^    \((N\d)\)  (.+?)(?: {3,}\(or another.*)?$", source, re.MULTILINE))
    assert page == code and len(page) == 4


@pytest.mark.parametrize("page", PAGES)
def test_file_names_without_a_folder_exist_somewhere(page):
    text = read(page)
    here = {path.name for path in ROOT.glob("*.py")} | {
        path.name for folder in ("qbsnn", "scripts", "benchmarks", "tests") for path in (ROOT / folder).rglob("*.py")
    }
    shown = set(re.findall(r"^`([\w./]+\.py)`[^\n]*:\n\n```", text, re.MULTILINE))  # code of the page itself
    assert set(re.findall(r"`(\w+\.py)`", text)) <= here | shown


def keys(node: object, prefix: str = "") -> set[str]:
    """Dotted keys of a settings file, of groups too."""
    if not isinstance(node, dict):
        return set()
    return {f"{prefix}{name}" for name in node}.union(
        *(keys(below, f"{prefix}{name}.") for name, below in node.items())
    )


@pytest.fixture(scope="module")
def settings() -> set[str]:
    known = set()
    for path in (ROOT / "conf").rglob("*.yaml"):
        text = path.read_text(encoding="utf-8")
        group = ".".join(path.parent.relative_to(ROOT / "conf").parts)
        known |= keys(yaml.safe_load(text), f"{group}." if group and "@package _global_" not in text else "")
    return known


@pytest.mark.parametrize("page", PAGES)
def test_settings_that_are_named_exist(page, settings):
    groups = {path.name for path in (ROOT / "conf").iterdir() if path.is_dir()} - {
        "hydra",
        "search",
    }  # search.space takes any key
    named = {
        name for name in re.findall(r"`([a-z]+(?:\.[a-z_]+)+)(?:=[^`]*)?`", read(page)) if name.split(".")[0] in groups
    }
    assert named <= settings | set(ROOMS)


def test_the_readme_explains_lines_that_a_run_prints(tmp_path, capsys):
    (shown,) = re.findall(r"^qbsnn: [^\n]*\n(.*?)```", read("README.md"), re.MULTILINE | re.DOTALL)
    for name in ("result.json", "report.html"):
        (tmp_path / name).touch()
    budget = {"quantity": "energy", "target": 0.15}
    config = {"name": "some", "T": 4, "neuron": {"s_max": 8}, "budget": budget, "paths": {"run": str(tmp_path)}}
    data = {"name": "digits", "simulated": False, "samples": {"test": 360}}
    summarise(make_result(config=config, data=data, checkpoints={"best": "best.ckpt"}))
    printed = capsys.readouterr().out

    def titles(text: str) -> set[str]:
        return {re.split(r" {2,}", line.strip())[0] for line in text.splitlines() if line.startswith("  ")}

    assert titles(shown) <= titles(printed)


def test_the_network_by_hand_trains_absorbs_and_is_proven(capsys):
    _, code = blocks("python.md", "python")
    exec(compile(code, "docs/python.md", "exec"), {"__name__": "by_hand"})
    assert capsys.readouterr().out == "True 0 0\n"


def test_a_trained_network_decides_in_python(tool):
    assert tool("train.py", *TINY, "report=false", "hydra.run.dir=outputs/runs/RUN") == 0
    code, _ = blocks("python.md", "python")
    found: dict[str, torch.Tensor] = {}
    exec(compile(code, "docs/python.md", "exec"), found)
    assert found["classes"].shape == (2,) and found["classes"].dtype == torch.int64
