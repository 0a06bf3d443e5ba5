"""Fixtures that several packages use."""

import os

import pytest
import torch

from tests.remembering import remember
from tests.sweeps.sweeping import Sweeping
from tests.tool import Tool

# Deterministic cuBLAS, which torch asks for once, at the first product on a card.
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")

remember()


@pytest.fixture
def tool(monkeypatch, tmp_path):
    """The command-line tools in an empty folder."""
    return Tool(monkeypatch, tmp_path)


@pytest.fixture
def sweep(tool):
    """A small sweep in the tool's folder."""
    return Sweeping(tool)


def pytest_collection_modifyitems(items):
    if not torch.cuda.is_available():
        for item in items:
            if item.get_closest_marker("gpu"):
                item.add_marker(pytest.mark.skip(reason="needs a CUDA device, and torch finds none"))
