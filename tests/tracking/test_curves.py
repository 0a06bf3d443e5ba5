"""``metrics.csv`` has one row per epoch, with what that epoch logged, and its rows are those of the checkpoint."""

import csv
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from qbsnn.tracking.curves import Curves
from qbsnn.training.run import run_here
from tests.test_configs import composed
from tests.test_training_options import QUICK


def trainer(epoch: int, metrics: dict, first: bool = True) -> SimpleNamespace:
    return SimpleNamespace(
        current_epoch=epoch, global_step=4 * (epoch + 1), callback_metrics=metrics, is_global_zero=first
    )


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def epoch(curves: Curves, number: int, metrics: dict, **logged: float) -> None:
    """An epoch in which some metrics are logged; Lightning keeps those of earlier epochs."""
    curves.on_train_epoch_start(trainer(number, metrics), None)
    metrics |= {name.replace("_", "/"): torch.tensor(value) for name, value in logged.items()}
    curves.on_train_epoch_end(trainer(number, metrics), None)


def test_a_row_holds_what_its_epoch_logged(tmp_path):
    curves, metrics = Curves(tmp_path), {}
    epoch(curves, 0, metrics, train_loss=0.5, val_acc=0.75)
    epoch(curves, 1, metrics, train_loss=0.25)
    first, second = rows(tmp_path)
    assert list(first) == ["epoch", "step", "train/loss", "val/acc"]
    assert first == {"epoch": "0", "step": "3", "train/loss": "0.5", "val/acc": "0.75"}
    assert second == {"epoch": "1", "step": "7", "train/loss": "0.25", "val/acc": ""}


def test_a_run_that_goes_on_has_the_rows_of_its_checkpoint_and_no_later_ones(tmp_path):
    stopped, metrics = Curves(tmp_path), {}
    epoch(stopped, 0, metrics, train_loss=0.5)
    kept = stopped.state_dict()
    kept = {"rows": list(kept["rows"])}
    epoch(stopped, 1, metrics, train_loss=9.0)  # the kill comes after this row and before its checkpoint
    again = Curves(tmp_path)
    again.load_state_dict(kept)
    again.on_fit_start(trainer(0, {}), None)
    assert [row["train/loss"] for row in rows(tmp_path)] == ["0.5"]
    epoch(again, 1, {}, train_loss=0.25, val_acc=1.0)
    assert [row["train/loss"] for row in rows(tmp_path)] == ["0.5", "0.25"]


def test_a_new_run_begins_a_new_file_and_only_the_first_process_writes(tmp_path):
    (tmp_path / "metrics.csv").write_text("rubbish")
    Curves(tmp_path).on_fit_start(trainer(0, {}, first=False), None)
    assert (tmp_path / "metrics.csv").read_text() == "rubbish"
    Curves(tmp_path).on_fit_start(trainer(0, {}), None)
    assert rows(tmp_path) == []


WORDS = (*(word for word in QUICK if "limit_train" not in word), "data.limit_train=128", "trainer.max_epochs=4",
         "model=mlp", "model.hidden=[16]")  # fmt: skip  # 4 steps an epoch
STOP = ("+trainer.val_check_interval=0.5", "callbacks=early_stopping", "callbacks.early_stopping.patience=2",
        "+callbacks.early_stopping.min_delta=100")  # fmt: skip  # in the second epoch, after its first half


@pytest.mark.parametrize(
    ("words", "epochs", "validated"),
    [((), 4, True), (("+trainer.check_val_every_n_epoch=3",), 4, False), (("+trainer.max_steps=14",), 4, False),
     (STOP, 2, True)],
    ids=["whole", "not validated", "max_steps", "stopped early"],
)  # fmt: skip
def test_the_metrics_of_the_last_epoch_are_what_it_logged(tmp_path, words, epochs, validated):
    for _ in range(2):  # the second time all is trained already
        result = run_here(composed(tmp_path, *WORDS, *words, "overwrite=false"))
        assert (result.status, result.timing.epochs) == ("finished", epochs)
        row = {name: float(value) for name, value in rows(tmp_path)[-1].items() if value}
        last = {name: value for name, value in result.metrics.last.items() if not name.startswith("test/")}
        assert last == {name: value for name, value in row.items() if name.startswith(("train/", "val/"))}
        assert ("val/loss" in last) is validated and "train/loss" in last and "lr" in row
    assert rows(tmp_path)[0]["train/loss"] != str(last["train/loss"])
