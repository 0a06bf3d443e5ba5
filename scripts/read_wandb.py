"""The rows that a W&B run logged, as CSV on the standard output: ``python scripts/read_wandb.py file=PATH``.

Neither key nor network is needed. Histograms and images are left out.
"""

import csv
import sys
from pathlib import Path

from pydantic import Field

from qbsnn.cli import launch as cli
from qbsnn.cli.keys import Keys


class Log(Keys):
    """The keys of this tool."""

    file: Path = Field(description="RUN/wandb/offline-run-TIME-ID/run-ID.wandb")


def main(given: Log) -> None:
    from qbsnn.tracking.wandb_file import read_history

    rows = [
        {key: value for key, value in row.items() if not isinstance(value, dict)} for row in read_history(given.file)
    ]
    names = sorted({key for row in rows for key in row} - {"_step"})
    writer = csv.DictWriter(sys.stdout, ["_step", *names], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)


if __name__ == "__main__":
    cli.script(main, Log, __doc__)
