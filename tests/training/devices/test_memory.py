"""What a training step keeps, counted by hand; what is free, by files of a made-up system; what is chosen of both."""

from types import SimpleNamespace

import pytest
import torch

from qbsnn.models import mlp, vgg
from qbsnn.neurons import QBLIF, ReLU
from qbsnn.training.devices import memory


@pytest.mark.parametrize(
    ("free", "chosen"), [(800, "none"), (799, "packed"), (400, "packed"), (399, "checkpoint"), (None, "none")]
)
def test_the_first_that_fits_in_half_of_the_free_memory_is_taken(free, chosen):
    assert memory.choose({"none": 400, "packed": 200}, free, "checkpoint")[0] == chosen


def test_the_reason_has_the_numbers():
    kept = {"none": 6 * memory.GIB, "packed": 4.5 * memory.GIB}
    assert memory.choose(kept, 8 * memory.GIB, "packed") == (
        "packed", "a training step keeps 6.0 GiB with none, 4.5 GiB with packed, and may keep 50% of 8.0 GiB"
    )  # fmt: skip


@pytest.mark.parametrize("batch", [1, 2, 7, 256])
def test_the_bytes_of_a_small_network(batch):
    network = mlp(ReLU, (1, 4, 4), 3, mean=[0.5], std=[0.5], hidden=(8,), norm="none", T=1)
    # float32: 16 normalised pixels, of which a linear layer needs its input; 8 rectified values, input of the next; 3
    # logits. The current in front of a rectifier is not needed.
    assert memory.kept_bytes(network, "none", "none", batch) == 4 * batch * (16 + 8 + 3)


def test_bursts_of_a_large_layer_are_a_byte_each():
    network = mlp(QBLIF, (1, 4, 4), 3, mean=[0.5], std=[0.5], hidden=(4096,), norm="none", T=2)
    block, packed = (memory.kept_bytes(network, "block", way, 100) for way in ("none", "packed"))
    # 4096 neurons, two steps, 100 samples: 3 of 4 bytes of a burst are saved
    assert block - packed == pytest.approx(3 * 4096 * 2 * 100, rel=1e-3)
    assert memory.kept_bytes(network, "none", "none", 100) > block


def test_measuring_changes_nothing():
    network = vgg(QBLIF, (2, 8, 8), 3, mean=[0.5] * 2, std=[0.5] * 2, name="vgg5", width=0.25, T=2).eval()
    before, random = {name: x.clone() for name, x in network.state_dict().items()}, torch.get_rng_state()
    memory.kept_bytes(network, "block", "packed", 8)
    assert all(torch.equal(x, before[name]) for name, x in network.state_dict().items())
    assert torch.equal(torch.get_rng_state(), random)
    assert not network.training and not network.packs
    assert all(parameter.grad is None for parameter in network.parameters())


def test_half_precision_keeps_less():
    network = vgg(QBLIF, (2, 8, 8), 3, mean=[0.5] * 2, std=[0.5] * 2, name="vgg5", width=0.25, T=2)
    full = memory.kept_bytes(network, "block", "none", 8)
    assert memory.kept_bytes(network, "block", "none", 8, lambda: torch.autocast("cpu", torch.bfloat16)) < 0.8 * full


def system(root, groups, files):
    """The files of a Linux with 10 GB available."""
    made = {"proc/meminfo": "MemTotal: 20000000 kB\nMemAvailable: 10000000 kB\n", "proc/self/cgroup": groups}
    for name, text in (made | files).items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return memory._free_on_cpu(root)


def test_without_a_limit_all_that_is_available_is_free(tmp_path):
    group = "sys/fs/cgroup/a/"
    assert (
        system(tmp_path, "0::/a\n", {group + "memory.max": "max\n", group + "memory.current": "7\n"}) == 10_240_000_000
    )


@pytest.mark.parametrize("holder", ["a/b", "a", "."])
def test_a_limit_of_any_group_above_counts(tmp_path, holder):
    group = f"sys/fs/cgroup/{holder}/"
    files = {"memory.max": "5000\n", "memory.current": "3000\n", "memory.stat": "anon 9\ninactive_file 500\n"}
    assert system(tmp_path, "0::/a/b\n", {group + name: text for name, text in files.items()}) == 5000 - 3000 + 500


def test_limits_of_the_first_version_count(tmp_path):
    group = "sys/fs/cgroup/memory/a/"
    files = {"memory.limit_in_bytes": "5000", "memory.usage_in_bytes": "3000", "memory.stat": "total_inactive_file 1"}
    groups = "4:memory:/a\n0::/\n"
    assert system(tmp_path, groups, {group + name: text for name, text in files.items()}) == 2001


def test_elsewhere_nothing_is_known(tmp_path):
    assert memory._free_on_cpu(tmp_path) is None
    assert memory.free_bytes(torch.device("meta")) is None


def test_a_card_has_what_others_and_torch_leave(monkeypatch):
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (1000, 5000))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: 300)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: 100)
    assert memory.free_bytes(SimpleNamespace(type="cuda")) == 1200
