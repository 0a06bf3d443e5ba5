"""What the study of a search holds: which search it is of, which trials count, which draws of proposals are used.

Trials are proposed by draws, numbered from 0; the number makes the seed of the sampler. A trial that ended with its
process gives its draw back, so that what comes after it is what an uninterrupted search would have made.
"""

from __future__ import annotations

from itertools import count
from typing import TYPE_CHECKING, Any

from qbsnn.errors import SettingsError

if TYPE_CHECKING:
    import optuna

DRAW = "draw"
"""The user attribute of a trial that has the number of its draw."""


def refuse_another(study: optuna.Study, name: str, space: dict[str, Any], fixed: list[str], seed: int) -> None:
    """See that a study is of this search: trials of other settings cannot be compared with those that are there.

    Raises:
        SettingsError: it was begun with other settings.
    """
    for key, value in {"space": space, "fixed": sorted(fixed), "seed": seed}.items():
        found = study.user_attrs.get(key, value)
        if found != value:
            raise SettingsError(
                f"search {name} was begun with other settings: {key} was {found}, got {value}; "
                "choose another name with search.name=NAME"
            )
        study.set_user_attr(key, value)


def kept(study: optuna.Study) -> list[optuna.trial.FrozenTrial]:
    """The trials that need not be made.

    Those that ended with their process are not among them: they have failed without an error, or fail here, once
    their heartbeat is too old. Until then they count as running.
    """
    import optuna

    optuna.storages.fail_stale_trials(study)
    return [
        trial
        for trial in study.get_trials(deepcopy=False)
        if trial.state.name in ("COMPLETE", "PRUNED", "RUNNING") or "error" in trial.user_attrs
    ]


def next_draw(study: optuna.Study) -> int:
    """The smallest draw that no kept trial has; trials of a study without draws have theirs by their order."""
    used = {trial.user_attrs.get(DRAW, at) for at, trial in enumerate(kept(study))}
    return next(draw for draw in count() if draw not in used)
