"""Fixtures that several packages use."""

import pytest

from tests.cli import Tool


@pytest.fixture
def tool(monkeypatch, tmp_path):
    """The command-line tools in an empty folder."""
    return Tool(monkeypatch, tmp_path)
