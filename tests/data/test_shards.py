import multiprocessing
import os
import pickle
import resource
import signal
import time

import pytest

from qbsnn.data import shards
from qbsnn.data.shards import BAD, SHARD, in_memory, on_disk
from qbsnn.errors import DataError

COUNT = 2 * SHARD + 5


def make(index: int) -> bytes:
    """Records of many lengths, an empty one among them."""
    return str(index).encode() * (index % 7)


def slow(index: int) -> bytes:
    time.sleep(0.002)
    return make(index)


def is_right(records: shards.Records) -> bool:
    return [bytes(records[i]) for i in range(COUNT)] == [make(i) for i in range(COUNT)]


def in_process(folder, function) -> multiprocessing.Process:
    process = multiprocessing.get_context("fork").Process(target=on_disk, args=(folder, COUNT, function))
    process.start()
    return process


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "cache"


@pytest.mark.parametrize("workers", [0, 2])
def test_records_come_back(folder, workers):
    assert is_right(in_memory(COUNT, make, workers))
    made = on_disk(folder, COUNT, make, workers)
    assert is_right(made) and (made.found.hits, made.found.misses) == (0, COUNT)

    def never(index):
        raise AssertionError("made again")

    again = on_disk(folder, COUNT, never, workers)
    assert is_right(again) and (again.found.hits, again.found.misses) == (COUNT, 0)
    assert again.found.size == made.found.size == sum(path.stat().st_size for path in folder.iterdir())


def test_a_cache_of_more_shards_than_a_process_may_open(folder, monkeypatch):
    monkeypatch.setattr(shards, "OPEN", 2)
    records = on_disk(folder, COUNT, make)
    assert len(records.shards) > 2 and is_right(records) and is_right(pickle.loads(pickle.dumps(records)))
    assert len(records._mapped) == 2
    records._mapped.clear()
    records.shards[0].unlink()
    with pytest.raises(DataError, match=r"00000\.shard, a part of the cache, is gone; the next run makes it again"):
        records[0]


def test_two_processes_build_one_cache(folder):
    both = [in_process(folder, slow) for _ in range(2)]
    for process in both:
        process.join(60)
    assert [process.exitcode for process in both] == [0, 0]
    found = on_disk(folder, COUNT, make)
    assert is_right(found) and found.found.misses == 0
    assert len(list(folder.iterdir())) == 3


def test_a_killed_process_leaves_whole_shards(folder):
    process = in_process(folder, slow)
    deadline = time.time() + 30
    while not (folder / "00000.shard").exists() and time.time() < deadline:
        time.sleep(0.005)
    os.kill(process.pid, signal.SIGKILL)
    process.join(30)
    found = on_disk(folder, COUNT, make)
    assert is_right(found) and found.found.hits in (SHARD, 2 * SHARD)


def test_a_process_killed_inside_a_write_leaves_no_shard(folder, monkeypatch):
    def die(*_):
        os.kill(os.getpid(), signal.SIGKILL)

    monkeypatch.setattr(os, "fsync", die)  # everything is written, nothing renamed
    process = in_process(folder, make)
    process.join(30)
    monkeypatch.undo()
    assert process.exitcode == -signal.SIGKILL
    (left,) = folder.iterdir()
    assert left.name.startswith(".") and left.suffix == ".part"
    assert is_right(on_disk(folder, COUNT, make)) and left.exists()  # another process might still write it
    os.utime(left, (0, 0))
    (folder / "00000.shard").unlink()
    assert is_right(on_disk(folder, COUNT, make)) and not left.exists()


@pytest.mark.parametrize("damage", ["flip", "cut", "empty", "foreign", "shorter"])
def test_a_damaged_shard_is_made_again(folder, damage, caplog):
    on_disk(folder, COUNT, make)
    path = folder / "00001.shard"
    data = bytearray(path.read_bytes())
    if damage == "flip":
        data[len(data) // 2] ^= 1
    content = {"flip": data, "cut": data[:-1], "empty": b"", "foreign": b"x" * 100}
    content["shorter"] = (folder / "00002.shard").read_bytes()
    path.write_bytes(content[damage])
    found = on_disk(folder, COUNT, make)
    assert is_right(found) and found.found.misses == SHARD
    assert f"{path} is damaged: it is made again" in caplog.text


def test_a_full_disk_is_explained_and_what_was_written_stays(folder):
    on_disk(folder, COUNT, make)
    (folder / "00002.shard").unlink()
    big = COUNT + SHARD  # one shard more
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20, limit[1]))
    try:
        with pytest.raises(DataError, match=r"cannot write the cache into .*: File too large\. Make room there"):
            on_disk(folder, big, make)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    assert sorted(path.name for path in folder.iterdir()) == ["00000.shard", "00001.shard"]
    assert is_right(on_disk(folder, COUNT, make))


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(DataError, match=r"cannot (write the cache into|read the cache) .*: Not a directory"):
        on_disk(tmp_path / "file" / "cache", COUNT, make)


def test_an_error_while_making_has_its_own_words(folder):
    def fails(index):
        if index == SHARD + 1:
            raise DataError("record 129 is bad")
        return make(index)

    for workers in (0, 2):
        with pytest.raises(DataError, match=r"^record 129 is bad$"):
            on_disk(folder, COUNT, fails, workers)
        assert not (folder / "00001.shard").exists()
    found = on_disk(folder, COUNT, make)
    assert is_right(found) and found.found.hits >= SHARD  # what was written before stays


def test_keys_differ_whenever_a_part_does():
    parts = {"name": "a", "framing": {"frames": 4, "sensor": [34, 34, 2]}, "chosen": [0, 1]}
    keys = {shards.key(**parts), shards.key(**parts | {"name": "b"}), shards.key(**parts | {"chosen": [1, 0]})}
    keys.add(shards.key(**parts | {"framing": {"frames": 5, "sensor": [34, 34, 2]}}))
    assert len(keys) == 4 and shards.key(**parts) in keys


def test_a_record_that_could_not_be_made_is_tried_again_where_the_cache_can_be_written(folder, monkeypatch):
    def fails(index):
        return BAD + b"no answer" if index == SHARD + 1 else make(index)

    assert not is_right(on_disk(folder, COUNT, fails))
    monkeypatch.setattr(shards.os, "access", lambda *_: False)
    assert on_disk(folder, COUNT, make).found.hits == COUNT
    monkeypatch.undo()
    healed = on_disk(folder, COUNT, make)
    assert is_right(healed) and healed.found.misses == SHARD


def test_other_users_may_read_a_cache_where_the_umask_lets_them(folder):
    before = os.umask(0o022)
    try:
        on_disk(folder, COUNT, make)
    finally:
        os.umask(before)
    assert {path.stat().st_mode & 0o777 for path in folder.iterdir()} == {0o644}
