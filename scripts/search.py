"""Search settings with Optuna: ``python scripts/search.py [search=NAME] [search.n_trials=N ...] [key=value ...]``.

``conf/search/NAME.yaml`` says what is varied and how; keys without ``search.`` go to every trial as they would to
train.py. A second start goes on with the same search. See docs/scale.md.
"""

from pathlib import Path

from hydra.errors import HydraException

from qbsnn.cli import launch as cli

CONF = Path(__file__).parent.parent / "conf"


def main(arguments: list[str]) -> None:
    """Run what is missing of the search, then say what was best and how to train it."""
    from qbsnn.sweeps import search

    cli.register_resolvers()
    own = [word for word in arguments if word.split("=")[0].lstrip("+~").split(".")[0] == "search"]
    fixed = [word for word in arguments if word not in own]
    choice = [word.split("=", 1)[1] for word in own if word.startswith("search=")] or ["default"]
    folder = Path("outputs/search").absolute()
    try:
        wanted = search.settings(CONF.resolve(), choice[-1], [w for w in own if not w.startswith("search=")])
        study = search.search(CONF.resolve(), wanted, fixed, folder)
    except HydraException as error:
        raise cli.explain(error, CONF, "train") from error
    counts = [trial.state.name.lower() for trial in study.get_trials(deepcopy=False)]
    print(", ".join(f"{counts.count(state)} {state}" for state in sorted(set(counts))), f"in {folder / wanted.name}.db")
    if "complete" not in counts:
        print("no trial was completed: nothing to recommend")
        return
    print(f"best: trial {study.best_trial.number}, {search.MONITOR} {study.best_value:.4f}")
    print(f"train it: {search.retraining(study, fixed)}")


if __name__ == "__main__":
    cli.script(main, __doc__)
