"""What the machine did not give is told from other errors, in whatever way a library tells it."""

import errno

import pytest
import torch

from qbsnn.errors import EnvironmentFault, SettingsError, environment_fault


def raised_from(error: BaseException, cause: BaseException) -> BaseException:
    error.__cause__ = cause
    return error


FAULTS = {
    "full": (OSError(errno.ENOSPC, "x", "a.ckpt"), "the disk is full: a.ckpt"),
    "quota": (OSError(errno.EDQUOT, "x"), "quota"),
    "read-only": (OSError(errno.EROFS, "x", "/run"), "the file system is read-only: /run"),
    "permission": (PermissionError(errno.EACCES, "x", "/root/.cache"), "there is no permission: /root/.cache"),
    "memory": (MemoryError(), "there is too little memory"),
    "numpy": (MemoryError("Unable to allocate 32.0 TiB"), "too little memory: Unable to allocate 32"),
    "cuda": (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"), "too little memory on the device"),
    "cpu": (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried"), "too little memory"),
    "torch": (RuntimeError("[enforce fail at inline_container.cc:659] . unexpected pos 64 vs 0"), "the disk is full"),
    "writer": (RuntimeError("PytorchStreamWriter failed writing file data/0: file write failed"), "the disk is full"),
    "shared": (RuntimeError("DataLoader worker (pid 1) is killed by signal: Bus error."), "shared memory"),
    "cause": (
        raised_from(RuntimeError("the backend failed"), PermissionError(errno.EACCES, "x", "/c")),
        "permission: /c",
    ),
    "own": (raised_from(RuntimeError("x"), EnvironmentFault("a.ckpt cannot be written")), "a.ckpt cannot be written"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_it_is_told(name):
    error, words = FAULTS[name]
    fault = environment_fault(error)
    assert isinstance(fault, EnvironmentFault) and words in str(fault)


def test_a_full_disk_that_names_no_file_is_named_by_the_place():
    assert str(environment_fault(OSError(errno.ENOSPC, "x"), "outputs/a")) == "the disk is full: outputs/a"
    assert str(environment_fault(OSError(errno.EMFILE, "x"), "outputs/a")) == "too many files are open"


def test_an_error_that_hides_another_is_looked_through():
    with pytest.raises(RuntimeError) as error:
        try:
            raise OSError(errno.ENOSPC, "x", "a")
        finally:
            raise RuntimeError("while closing")
    assert str(environment_fault(error.value)) == "the disk is full: a"


@pytest.mark.parametrize(
    "error", [ValueError("x"), RuntimeError("a bug"), SettingsError("x"), FileNotFoundError(errno.ENOENT, "x", "a")]
)
def test_other_errors_are_not(error):
    assert environment_fault(error) is None
    try:
        raise error from None
    except Exception as same:
        assert environment_fault(same) is None
