"""What the documents show is run."""

import importlib
import re
import runpy
import sys
from pathlib import Path

import pytest
import torch

from tests.tool import ROOT, TINY


def blocks(page: str, language: str) -> list[str]:
    """The fenced code blocks of a page."""
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


def test_the_neuron_of_the_example_works_by_hand_and_from_the_command_line(tool, monkeypatch):
    (code,), (settings,) = blocks("add_a_neuron.md", "python"), blocks("add_a_neuron.md", "yaml")
    (tool.folder / "tiring.py").write_text(code, encoding="utf-8")
    (tool.folder / "my_conf/neuron").mkdir(parents=True)
    (tool.folder / "my_conf/neuron/tiring.yaml").write_text(settings, encoding="utf-8")
    monkeypatch.syspath_prepend(str(tool.folder))

    neuron = importlib.import_module("tiring").Tiring(s_max=4, kappa=0.5, rho=0.5)
    # Δ = 1/2, λ = 1/2: V = 1.25 -> 2, U = 0.25, a = 2; V = 0.125 + 1.25 − 0.5·0.5·2 = 0.875 -> 1, U = 0.375, a = 2;
    # V = 0.1875 + 1.25 − 0.5 = 0.9375 -> 1
    out = neuron(torch.full((3, 1, 1), 1.25))
    assert out.flatten().tolist() == [2, 1, 1]

    assert (
        tool(
            "train.py",
            "--config-dir",
            "my_conf",
            "neuron=tiring",
            "trust=tiring",
            "neuron.kappa=0.3",
            *TINY,
            "report=false",
        )
        == 0
    )
    result = tool.result()
    assert {layer["neuron"] for layer in result["layers"]} == {"Tiring"}
    assert "has an adaptation variable" in result["integer"]["skipped"]
    sys.modules.pop("tiring")


def test_the_plot_of_surrogates_is_drawn(tmp_path, monkeypatch):
    out = tmp_path / "surrogates.png"
    monkeypatch.setattr(sys, "argv", ["plot_surrogates.py", "--out", str(out), "--s-max", "2"])
    runpy.run_path(str(ROOT / "scripts/plot_surrogates.py"), run_name="__main__")
    assert out.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"


@pytest.mark.parametrize("page", ["README.md", *(f"docs/{path.name}" for path in (ROOT / "docs").glob("*.md"))])
def test_links_between_files_lead_somewhere(page):
    text = (ROOT / page).read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", text):
        if "://" not in target:
            assert ((ROOT / page).parent / Path(target)).exists(), target
