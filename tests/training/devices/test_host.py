"""The description of a machine is what the machine says."""

import hashlib
import importlib.metadata
import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from qbsnn.training.devices import host
from qbsnn.training.devices.host import code_digest, git_state, host_info

X86 = """processor\t: 0
vendor_id\t: GenuineIntel
model name\t: Intel(R) Xeon(R) Platinum 8488C
flags\t\t: fpu avx avx2 avx512f avx512_vnni amx_tile amx_int8 avx512_bf16

processor\t: 1
model name\t: another
flags\t\t: fpu
"""
ARM = "processor\t: 0\nBogoMIPS\t: 243.75\nFeatures\t: fp asimd asimddp i8mm bf16\nHardware\t: BCM2835\n"


@pytest.mark.parametrize(
    ("text", "model", "isa"),
    [
        (X86, "Intel(R) Xeon(R) Platinum 8488C", ["avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_int8"]),
        (ARM, "BCM2835", ["neon", "dotprod", "i8mm"]),
        ("", "", []),
    ],
)
def test_cpuinfo(tmp_path: Path, text: str, model: str, isa: list[str]) -> None:
    path = tmp_path / "cpuinfo"
    path.write_text(text)
    facts = host._processor(path)
    assert facts["model"] == model
    assert host._extensions(facts["flags"]) == isa


def test_without_cpuinfo_sysctl_is_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answers = {
        ("sysctl", "-n", "machdep.cpu.brand_string"): "Apple M3\n",
        ("sysctl", "hw.optional", "machdep.cpu"): "hw.optional.neon: 1\nhw.optional.arm.FEAT_DotProd: 1\n"
        "hw.optional.arm.FEAT_I8MM: 0\nmachdep.cpu.leaf7_features: BMI1 AVX2\n",
    }
    monkeypatch.setattr(host, "_output", lambda command: answers.get(tuple(command)))
    facts = host._processor(tmp_path / "absent")
    assert facts["model"] == "Apple M3"
    assert host._extensions(facts["flags"]) == ["avx2", "neon", "dotprod"]
    monkeypatch.setattr(host, "_output", lambda command: None)
    assert host._processor(tmp_path / "absent") == {"model": "", "flags": ""}


def test_this_machine() -> None:
    found = host_info()
    assert found.cpu
    if hasattr(os, "sched_getaffinity"):
        assert found.cores == len(os.sched_getaffinity(0))
    assert (found.gpu is not None) == torch.cuda.is_available()
    assert found.platform == platform.platform()
    assert found.versions["python"] == platform.python_version()
    assert found.versions["torch"] == importlib.metadata.version("torch")
    assert set(found.versions) == {"python", "torch", "lightning", "torchvision", "hydra-core", "numpy", "qbsnn"}
    if Path("/proc/cpuinfo").exists() and platform.machine() == "x86_64":
        # the same question put to another program that torch ships: its dispatcher never exceeds the flags
        capability = torch.backends.cpu.get_cpu_capability()
        assert ("avx2" in found.isa) or capability == "DEFAULT"
        assert ("avx512f" in found.isa) or capability != "AVX512"


def test_git_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("GIT_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))

    def git(*words: str) -> str:
        identity = ["-c", "user.name=a", "-c", "user.email=a@b"]
        return subprocess.run(
            ["git", *identity, *words], cwd=tmp_path, check=True, capture_output=True, text=True
        ).stdout.strip()

    assert git_state(tmp_path) == (None, None)
    assert git_state(tmp_path / "absent") == (None, None)
    assert code_digest(tmp_path) == ""
    git("init", "-q")
    code = tmp_path / "qbsnn"
    code.mkdir()
    (code / "a.py").write_text("1")
    assert git_state(tmp_path) == (None, True)
    git("add", "qbsnn")
    git("commit", "-q", "-m", "a")
    head, whole = git("rev-parse", "HEAD"), code_digest(code)
    assert git_state(code) == (head, False)
    listed = subprocess.run(["sha256sum", "qbsnn/a.py"], cwd=tmp_path, capture_output=True, check=True).stdout
    assert whole == hashlib.sha256(listed).hexdigest()
    (tmp_path / "docs").mkdir()
    for other in ("queue.lock", "docs/page.md"):
        (tmp_path / other).write_text("changes no number")
    assert git_state(code) == (head, False) and code_digest(code) == whole
    assert git_state(code, ":(top)docs") == (head, True)
    for changed in ("qbsnn/a.py", "train.py", "conf/x.yaml"):
        (tmp_path / changed).parent.mkdir(exist_ok=True)
        (tmp_path / changed).write_text("2")
        assert git_state(code) == (head, True) and code_digest(code) != whole
        (tmp_path / changed).unlink()
        git("checkout", "-q", ".")
    assert git_state(code) == (head, False) and code_digest(code) == whole
    monkeypatch.setenv("PATH", str(tmp_path))
    assert git_state(tmp_path) == (None, None)


def test_a_slow_program_is_given_up() -> None:
    assert host._output([sys.executable, "-c", "import time; time.sleep(30)"], seconds=0.2) is None
