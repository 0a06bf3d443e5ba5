from __future__ import annotations

from pathlib import Path

import pytest

from tests.report.sweeps import BOTH, PLAN, stored, write_plan


@pytest.fixture
def project(tmp_path) -> Path:
    """A project with one stored sweep, one that was not run, and a folder of pages."""
    write_plan(write_plan(tmp_path / "conf"), PLAN.replace("Some_data", "Other"), "table_cifar10")
    (tmp_path / "docs").mkdir()
    stored(tmp_path, BOTH)
    return tmp_path
