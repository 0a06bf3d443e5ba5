import platform

import pytest

from qbsnn.training.devices import allocator


def test_thresholds_set_by_the_user_stay(monkeypatch):
    monkeypatch.setenv("MALLOC_TRIM_THRESHOLD_", "100000")
    assert not allocator.keep_freed_memory()


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library")
def test_glibc_takes_both_thresholds(monkeypatch):
    for name in allocator._VARIABLES:
        monkeypatch.delenv(name, raising=False)
    assert allocator.keep_freed_memory()
