"""``make audit``: known weaknesses, none, and no answer are three things."""

import runpy

import pytest

from qbsnn.errors import VerificationError
from tests.tool import ROOT, one_paragraph

SOUND = {"name": "a", "version": "1", "vulns": []}
WEAK = {"name": "b", "version": "2", "vulns": [{"id": "CVE-1", "fix_versions": ["2.1"]}]}
UNKNOWN = {"name": "c", "skip_reason": "Dependency not found on PyPI"}


@pytest.fixture
def judge():
    return runpy.run_path(str(ROOT / "scripts/audit.py"))["judge"]


def test_a_known_weakness_is_named_also_beside_packages_without_an_answer(judge, capsys):
    with pytest.raises(VerificationError, match=r"b 2: CVE-1, mended in 2\.1"):
        judge([SOUND, WEAK, UNKNOWN])
    judge([SOUND])
    assert "1 packages: no known weakness" in capsys.readouterr().out


@pytest.mark.parametrize("packages", [[SOUND, UNKNOWN], []])
def test_what_nobody_answers_for_is_not_called_sound(judge, capsys, packages):
    with pytest.raises(SystemExit) as ended:
        judge(packages)
    assert ended.value.code == 3
    assert "were not audited" in one_paragraph(capsys.readouterr().err)


@pytest.mark.parametrize("uvx", ["/nowhere/uvx", "false"])
def test_without_the_auditor_there_is_no_answer(tool, capsys, uvx):
    assert tool("scripts/audit.py", f"uvx={uvx}") == 3
    assert "were not audited" in one_paragraph(capsys.readouterr().err)
