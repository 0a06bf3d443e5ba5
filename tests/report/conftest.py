from __future__ import annotations

from pathlib import Path

import pytest

from tests.report.samples import make_result, write_diagnostics, write_metrics


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    make_result().write(tmp_path / "result.json")
    write_metrics(tmp_path / "metrics.csv")
    write_diagnostics(tmp_path / "diagnostics.npz")
    return tmp_path
