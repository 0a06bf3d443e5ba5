"""Write one page over all runs, or write a run's own page and figures again; from the files of the runs alone."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from qbsnn.errors import QBSNNError
from qbsnn.report.run.page import build
from qbsnn.report.runs.page import build_index


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "directory",
        type=Path,
        nargs="?",
        default=Path("outputs"),
        help="of one run, or of many: a sweep, all outputs (default: %(default)s)",
    )
    directory = parser.parse_args().directory
    try:
        print(build(directory) if (directory / "result.json").is_file() else build_index(directory))
    except QBSNNError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
