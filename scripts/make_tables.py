"""Tables and figures of a sweep from its result files: ``python scripts/make_tables.py table=NAME [out=DIR]``.

NAME is a file of conf/sweep, with or without its ``table_``, or the path of another one. Writes NAME.md, .tex, .csv,
NAME_runs.csv (a row per run) and the figures (PNG, PDF) into ``out`` (default outputs/tables). ``figure=`` draws
another one (timesteps, s_max, alpha_beta, energy, rows, delta); ``sweeps=`` says where the sweeps lie (default
outputs/sweeps). ``docs=true`` instead writes docs/results.md with all tables, ``docs=DIR`` the same elsewhere.
"""

from pathlib import Path

from qbsnn.checks import nearest
from qbsnn.cli import launch as cli
from qbsnn.errors import SettingsError

ROOT = Path(__file__).parent.parent
CONF = ROOT / "conf" / "sweep"
KEYS = ("table", "out", "figure", "sweeps", "docs")


def main(arguments: list[str]) -> None:
    from qbsnn.report.tables.documents import find_plan, write_results, write_table

    given = dict(_pair(argument) for argument in arguments)
    sweeps = Path(given.get("sweeps", "outputs/sweeps"))
    if ("table" in given) == ("docs" in given):
        raise SettingsError("give table=NAME, or docs=true for all of them")
    if "docs" in given:
        others = [key for key in given if key not in ("docs", "sweeps")]
        if others:
            raise SettingsError(f"{others[0]} goes with table=NAME, not with docs")
        print(write_results(CONF, sweeps, ROOT / "docs" if given["docs"] == "true" else Path(given["docs"])))
        return
    plan = find_plan(given["table"], CONF)
    for path in write_table(plan, sweeps, Path(given.get("out", "outputs/tables")), given.get("figure")):
        print(path)


def _pair(argument: str) -> tuple[str, str]:
    key, equals, value = argument.partition("=")
    if not equals or not value:
        raise SettingsError(f"arguments are key=value, got {argument!r}")
    if key not in KEYS:
        raise SettingsError(f"{key} is not an argument: {nearest(key, KEYS)}")
    return key, value


if __name__ == "__main__":
    cli.script(main, __doc__)
