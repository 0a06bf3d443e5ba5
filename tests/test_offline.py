"""Parts for a machine without a network: what is packed comes out, what is damaged or absent is named."""

import json
import random
import subprocess
import sys

import pytest

from scripts import offline
from scripts.offline import LIMIT, MANIFEST, pack, requirements, size, unpack, without
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


def test_packages_that_the_machine_has_are_left_out():
    names = ["scikit-learn==1", "b==2", "c==3", "d-e==4"]
    assert without(names, "Scikit_Learn==0.9\n# c\nb @ file:///b\nd.e\n-r c\n") == ["c==3"]
    assert without(names, "") == names


def test_keys_of_packing(tmp_path, monkeypatch, capsys):
    assert size({}) == LIMIT == 48 * 2**20 and size({"limit": "7"}) == 7 * 2**20
    for words, why in (({"limit": "0"}, "limit must be"), ({"have": str(tmp_path / "no")}, "have must be")):
        with pytest.raises(SystemExit):
            offline.main({"pack": "p", **words})
        assert why in capsys.readouterr().err
    (tmp_path / "have").write_text("lightning==1\n")
    asked, packed = [], []
    monkeypatch.setattr(offline, "wheels", lambda names, folder: asked.extend(names))
    monkeypatch.setattr(offline, "pack", lambda groups, folder, limit: packed.append(limit))
    offline.main({"pack": str(tmp_path / "p"), "limit": "9", "have": str(tmp_path / "have")})
    names = {name.partition("==")[0] for name in asked}
    assert "lightning" not in names and "torchmetrics" in names and packed == [9 * 2**20]
