"""Search settings with Optuna: ``python scripts/search.py [search=NAME] [key=value ...]``.

``conf/search/NAME.yaml`` says what is varied and how; ``search.KEY=VALUE`` changes it (``search.n_trials=30``). Keys
without ``search.`` go to every trial as they would to train.py. A second start goes on with the same search. See
docs/scale.md.
"""

from pathlib import Path

from pydantic import Field

from qbsnn.cli import launch as cli
from qbsnn.cli.composition import explained
from qbsnn.cli.keys import Overriding

CONF = Path(__file__).parent.parent / "conf"


class Search(Overriding):
    """The keys of this tool."""

    search: str = Field(default="default", description="a file of conf/search, or the path of a .yaml file")


def main(given: Search) -> None:
    """Run what is missing of the search, then say what was best and how to train it."""
    from qbsnn.sweeps import search

    cli.register_resolvers()
    own = [word for word in given.overrides if word.split("=")[0].lstrip("+~").split(".")[0] == "search"]
    fixed = [word for word in given.overrides if word not in own]
    folder = (given.outputs / "search").absolute()
    with explained(CONF, "train", fixed):
        wanted = search.settings(CONF.resolve(), given.search, own)
        study = search.search(CONF.resolve(), wanted, fixed, folder)
    counts = [trial.state.name.lower() for trial in study.get_trials(deepcopy=False)]
    print(", ".join(f"{counts.count(state)} {state}" for state in sorted(set(counts))), f"in {folder / wanted.name}.db")
    if "complete" not in counts:
        print("no trial was completed: nothing to recommend")
        return
    print(f"best: trial {study.best_trial.number}, {search.told(study.best_value)}")
    print(f"train it: {search.retraining(study, fixed)}")


if __name__ == "__main__":
    cli.script(main, Search, __doc__)
