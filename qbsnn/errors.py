"""Errors that a user's input can cause. The command line prints them as one paragraph, without a stack trace.

Each message names the thing, the value that came and what would be right.
"""

from __future__ import annotations

import errno


class QBSNNError(Exception):
    """Base of the errors below."""


class SettingsError(QBSNNError):
    """A setting is missing, misspelt, of the wrong type or out of bounds."""


class ArgumentError(SettingsError):
    """An argument of a class or function is out of bounds; the message begins with the argument's name.

    Whoever builds from settings puts the place in front: ``s_max must be ...`` becomes ``neuron.s_max must be ...``.
    """


class DataError(QBSNNError):
    """Data is absent, damaged or not what its source says."""


class CheckpointError(QBSNNError):
    """A checkpoint cannot be read, or is not one of this framework."""


class BusyError(QBSNNError):
    """Another process writes into a run directory."""


class EnvironmentFault(QBSNNError):
    """The machine did not give what a run needs: space, memory, permission."""


class DivergenceError(QBSNNError):
    """A loss, a gradient or a scale left the numbers that training can go on from."""


class DeployError(QBSNNError):
    """A network has no absorbed or no integer form; the message says which layer and why."""


class EnergyError(QBSNNError):
    """A layer's operations cannot be counted; the message says which layer and why."""


class VerificationError(QBSNNError):
    """Two engines that must agree did not."""


_SYSTEM = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the quota of the disk is used up",
    errno.EFBIG: "a file is larger than this system allows",
    errno.EROFS: "the file system is read-only",
    errno.EACCES: "there is no permission",
    errno.EPERM: "there is no permission",
    errno.ENOMEM: "there is too little memory",
    errno.EMFILE: "too many files are open",
    errno.EIO: "the disk does not answer",
}
_TORCH = {
    "unexpected pos": "the disk is full, or a file on it cannot be written",
    "PytorchStreamWriter failed": "the disk is full, or a file on it cannot be written",
    "No space left on device": "the disk, or the shared memory of data.num_workers, is full",
    "Bus error": "the shared memory of data.num_workers is full",
    "out of memory": "there is too little memory on the device",
    "can't allocate memory": "there is too little memory",
    "not enough memory": "there is too little memory",
}


def environment_fault(error: BaseException, place: object = "") -> EnvironmentFault | None:
    """What the machine did not give, if that is why an error came; libraries tell it in many ways.

    Args:
        error: any error. The errors that it came from are looked at too.
        place: what was written into, for an error of a disk that names no file.

    Returns:
        An error that says it in a sentence; ``None`` where the machine is not the cause.

    >>> environment_fault(OSError(28, "No space left on device", "a.ckpt"))
    EnvironmentFault('the disk is full: a.ckpt')
    >>> environment_fault(ValueError("a bug"))
    """
    chain: list[BaseException] = []
    link: BaseException | None = error
    while link is not None and link not in chain:
        chain.append(link)
        link = link.__cause__ or (None if link.__suppress_context__ else link.__context__)
    for link in chain:
        if isinstance(link, EnvironmentFault):
            return link
    for link in chain:
        if isinstance(link, OSError) and link.errno in _SYSTEM:
            file = link.filename or ("" if link.errno in (errno.ENOMEM, errno.EMFILE) else place)
            return EnvironmentFault(": ".join(map(str, filter(None, [_SYSTEM[link.errno], file]))))
        if isinstance(link, MemoryError):
            return EnvironmentFault(f"there is too little memory{f': {link}' if str(link) else ''}")
        if isinstance(link, RuntimeError):
            for words, meaning in _TORCH.items():
                if words in str(link):
                    return EnvironmentFault(f"{meaning}: {str(link).splitlines()[0]}")
    return None
