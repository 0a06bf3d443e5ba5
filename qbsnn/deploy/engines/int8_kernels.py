"""Weight layers of the integer network on int8 kernels: the proof that one is exact, and the kernels.

On an x86 CPU oneDNN multiplies u8 spikes by s8 weights and adds in 32 bits; its result is handed over as float32. Where
the processor has VNNI the sum of four products is formed in 32 bits. Without it, ``vpmaddubsw`` adds two neighbouring
products in 16 bits first and saturates. On a GPU ``torch._int_mm`` multiplies s8 by s8 on patches and returns int32.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from math import prod
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from qbsnn.deploy.format.bounds import output_range
from qbsnn.deploy.format.network import IntBranch, IntegerNetwork

Kernel = Callable[[Tensor], Tensor]
"""Spikes ``[N, C, H, W]`` or ``[N, C]`` to the sums Σ q·s ``[N, O, ...]``."""

PATCH_BYTES = 2**28
"""GPU memory that patches of one convolution may take at a time."""


def unit(device: torch.device) -> str:
    """What multiplies int8 on this device: ``onednn vnni``, ``onednn avx2``, ``int_mm``, or why nothing does.

    oneDNN obeys ``ONEDNN_MAX_CPU_ISA``: wherever that is set, VNNI is not relied on.
    """
    if device.type == "cuda":
        return "int_mm" if torch.cuda.get_device_capability(device) >= (7, 5) else "none: needs compute capability 7.5"
    if device.type != "cpu":
        return f"none: {device.type} has no int8 kernels here"
    if torch.backends.cpu.get_cpu_capability() not in ("AVX2", "AVX512"):
        return "none: the processor is no x86-64 with AVX2"
    if not torch.backends.mkldnn.is_available() or not hasattr(torch.ops.onednn, "qconv_pointwise"):
        return "none: this torch has no quantised oneDNN operations"
    capped = any(os.environ.get(f"{prefix}_MAX_CPU_ISA") for prefix in ("ONEDNN", "DNNL"))
    has: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()  # older torch tells of no VNNI
    vnni = has.get("avx512_vnni") or has.get("avx_vnni")
    return "onednn vnni" if vnni and not capped else "onednn avx2"


def obstacle(net: IntegerNetwork, branch: IntBranch, unit: str) -> str | None:
    """Why the int8 kernel of ``unit`` could be inexact for a branch with weights; ``None`` where it provably is not.

    With spikes 0..a_max and weights q, no product or partial sum exceeds S = a_max·max_o Σ|q|, in whatever order they
    are added, so that nothing rounds or saturates if

        0 ≤ spikes                 a burst is no negative number
        a_max ≤ 255, 127           it fits u8 (oneDNN), s8 (int_mm)
        2·a_max·max|q| ≤ 32767     two products fit s16 (oneDNN without VNNI)
        S < 2^24, 2^31             the sum fits float32 (oneDNN), int32 (int_mm)

    The oneDNN of torch 2.13 gives wrong sums where one input channel, an output one pixel wide and unequal strides
    meet, so unequal strides are left to floating point.
    """
    assert branch.weight is not None
    if unit.startswith("none"):
        return unit
    if unit.startswith("onednn") and branch.kind == "conv" and branch.stride[0] != branch.stride[1]:
        return f"strides of {branch.stride[0]} and {branch.stride[1]}, for which oneDNN's sums can be wrong"
    lowest, highest = output_range(net, branch.source)
    if lowest < 0:
        return f"signed bursts down to {lowest}"
    largest = 127 if unit == "int_mm" else 255
    if highest > largest:
        return f"spikes up to {highest}, above {largest}"
    q = np.abs(branch.weight.astype(np.int64))
    pair = 2 * highest * int(q.max())
    if unit == "onednn avx2" and pair > 32767:
        return f"two products up to {pair}, above 32767, without VNNI"
    total = int(q.reshape(len(q), -1).sum(1).max()) * highest
    if total >= 2 ** (31 if unit == "int_mm" else 24):
        return f"sums up to {total}, too large for {'int32' if unit == 'int_mm' else 'float32'}"
    return None


def kernel(branch: IntBranch, unit: str, device: torch.device) -> Kernel:
    """The int8 kernel of a branch. Its weights are laid out once, those of a convolution at the first batch."""
    assert branch.weight is not None
    weight = torch.from_numpy(branch.weight).to(device)
    if unit == "int_mm":
        return _patches(branch, weight) if branch.kind == "conv" else _int_mm(weight)
    return _onednn_conv(branch, weight) if branch.kind == "conv" else _onednn_linear(weight)


ONE, ZERO = torch.ones(1), torch.zeros(1, dtype=torch.int32)  # scale and zero point: the integers are themselves
AS_FLOAT: tuple[Any, ...] = (1.0, 0, torch.float32, "none", [], "")


def _onednn_conv(branch: IntBranch, weight: Tensor) -> Kernel:
    """Output ``[N, O, H, W]`` float32, channels last.

    With a kernel of one pixel a stride is taken from the input beforehand: with AVX2 and few inputs oneDNN's own way to
    skip pixels there was seen to give wrong sums.
    """
    (dh, dw), padding = branch.stride, list(branch.padding)
    if tuple(weight.shape[2:]) != (1, 1) or any(padding):
        dh = dw = 1
    layout = ([branch.stride[0] // dh, branch.stride[1] // dw], padding, [1, 1], branch.groups)
    packed: list[Tensor] = []

    def run(x: Tensor) -> Tensor:
        x = x[:, :, ::dh, ::dw]
        if not packed:
            packed.append(torch.ops.onednn.qconv_prepack(weight, ONE, 1.0, 0, *layout, list(x.shape)))
        x = x.to(torch.uint8).contiguous(memory_format=torch.channels_last)
        return torch.ops.onednn.qconv_pointwise(x, 1.0, 0, packed[0], ONE, ZERO, None, *layout, *AS_FLOAT)

    return run


def _onednn_linear(weight: Tensor) -> Kernel:
    """Output ``[N, O]`` float32."""
    packed = torch.ops.onednn.qlinear_prepack(weight, None)

    def run(x: Tensor) -> Tensor:
        x = x.to(torch.uint8).flatten(1).contiguous()
        return torch.ops.onednn.qlinear_pointwise(x, 1.0, 0, packed, ONE, ZERO, None, *AS_FLOAT)

    return run


def _int_mm(weight: Tensor) -> Kernel:
    """A product with weights ``[O, ...]`` as int32 ``[N, O]``, with sizes filled up as the GPU wants them."""
    flat = weight.flatten(1)
    outputs, inputs = flat.shape
    columns = F.pad(flat, (0, -inputs % 8, 0, -outputs % 8)).t()

    def run(x: Tensor) -> Tensor:
        x = x.to(torch.int8).flatten(1)
        rows = max(len(x), 32)  # more than 16
        return torch._int_mm(F.pad(x, (0, -inputs % 8, 0, rows - len(x))), columns)[: len(x), :outputs]

    return run


def _patches(branch: IntBranch, weight: Tensor) -> Kernel:
    """A convolution as products with patches, one group after the other."""
    (kh, kw), (dh, dw), (ph, pw) = weight.shape[2:], branch.stride, branch.padding
    products = [_int_mm(part) for part in weight.chunk(branch.groups)]
    inputs = weight.shape[1]

    def part(x: Tensor) -> Tensor:
        windows = F.pad(x.to(torch.int8), (pw, pw, ph, ph)).unfold(2, kh, dh).unfold(3, kw, dw)
        n, _, h, w = windows.shape[:4]
        rows = windows.permute(0, 2, 3, 1, 4, 5)
        found = [
            product(rows[:, :, :, g * inputs : (g + 1) * inputs].reshape(n * h * w, -1))
            for g, product in enumerate(products)
        ]
        return torch.cat(found, 1).view(n, h, w, -1).permute(0, 3, 1, 2)

    def run(x: Tensor) -> Tensor:
        bytes_each = prod(x.shape[1:]) * kh * kw
        return torch.cat([part(piece) for piece in x.split(max(1, PATCH_BYTES // bytes_each))])

    return run
