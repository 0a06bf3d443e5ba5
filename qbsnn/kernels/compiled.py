"""A pure function of tensors as one compiled kernel for any sizes, or as it is where nothing can be compiled."""

from __future__ import annotations

import logging
import os
import shutil
import sys
from collections.abc import Callable, Hashable
from functools import cache, partial
from typing import Any

import torch
from torch import Tensor
from torch.fx.experimental.proxy_tensor import make_fx

from qbsnn.kernels import rewrite
from qbsnn.results.files import cache_folder

log = logging.getLogger(__name__)

# Without fused multiply-adds and approximate division, and with every rounding to half precision, kernels equal eager
# code.
OPTIONS: dict[str, Any] = {
    "cpp.enable_floating_point_contract_flag": "off",
    "emulate_precision_casts": True,
    "eager_numerics.division_rounding": True,
    "emulate_divison_rounding": True,  # the same, as torch 2.10 spells it
}
DIVISION = {"eager_numerics.division_rounding", "emulate_divison_rounding"}
if torch.backends.cpu.get_cpu_capability() in ("AVX2", "AVX512"):
    # torch 2.13's own probe of these loads its library into a bare Python, which crashes with a CUDA build where there
    # is no driver, and leaves kernels scalar, without a word.
    OPTIONS["cpp.vec_isa_ok"] = True
_COMPILERS = ("torch._inductor", "torch._dynamo", "triton", "subprocess")  # modules of what compilers raise
_failed: set[str] = set()


class Kernel:
    """``function(key, *tensors)``, recorded through autograd and compiled for every key and kind of input it meets.

    Sizes may vary, except where the function unrolls them; those of 1 have kernels of their own. Where compilation
    fails, all kernels run eagerly from then on. What cannot be recorded, a user's reset that asks for values for
    example, runs eagerly by itself. Both are logged once.

    Args:
        function: A pure function of a constant, the key, and tensors.
        compiled: Whether to compile at all.
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
                    self.known[kind] = self._compile(key, inputs)
                return self.known[kind](*inputs)
            except Exception as error:  # the compiler raises types of its own, of the C++ compiler and of the driver
                if not type(error).__module__.startswith(_COMPILERS):
                    raise
                _failed.add(type(error).__name__)
                log.warning("neurons run eagerly, they do not compile here: %s", str(error).splitlines()[0])
                return self.function(key, *inputs)

    def _compile(self, key: Hashable, inputs: tuple[Tensor, ...]) -> Callable[..., Any]:
        keep_kernels()
        function = partial(self.function, key)
        if any(x.device.type == "cuda" for x in inputs) and not divides_exactly():
            return function
        try:
            graph = make_fx(function, tracing_mode="symbolic")(*inputs)
        except Exception as error:  # whatever a user's function does with a tensor that has no values
            reason = str(error).strip().partition("\n")[0]
            log.warning("a neuron runs eagerly, its step cannot be recorded: %s: %s", type(error).__name__, reason)
            return function
        if all(x.device.type == "cpu" for x in inputs):
            graph = rewrite.for_cpu(graph)
        return torch.compile(graph, dynamic=True, options=options())


def options() -> dict[str, Any]:
    """``OPTIONS`` without those that this torch's compiler does not know; kernels may then round otherwise."""
    known = set(torch._inductor.list_options())
    return {name: value for name, value in OPTIONS.items() if name in known}


@cache
def divides_exactly() -> bool:
    """Whether a card's kernels can divide as eager code does; where this torch has no such option, that is logged."""
    if DIVISION.isdisjoint(options()):
        log.warning("neurons run eagerly on a card: compiled, torch %s divides inexactly there", torch.__version__)
        return False
    return True


def keep_kernels() -> None:
    """Have the compiler keep its kernels in the user's cache instead of a folder that a restart empties."""
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(cache_folder() / "kernels"))


def compiler() -> str | None:
    """The C++ compiler that torch's compiler uses, if it is there."""
    return shutil.which(os.environ.get("CXX") or ("clang++" if sys.platform == "darwin" else "g++"))
