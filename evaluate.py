"""Test a checkpoint and prove its integer twin: ``python evaluate.py ckpt=PATH [data.root=... ...]``.

The checkpoint carries its configuration, so nothing else is needed; other arguments change single keys of it.
logger=wandb logs the evaluation to W&B as a run of its own, of job type evaluate.
"""

from datetime import datetime
from pathlib import Path

from qbsnn.cli import launch as cli


def main(arguments: list[str]) -> None:
    """Evaluate, print the summary, leave ``result.json`` and ``report.html`` in a directory of their own."""
    from qbsnn.cli.checkpoints import read_arguments
    from qbsnn.cli.summary import summarise
    from qbsnn.tracking.runs import evaluation_loggers
    from qbsnn.training.run import evaluate

    given = read_arguments(arguments, "python evaluate.py ckpt=PATH [key=value ...]", own=["logger"])
    conf, choice = Path(__file__).parent / "conf/logger", given.own.get("logger")
    loggers = evaluation_loggers(choice, conf, given.contents) if choice else None
    run = Path("outputs/evaluate") / f"{datetime.now():%Y-%m-%d_%H-%M-%S}_{cli.uid()}"
    result = evaluate(given.checkpoint, given.config(run, loggers), given.contents)
    summarise(result)
    cli.unless_finished(result)


if __name__ == "__main__":
    cli.script(main, __doc__)
