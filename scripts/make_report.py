"""Write one page over all runs, or a run's own page and figures again: ``python scripts/make_report.py [folder=DIR]``.

Both are made from the files of the runs alone.
"""

from pathlib import Path

from pydantic import Field

from qbsnn.cli import launch as cli
from qbsnn.cli.keys import Keys


class Report(Keys):
    """The keys of this tool."""

    folder: Path = Field(default=Path("outputs"), description="of one run, or of many: a sweep, all outputs")


def main(given: Report) -> None:
    from qbsnn.report.run.page import build
    from qbsnn.report.runs.page import build_index

    one = (given.folder / "result.json").is_file()
    print(build(given.folder) if one else build_index(given.folder))


if __name__ == "__main__":
    cli.script(main, Report, __doc__)
