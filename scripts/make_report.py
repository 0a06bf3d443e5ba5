"""Make the page and the figures of a run again, from the files in its directory."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from qbsnn.errors import QBSNNError
from qbsnn.report import build


def newest_run(outputs: Path) -> Path:
    """The directory under ``outputs`` whose ``result.json`` was written last."""
    found = sorted(outputs.rglob("result.json"), key=lambda path: path.stat().st_mtime)
    if not found:
        raise QBSNNError(f"No run under {outputs.resolve()}: there is no result.json. Train first, or name a run.")
    return found[-1].parent


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path, nargs="?", help="a run directory (default: the newest under --outputs)")
    parser.add_argument("--outputs", type=Path, default=Path("outputs"), help="where runs are (default: %(default)s)")
    arguments = parser.parse_args()
    try:
        print(build(arguments.run or newest_run(arguments.outputs)))
    except QBSNNError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
