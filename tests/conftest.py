"""Fixtures that several packages use."""

import logging
import warnings

import pytest

from tests.cli import Tool


@pytest.fixture
def tool(monkeypatch, tmp_path):
    """The command-line tools in an empty folder; warnings filters and log handlers are put back afterwards."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    with warnings.catch_warnings():
        yield Tool(monkeypatch, tmp_path)
    for handler in set(root.handlers) - set(handlers):  # Hydra's, which write to an output that pytest closes
        root.removeHandler(handler)
        handler.close()
    root.setLevel(level)
