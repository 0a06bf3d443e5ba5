"""What a kernel computes in another form is what it computed before, to the last bit."""

from functools import partial

import numpy as np
import pytest
import torch
from torch.fx.experimental.proxy_tensor import make_fx

from qbsnn.functional.surrogate import relsg_et
from qbsnn.kernels.compiled import Kernel, options
from qbsnn.kernels.rewrite import _multiplies_and_adds, clamp_levels, for_cpu

# torch 2.13's compiler calls what torch 2.13 deprecated
pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit.script.*is deprecated:DeprecationWarning")
ATEN = torch.ops.aten


def targets(function, *inputs):
    """The operations of a function after the change."""
    graph = for_cpu(make_fx(function, tracing_mode="symbolic")(*inputs))
    return {node.target for node in graph.graph.nodes if node.op != "output"}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("bounds", [(0, 1), (0, 8), (1, 8), (-7, 7), (0, 2**22)])
def test_levels_are_clamped_as_they_were(bounds, dtype):
    whole = [*range(-12, 13), 2**22 - 1, 2**22, 2**24 + 2, 1e9, -1e9, 1e30, -1e30, torch.inf, -torch.inf, torch.nan]
    x = torch.tensor(whole, dtype=dtype)
    torch.testing.assert_close(clamp_levels(x, *bounds), x.clamp(*bounds), rtol=0, atol=0, equal_nan=True)


def test_only_clamps_of_whole_numbers_are_changed():
    x = torch.randn(5)
    assert ATEN.clamp_.default not in targets(lambda x: x.floor().clamp_(0, 8), x)
    assert ATEN.clamp.default not in targets(lambda x: x.round().clamp(1, 8), x)
    for kept in (lambda x: x.clamp(0, 8), lambda x: x.floor().clamp(0, 1.5), lambda x: x.floor().clamp(max=3),
                 lambda x: x.floor().clamp(0, 2**23), lambda x: x.floor().clamp(3, 0)):  # fmt: skip
        assert ATEN.clamp.default in targets(kept, x)
    assert ATEN.clamp.default in targets(lambda x: x.floor().clamp(0, 8), x.bfloat16())  # 257 is no bfloat16


def test_only_exponentials_in_float32_are_changed():
    if not _multiplies_and_adds():
        pytest.skip("this processor or this torch has no multiplication and addition in one")
    assert ATEN.exp.default not in targets(torch.exp, torch.randn(5))
    assert ATEN.exp.default in targets(torch.exp, torch.randn(5).double())


@pytest.mark.parametrize("tail", ["document", "continuous"])
def test_the_tail_is_known_to_fall(tail):
    if not _multiplies_and_adds():
        pytest.skip("this processor or this torch has no multiplication and addition in one")
    p = torch.randn(5)
    assert ATEN.exp_.default not in (found := targets(partial(relsg_et, s_max=8, tail=tail), p))
    assert torch.where in targets(torch.exp, p) and sum(target is torch.where for target in found) == 1


@pytest.mark.parametrize("falls", [False, True])
def test_the_exponential_is_that_of_the_compiler_and_of_numpy(falls):
    def function(key, x):
        return (x.clamp(min=0) * -1.0).exp() if falls else x.exp()

    edges = torch.tensor([0.0, 1e-45, 103.9, 104.0, 104.1, 88.7, 88.8, 99.9, 100.1, 1e13, torch.inf, torch.nan])
    x = torch.cat([torch.linspace(-110, 110, 100_003), edges, -edges])
    found = Kernel(function)(None, x)
    plain = torch.compile(partial(function, None), dynamic=True, options=options())(x)
    torch.testing.assert_close(found, plain, rtol=0, atol=0, equal_nan=True)
    with np.errstate(over="ignore"):
        exact = np.exp(np.where(x > 0, -x, 0.0 * x).astype(np.float64) if falls else x.double().numpy())
    normal = (exact > 1e-37) & (exact < 3e38)
    assert np.abs(found.numpy()[normal] / exact[normal] - 1).max() < 1.3e-7  # 1 ulp, and what float32 rounds off
