"""Tables and figures of a sweep from its result files: ``python scripts/make_tables.py table=NAME``.

Writes NAME.md, .tex, .csv, NAME_runs.csv (a row per run) and the figures (PNG, PDF). ``store=NAME`` keeps the finished
cells of a sweep as docs/results/NAME.json; ``docs=true`` makes the pages of docs/ and README.md from these files.
"""

from pathlib import Path

from pydantic import Field

from qbsnn.cli import launch as cli
from qbsnn.cli.keys import Keys
from qbsnn.errors import SettingsError

ROOT = Path(__file__).parent.parent
CONF = ROOT / "conf" / "sweep"


class Tables(Keys):
    """The keys of this tool."""

    table: str | None = Field(
        default=None, description="a file of conf/sweep, with or without its table_, or the path of another one"
    )
    out: Path | None = Field(default=None, description="the folder to write into; default: outputs/tables")
    figure: str | None = Field(
        default=None, description="another figure: timesteps, s_max, alpha_beta, energy, rows, delta"
    )
    sweeps: Path = Field(default=Path("outputs/sweeps"), description="where the sweeps lie")
    store: str | None = Field(
        default=None, description="a sweep, or all that were started: keep their finished cells in docs/results"
    )
    docs: str | None = Field(
        default=None, description="true: fill docs/*.md and README.md from docs/results; DIR: another folder of pages"
    )


def main(given: Tables) -> None:
    from qbsnn.report.tables.documents import find_plan, store_sweeps, write_table
    from qbsnn.report.tables.pages import write_pages
    from qbsnn.report.tables.stored import read_stored
    from qbsnn.results.sweeps import read_cells
    from qbsnn.sweeps.stored import refuse_unplanned

    if (given.table is None) == (given.docs is None and given.store is None):
        raise SettingsError("give table=NAME, or store=NAME to keep results, or docs=true for all pages")
    if given.table is not None:
        plan = find_plan(given.table, CONF)
        for path in write_table(plan, given.sweeps, given.out or Path("outputs/tables"), given.figure):
            print(path)
        cells = read_cells(given.sweeps / plan.name)
        print(f"{sum(cell.status == 'done' for cell in cells)} of {len(cells)} cells are finished")
        return
    for name in ("out", "figure"):
        if getattr(given, name) is not None:
            raise SettingsError(f"{name} goes with table=NAME, not with store or docs")
    docs = ROOT / "docs" if given.docs in (None, "true") else Path(given.docs)
    check = refuse_unplanned if docs == ROOT / "docs" else None  # a folder of one's own may hold other settings
    found = store_sweeps(given.store, CONF, given.sweeps, docs / "results", check) if given.store is not None else []
    for path in sorted((docs / "results").glob("*.json")) if check is not None else []:
        if (CONF / f"{path.stem}.yaml").is_file():  # else write_pages says so
            check(CONF / f"{path.stem}.yaml", read_stored(path))
    for path in [*found, *(write_pages(CONF, docs) if given.docs is not None else [])]:
        print(path)


if __name__ == "__main__":
    cli.script(main, Tables, __doc__)
