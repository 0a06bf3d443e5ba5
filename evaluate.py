"""Test a checkpoint and prove its integer twin: ``python evaluate.py ckpt=PATH [data.root=... ...]``.

The checkpoint carries its configuration, so nothing else is needed; other arguments change single keys of it.
"""

import sys
from datetime import datetime
from pathlib import Path

from qbsnn.errors import QBSNNError, SettingsError
from qbsnn.training import cli


def main(arguments: list[str]) -> None:
    """Evaluate, print the summary, leave ``result.json`` and ``report.html`` in a directory of their own."""
    from qbsnn.callbacks.summary import summarise
    from qbsnn.training.checkpoint_io import load
    from qbsnn.training.run import evaluate
    from qbsnn.training.settings import stored_config

    given = dict(argument.split("=", 1) for argument in arguments if "=" in argument)
    if "ckpt" not in given or len(given) != len(arguments):
        raise SettingsError(
            f"usage: python evaluate.py ckpt=PATH [key=value ...], got {' '.join(arguments) or 'nothing'}"
        )
    checkpoint = Path(given.pop("ckpt")).resolve()
    contents = load(checkpoint)
    stamp = f"{datetime.now():%Y-%m-%d_%H-%M-%S}_{cli.uid()}"
    cfg = stored_config(
        contents, checkpoint, [f"{key}={value}" for key, value in given.items()], Path("outputs/evaluate") / stamp
    )
    summarise(evaluate(checkpoint, cfg, contents))


if __name__ == "__main__":
    if sys.argv[1:] in (["-h"], ["--help"]):
        print(__doc__)
        sys.exit(0)
    try:
        main(sys.argv[1:])
    except QBSNNError as problem:
        cli.fail(problem)
        sys.exit(1)
