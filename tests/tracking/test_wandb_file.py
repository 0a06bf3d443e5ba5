"""The reader of W&B's transaction logs, on files that are written here by hand."""

import struct
import zlib
from pathlib import Path

import pytest
from wandb.proto import wandb_internal_pb2

from qbsnn.errors import DataError
from qbsnn.tracking.wandb_file import next_step, read_history, read_records, values

HEADER = b":W&B\xe8\xbe\x00"
BLOCK = 32768


def row(step: int, **items: str) -> bytes:
    record = wandb_internal_pb2.Record()
    for key, value in {"_step": str(step), **items}.items():
        item = record.history.item.add()
        item.nested_key.extend(key.split("__"))
        item.value_json = value
    return record.SerializeToString()


def chunk(kind: int, body: bytes) -> bytes:
    return struct.pack("<IHB", zlib.crc32(bytes([kind]) + body), len(body), kind) + body


def written(records: list[bytes], start: bytes = HEADER) -> bytes:
    """LevelDB's log format: a record is cut where a block of 32 KiB ends."""
    file = start
    for record in records:
        first, left = True, record
        while True:
            room = BLOCK - len(file) % BLOCK
            if room < 7:
                file += bytes(room)
                continue
            body, left = left[: room - 7], left[room - 7 :]
            file += chunk(
                {(True, True): 1, (True, False): 2, (False, False): 3, (False, True): 4}[first, not left], body
            )
            first = False
            if not left:
                break
    return file


def steps(path: Path) -> list[int]:
    return [found["_step"] for found in read_history(path)]


def test_rows_and_nested_keys(tmp_path):
    path = tmp_path / "run-a.wandb"
    path.write_bytes(written([row(0, loss="0.1", h__bins="[1,2]", h__values="[3]"), row(1, text='"x"', bad='"NaN"')]))
    assert list(read_history(path)) == [
        {"_step": 0, "loss": 0.1, "h": {"bins": [1, 2], "values": [3]}},
        {"_step": 1, "text": "x", "bad": "NaN"},
    ]


def test_records_of_every_length_around_a_block_boundary(tmp_path):
    path = tmp_path / "run-a.wandb"
    for size in (0, 1, 100_000, *range(BLOCK - 7 - 7 - 60, BLOCK - 7 - 7 + 20)):
        path.write_bytes(written([row(0, pad='"' + "x" * size + '"'), row(1), row(2)]))
        assert steps(path) == [0, 1, 2], size
        assert len(next(iter(read_history(path)))["pad"]) == size


def test_a_file_cut_at_any_byte_gives_the_records_that_are_whole(tmp_path):
    path = tmp_path / "run-a.wandb"
    lengths = [len(written([row(step) for step in range(count)])) for count in range(4)]
    whole = written([row(step) for step in range(3)])
    for cut in range(len(HEADER), len(whole) + 1):
        path.write_bytes(whole[:cut])
        assert steps(path) == list(range(sum(length <= cut for length in lengths[1:])))


def test_a_long_record_cut_in_its_middle_part_is_left_out(tmp_path):
    path = tmp_path / "run-a.wandb"
    path.write_bytes(written([row(0), row(1, pad='"' + "x" * 100_000 + '"')])[: 2 * BLOCK + 50])
    assert steps(path) == [0]


def test_any_changed_byte_of_a_record_is_noticed(tmp_path):
    path = tmp_path / "run-a.wandb"
    whole = bytearray(written([row(0), row(1)]))
    for at in range(len(HEADER), len(written([row(0)]))):
        changed = bytearray(whole)
        changed[at] ^= 1
        path.write_bytes(changed)
        try:
            assert steps(path) == []  # a length that reaches behind the end looks like a cut file
        except DataError as error:
            assert "run-a.wandb is damaged" in str(error)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "cannot be read"),
        (b"", "is not a W&B log"),
        (b"PK\x03\x04abc", "must begin with b':W&B', got b'PK"),
        (HEADER + chunk(3, b"x"), "a chunk of type 3 at byte 7 has no place there"),
        (HEADER + chunk(2, b"x") + chunk(1, b"y"), "a chunk of type 1 at byte 15 has no place there"),
        (HEADER + chunk(9, b"x"), "a chunk of type 9"),
    ],
)
def test_bad_files(tmp_path, content, words):
    path = tmp_path / "run-a.wandb"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DataError) as caught:
        list(read_records(path))
    assert words in str(caught.value) and str(path) in str(caught.value)


def test_values_of_config_updates():
    record = wandb_internal_pb2.Record()
    item = record.config.update.add()
    item.key, item.value_json = "neuron", '{"s_max": 8}'
    assert values(record.config.update) == {"neuron": {"s_max": 8}}


def test_the_next_step_is_that_after_all_parts_of_a_run(tmp_path):
    assert next_step(tmp_path, "a") == 0
    parts = {"offline-run-1-a": [0, 1, 2], "run-2-a": [3, 4], "offline-run-3-b": [9]}
    for name, found in parts.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / f"run-{name[-1]}.wandb").write_bytes(written([row(step) for step in found]))
    assert next_step(tmp_path, "a") == 5
    damaged = tmp_path / "run-2-a/run-a.wandb"
    damaged.write_bytes(damaged.read_bytes()[:-1] + b"\0")
    assert next_step(tmp_path, "a") == 4
