"""Tables and figures of a sweep from its result files: ``python scripts/make_tables.py table=NAME``.

Writes NAME.md, .tex, .csv, NAME_runs.csv (a row per run) and the figures (PNG, PDF).
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
    docs: str | None = Field(
        default=None, description="true: write docs/results.md with all tables instead; DIR: the same elsewhere"
    )


def main(given: Tables) -> None:
    from qbsnn.report.tables.documents import find_plan, write_results, write_table

    if (given.table is None) == (given.docs is None):
        raise SettingsError("give table=NAME, or docs=true for all of them")
    if given.docs is not None:
        for name in ("out", "figure"):
            if getattr(given, name) is not None:
                raise SettingsError(f"{name} goes with table=NAME, not with docs")
        print(write_results(CONF, given.sweeps, ROOT / "docs" if given.docs == "true" else Path(given.docs)))
    elif given.table is not None:
        plan = find_plan(given.table, CONF)
        for path in write_table(plan, given.sweeps, given.out or Path("outputs/tables"), given.figure):
            print(path)


if __name__ == "__main__":
    cli.script(main, Tables, __doc__)
