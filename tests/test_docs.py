"""What the documents show is run."""

import re
import runpy
import sys
from pathlib import Path

import pytest

from tests.tool import ROOT


def blocks(page: str, language: str) -> list[str]:
    """The fenced code blocks of a page."""
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


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
