"""Bring the project to a machine without a network: packages, source and CIFAR-10 in parts that pass any channel.

``python scripts/offline.py pack=FOLDER [data=FOLDER] [limit=48] [have=FILE]`` here, ``python3 offline.py
unpack=FOLDER to=FOLDER`` there; this file alone needs nothing but Python 3.10 there and is packed beside the parts.
See docs/gpu.md. The folder gets ``NAME.001``, ... of at most ``limit`` MiB each and ``manifest.json`` with the
SHA-256 of every part. PyTorch is the other machine's own.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Mapping
from pathlib import Path

LIMIT = 48 * 2**20  # so that a channel of 64 MiB also carries the source
MANIFEST = "manifest.json"
TARGET = {"python_version": "3.12", "python_full_version": "3.12.0", "sys_platform": "linux", "os_name": "posix",
          "platform_system": "Linux", "platform_machine": "x86_64", "implementation_name": "cpython",
          "platform_python_implementation": "CPython"}  # fmt: skip
OWN = ("torch", "torchvision", "torchaudio", "triton", "nvidia-", "cuda-")  # what the other machine has
ABSENT = ("expelliarmus",)  # no wheel for TARGET; Tonic names it and nothing here imports it
SOURCES = ("antlr4-python3-runtime", "norse")  # published as source alone; pure, so that any Python can build the wheel
HALVES = {"cifar10-1": ("data_batch_1", "data_batch_2", "data_batch_3"),
          "cifar10-2": ("data_batch_4", "data_batch_5", "test_batch", "batches.meta")}  # fmt: skip


def pack(groups: Mapping[str, Mapping[str, Path]], folder: Path, limit: int = LIMIT) -> None:
    """Write each group, a mapping of names to files, as parts of a tar, and the manifest of all."""
    folder.mkdir(parents=True, exist_ok=True)
    manifest: dict[str, dict[str, str]] = {}
    for name, files in groups.items():
        manifest[name] = {}
        with tempfile.TemporaryFile(dir=folder) as whole:
            with tarfile.open(fileobj=whole, mode="w") as tar:
                for inside, file in files.items():
                    tar.add(file, inside)
            whole.seek(0)
            while piece := whole.read(limit):
                part = folder / f"{name}.{len(manifest[name]) + 1:03d}"
                part.write_bytes(piece)
                manifest[name][part.name] = _sha256(part)
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=1), encoding="utf-8")
    shutil.copyfile(__file__, folder / "offline.py")


def unpack(folder: Path, dest: Path) -> list[str]:
    """Check all parts in ``folder``, then extract them into ``dest``; returns the names of the groups.

    Raises:
        SystemExit: parts are absent or damaged; all of them are named, and nothing is extracted.
    """
    manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    digests = {name: digest for files in manifest.values() for name, digest in files.items()}
    absent = [name for name in digests if not (folder / name).is_file()]
    bad = [name for name in digests if name not in absent and _sha256(folder / name) != digests[name]]
    if absent or bad:
        raise SystemExit(f"error: absent: {', '.join(absent) or 'none'}; damaged: {', '.join(bad) or 'none'}")
    dest.mkdir(parents=True, exist_ok=True)
    for files in manifest.values():
        with tempfile.TemporaryFile(dir=dest) as whole:
            for name in files:
                whole.write((folder / name).read_bytes())
            whole.seek(0)
            with tarfile.open(fileobj=whole) as tar:
                tar.extractall(dest, filter="data")
    return list(manifest)


def requirements(lock: str) -> list[str]:
    """``name==version`` of a lock for ``TARGET``, without what the other machine has and what has no wheel for it.

    >>> requirements("a==1 ; python_full_version < '3.12' \\\\\\n    --hash=x\\nb==2 \\\\\\n    --hash=y\\ntorch==3")
    ['b==2']
    """
    from packaging.markers import Marker

    found = []
    for line in lock.splitlines():
        if not line[:1].isalnum():
            continue
        name, _, marker = line.rstrip("\\ ").partition(" ; ")
        own = name.startswith(OWN[-2:]) or name.partition("==")[0] in (*OWN[:-2], *ABSENT)
        if not own and (not marker or Marker(marker).evaluate(dict(TARGET))):
            found.append(name.strip())
    return found


def without(names: list[str], have: str) -> list[str]:
    """Those of ``name==version`` that a list, such as ``pip freeze`` prints, does not name.

    >>> without(["scikit-learn==1", "b==2", "c==3"], "Scikit_Learn==0.9\\n# c\\nb @ file:///b\\n")
    ['c==3']
    """
    there = {_plain(found[0]) for line in have.splitlines() if (found := re.match(r"[A-Za-z0-9][\w.-]*", line.strip()))}
    return [name for name in names if _plain(name.partition("==")[0]) not in there]


def _plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def wheels(names: list[str], folder: Path) -> None:
    """Download wheels for ``TARGET``; build those that are published as source alone."""
    python = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
    platforms = [f"--platform=manylinux{tag}_x86_64" for tag in ("_2_34", "_2_28", "_2_17", "2014", "_2_5", "1")]
    ready = [name for name in names if name.partition("==")[0] not in SOURCES]
    target = ["--python-version", TARGET["python_version"], "--only-binary=:all:", *platforms]
    subprocess.run([*python, "download", "--no-deps", *target, "-d", str(folder), *ready], check=True)
    built = [name for name in names if name not in ready]
    if built:
        subprocess.run([*python, "wheel", "--no-deps", "-w", str(folder), *built], check=True)


KEYS = {"pack": "the folder that the parts are written into", "data": "with pack: the folder that holds CIFAR-10",
        "limit": "with pack: MiB of the largest part, 48 unless given",
        "have": "with pack: a file that names packages that the other machine has, as pip freeze prints them",
        "unpack": "the folder that the parts lie in", "to": "with unpack: the folder to make"}  # fmt: skip


def main(given: dict[str, str]) -> None:
    """Pack or unpack."""
    if given.keys() == {"unpack", "to"}:
        print(f"unpacked into {given['to']}: {', '.join(unpack(Path(given['unpack']), Path(given['to'])))}")
        return
    if "pack" not in given or not given.keys() <= {"pack", "data", "limit", "have"}:
        known = "pack=FOLDER [data=FOLDER] [limit=MIB] [have=FILE] or unpack=FOLDER to=FOLDER"
        raise _refused(f"write {known}, got {' '.join(given)!r}")
    limit, have = size(given), ""
    if "have" in given:
        try:
            have = Path(given["have"]).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise _refused(f"have must be a list of packages: {error}") from error
    root = Path(__file__).parent.parent
    with tempfile.TemporaryDirectory() as scratch:
        names = requirements((root / "requirements.lock").read_text(encoding="utf-8"))
        wheels(without(names, have), Path(scratch))
        tracked = subprocess.check_output(["git", "-C", str(root), "ls-files", "-z"], text=True).split("\0")
        groups = {
            "source": {f"qbsnn/{name}": root / name for name in tracked if name and (root / name).is_file()},
            "wheels": {f"wheels/{file.name}": file for file in sorted(Path(scratch).glob("*.whl"))},
        }
        for half, files in HALVES.items() if "data" in given else ():
            inside = Path("cifar-10-batches-py")
            groups[half] = {f"data/{inside / name}": Path(given["data"]) / inside / name for name in files}
        pack(groups, Path(given["pack"]), limit)
    print(f"packed into {given['pack']}: {', '.join(groups)}")


def size(given: Mapping[str, str]) -> int:
    """The bytes of the largest part."""
    text = given.get("limit", str(LIMIT // 2**20))
    if not (text.isascii() and text.isdigit() and int(text) > 0):
        raise _refused(f"limit must be a whole number of MiB, at least 1, got {text!r}")
    return int(text) * 2**20


def read_words(words: list[str]) -> dict[str, str]:
    """The ``key=value`` words of the command line. The other tools' reader is not at hand on a bare machine."""
    if "--help" in words:
        print(f"{(__doc__ or '').partition(chr(10))[0]}\n")
        print("\n".join(f"  {key + '=':8} {meaning}" for key, meaning in KEYS.items()))
        raise SystemExit(0)
    given: dict[str, str] = {}
    for word in words:
        key, equals, value = word.partition("=")
        if not equals:
            raise _refused(f"{word} is no key=value: did you mean {word.lstrip('-')}=VALUE?")
        if key not in KEYS or key in given:
            raise _refused(f"{key} is {'given twice' if key in given else 'no key'}; keys: {', '.join(KEYS)}")
        given[key] = value
    return given


def _refused(why: str) -> SystemExit:
    print(f"error: {why}", file=sys.stderr)
    return SystemExit(1)


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


if __name__ == "__main__":
    main(read_words(sys.argv[1:]))
