"""A pure function of tensors as one compiled kernel for any sizes, or as it is where nothing can be compiled."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Hashable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.fx.experimental.proxy_tensor import make_fx

log = logging.getLogger(__name__)

# Without fused multiply-adds and approximate division, and with every rounding to half precision, kernels equal eager
# code.
OPTIONS: dict[str, Any] = {
    "cpp.enable_floating_point_contract_flag": "off",
    "emulate_precision_casts": True,
    "eager_numerics.division_rounding": True,
}
if torch.backends.cpu.get_cpu_capability() in ("AVX2", "AVX512"):
    # torch 2.13's own probe of these loads its library into a bare Python, which crashes with a CUDA build where there
    # is no driver, and leaves kernels scalar, without a word.
    OPTIONS["cpp.vec_isa_ok"] = True
_failed: set[str] = set()


class Kernel:
    """``function(key, *tensors)``, recorded through autograd and compiled for every key and kind of input it meets.

    key: a constant. Sizes may vary, except where the function unrolls them; those of 1 have kernels of their own. Where
    compilation fails, all kernels run eagerly from then on, which is logged once.
    """

    def __init__(self, function: Callable[..., Any], compiled: bool = True) -> None:
        self.function, self.compiled = function, compiled
        self.known: dict[Hashable, Callable[..., Any]] = {}

    def __call__(self, key: Hashable, *inputs: Tensor) -> Any:
        """Run without gradients."""
        inputs = tuple(x.detach() for x in inputs)
        with torch.no_grad():
            if not self.compiled or _failed:
                return self.function(key, *inputs)
            kind = (key, *((x.dtype, x.device, *(size == 1 for size in x.shape)) for x in inputs))
            try:
                if kind not in self.known:
                    self.known[kind] = _compile(self.function, key, inputs)
                return self.known[kind](*inputs)
            except Exception as error:  # the compiler raises types of its own, of the C++ compiler and of the driver
                if not type(error).__module__.startswith(("torch._inductor", "torch._dynamo")):
                    raise
                _failed.add(type(error).__name__)
                log.warning("neurons run eagerly, they do not compile here: %s", str(error).splitlines()[0])
                return self.function(key, *inputs)


def _compile(function: Callable[..., Any], key: Hashable, inputs: tuple[Tensor, ...]) -> Callable[..., Any]:
    keep_kernels()
    graph = make_fx(lambda *given: function(key, *given), tracing_mode="symbolic")(*inputs)
    return torch.compile(graph, dynamic=True, options=OPTIONS)


def keep_kernels() -> None:
    """Have the compiler keep its kernels in the user's cache instead of a folder that a restart empties."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(cache / "qbsnn" / "kernels"))
