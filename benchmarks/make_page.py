"""Write ``docs/benchmarks.md`` and its plots from the result files of one ``make bench``; print the table of goals.

The page is made from ``outputs/benchmarks/*.json`` and from nothing else, except for the reasons in
``benchmarks/notes.yaml`` beside goals that are not met. The files that it was made from are kept beside it, in
``docs/checks/benchmarks``; ``results=docs/checks/benchmarks`` makes the same page again. Results of different
machines, versions or commits, results more than a day apart, results of ``small=true`` and absent results are refused.
``partial=true`` takes absent ones; ``goals=true`` only prints. ``python -m benchmarks.make_page``

What takes hours is measured by itself and has a page of its own:
``python -m benchmarks.make_page results=docs/checks/time_to_accuracy page=docs/time_to_accuracy.md partial=true``
"""

from __future__ import annotations

import json
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from pydantic import Field

from benchmarks.harness import RESULTS, ROOT
from benchmarks.plots import draw_scaling
from qbsnn.cli import launch as cli
from qbsnn.cli.keys import Keys
from qbsnn.errors import DataError, SettingsError
from qbsnn.results.files import write_atomically
from qbsnn.results.formatting import three_digits

TITLES = {
    "startup": "First answer",
    "neuron": "Neuron",
    "train_step": "Training step",
    "inference": "Inference",
    "time_to_accuracy": "Time to an accuracy",
    "scaling": "Scaling",
    "data": "Event pipeline",
}
SAME = ("cpu", "cores", "isa", "gpu", "platform")
LONGEST = timedelta(days=1)
Found = dict[str, dict[str, Any]]


class PageKeys(Keys):
    """The keys of this tool."""

    results: Path = Field(default=RESULTS, description="folder of the result files")
    page: Path = Field(default=ROOT / "docs/benchmarks.md", description="the page to write")
    notes: Path = Field(default=ROOT / "benchmarks/notes.yaml", description="why goals are not met")
    partial: bool = Field(default=False, description="true: write though results are absent; the page names them")
    goals: bool = Field(default=False, description="true: print the goals and write nothing")


def main(given: PageKeys) -> None:
    found = load(given.results, given.partial or given.goals)
    if not given.goals:
        check(found)
        write(found, notes(given.notes), given.page)
    print(goals_text(found))


def load(folder: Path, partial: bool = False) -> Found:
    """The result files by benchmark. Raises DataError naming those that are absent or damaged."""
    found = {}
    for name in TITLES:
        path = folder / f"{name}.json"
        if not path.is_file():
            continue
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            rows = content["rows"]
            assert all({"name", "median", "unit"} <= set(row) for row in rows)
        except (ValueError, KeyError, TypeError, AssertionError) as error:
            raise DataError(
                f"{path} is no result of benchmarks.harness ({error!r}); run {_command(name)} again"
            ) from error
        found[name] = content
    absent = [name for name in TITLES if name not in found]
    if not found or (absent and not partial):
        raise DataError(f"no results in {folder} of {', '.join(absent)}; run {', '.join(map(_command, absent))}")
    return found


def check(found: Found) -> None:
    """Raise DataError unless all results are full ones of one machine, one set of versions, one commit and one day."""
    if tiny := [name for name, content in found.items() if content.get("small")]:
        raise DataError(f"{', '.join(tiny)}: made with small=true, which is no measurement; run {_command(tiny[0])}")
    first, *others = found
    facts = {name: _facts(content) for name, content in found.items()}
    for other in others:
        for key in facts[first].keys() & facts[other].keys():
            if facts[first][key] != facts[other][key]:
                both = f"{first} has {facts[first][key]!r}, {other} has {facts[other][key]!r}"
                raise DataError(f"results of different {key}: {both}; run make bench again")
    times = {name: datetime.fromisoformat(content["started"]) for name, content in found.items()}
    old, new = min(times, key=times.__getitem__), max(times, key=times.__getitem__)
    if times[new] - times[old] > LONGEST:
        raise DataError(f"{old} is stale: it was measured {times[new] - times[old]} before {new}; run {_command(old)}")


def notes(path: Path) -> dict[str, str]:
    """Reasons by goal. Raises SettingsError for a file that is not of that form."""
    content = OmegaConf.to_container(OmegaConf.load(path)) if path.is_file() else {}
    if not isinstance(content, dict) or not all(isinstance(value, str) for value in content.values()):
        raise SettingsError(f"{path} must hold lines 'goal: reason', got {content!r}")
    return {str(key): value for key, value in content.items()}


def write(found: Found, reasons: dict[str, str], page: Path) -> None:
    """Write the plots, the page, and beside it the files that it was made from.

    A reason whose goal was not measured, as on another processor, is named.
    """
    for goal in sorted(set(reasons) - {name for name, *_ in goals(found)}):
        print(f"not measured here, so its note is left out: {goal}")
    images = page.parent / "images"
    plots = draw_scaling(found["scaling"]["curves"], images) if "scaling" in found else []
    figures = [f"![Scaling in {path.stem[6:]}](images/{path.name})" for path in plots if path.suffix == ".png"]
    write_atomically(page, markdown(found, reasons, figures).encode())
    kept(page).mkdir(parents=True, exist_ok=True)
    for name, content in found.items():
        text = json.dumps(content, indent=2, ensure_ascii=False) + "\n"
        write_atomically(kept(page) / f"{name}.json", text.encode())
    print(f"written to {page}")


def kept(page: Path) -> Path:
    """The folder of the files that a page was made from."""
    return page.parent / "checks" / page.stem


def goals(found: Found) -> list[tuple[str, str, float | None, str, bool]]:
    """(goal, bound, measured, unit or name of what it is measured in, met) of every row that has one."""
    return [
        (
            row.get("goal_name") or f"{TITLES[name]}: {row['name']}",
            str(row["goal"]),
            row.get("ratio") if relative else row["median"],
            "×" if relative else row["unit"],
            bool(row["met"]),
        )
        for name, content in found.items()
        for row in content["rows"]
        for relative in [bool(row.get("to")) or row.get("ratio") is not None]
        if row.get("goal") is not None
    ]


def goals_text(found: Found) -> str:
    """The goals as aligned text."""
    rows = goals(found)
    width = max((len(row[0]) for row in rows), default=0)
    return "\n".join(
        f"{name:<{width}}  {_number(value, unit):>10}  goal {bound:<8}  {'met' if met else 'NOT met'}"
        for name, bound, value, unit, met in rows
    )


def markdown(found: Found, reasons: dict[str, str], figures: list[str]) -> str:
    """The page; one of fewer results is called after them."""
    absent = [name for name in TITLES if name not in found]
    lines = [
        f"# {', '.join(TITLES[name] for name in found) if absent else 'Benchmarks'}",
        "",
        f"Made by {'`python -m benchmarks.make_page`' if absent else '`make bench`'} from the result files of one "
        "machine, not written by hand. A goal is a ratio of medians",
        "from one run in which all contenders take turns. A peer is compiled where its row says so; our networks are",
        "compiled everywhere. One copy is the time to copy the neuron's input tensor once.",
        "",
        "| goal | measured | bound | met | reason |",
        "|---|---|---|---|---|",
    ]
    for name, bound, value, unit, met in goals(found):
        reason = "" if met else reasons.get(name, "")
        lines.append(f"| {name} | {_number(value, unit)} | {bound} | {'yes' if met else 'no'} | {reason} |")
    lines += ["", *_machine(found)]
    for name in found:
        lines += ["", f"## {TITLES[name]}", "", *_section(name, found[name])]
        if name == "scaling":
            lines += ["", *figures]
    if absent:
        lines += ["", f"Not measured: {', '.join(f'`{_command(name)}`' for name in absent)}."]
    return "\n".join(lines) + "\n"


def _machine(found: Found) -> list[str]:
    first = next(iter(found.values()))
    host = first["host"]
    versions = {name: v for content in found.values() for name, v in content.get("versions", {}).items()}
    days = sorted({content["started"][:10] for content in found.values() if "started" in content})
    commit = first.get("git_commit") or "unknown"
    dirty = any(content.get("git_dirty") for content in found.values())
    lines = {
        "processor": f"{host['cpu']}, {host['cores']} cores, {', '.join(host['isa'])}",
        "graphics card": host["gpu"] or "none: rows that need one are left out",
        "system": host["platform"],
        "versions": ", ".join(f"{name} {version}" for name, version in versions.items()),
        "date": " to ".join(dict.fromkeys([*days[:1], *days[-1:]])),
        "commit": f"`{commit[:12]}`{' with changes' if dirty else ''}",
    }
    return ["| | |", "|---|---|", *(f"| {key} | {value} |" for key, value in lines.items())]


def _section(name: str, content: dict[str, Any]) -> list[str]:
    settings = ", ".join(f"{key} {_setting(value)}" for key, value in content.get("settings", {}).items())
    lines = [f"`{_command(name)}`" + (f": {settings}." if settings else ".")]
    for table in dict.fromkeys(row.get("table", "") for row in content["rows"]):
        rows = [row for row in content["rows"] if row.get("table", "") == table]
        to = next((row["to"] for row in rows if row.get("to")), None)
        lines += ["", *([f"**{table}**", ""] if table else [])]
        lines += [f"| | median | lowest to highest | {f'÷ {to}' if to else 'ratio'} | goal |", "|---|---|---|---|---|"]
        lines += [_line(row) for row in rows]
    if skipped := content.get("skipped"):
        lines += ["", "Not run:", "", *(f"- {line}" for line in skipped)]
    return lines


def _line(row: dict[str, Any]) -> str:
    low, high = row.get("low"), row.get("high")
    spread = "" if low in (None, high) else f"{three_digits(low)} to {three_digits(high)}"
    goal = "" if row.get("goal") is None else f"{row['goal']}, {'met' if row['met'] else 'not met'}"
    ratio = "" if row.get("ratio") is None else three_digits(row["ratio"])
    return f"| {row['name']} | {_number(row['median'], row['unit'])} | {spread} | {ratio} | {goal} |"


def _number(value: float | None, unit: str) -> str:
    return "-" if value is None else f"{three_digits(value)} {unit}".strip()


def _setting(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False).replace('"', "")


def _command(name: str) -> str:
    return f"python -m benchmarks.{name}"


def _facts(content: dict[str, Any]) -> dict[str, Any]:
    """What must be equal in all results: the machine, the versions that both name, the commit."""
    host = {key: content["host"].get(key) for key in SAME}
    versions = {f"version of {name}": version for name, version in content.get("versions", {}).items()}
    return {**host, **versions, **({"commit": content["git_commit"]} if "git_commit" in content else {})}


if __name__ == "__main__":
    cli.script(main, PageKeys, __doc__)
