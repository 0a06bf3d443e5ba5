"""The summary of a run on a card: what it takes from the files that parts leave, and the lines that show it."""

from __future__ import annotations

import hashlib
import json
import xml.etree.ElementTree as ElementTree
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from qbsnn.results.files import write_atomically

LAST = 15  # lines that are kept of a failed test's text and of a failed part's output
SAME = ("git_commit", "code", "host", "cuda")  # where these are equal, a summary is gone on with
METRICS = ("status", "error", "metrics", "timing", "precision", "execution", "absorption", "integer", "energy")


def of_benchmark(text: str) -> dict[str, Any]:
    """Rows, reasons and the peers' versions of a benchmark's result file."""
    found = json.loads(text)
    return {key: found[key] for key in ("settings", "versions", "kernels", "rows", "skipped")}


def of_tests(text: str) -> dict[str, Any]:
    """Numbers of tests, and what failed, of pytest's XML; tests that were interrupted have no name and do not count.

    >>> of_tests('<a><testcase name="x"/><testcase name="y"><failure message="no">1 != 2</failure></testcase></a>')
    {'passed': 1, 'skipped': 0, 'failed': ['y: no'], 'names': ['x'], 'reasons': {'y': ['1 != 2']}}
    """
    cases = ElementTree.fromstring(text).iterfind(".//testcase[@name]")
    passed, skipped, failed, reasons = [], 0, [], {}
    for case in cases:
        if (bad := next((child for child in case if child.tag in ("failure", "error")), None)) is not None:
            first = next(iter((bad.get("message") or "no message").splitlines()))
            failed.append(f"{case.get('name')}: {first[:200]}")
            reasons[case.get("name")] = (bad.text or "").strip().splitlines()[-LAST:]
        elif case.find("skipped") is not None:
            skipped += 1
        else:
            passed.append(case.get("name"))
    return {"passed": len(passed), "skipped": skipped, "failed": failed, "names": passed, "reasons": reasons}


def of_run(text: str) -> dict[str, Any]:
    """What a run says of itself."""
    found = json.loads(text)
    return {key: found[key] for key in METRICS if key in found}


def trouble(summary: dict[str, Any]) -> bool:
    """Whether a test failed, or a part neither finished nor was left out."""
    parts = summary["parts"]
    return any(part.get("failed") or not part["status"].startswith(("finished", "left out")) for part in parts)


def earlier(path: Path, summary: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The parts of the summary that lies at ``path``; none, which is said, where it is of another code or machine."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        other = [key for key in SAME if found[key] != json.loads(json.dumps(summary[key]))]
        if not other:
            return [*found["parts"]]
        print(f"{path} is replaced: another {', '.join(other)}", flush=True)
    except FileNotFoundError:
        pass
    except (OSError, ValueError, KeyError, TypeError) as error:
        print(f"{path} is replaced: no summary ({error!r})", flush=True)
    return []


def code(root: Path) -> str:
    """SHA-256 of all Python files and settings below ``root``, with their names; it needs no git."""
    digest = hashlib.sha256()
    for folder in ("qbsnn", "conf", "benchmarks", "tests"):
        for file in sorted((root / folder).rglob("*")):
            if file.suffix in (".py", ".yaml", ".c", ".h"):
                digest.update(f"{file.relative_to(root)} {hashlib.sha256(file.read_bytes()).hexdigest()}\n".encode())
    return digest.hexdigest()


def text(summary: dict[str, Any]) -> str:
    """A line per part, and one per goal, failed test and test accuracy."""
    lines = []
    for part in summary["parts"]:
        lines.append(f"{part['name']:<34} {part['status']:<18} {part.get('seconds', 0):>6.0f} s")
        if "passed" in part:
            lines.append(f"    {part['passed']} passed, {len(part['failed'])} failed, {part['skipped']} skipped")
            lines += [f"    {line}" for line in part["failed"]]
        for row in part.get("rows", ()):
            if row["goal"]:
                value = row["ratio"] if row["to"] or row["ratio"] is not None else row["median"]
                shown = "no value" if value is None else f"{value:.3g}"
                lines.append(f"    {row['goal_name']}: {shown}, goal {row['goal']}, {'' if row['met'] else 'not '}met")
        accuracy = (part.get("metrics") or {}).get("best", {}).get("test/acc")
        if accuracy is not None:
            lines.append(f"    test accuracy {accuracy:.2%}")
        if part.get("error"):
            lines.append(f"    {part['error']}")
        lines += [f"    {line}" for line in part.get("output", ())]
    return "\n".join(lines)


def write(path: Path, summary: Mapping[str, Any]) -> None:
    """Write it, whole or not at all."""
    write_atomically(path, (json.dumps(summary, indent=1, ensure_ascii=False, default=str) + "\n").encode())
