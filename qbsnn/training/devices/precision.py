"""The precision that a run trains in."""

from __future__ import annotations

import logging
from collections.abc import Collection

import torch

from qbsnn.errors import SettingsError

log = logging.getLogger(__name__)

MIXED, FULL = "bf16-mixed", "32-true"
HALF = "16-mixed"
PRECISIONS = ("auto", FULL, MIXED, HALF, "64-true")
_ALIASES = {"16": HALF, "32": FULL, "64": "64-true", "bf16": MIXED}  # Lightning's short names
_NATIVE = {"avx512_bf16", "amx_bf16"}  # of the names that ``Host.isa`` uses


def choose(wanted: str | int | None, accelerator: str, isa: Collection[str]) -> str:
    """Lightning's name of the precision for ``trainer.precision``.

    wanted: ``auto`` is bf16-mixed where the device computes bfloat16 natively, else 32-true; ``None`` is 32-true; all
    others pass, short names as the long ones. Weights in half precision are no choice: they would be absorbed and
    proven so. accelerator: ``trainer.accelerator``. isa: extensions of the processor, see
    :func:`qbsnn.training.devices.host.host_info`. Raises SettingsError for an unknown name, and for float16 on a
    processor, which has no kernels for it.
    """
    device = _device(accelerator)
    if wanted == "auto":
        return MIXED if computes_bfloat16(device, isa) else FULL
    name = FULL if wanted is None else _ALIASES.get(str(wanted), str(wanted))
    if name not in PRECISIONS:
        raise SettingsError(f"trainer.precision must be one of {', '.join(PRECISIONS)}, got {name}")
    if name == HALF and device == "cpu":
        raise SettingsError(
            f"trainer.precision must be auto, bf16-mixed or 32-true on a CPU, got {name}: float16 with a gradient "
            "scaler needs a GPU"
        )
    if name == MIXED and device == "cpu" and not computes_bfloat16(device, isa) and not _emulates_bfloat16(isa):
        log.warning(
            "trainer.precision=%s: this processor has no instructions for bfloat16, and a training step may take more "
            "than 100 times as long as in 32-true; trainer.precision=auto takes bf16-mixed only where it pays",
            name,
        )
    return name


def computes_bfloat16(device: str, isa: Collection[str]) -> bool:
    """Whether a ``cpu`` with these extensions, or every visible ``cuda`` device, has bfloat16 arithmetic."""
    if device == "cuda":
        found = [torch.cuda.get_device_capability(index) for index in range(torch.cuda.device_count())]
        return bool(found) and min(found) >= (8, 0)
    return device == "cpu" and not _NATIVE.isdisjoint(isa)


def _emulates_bfloat16(isa: Collection[str]) -> bool:
    """Whether oneDNN, which computes convolutions, has kernels for bfloat16 on this processor; it asks for AVX-512."""
    asked = getattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", None)  # of no public interface
    return "avx512f" in isa or (asked is not None and bool(asked()))


def _device(accelerator: str) -> str:
    """The type of device that Lightning will take."""
    if accelerator in ("auto", "gpu", "cuda") and torch.cuda.is_available():
        return "cuda"
    if accelerator in ("auto", "gpu", "mps") and torch.backends.mps.is_available():
        return "mps"
    return "cpu" if accelerator in ("auto", "cpu") else accelerator
