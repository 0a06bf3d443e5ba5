"""Test a checkpoint and prove its integer twin: ``python evaluate.py ckpt=PATH [data.root=... ...]``.

The checkpoint carries its configuration, so nothing else is needed; other arguments change single keys of it.
logger=wandb logs the evaluation to W&B as a run of its own, of job type evaluate.
"""

from datetime import datetime
from pathlib import Path

from qbsnn.training import cli


def main(arguments: list[str]) -> None:
    """Evaluate, print the summary, leave ``result.json`` and ``report.html`` in a directory of their own."""
    from qbsnn.callbacks.summary import summarise
    from qbsnn.training.checkpoint_tools import read_arguments
    from qbsnn.training.run import evaluate
    from qbsnn.training.tracking import evaluation_loggers

    given = read_arguments(arguments, "python evaluate.py ckpt=PATH [key=value ...]", own=["logger"])
    conf, choice = Path(__file__).parent / "conf/logger", given.own.get("logger")
    loggers = evaluation_loggers(choice, conf, given.contents) if choice else None
    run = Path("outputs/evaluate") / f"{datetime.now():%Y-%m-%d_%H-%M-%S}_{cli.uid()}"
    summarise(evaluate(given.checkpoint, given.config(run, loggers), given.contents))


if __name__ == "__main__":
    cli.script(main, __doc__)
