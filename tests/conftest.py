"""Fixtures that several packages use."""

import pytest

from tests.sweeps.sweeping import Sweeping
from tests.tool import Tool


@pytest.fixture
def tool(monkeypatch, tmp_path):
    """The command-line tools in an empty folder."""
    return Tool(monkeypatch, tmp_path)


@pytest.fixture
def sweep(tool):
    """A small sweep in the tool's folder."""
    return Sweeping(tool)
