"""Runs the command-line tools as a user does, in this process: importing the libraries anew takes ten seconds."""

import json
import logging
import runpy
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

TINY = ("debug=tiny", "data.limit_train=128", "data.limit_val=32", "data.limit_test=64", "model.width=0.25")


class Tool:
    """``tool("train.py", "T=2")`` returns the exit code; ``tool.runs()`` the run directories so far, oldest first."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
        self.monkeypatch, self.folder = monkeypatch, folder

    def __call__(self, script: str, *arguments: str) -> int:
        self.monkeypatch.setattr(sys, "argv", [script, *arguments])
        self.monkeypatch.chdir(self.folder)
        with _own_logging(), warnings.catch_warnings():
            try:
                runpy.run_path(str(ROOT / script), run_name="__main__")
            except SystemExit as stop:
                return int(stop.code or 0)
        return 0

    def trained(self, *arguments: str) -> dict:
        """The result of ``train.py``, all of it; so short a training may leave a layer silent, which is no success."""
        code = self("train.py", *arguments)
        result = self.result()
        assert (code, result["status"]) in ((0, "finished"), (1, "unproven")), (code, result["status"], result["error"])
        return result

    def runs(self) -> list[Path]:
        found = [path.parent for path in (self.folder / "outputs").rglob("result.json")]
        return sorted(found, key=lambda path: (path / "result.json").stat().st_mtime_ns)

    def result(self) -> dict:
        return json.loads((self.runs()[-1] / "result.json").read_text())

    def left_behind(self) -> list[Path]:
        """Everything written, directories aside."""
        return [path for path in self.folder.rglob("*") if path.is_file()]


@contextmanager
def _own_logging() -> Iterator[None]:
    """Put the root logger back: Hydra's handlers write to an output and a file that end with the tool."""
    root = logging.getLogger()
    level, before = root.level, list(root.handlers)
    try:
        yield
    finally:
        root.setLevel(level)
        for handler in set(root.handlers) - set(before):
            handler.close()
        root.handlers[:] = before


def one_paragraph(text: str) -> str:
    """The error on stderr, which must be one line that starts with ``error:`` and no stack trace."""
    lines = [line for line in text.splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("error: ")]
    assert len(errors) == 1 and "Traceback" not in text, text
    return errors[0]
