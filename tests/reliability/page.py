"""The figures of the last run of ``python -m tests.reliability``, and the page that is made of them."""

import json
import subprocess
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import jinja2

from qbsnn.results.files import write_atomically
from qbsnn.training.devices.host import host_info
from tests.tool import ROOT

FIGURES = ROOT / "docs/checks/reliability.json"
PAGE = ROOT / "docs/reliability.md"


def figures(path: Path = FIGURES) -> dict[str, Any]:
    """What earlier runs found, by part."""
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def keep(part: str, found: dict[str, Any], path: Path) -> None:
    """Put the figures of a part in the place of earlier ones, with the day, the commit and the machine."""
    commit = subprocess.run(
        ["git", "describe", "--always", "--dirty", "--abbrev=12"], cwd=ROOT, capture_output=True, text=True
    )
    host = host_info()
    known = figures(path)
    known[part] = {
        "day": datetime.now(timezone.utc).date().isoformat(),
        "commit": commit.stdout.strip(),
        "machine": f"{host.cpu}, {host.cores} cores",
        "versions": host.versions,
        "found": found,
    }
    write_atomically(path, (json.dumps(dict(sorted(known.items())), indent=1) + "\n").encode())


def text(known: dict[str, Any]) -> str:
    """The page."""
    folder = jinja2.FileSystemLoader(Path(__file__).parent, encoding="utf-8")
    options = {"trim_blocks": True, "lstrip_blocks": True, "keep_trailing_newline": True}
    environment = jinja2.Environment(loader=folder, undefined=jinja2.StrictUndefined, **options)
    return environment.get_template("reliability.md.j2").render(known=known)
