"""Fixtures that several packages use."""

import logging
import warnings

import pytest

from tests.cli import Tool


@pytest.fixture
def tool(monkeypatch, tmp_path):
    """The command-line tools in an empty folder; warnings filters and log handlers are put back afterwards."""
    root = logging.getLogger()
    level, before = root.level, list(root.handlers)
    with warnings.catch_warnings():
        yield Tool(monkeypatch, tmp_path)
    root.setLevel(level)
    # Hydra's handlers write to the stream that was standard output during this test.
    for handler in [handler for handler in root.handlers if handler not in before]:
        root.removeHandler(handler)
        handler.close()
