"""The rows that a W&B run logged, as CSV on the standard output: ``python scripts/read_wandb.py run-ID.wandb``.

The file lies in ``RUN/wandb/offline-run-*/``; neither key nor network is needed. Histograms and images are left out.
"""

import csv
import sys
from pathlib import Path

from qbsnn.cli import launch as cli
from qbsnn.errors import SettingsError


def main(arguments: list[str]) -> None:
    from qbsnn.tracking.wandb_file import read_history

    if len(arguments) != 1:
        raise SettingsError(f"usage: python scripts/read_wandb.py FILE, got {' '.join(arguments) or 'nothing'}")
    rows = [
        {key: value for key, value in row.items() if not isinstance(value, dict)}
        for row in read_history(Path(arguments[0]))
    ]
    names = sorted({key for row in rows for key in row} - {"_step"})
    writer = csv.DictWriter(sys.stdout, ["_step", *names], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)


if __name__ == "__main__":
    cli.script(main, __doc__)
