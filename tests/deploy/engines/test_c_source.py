"""The exported C: compiled without a warning and equal to the numpy engine in every spike, membrane and logit."""

import re
import shutil
import subprocess
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings

from qbsnn.deploy.engines import c_engine, reference, scalar
from qbsnn.deploy.engines import c_source as c_export
from qbsnn.deploy.format.network import IntBranch, IntPool, Leak
from qbsnn.deploy.format.seal import sealed
from qbsnn.errors import DeployError
from tests.deploy import networks
from tests.deploy.export.exporting import trained

SANITIZERS = ("-O1", "-g", "-fsanitize=undefined,address", "-fno-sanitize-recover=all")
TAKES_A_FOLDER = [HealthCheck.function_scoped_fixture]


def compiler_missing() -> bool:
    try:
        return not c_engine.compiler()
    except DeployError:
        return True


pytestmark = pytest.mark.skipif(compiler_missing(), reason="no C compiler")


def compiled(folder, net, current, flags=("-O0",)):
    """The trace of the compiled network, and that of the numpy engine."""
    c_export.write(net, folder, current)
    return c_engine.run(folder, net, current, flags), reference.run(net, current)


def same(folder, net, current, flags=("-O0",)):
    """Assert that the compiled network equals the numpy engine; returns whether all layers fired."""
    found, expected = compiled(folder, net, current, flags)
    if net.overflow != "error" or not expected.overflows:
        assert networks.mismatches(found, expected) == 0
        assert found.overflows == expected.overflows
    return networks.active(expected)


@settings(max_examples=8, deadline=None, derandomize=True, suppress_health_check=TAKES_A_FOLDER)
@given(networks.cases())
def test_random_networks_equal_the_numpy_engine(tmp_path, case):
    assume(same(tmp_path, *case))


@pytest.mark.slow
@settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=TAKES_A_FOLDER)
@given(networks.cases())
def test_many_random_networks_under_the_sanitizers(tmp_path, case):
    assume(same(tmp_path, *case, flags=SANITIZERS))


@pytest.mark.slow
@pytest.mark.parametrize("leak", networks.LEAKS, ids=str)
def test_every_neuron_state_under_the_sanitizers(tmp_path, leak):
    registers = [(bits, policy) for bits in (32, 17) for policy in ("saturate", "wrap")]
    start = networks.LEAKS.index(leak)
    for i, (reset, rounding, s_min) in enumerate(networks.VARIANTS):
        net, current, _ = networks.every_neuron(leak, reset, rounding, s_min)
        bits, policy = registers[(start + i) % len(registers)]
        assert same(tmp_path, replace(net, membrane_bits=bits, overflow=policy), current, SANITIZERS)


@pytest.mark.parametrize(
    "leak", [networks.NONE, Leak("shift_floor", 2), Leak("shift_xylo", 1), Leak("mul12_to_zero", 9)]
)
def test_every_neuron_state(tmp_path, leak):
    reset, rounding, s_min = networks.VARIANTS[len(leak.kind) % len(networks.VARIANTS)]
    net, current, _ = networks.every_neuron(leak, reset, rounding, s_min)
    assert same(tmp_path, replace(net, overflow="wrap"), current)
    assert same(tmp_path, replace(net, overflow="wrap"), current, c_engine.VECTORISED)


@pytest.mark.parametrize("bits", [17, 32])
def test_membranes_about_the_limit_of_the_fast_path(tmp_path, bits):
    """Where |V|, |J| or |b| reach 2^(bits − 3) the neurons leave the loop without checks: one step to either side."""
    edge = 2 ** (bits - 3)
    ends = np.array([-edge - 1, -edge, edge - 1, edge], np.int32)
    net = networks.single_stage(np.full(4, 5), 3, s_max=2, leak=networks.NONE, membrane_bits=bits, overflow="wrap")
    for bias in (0, edge - 1, edge):
        stage = replace(net.stages[0], bias=np.full(4, bias, np.int32))
        assert same(tmp_path, replace(net, stages=(stage,)), ends[None, None], c_engine.VECTORISED)


@pytest.mark.parametrize("bits", [2, 3, 4])
@pytest.mark.parametrize("policy", ["saturate", "wrap"])
def test_the_smallest_registers(tmp_path, bits, policy):
    """Every V of the register is reached, and every sum of three values about its ends."""
    rng = np.random.default_rng(bits)
    net = networks.single_stage(np.array([1, 1]), 3, s_max=1, leak=networks.NONE, membrane_bits=bits, overflow=policy)
    for bias in (-1, 0):
        stage = replace(net.stages[0], bias=np.full(2, bias, np.int32))
        current = rng.integers(-2, 3, (3, 40, 2)).astype(np.int32)
        assert same(tmp_path, replace(net, stages=(stage,)), current)


def test_groups_strides_and_windows_are_read_with_channels_innermost(tmp_path):
    rng = np.random.default_rng(5)
    stage = networks.single_stage(np.full(4, 5), 2, s_max=8).stages[0]
    first = replace(stage, shape=(4, 7, 5), pool=IntPool("max", (3, 2), (2, 1), (1, 0)))
    weight = rng.integers(-127, 128, (6, 2, 3, 2)).astype(np.int8)
    conv = IntBranch(0, "conv", weight, stride=(2, 1), padding=(1, 1), groups=2)
    second = replace(stage, name="second", branches=(conv,), shape=(6, 2, 5), bias=np.full(6, 9, np.int32),
                     theta=rng.integers(3, 40, 6).astype(np.int32))  # fmt: skip
    readout = IntBranch(1, "linear", rng.integers(-127, 128, (3, 60)).astype(np.int8))
    net = networks.single_stage(np.full(4, 5), 2, s_max=8)
    net = replace(net, stages=(first, second), readout=replace(net.readout, branch=readout, bias=np.zeros(3, np.int32)))
    current = rng.integers(-20, 60, (2, 2, 4, 7, 5)).astype(np.int32)
    for flags in (("-O2",), c_engine.VECTORISED):
        assert same(tmp_path, net, current, flags)


def test_the_network_worked_by_hand(tmp_path):
    net, current, expected = networks.worked_by_hand()
    found, _ = compiled(tmp_path, net, current)
    assert networks.mismatches(found, expected) == 0
    assert scalar.run(net, current).overflows == found.overflows == 0


@pytest.mark.parametrize("family", ["mlp", "vgg5-max", "resnet20"])
def test_trained_families_equal_the_numpy_engine(tmp_path, family):
    quantized, pixels = trained(family)
    current = quantized.current(pixels[:2])
    found, expected = compiled(tmp_path, quantized.net, current, ("-O2",))
    assert networks.mismatches(found, expected) == 0
    assert networks.mismatches(c_engine.run(tmp_path, quantized.net, current, c_engine.VECTORISED), expected) == 0
    for changed in networks.flips(quantized.net, expected)[:3]:
        assert networks.mismatches(found, reference.run(changed, current)) > 0


def test_the_printed_text_is_the_expected_file(tmp_path):
    net = networks.make(np.random.default_rng(0), "residual")
    current = networks.make_current(np.random.default_rng(0), net, 2)
    c_export.write(net, tmp_path, current)
    program = build(tmp_path, "main.c")
    text = c_engine.execute([program], (tmp_path / c_export.CURRENT).read_text())
    assert text == (tmp_path / c_export.EXPECTED).read_text()
    assert text.startswith("spikes 0 0 stem: ") and "membrane 1 2 block1.b: " in text and "block0_a" in text
    assert text.endswith("overflows: 0\n")


def build(folder, source):
    program = str(folder / "program")
    c_engine.execute([*c_engine.compiler(), *c_engine.FLAGS, str(folder / source), "-o", program])
    return program


def test_a_program_that_only_wants_the_class(tmp_path):
    net = networks.make(np.random.default_rng(1), "chain")
    current = networks.make_current(np.random.default_rng(1), net, 1, static=True)
    c_export.write(net, tmp_path, current)
    values = ", ".join(map(str, current.ravel()))
    (tmp_path / "firmware.c").write_text(
        f'#include "qbsnn_net.h"\nstatic const int32_t j[] = {{{values}}};\nint main(void)\n{{\n    qbsnn_reset();\n'
        "    for (int t = 0; t < QBSNN_STEPS; t++)\n        qbsnn_step(j);\n    return 10 + qbsnn_class();\n}\n"
    )
    label = int(reference.run(net, current).logits[0].argmax())
    c_engine.execute([build(tmp_path, "firmware.c")], allowed=(10 + label,))


@pytest.mark.skipif(shutil.which("c++") is None, reason="no C++ compiler")
def test_a_cpp_compiler_builds_the_same_program(tmp_path):
    net = networks.make(np.random.default_rng(0), "residual")
    c_export.write(net, tmp_path, networks.make_current(np.random.default_rng(0), net, 2))
    (tmp_path / "main.cpp").write_text((tmp_path / "main.c").read_text())
    words = ["c++", "-std=c++11", "-Wall", "-Wextra", "-Werror", "-O2", "main.cpp", "-o", "cpp"]
    subprocess.run(words, cwd=tmp_path, check=True)
    text = c_engine.execute([str(tmp_path / "cpp")], (tmp_path / c_export.CURRENT).read_text())
    assert text == (tmp_path / c_export.EXPECTED).read_text()


def test_a_tie_goes_to_the_lowest_class(tmp_path):
    net = networks.single_stage(np.array([4]), 1, s_max=3)
    weight = np.array([[1], [2], [2]], np.int8)
    readout = replace(net.readout, branch=IntBranch(0, "linear", weight), bias=np.zeros(3, np.int32))
    c_export.write(replace(net, readout=readout), tmp_path, np.full((1, 1, 1), 8, np.int32))
    assert "class 0: 1\n" in c_engine.execute([build(tmp_path, "main.c")], "1 1 8\n")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "the input ends early"),
        ("1", "ends early"),
        ("1 1 4", "ends early"),
        ("1 1 4 x", "must be whole numbers of 32 bits, got x"),
        ("1 1 4 4.5", "must be whole numbers of 32 bits, got 4.5"),
        ("1 1 4 4294967444", "must be whole numbers of 32 bits, got 4294967444"),
        ("1 1 -2147483649 4", "must be whole numbers of 32 bits, got -2147483649"),
        ("1 1 4 99999999999999999999", "must be whole numbers of 32 bits, got 999999999999"),
        ("1 1 4 4 4", "goes on behind 1 samples of 2 numbers"),
        ("1 1 4 4 x", "goes on behind 1 samples of 2 numbers"),
        ("1 2 4 4", "steps must be 1 or 3"),
        ("-1 1", "samples must not be negative"),
    ],
)
def test_the_program_refuses_bad_vectors(tmp_path, text, message):
    net = networks.single_stage(np.array([4, 4]), 3, s_max=3)
    c_export.write(net, tmp_path, np.zeros((1, 1, 2), np.int32))
    with pytest.raises(DeployError, match=f"code 2: error: .*{message}"):
        c_engine.execute([build(tmp_path, "main.c")], text)


def test_an_overflow_under_the_policy_error_is_reported(tmp_path):
    net = networks.single_stage(np.array([1]), 3, s_max=1, leak=networks.NONE)
    current = np.full((1, 1, 1), 2**31 - 1, np.int32)
    c_export.write(net, tmp_path, current)
    program = build(tmp_path, "main.c")
    text = c_engine.execute([program], f"1 1 {2**31 - 1}\n", allowed=(1,))
    assert text.endswith("overflows: 2\n")
    assert c_engine.run(tmp_path, net, current).overflows == reference.run(net, current).overflows == 2


@pytest.mark.parametrize(
    ("s_max", "signed", "pool", "name"),
    [
        (127, False, None, "uint8_t"),
        (127, True, None, "int8_t"),
        (127, False, (1, 2), "uint8_t"),
        (127, False, (2, 2), "int16_t"),
        (64, True, (1, 2), "int16_t"),
        (127, False, (17, 17), "int32_t"),
    ],
)
def test_the_type_of_spikes_holds_every_pooled_sum(tmp_path, s_max, signed, pool, name):
    net = networks.single_stage(np.array([1]), 1, s_max=s_max, s_min=-s_max if signed else 0)
    if pool:
        stage = replace(net.stages[0], shape=(1, *pool), pool=IntPool("sum", pool, pool))
        net = replace(net, stages=(stage,))
    current = np.full((1, 2, *net.stages[0].shape), 999, np.int32)
    current[:, 1] *= -1
    found, expected = compiled(tmp_path, net, current)
    assert networks.mismatches(found, expected) == 0
    assert f"typedef {name} qb_spike;" in (tmp_path / c_export.HEADER).read_text()


def test_the_ends_of_int32_are_written_as_they_are(tmp_path):
    net = networks.single_stage(np.array([2**31 - 1, 1]), 2, s_max=1, overflow="saturate")
    stage = replace(net.stages[0], bias=np.array([-(2**31), 2**31 - 1], np.int32))
    assert same(tmp_path, replace(net, stages=(stage,)), np.array([[[2**31 - 1, -(2**31)]], [[5, 6]]], np.int32))


def test_sums_that_are_not_proved_to_fit_are_refused():
    net = networks.make(np.random.default_rng(0), "residual", s_max=127)
    wide = IntBranch(0, "identity", scale=np.full(3, 2**25, np.int32))
    stages = tuple(replace(s, branches=(s.branches[0], wide)) if i == 2 else s for i, s in enumerate(net.stages))
    with pytest.raises(DeployError, match=r"stage 'block0/b': a step's sum can reach 4\d{9}, but .* int32"):
        c_export.header(replace(net, stages=stages))
    readout = replace(net.readout, bias=np.full(3, 2**30, np.int32))
    with pytest.raises(DeployError, match="readout: the sum over all steps can reach"):
        c_export.header(replace(net, readout=readout))


def test_data_are_multiplied_only_in_the_12_bit_leak_and_on_demand():
    code = re.sub(r"/\*.*?\*/", "", (c_export.SOURCES / "ops.h").read_text(), flags=re.DOTALL)
    products = [line.strip() for line in code.splitlines() if re.search(r"\S \* \S|\*=", line)]
    assert len(products) > 5  # addresses
    data = r"(sum|theta|half|bias|size|loss|result|[qsmuv])(\[.*\])?"
    found = [line for line in products if re.search(rf"\b{data} \* | \* \(?{data}\b(?!\[)|\*=", line)]
    assert found == ["sum[o] += q[o] * s;", "return (int32_t)((int64_t)v * (4096 - amount) / 4096);"]
    assert re.search(r"#ifdef QBSNN_MULTIPLY\n[^#]*sum\[o\] \+= q\[o\] \* s;[^#]*#endif", code)


def test_without_a_compiler_the_error_says_what_to_do(monkeypatch):
    monkeypatch.setenv("CC", "no-such-compiler -m32")
    with pytest.raises(DeployError, match="no C compiler: no-such-compiler not found; install one or set CC"):
        c_engine.compiler()


def test_a_warning_of_the_compiler_is_an_error(tmp_path):
    net = networks.single_stage(np.array([4]), 1, s_max=3)
    current = np.zeros((1, 1, 1), np.int32)
    c_export.write(net, tmp_path, current)
    main = tmp_path / c_export.MAIN
    main.write_text(main.read_text().replace("int main(void)\n{", "int main(void)\n{\n    int unused;"))
    header = c_export.header(net).encode("ascii")  # which does not say what main.c was
    (tmp_path / c_export.HEADER).write_bytes(sealed(header, *c_export.SEAL))
    with pytest.raises(DeployError, match=r"ended with code 1: (?s:.*)unused"):
        c_engine.run(tmp_path, net, current)


@pytest.mark.parametrize("static", [True, False])
def test_static_and_changing_currents(tmp_path, static):
    rng = np.random.default_rng(3)
    net = networks.make(rng, "residual", T=3)
    assert same(tmp_path, net, networks.make_current(rng, net, 2, static=static))


def test_another_program_or_network_is_refused_and_an_earlier_header_runs(tmp_path):
    net, current, expected = networks.worked_by_hand()
    c_export.write(net, tmp_path, current)
    with pytest.raises(DeployError, match=r"qbsnn_net\.h is that of another network"):
        c_engine.run(tmp_path, replace(net, membrane_bits=31), current)
    program = (tmp_path / "main.c").read_text()
    (tmp_path / "main.c").write_text(program + "\n")
    with pytest.raises(DeployError, match=r"main\.c is not the one that was written with .*qbsnn_net\.h"):
        c_engine.run(tmp_path, net, current)
    (tmp_path / "main.c").unlink()
    with pytest.raises(DeployError, match=r"main\.c cannot be read"):
        c_engine.run(tmp_path, net, current)
    (tmp_path / "main.c").write_text(program)
    (tmp_path / "qbsnn_net.h").write_bytes(sealed(c_export.header(net).encode("ascii"), *c_export.SEAL))
    assert networks.mismatches(c_engine.run(tmp_path, net, current), expected) == 0
