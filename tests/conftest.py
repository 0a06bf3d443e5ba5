"""Fixtures that several packages use."""

import warnings

import pytest

from tests.cli import Tool


@pytest.fixture
def tool(monkeypatch, tmp_path):
    """The command-line tools in an empty folder; warnings filters are put back afterwards."""
    with warnings.catch_warnings():
        yield Tool(monkeypatch, tmp_path)
