"""Test a checkpoint and prove its integer network: ``python evaluate.py ckpt=PATH [data.root=... ...]``.

The checkpoint carries its configuration, so nothing else is needed; other words change single keys of it.
"""

from datetime import datetime
from pathlib import Path

from pydantic import Field

from qbsnn.cli import launch as cli
from qbsnn.cli.keys import CheckpointKeys


class Evaluation(CheckpointKeys):
    """The keys of this tool."""

    logger: str | None = Field(
        default=None, description="wandb: log the evaluation to W&B as a run of its own, of job type evaluate"
    )


def main(given: Evaluation) -> None:
    """Evaluate, print the summary, leave ``result.json`` and ``report.html`` in a directory of their own."""
    with cli.heavy_imports():
        from qbsnn.cli.checkpoints import opened
        from qbsnn.tracking.runs import chosen_loggers
        from qbsnn.training.run import evaluate

    checkpoint = opened(given)
    conf = Path(__file__).parent / "conf/logger"
    loggers = chosen_loggers(given.logger, conf, checkpoint.contents, "evaluate") if given.logger else None
    run = given.outputs / "evaluate" / f"{datetime.now():%Y-%m-%d_%H-%M-%S}_{cli.uid()}"
    result = evaluate(checkpoint.checkpoint, checkpoint.config(run, loggers), checkpoint.contents)
    cli.conclude(result)


if __name__ == "__main__":
    cli.script(main, Evaluation, __doc__)
