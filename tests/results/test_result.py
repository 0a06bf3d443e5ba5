from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from qbsnn.errors import DataError
from qbsnn.results import files
from qbsnn.results.reading import read_result
from qbsnn.results.schema import Disturbance, Metrics, Robustness
from tests.report.samples import make_result

SKIPPED = {"checkpoint": "best.ckpt", "skipped": "ReLU puts out real numbers"}


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"absorption": None, "integer": {"skipped": "tau = 3"}},
        {"absorption": SKIPPED, "energy": SKIPPED},
        {"layers": []},
        {
            "robustness": Robustness(
                "best.ckpt", 4, 0.5, [Disturbance("noise", 0.1, 0.25), Disturbance("steps", -1.0, None, "T = 1")]
            )
        },
    ],
)
def test_write_and_read_back(tmp_path: Path, changes: dict[str, Any]) -> None:
    result = make_result(**changes)
    result.write(tmp_path / "result.json")
    assert read_result(tmp_path / "result.json") == result
    assert [path.name for path in tmp_path.iterdir()] == ["result.json"]


def test_diverged_run_is_written(tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    make_result(metrics=Metrics({"val/loss": math.nan}), config={"clip": math.inf}).write(path)
    assert "NaN" not in path.read_text() and json.loads(path.read_text())["config"] == {"clip": "inf"}
    assert math.isnan(read_result(path).metrics.last["val/loss"])


def test_failed_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "result.json"
    make_result().write(path)
    before = path.read_bytes()

    def full(_: int) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(files.os, "fsync", full)
    with pytest.raises(OSError, match="disk full"):
        make_result(seed=4).write(path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_value_that_json_cannot_hold_leaves_no_part(tmp_path: Path) -> None:
    with pytest.raises(TypeError):
        make_result(config={"path": object()}).write(tmp_path / "result.json")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        (("seed",), None, "seed must be of type int, got None"),
        (("seed",), True, "seed must be of type int, got True"),
        (
            ("status",),
            "done",
            "status must be one of running, finished, incomplete, .*, got 'done'",
        ),
        (("schema_version",), 2, "schema_version must be 1, got 2"),
        (("integer", "layers", 1, "spikes"), "many", r"integer.layers\[1\].spikes must be of type int, got 'many'"),
        (("host", "isa"), "avx2", "host.isa must be of type list, got 'avx2'"),
        (("metrics", "last", "test/acc"), "high", "metrics.last.test/acc must be of type float, got 'high'"),
        (("colour",), "red", "colour is not a key of Result"),
        (("host",), 3, "host must be an object with the keys of Host, got 3"),
    ],
)
def test_wrong_value_is_named(tmp_path: Path, place: tuple[Any, ...], value: object, message: str) -> None:
    path = tmp_path / "result.json"
    make_result().write(path)
    data = inner = json.loads(path.read_text())
    for key in place[:-1]:
        inner = inner[key]
    inner[place[-1]] = value
    path.write_text(json.dumps(data))
    with pytest.raises(DataError, match=message) as error:
        read_result(path)
    assert str(path) in str(error.value)


@pytest.mark.parametrize("key", ["command", "host", "schema_version"])
def test_missing_key_is_named(tmp_path: Path, key: str) -> None:
    path = tmp_path / "result.json"
    make_result().write(path)
    data = json.loads(path.read_text())
    del data[key]
    path.write_text(json.dumps(data))
    with pytest.raises(DataError, match=f"{key} is missing"):
        read_result(path)


@pytest.mark.parametrize(
    ("text", "message"), [("{", "is not JSON"), ("[]", "must hold a JSON object"), (None, "cannot be read")]
)
def test_no_result_file(tmp_path: Path, text: str | None, message: str) -> None:
    if text is not None:
        (tmp_path / "result.json").write_text(text)
    with pytest.raises(DataError, match=message):
        read_result(tmp_path / "result.json")


def test_a_number_above_all_floats_is_no_result(tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    make_result(config={"alpha": 12345.5}).write(path)
    path.write_text(path.read_text().replace("12345.5", "1e999"))
    with pytest.raises(DataError, match=r"result\.json is not JSON: 1e999 is above all numbers that a float can hold"):
        read_result(path)


def test_files_are_written_under_names_of_their_own_and_with_the_rights_that_the_user_wants(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = []
    flush = files.os.fsync

    def seen(number: int) -> None:
        names.extend(path.name for path in tmp_path.glob(".*.part"))
        flush(number)

    monkeypatch.setattr(files.os, "fsync", seen)
    before = files.os.umask(0o027)
    try:
        for _ in range(2):  # as if by processes of two machines with one number
            files.write_atomically(tmp_path / "a", b"1")
    finally:
        files.os.umask(before)
    assert len(set(names)) == 2 and (tmp_path / "a").stat().st_mode & 0o777 == 0o640
