"""The fingerprint that recognises a finished run."""

import copy
import hashlib
import json
import shutil

import pytest

from qbsnn.results.fingerprint import DROPPED, MEANING, fingerprint, identity, origin
from qbsnn.training.settings import identify
from tests.test_configs import composed


def leaves(node, key=""):
    """Every value of a configuration with its path, empty containers included."""
    if isinstance(node, dict) and node:
        for name, below in node.items():
            yield from leaves(below, (*key, name) if key else (name,))
    elif isinstance(node, list) and node:
        for index, below in enumerate(node):
            yield from leaves(below, (*key, index))
    else:
        yield key, node


def changed(config, path):
    """The configuration with another value at ``path``."""
    other = copy.deepcopy(config)
    node = other
    for part in path[:-1]:
        node = node[part]
    node[path[-1]] = [node[path[-1]], "changed"]
    return other


EXPECTED = {
    "name", "report", "overwrite", "logger", "compile", "memory", "paths.data", "paths.outputs", "paths.run",
    "trainer.enable_model_summary",

    "trainer.accelerator", "trainer.max_time", "trainer.default_root_dir", "trainer.log_every_n_steps",
    "data.root", "data.download", "data.verify", "data.num_workers", "data.resident", "data.cache_dir",
    "callbacks.checkpoint.dirpath", "callbacks.checkpoint.every_minutes", "callbacks.diagnostics.folder",
    "callbacks.bursts.warn_saturation", "callbacks.bursts.warn_dead",
    "callbacks.gradients.every", "teacher", "init_from",  # what lies at these paths counts by its digest
}  # fmt: skip


@pytest.mark.parametrize("data", ["digits", "digits_dvs"])
def test_every_key_that_determines_the_result_changes_it_and_no_other_does(tmp_path, data):
    config = composed(tmp_path, f"data={data}")
    before = identify(config)
    kept = (p for p, _ in leaves(config) if p[-1] != "_target_")
    without_effect = {".".join(map(str, p)) for p in kept if identify(changed(config, p)) == before}
    absent = {"data.cache_dir"} if data == "digits" else {"data.resident"}
    assert without_effect == EXPECTED - absent


def test_it_is_the_sha256_of_the_canonical_json():
    config = {
        "b": [1, 2.5, None, True],
        "a": {"y": "x", "x": 1e-4},
        "logger": {"csv": 1},
        "paths": {"run": "/somewhere"},
    }
    text = f'{{"a.x":0.0001,"a.y":"x","b":[1,2.5,null,true],"defaults":{MEANING}}}'
    assert fingerprint(identity(config, {})) == hashlib.sha256(text.encode()).hexdigest()[:16]


def test_a_setting_at_its_default_does_not_count():
    defaults = {"neuron.s_max": 8, "data.betas": (1, 2)}
    plain = {"T": 4, "neuron": {"tau": 2.0}}
    for settings in (
        {"T": 4, "neuron": {"tau": 2.0, "s_max": 8}},
        {"T": 4, "neuron": {"tau": 2.0}, "data": {"betas": [1, 2]}},
    ):
        assert identity(settings, defaults) == identity(plain, defaults)
    assert identity({"T": 4, "neuron": {"tau": 2.0, "s_max": 8.0}}, defaults) != identity(plain, defaults)


def test_a_stored_configuration_gives_what_it_was_composed_as_gives():
    config = {"model": {"encoding": None}, "callbacks": {"delta": {"high": float("inf"), "low": (1, 2)}}, "T": 4}
    stored = json.loads(json.dumps({**config, "callbacks": {"delta": {"high": "inf", "low": [1, 2]}}}))
    stored["model"]["encoding"] = "direct"
    assert identity(stored, {}) == identity(config, {})
    assert identity({**config, "model": {"encoding": "rate"}}, {}) != identity(config, {})


def test_integers_floats_and_booleans_differ_and_order_does_not():
    values = (1, 1.0, True, "1")
    assert len({fingerprint(identity({"trainer": {"limit_train_batches": value}}, {})) for value in values}) == 4
    assert fingerprint({"a": 1, "b": 2}) == fingerprint({"b": 2, "a": 1})
    assert fingerprint({"a": [1, 2]}) != fingerprint({"a": [2, 1]})


def test_a_name_that_begins_like_a_dropped_one_counts():
    assert "name" in DROPPED
    assert identity({"name_of_something": 1}, {}) != identity({"name_of_something": 2}, {})


def test_the_files_of_one_s_own_set_and_the_place_of_an_unverified_one_count(tmp_path):
    def of(name, **settings):
        return identify({"data": {"_target_": f"qbsnn.data.{name}", **settings}})

    assert of("CIFAR10", root="a", verify=True) == of("CIFAR10", root="b", verify=True)
    assert of("CIFAR10", root="a", verify=False) != of("CIFAR10", root="b", verify=False)
    for root in ("a", "b"):
        (tmp_path / root / "train/cat").mkdir(parents=True)
        (tmp_path / root / "train/cat/1.png").write_bytes(b"123")
        (tmp_path / root / "labels.csv").write_text("path,label")
    same = {of("ImageFolder", root=str(tmp_path / root))["data.files"] for root in ("a", "b")}
    assert len(same) == 1
    (tmp_path / "a/.cache").mkdir()
    (tmp_path / "a/.cache/1").write_text("hidden")
    (tmp_path / "b/labels.csv").write_text("path,lapel")
    same |= {of("ImageFolder", root=str(tmp_path / root))["data.files"] for root in ("a", "b")}
    assert len(same) == 1
    tables = {of("ImageFolder", root=str(tmp_path / root), table="labels.csv")["data.files"] for root in ("a", "b")}
    assert len(tables) == 2
    (tmp_path / "b/train/cat/1.png").write_bytes(b"1234")
    (tmp_path / "a/train/cat/1.png").rename(tmp_path / "a/train/cat/2.png")
    assert len(same | {of("EventFolder", root=str(tmp_path / root))["data.files"] for root in ("a", "b")}) == 3


def test_what_lies_behind_links_counts_and_a_cache_below_the_root_does_not(tmp_path):
    root, real = tmp_path / "pics", tmp_path / "real"
    for folder in (root / "train/dog", real / "deep"):
        folder.mkdir(parents=True)
        (folder / "1.png").write_bytes(b"x")
    plain = origin({"root": str(root)}, True)
    (root / "outputs/runs/1").mkdir(parents=True)
    (root / "outputs/runs/1/result.json").write_text("{}")
    assert origin({"root": str(root)}, True) != plain == origin({"root": str(root)}, True, str(root / "outputs"))
    shutil.rmtree(root / "outputs")
    assert plain == {"data.files": hashlib.sha256(b"train/dog/1.png\t1\n").hexdigest()[:16]}
    (root / "train/cat").symlink_to(real)
    linked = origin({"root": str(root)}, True)
    (real / "deep/2.png").write_bytes(b"more")
    more = origin({"root": str(root)}, True)
    assert len({found["data.files"] for found in (plain, linked, more)}) == 3
    (real / "up").symlink_to(root)  # a circle
    (real / "itself").symlink_to(real)
    assert origin({"root": str(root)}, True) == more
    (root / "cache/image_folder").mkdir(parents=True)
    (root / "cache/image_folder/0.shard").write_bytes(b"1")
    assert (
        origin({"root": str(root), "cache_dir": str(root / "cache")}, True) == more != origin({"root": str(root)}, True)
    )
