"""Show what is promised when something goes wrong, and write docs/reliability.md: ``python -m tests.reliability``.

The figures of a part take the place of those of its last run in docs/checks/reliability.json; the exit code is 1 where
one of them falls short. All of it takes about an hour on a core of its own.
"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import Field

from qbsnn.cli import launch as cli
from qbsnn.cli.keys import Keys
from qbsnn.errors import VerificationError
from qbsnn.results.files import write_atomically
from tests import test_harmful
from tests.reliability import damage, kills, overrides, page
from tests.reliability.kills import KINDS
from tests.tool import ROOT

Part = Literal["kills", "damage", "overrides", "harmful"]


class ReliabilityKeys(Keys):
    """The keys of this tool."""

    parts: list[Part] = Field(
        default=["damage", "harmful", "overrides", "kills"], description="which; empty: only write the page"
    )
    kills: int = Field(default=50, ge=1, description="runs of each kind that are killed")
    kinds: list[str] = Field(default=list(KINDS), description="kinds of runs that are killed; figures of others stay")
    flips: int = Field(default=200, ge=0, description="flipped bits, in each kind of file")
    cuts: int = Field(default=50, ge=0, description="cuts of each kind of file")
    settings: int = Field(default=500, ge=1, description="random wrong overrides")
    seed: int = Field(default=0, ge=0, description="of all that is random")
    figures: Path = Field(default=page.FIGURES, description="the figures, to be kept")
    page: Path = Field(default=page.PAGE, description="the page, to be written")


def main(given: ReliabilityKeys) -> None:
    os.environ |= {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    torch.set_num_threads(1)
    short = []
    # Those that fork come first, while this process has computed nothing.
    for part in sorted(given.parts, key=["kills", "overrides", "harmful", "damage"].index):
        with tempfile.TemporaryDirectory(prefix="qbsnn-reliability-") as folder:
            found, wanting = PARTS[part](given, Path(folder))
        page.keep(part, found, given.figures)
        short += wanting
    write_atomically(given.page, page.text(page.figures(given.figures)).encode())
    print(f"written to {given.page}")
    if short:
        raise VerificationError("; ".join(short))


def _kills(given: ReliabilityKeys, folder: Path) -> tuple[dict[str, Any], list[str]]:
    found = page.figures(given.figures).get("kills", {}).get("found", {})
    for number, kind in enumerate(given.kinds):
        place = folder / str(number)
        place.mkdir()
        found[kind] = kills.measure(place, kind, given.kills, given.seed)
        print(f"kills, {kind}: {found[kind]['equal']} of {found[kind]['asked']} equal, {found[kind]['killed_in']}")
    return found, [f"{kind}: {one['unequal']}" for kind, one in found.items() if one["unequal"]]


def _damage(given: ReliabilityKeys, folder: Path) -> tuple[dict[str, Any], list[str]]:
    found = {}
    for kind, path in damage.make(folder).items():
        found[kind] = damage.measure(path, damage.READERS[kind], given.flips, given.cuts, given.seed)
        print(f"damage, {kind}: {found[kind]['refused']} of {given.flips + given.cuts} refused")
    return found, [f"{kind}: {one['passed']}" for kind, one in found.items() if one["passed"]]


def _overrides(given: ReliabilityKeys, folder: Path) -> tuple[dict[str, Any], list[str]]:
    found = overrides.measure(folder, given.settings, given.seed)
    print(f"overrides: {found['well']} of {found['asked']} as promised, {found['outcomes']}")
    return found, [f"{row}" for row in found["wrong"]]


def _harmful(given: ReliabilityKeys, folder: Path) -> tuple[dict[str, Any], list[str]]:
    """The tests of harmful files, which say nothing of a target that ran but its name."""
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-m", "slow", "-k", "runs_them",
               "tests/test_harmful.py"]  # fmt: skip
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    targets = len(test_harmful.CASES)
    loggers = sum(place.startswith("logger") for place, _ in test_harmful.CASES)  # a checkpoint's are left aside
    tried = 6 * targets - 3 * loggers  # override, experiment file, sweep file, and checkpoint by three tools
    if done.returncode:
        return {"targets": targets, "tried": tried, "ran": "at least 1"}, [done.stdout[-2000:]]
    print(f"harmful targets: 0 of {tried} ran ({targets} targets, six ways)")
    return {"targets": targets, "tried": tried, "ran": 0}, []


PARTS = {"kills": _kills, "damage": _damage, "overrides": _overrides, "harmful": _harmful}


if __name__ == "__main__":
    cli.script(main, ReliabilityKeys, __doc__)
