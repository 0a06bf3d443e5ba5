"""Parts for a machine without a network: what is packed comes out, what is damaged or absent is named."""

import json
import random
import subprocess
import sys

import pytest

from scripts.offline import MANIFEST, pack, requirements, unpack
from tests.tool import ROOT


@pytest.fixture
def packed(tmp_path):
    numbers = random.Random(0)
    files = {f"data/f{n}": tmp_path / f"f{n}" for n in range(4)}
    for n, file in enumerate(files.values()):
        file.write_bytes(numbers.randbytes(700 * n))
    names = list(files)
    groups = {"one": {name: files[name] for name in names[:2]}, "two": {name: files[name] for name in names[2:]}}
    pack(groups, tmp_path / "parts", limit=1000)
    return tmp_path, files


def test_what_is_packed_comes_out_and_no_part_is_too_large(packed):
    folder, files = packed
    parts = [path for path in (folder / "parts").iterdir() if path.suffix[1:].isdigit()]
    assert len(parts) > 6 and all(path.stat().st_size <= 1000 for path in parts)
    assert unpack(folder / "parts", folder / "out") == ["one", "two"]
    assert all((folder / "out" / name).read_bytes() == file.read_bytes() for name, file in files.items())


def test_absent_and_damaged_parts_are_all_named_and_nothing_is_written(packed):
    folder, _ = packed
    (folder / "parts/one.001").unlink()
    bad = folder / "parts/two.002"
    bad.write_bytes(bad.read_bytes()[:-1] + b"?")
    with pytest.raises(SystemExit, match=r"absent: one\.001; damaged: two\.002"):
        unpack(folder / "parts", folder / "out")
    assert not (folder / "out").exists()


def test_the_packed_script_needs_nothing_but_python(packed):
    folder, files = packed
    script = [sys.executable, "-I", "-S", str(folder / "parts/offline.py"), f"unpack={folder / 'parts'}"]
    done = subprocess.run([*script, f"to={folder / 'out'}"], capture_output=True, text=True, cwd=folder)
    assert done.returncode == 0 and "one, two" in done.stdout, done.stderr
    assert (folder / "out/data/f3").read_bytes() == files["data/f3"].read_bytes()
    assert json.loads((folder / "parts" / MANIFEST).read_text()).keys() == {"one", "two"}


def test_the_lock_gives_one_version_of_each_package_and_none_that_the_machine_has():
    found = requirements((ROOT / "requirements.lock").read_text(encoding="utf-8"))
    names = [name.partition("==")[0] for name in found]
    assert len(set(names)) == len(names)
    assert {"lightning", "torchmetrics", "hydra-core", "numpy", "pytest", "spikingjelly"} <= set(names)
    assert not [name for name in names if name in ("torch", "torchvision", "triton") or name.startswith("nvidia-")]


def test_other_words_are_refused():
    done = subprocess.run([sys.executable, str(ROOT / "scripts/offline.py"), "pick=a"], capture_output=True, text=True)
    assert done.returncode == 1 and "error: pick is no key; keys: pack, data" in done.stderr
