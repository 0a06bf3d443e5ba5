"""One process of a run: ``python -m qbsnn.training.devices.worker JOB``, as ``processes.start`` calls it."""

from __future__ import annotations

import json
import logging
import logging.config
import os
import sys
from pathlib import Path

from torch.distributed.elastic.multiprocessing.errors import record

from qbsnn.errors import QBSNNError
from qbsnn.training.devices.signals import end_with
from qbsnn.training.run import run_here


@record
def main(job: Path) -> None:
    """Run the settings of the job file; the first process logs as the process that started it does."""
    given = json.loads(job.read_text(encoding="utf-8"))
    end_with(given["parent"])
    if os.environ["RANK"] != "0" or given["logging"] is None:
        logging.basicConfig(level=logging.ERROR)
    else:
        logging.config.dictConfig(given["logging"])
    sys.argv = given["argv"]
    run_here(given["settings"], again=given["again"])


if __name__ == "__main__":
    try:
        main(Path(sys.argv[1]))
    except QBSNNError:
        sys.exit(1)  # the process that started this one tells it
