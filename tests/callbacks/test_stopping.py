"""Early stopping waits for what is asked of the network in the end."""

import pytest

from qbsnn.callbacks import StopOnPlateau
from qbsnn.errors import SettingsError
from qbsnn.training.run import run_here
from qbsnn.training.setup import build
from tests.test_configs import composed
from tests.test_training_options import QUICK

WORDS = (*(word for word in QUICK if "limit_train" not in word), "data.limit_train=128", "trainer.max_epochs=6",
         "model=mlp", "model.hidden=[16]", "callbacks=early_stopping", "callbacks.early_stopping.patience=1",
         "+callbacks.early_stopping.min_delta=100")  # fmt: skip  # 4 steps an epoch; nothing is better by 100
BUDGET = ("budget=energy", "budget.every=1", "budget.end=0.5")
EXCESS = ("callbacks.early_stopping.monitor=val/excess", "callbacks.early_stopping.mode=min")
STEPS = ("+callbacks.steps._target_=qbsnn.callbacks.StepSchedule", "+callbacks.steps.schedule=[[0,1],[0.6,2]]")


@pytest.mark.parametrize(
    ("words", "epochs"),
    [
        ((), 2),
        (STEPS, 5),
        (BUDGET, 4),
        ((*BUDGET, *EXCESS), 4),
        ((*BUDGET, *EXCESS, *STEPS), 5),
        ((*BUDGET, *STEPS), 5),
    ],
    ids=["no budget", "fewer steps without a budget", "budget", "excess", "excess of fewer steps", "fewer steps"],
)
def test_patience_begins_when_the_budget_is_the_final_one_and_known(tmp_path, words, epochs):
    """The target stays from the end of the third epoch on; a pass with all steps comes first in the fourth."""
    result = run_here(composed(tmp_path, *WORDS, *words))
    assert (result.status, result.timing.epochs) == ("finished", epochs)


def test_bad_arguments_name_their_key(tmp_path):
    assert StopOnPlateau().mode == "max" and StopOnPlateau("val/loss", "min", 3, min_delta=0.1).patience == 3
    for word, said in (
        ("callbacks.early_stopping.patience=-1", "callbacks.early_stopping.patience must be an integer of at least 0"),
        ("+callbacks.early_stopping.patient=1", "callbacks.early_stopping does not take 'patient'"),
    ):
        with pytest.raises(SettingsError, match=said):
            build(composed(tmp_path, *QUICK, "callbacks=early_stopping", word))
