"""Every tool answers in the one dialect: ``key=value``, a help of one page, an error of one paragraph."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from qbsnn.cli.keys import Overriding, read
from qbsnn.errors import SettingsError
from tests.tool import ROOT, one_paragraph

TOOLS = ["evaluate.py", *(f"scripts/{path.name}" for path in sorted((ROOT / "scripts").glob("*.py"))
                          )]  # fmt: skip


@pytest.mark.parametrize("script", TOOLS)
def test_help_is_one_page_with_every_key(tool, capsys, script):
    assert tool(script, "--help") == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) <= 40 and max(map(len, lines)) <= 120
    assert any(line.startswith("  ") and "=" in line for line in lines) and not any("``" in line for line in lines)
    assert tool.left_behind() == []


@pytest.mark.parametrize("script", TOOLS)
@pytest.mark.parametrize(
    ("word", "answer"), [("nonsense", "nonsense is no key=value: did you mean "), ("--fast", "--fast is no key=value")]
)
def test_a_word_without_a_key_is_one_paragraph(tool, capsys, script, word, answer):
    assert tool(script, word) == 1
    assert answer in one_paragraph(capsys.readouterr().err)
    assert tool.left_behind() == []


def test_a_path_alone_is_taken_for_the_checkpoint(tool, capsys):
    assert tool("evaluate.py", "../run1") == 1
    assert "did you mean ckpt=../run1?" in one_paragraph(capsys.readouterr().err)


def test_what_standard_output_has_no_character_for_is_a_question_mark(tool):
    command = [sys.executable, str(ROOT / "scripts/wandb_dashboard.py"), "--help"]
    done = subprocess.run(command, env={**os.environ, "PYTHONIOENCODING": "ascii"}, capture_output=True, text=True)
    assert done.returncode == 0 and "?" in done.stdout and not done.stderr


def test_a_key_given_twice_is_refused(tool, capsys):
    assert tool("scripts/make_report.py", "folder=a", "folder=b") == 1
    assert one_paragraph(capsys.readouterr().err) == "error: folder is given twice"


@pytest.mark.parametrize(
    ("word", "folder"),
    [
        ("T=2", "outputs"),
        ("paths.outputs=a/b", "a/b"),
        ("paths.outputs='/tmp/a b'", "/tmp/a b"),
        ("++paths.outputs=a", "a"),
        ("paths.outputs=~/x", "/home/me/x"),
        ("paths.outputs=${oc.env:HOME}/x", "/home/me/x"),
    ],
)
def test_the_folder_of_outputs_is_read_as_a_configuration_reads_it(monkeypatch, word, folder):
    monkeypatch.setenv("HOME", "/home/me")
    assert read(Overriding, [word]).outputs == Path(folder)


@pytest.mark.parametrize("text", ["", "null", "[a]", "3", "${paths.data}/x"])
def test_a_folder_of_outputs_that_is_none_is_refused(text):
    with pytest.raises(SettingsError, match=r"paths.outputs must be the path of a folder, got "):
        assert read(Overriding, [f"paths.outputs={text}"]).outputs
