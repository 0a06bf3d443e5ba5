"""Compare the locked packages with the published lists of known weaknesses: ``python scripts/audit.py``.

Exit codes: 0, none is known; 1, some are, and they are listed; 3, nobody answered for all packages, as without a
network. pip-audit is fetched by uvx and not installed here.
"""

import json
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Any

from pydantic import Field

from qbsnn.cli import launch as cli
from qbsnn.cli.keys import Keys
from qbsnn.errors import SettingsError, VerificationError

ROOT = Path(__file__).parent.parent
AUDITOR = "pip-audit==2.10.1"
NO_ANSWER = 3


class AuditKeys(Keys):
    """The keys of this tool."""

    lock: Path = Field(default=ROOT / "requirements.lock", description="the packages, with versions and hashes")
    uvx: str = Field(default=f"{sysconfig.get_path('scripts')}/uvx", description="the command that fetches pip-audit")


def main(given: AuditKeys) -> None:
    if not given.lock.is_file():
        raise SettingsError(f"lock={given.lock}: there is no such file of packages with their hashes")
    options = ["--requirement", str(given.lock), "--disable-pip", "--require-hashes", "--format", "json",
               "--progress-spinner", "off"]  # fmt: skip
    try:
        done = subprocess.run([given.uvx, AUDITOR, *options], capture_output=True, text=True, check=False)
    except OSError as error:
        no_answer(f"{given.uvx} cannot be run: {error.strerror}")
    try:
        packages = json.loads(done.stdout)["dependencies"]
    except (ValueError, KeyError, TypeError):
        no_answer(next(reversed(done.stderr.strip().splitlines()), "pip-audit said nothing"))
    judge(packages)


def judge(packages: list[dict[str, Any]]) -> None:
    """Say what was found. pip-audit counts packages that its source does not know as sound; here they have no answer.

    Raises:
        VerificationError: a package has a known weakness.
    """
    found = [
        f"{package['name']} {package['version']}: {known['id']}, mended in {', '.join(known['fix_versions']) or '-'}"
        for package in packages
        for known in package.get("vulns", [])
    ]
    if found:
        raise VerificationError("; ".join(found))
    unknown = [package["name"] for package in packages if "skip_reason" in package]
    if unknown or not packages:
        no_answer(
            f"there is no list for {len(unknown)} of {len(packages)} packages, {', '.join(unknown[:3])} among them"
        )
    print(f"{len(packages)} packages: no known weakness")


def no_answer(why: str) -> None:
    """End without a verdict."""
    print(f"error: the locked packages were not audited: {why}", file=sys.stderr)
    sys.exit(NO_ANSWER)


if __name__ == "__main__":
    cli.script(main, AuditKeys, __doc__)
