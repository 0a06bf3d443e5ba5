from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from qbsnn.errors import DataError
from qbsnn.results.run_files import read_curves, read_diagnostics
from tests.report.samples import write_diagnostics, write_metrics


def test_columns_have_one_value_per_epoch(tmp_path: Path) -> None:
    write_metrics(tmp_path / "metrics.csv")
    curves = read_curves(tmp_path / "metrics.csv")
    assert curves["val/acc"].value.tolist() == [0.5, 0.9, 0.8]
    assert curves["lr"].epoch.tolist() == [0, 1, 2]


def test_values_that_are_no_numbers_stay_and_empty_columns_go(tmp_path: Path) -> None:
    path = tmp_path / "metrics.csv"
    path.write_text("epoch,step,val/acc\n0,0,nan\n1,1,0.5\n")
    assert np.isnan(read_curves(path)["val/acc"].value).tolist() == [True, False]
    path.write_text("epoch,step,val/acc,lr\n0,0,,0.1\n1,1,0.5\n")
    assert {name: found.epoch.tolist() for name, found in read_curves(path).items()} == {"val/acc": [1], "lr": [0]}
    path.write_text("epoch,step\n")
    assert read_curves(path) == {}


@pytest.mark.parametrize("cells", ["inf,1,0.3", "1e300,1,0.3", f"{2**63},1,0.3", ",1,0.3", "1,1,fast"])
def test_what_is_no_number_is_refused(tmp_path: Path, cells: str) -> None:
    path = tmp_path / "metrics.csv"
    path.write_text(f"epoch,step,train/loss\n0,1,0.5\n{cells}\n")
    with pytest.raises(DataError, match=r"metrics\.csv cannot be read as numbers, one row per epoch: "):
        read_curves(path)


@pytest.mark.parametrize("text", ["", "a,b\n1,2\n"])
def test_metrics_without_epochs(tmp_path: Path, text: str) -> None:
    path = tmp_path / "metrics.csv"
    path.write_text(text)
    with pytest.raises(DataError, match="no column named epoch"):
        read_curves(path)


@pytest.mark.parametrize(
    ("name", "array", "message"),
    [
        ("image", np.zeros(3), "image must hold numbers in 3 dimensions"),
        ("raster/x", np.zeros((2, 2)), "raster/x must hold integers in 2 dimensions, got float64"),
        ("confusion", np.zeros((2, 3), int), "confusion must be square"),
        ("histogram/x", np.zeros(0, int), "histogram/x must hold integers"),
        ("label", np.array([1, 2]), "label must hold integers in 0 dimensions"),
        ("class_names", np.array(["a", None], dtype=object), "cannot be read: Object arrays"),
    ],
)
def test_wrong_arrays_are_named(tmp_path: Path, name: str, array: np.ndarray, message: str) -> None:
    write_diagnostics(tmp_path / "d.npz", **{name: array})
    with pytest.raises(DataError, match=message):
        read_diagnostics(tmp_path / "d.npz")


def test_damaged_archive(tmp_path: Path) -> None:
    path = tmp_path / "d.npz"
    write_diagnostics(path)
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(DataError, match="cannot be read"):
        read_diagnostics(path)
