"""Where a run was made: processor, graphics card, versions, state of the source tree. Detected, never assumed."""

from __future__ import annotations

import hashlib
import os
import platform
import subprocess
from importlib import metadata
from pathlib import Path

from qbsnn.results.schema import Host

_PACKAGES = ("torch", "lightning", "torchvision", "hydra-core", "numpy", "qbsnn")

# our name -> the names of the same extension in /proc/cpuinfo and in macOS's sysctl
_EXTENSIONS = {
    "avx2": {"avx2"},
    "avx512f": {"avx512f"},
    "avx512_vnni": {"avx512_vnni"},
    "avx_vnni": {"avx_vnni"},
    "avx512_bf16": {"avx512_bf16"},
    "amx_int8": {"amx_int8"},
    "amx_bf16": {"amx_bf16"},
    "neon": {"neon", "asimd", "advsimd"},
    "dotprod": {"asimddp", "feat_dotprod"},
    "i8mm": {"i8mm", "feat_i8mm"},
    "sve": {"sve"},
}


def host_info() -> Host:
    """Describe this machine and the versions of the packages a result depends on."""
    return Host(
        cpu=cpu_name(),
        cores=_usable_cores(),
        isa=extensions(),
        gpu=_gpu(),
        platform=platform.platform(),
        versions={
            "python": platform.python_version(),
            **{name: version(name) or "not installed" for name in _PACKAGES},
        },
    )


def cpu_name() -> str:
    """The model of the processor."""
    return _processor()["model"] or platform.processor() or platform.machine() or "unknown"


def extensions() -> list[str]:
    """The instruction sets of the processor that matter here, by our names."""
    return _extensions(_processor()["flags"])


CODE = (":(top)qbsnn", ":(top)conf", ":(top,glob)*.py")
"""The files of a checkout that can change a number of a run, as git names them."""


def git_state(root: str | Path, *more: str) -> tuple[str | None, bool | None]:
    """The commit checked out at ``root`` and whether :data:`CODE`, or ``more``, differ from it or have other files.

    ``(None, None)`` without git or without a repository; either is ``None`` if git does not answer in a few seconds.
    """
    commit = _output(["git", "-C", str(root), "rev-parse", "--verify", "HEAD"])
    # without optional locks, so that asking does not disturb a git command the user runs meanwhile
    changes = _output(["git", "--no-optional-locks", "-C", str(root), "status", "--porcelain", "--", *CODE, *more])
    return commit.strip() if commit is not None else None, bool(changes.strip()) if changes is not None else None


def code_digest(root: str | Path) -> str:
    """SHA-256 of the files of :data:`CODE` at ``root`` as they are, ignored ones aside; empty without git.

    It is that of what ``sha256sum`` prints of them, sorted by path, so that a checkout can be compared.
    """
    top = (_output(["git", "-C", str(root), "rev-parse", "--show-toplevel"]) or "").rstrip("\n")
    kinds = ["--cached", "--others", "--exclude-standard"]
    names = _output(["git", "-C", top, "ls-files", "-z", *kinds, "--", *CODE]) if top else None
    if names is None:
        return ""
    files = [name for name in sorted(set(names.split("\0"))) if (Path(top) / name).is_file()]
    lines = [f"{hashlib.sha256((Path(top) / name).read_bytes()).hexdigest()}  {name}\n" for name in files]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def _output(command: list[str], seconds: float = 5.0) -> str | None:
    """What a program prints, or ``None`` if it is absent, fails or takes too long."""
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace", timeout=seconds
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout if done.returncode == 0 else None


def _processor(cpuinfo: Path = Path("/proc/cpuinfo")) -> dict[str, str]:
    """The model's name and its flags, in lower case and separated by blanks; empty where the system tells nothing."""
    try:
        return _parse_cpuinfo(cpuinfo.read_text(encoding="utf-8", errors="replace"))
    except OSError:
        pass
    model = _output(["sysctl", "-n", "machdep.cpu.brand_string"]) or ""
    # lines such as "hw.optional.arm.FEAT_DotProd: 1", and on Intel "machdep.cpu.leaf7_features: ... AVX2 ..."
    lines = (_output(["sysctl", "hw.optional", "machdep.cpu"]) or "").lower().splitlines()
    present = [
        name.rsplit(".", 1)[-1] for name, _, value in (line.partition(":") for line in lines) if value.strip() == "1"
    ]
    listed = [value for name, _, value in (line.partition(":") for line in lines) if name.endswith("features")]
    return {"model": model.strip(), "flags": " ".join([*present, *listed])}


def _parse_cpuinfo(text: str) -> dict[str, str]:
    """Pick model and flags out of /proc/cpuinfo: ``flags`` on x86, ``Features`` and no model name on most ARM."""
    fields: dict[str, str] = {}
    for line in text.splitlines():
        key, colon, value = line.partition(":")
        if colon:
            fields.setdefault(key.strip().lower(), value.strip())
    return {
        "model": fields.get("model name") or fields.get("hardware") or "",
        "flags": (fields.get("flags") or fields.get("features") or "").lower(),
    }


def _extensions(flags: str) -> list[str]:
    present = set(flags.split())
    return [name for name, aliases in _EXTENSIONS.items() if aliases & present]


def _usable_cores() -> int:
    if hasattr(os, "sched_getaffinity"):  # Linux only
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _gpu() -> str | None:
    """The names of the visible cards, joined if there are several."""
    import torch  # here, because naming versions must not need it

    if torch.cuda.is_available():
        return ", ".join(torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count()))
    return None


def version(package: str) -> str | None:
    """The version of a package; ``None`` for one that is not installed."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
