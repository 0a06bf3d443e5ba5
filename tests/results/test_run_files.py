from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from qbsnn.errors import DataError
from qbsnn.results.run_files import read_curves, read_diagnostics
from tests.report.samples import write_diagnostics, write_metrics


def test_sparse_columns_become_one_value_per_epoch(tmp_path: Path) -> None:
    write_metrics(tmp_path / "metrics.csv")
    curves = read_curves(tmp_path / "metrics.csv")
    assert curves["val/acc"].value.tolist() == [0.5, 0.9, 0.8]
    assert curves["lr"].epoch.tolist() == [0, 1, 2]  # rows without an epoch belong to the epoch that follows


def test_values_that_are_no_numbers_stay_and_empty_columns_go(tmp_path: Path) -> None:
    path = tmp_path / "metrics.csv"
    path.write_text("epoch,step,val/acc\n0,0,nan\n1,1,0.5\n")
    assert np.isnan(read_curves(path)["val/acc"].value).tolist() == [True, False]
    path.write_text("epoch,step\n")
    assert read_curves(path) == {}


def test_last_value_of_an_epoch_counts(tmp_path: Path) -> None:
    path = tmp_path / "metrics.csv"
    path.write_text("epoch,step,train/loss\n0,0,9.0\n0,1,8.0\n,2,7.0\n")
    assert read_curves(path)["train/loss"].value.tolist() == [7.0]


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


@pytest.mark.parametrize("epoch", ["inf", "1e300", "-inf", "nan"])
def test_an_epoch_that_is_no_number_is_taken_for_the_next_row_s(tmp_path: Path, epoch: str) -> None:
    path = tmp_path / "metrics.csv"
    path.write_text(f"epoch,step,train/loss\n0,1,0.5\n{epoch},2,0.3\n1,2,0.4\n{epoch},2,0.2\n")
    found = read_curves(path)["train/loss"]
    assert found.epoch.tolist() == [0, 1] and found.value.tolist() == [0.5, 0.2]
