"""Which precision is chosen, and that mixed precision trains what float32 then measures."""

import lightning
import pytest
import torch

from qbsnn.errors import SettingsError
from qbsnn.results.fingerprint import fingerprint
from qbsnn.training.devices import host, precision
from qbsnn.training.settings import identify
from tests.test_configs import composed
from tests.tool import TINY, one_paragraph


@pytest.mark.parametrize(
    ("wanted", "isa", "chosen"),
    [
        ("auto", ["avx2", "avx512f"], "32-true"),
        ("auto", ["avx512f", "avx512_bf16"], "bf16-mixed"),
        ("auto", ["amx_bf16"], "bf16-mixed"),
        ("auto", ["amx_int8", "neon"], "32-true"),
        (None, ["avx512_bf16"], "32-true"),
        ("32-true", ["avx512_bf16"], "32-true"),
        (64, [], "64-true"),
        ("bf16", ["avx512_bf16"], "bf16-mixed"),
        ("bf16-mixed", [], "bf16-mixed"),
    ],
)
def test_a_cpu_trains_in_bfloat16_only_where_it_has_the_instructions(wanted, isa, chosen):
    assert precision.choose(wanted, "cpu", isa) == chosen


@pytest.mark.parametrize(
    ("cards", "chosen"),
    [([(8, 0)], "bf16-mixed"), ([(7, 5)], "32-true"), ([(9, 0), (7, 0)], "32-true"), ([], "32-true")],
)
def test_every_visible_card_must_have_bfloat16(monkeypatch, cards, chosen):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: bool(cards))
    monkeypatch.setattr(torch.cuda, "device_count", lambda: len(cards))
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda index: cards[index])
    for accelerator in ("auto", "gpu", "cuda"):
        assert precision.choose("auto", accelerator, ["avx2"]) == chosen
    assert precision.choose("auto", "cpu", ["avx512_bf16"]) == "bf16-mixed"


@pytest.mark.parametrize(
    ("wanted", "isa", "onednn", "warned"),
    [
        ("bf16-mixed", ["avx2"], False, True),
        ("bf16-mixed", ["avx2", "avx512f"], False, False),
        ("bf16-mixed", ["avx512_bf16"], False, False),
        ("bf16-mixed", ["neon"], True, False),
        ("auto", ["avx2"], False, False),
        ("32-true", ["avx2"], False, False),
    ],
)
def test_bfloat16_without_instructions_is_warned_of(monkeypatch, caplog, wanted, isa, onednn, warned):
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: onednn, raising=False)
    precision.choose(wanted, "cpu", isa)
    assert [("trainer.precision=auto" in record.message) for record in caplog.records] == [True] * warned


@pytest.mark.parametrize(("isa", "chosen"), [(["avx2"], "32-true"), (["avx512_bf16"], "bf16-mixed")])
def test_the_fingerprint_holds_the_precision_that_was_chosen(tmp_path, monkeypatch, isa, chosen):
    monkeypatch.setattr(host, "extensions", lambda: isa)
    auto, same, other = (
        identify(composed(tmp_path, "trainer=cpu", f"trainer.precision={wanted}"))
        for wanted in ("auto", chosen, {"32-true": "bf16-mixed", "bf16-mixed": "32-true"}[chosen])
    )
    assert auto == same and fingerprint(auto) != fingerprint(other)
    assert auto["trainer.precision"] == chosen


@pytest.mark.parametrize("wanted", [16, "16", "16-mixed"])
def test_float16_is_refused_on_a_cpu(wanted):
    with pytest.raises(SettingsError, match=r"trainer\.precision must be auto, bf16-mixed or 32-true on a CPU, got 16"):
        precision.choose(wanted, "cpu", ["avx512_bf16"])


def test_float16_and_unknown_precisions_are_errors_of_the_run(tool, capsys):
    assert tool("train.py", "trainer=cpu", "trainer.precision=16-mixed") == 1
    assert "float16 with a gradient scaler needs a GPU" in capsys.readouterr().err
    assert tool("train.py", "trainer=cpu", "trainer.precision=bf17") == 1
    said = one_paragraph(capsys.readouterr().err)
    assert "trainer.precision must be one of auto, 32-true, bf16-mixed, 16-mixed" in said and "got bf17" in said
    assert tool.left_behind() == []


class Watch(lightning.Callback):
    """Types of what the first stage is fed and emits, and the gradients of every Δ."""

    def __init__(self):
        self.currents, self.losses, self.scales = {}, [], []

    def setup(self, trainer, pl_module, stage):
        neuron = next(pl_module.network.spiking_stages())[2]

        def see(module, inputs, output):
            self.currents.setdefault(module.training, set()).add((inputs[0].dtype, output.dtype))

        self.handle = neuron.register_forward_hook(see)

    def on_before_backward(self, trainer, pl_module, loss):
        self.losses.append(loss.detach())

    def on_before_optimizer_step(self, trainer, pl_module, optimizer):
        self.scales += [neuron.delta_module.raw.grad for _, _, neuron in pl_module.network.spiking_stages()]


def test_training_is_mixed_and_validation_and_test_are_float32(tmp_path):
    from qbsnn.training.setup import build

    settings = ["trainer=cpu", "trainer.precision=bf16-mixed", "trainer.max_epochs=1", "data.limit_train=256"]
    plain = composed(tmp_path, *settings, "callbacks=no_deploy", "~logger", "callbacks.checkpoint=null",
                     "trainer.enable_checkpointing=false", "data.limit_val=64", "data.limit_test=64")  # fmt: skip
    parts = build(plain)
    assert parts.result.precision == "bf16-mixed" and parts.result.config["trainer"]["precision"] == "bf16-mixed"
    watch = Watch()
    parts.trainer.callbacks.append(watch)
    parts.trainer.fit(parts.module, datamodule=parts.data)
    assert watch.currents == {True: {(torch.bfloat16,) * 2}, False: {(torch.float32,) * 2}}
    assert {loss.dtype for loss in watch.losses} == {torch.float32}
    assert watch.losses[-1] < watch.losses[0]
    assert len(watch.scales) == 4 * len(watch.losses)
    assert all(torch.isfinite(grad).all() and grad.dtype == torch.float32 for grad in watch.scales)
    assert any(grad != 0 for grad in watch.scales)

    (tested,) = parts.trainer.test(parts.module, datamodule=parts.data, verbose=False)
    network = parts.module.network.eval()
    pixels, labels = next(iter(parts.data.test_dataloader()))
    with torch.no_grad():
        right = (network.decide(network(pixels)).argmax(1) == labels).float().mean()
    assert tested["test/acc"] == pytest.approx(right.item(), abs=1e-6)


def test_a_mixed_run_is_absorbed_and_proven(tool):
    settings = ["experiment=digits_smoke", "trainer=cpu", "trainer.precision=bf16-mixed", "data.limit_test=64"]
    assert tool("train.py", *settings, "report=false") == 0
    result = tool.result()
    assert result["precision"] == "bf16-mixed" and result["metrics"]["best"]["test/acc"] > 0.5
    for name in ("absorption", "integer"):
        block = result[name]
        assert block["passed"] and block["spikes"] > 0 and block["spike_mismatches"] == 0
    assert result["metrics"]["best"]["test/acc"] == pytest.approx(result["absorption"]["trained_acc"], abs=1e-6)


@pytest.mark.parametrize("wanted", ["bf16-true", "16-true", "transformer-engine"])
def test_weights_in_half_precision_are_no_choice(wanted):
    with pytest.raises(SettingsError, match=f"trainer.precision must be one of auto, 32-true, .*, got {wanted}"):
        precision.choose(wanted, "cpu", ["avx512_bf16"])


def test_float64_trains_with_a_teacher_and_every_input_is_given_its_type(tool):
    small = ("model=mlp", "model.hidden=[16]", *(word for word in TINY if "width" not in word), "report=false")
    assert tool("train.py", *small, "hydra.run.dir=outputs/teacher") == 0
    words = ["trainer.precision=64-true", "model.encoding=latency", "callbacks=early_exit", "teacher=outputs/teacher"]
    assert tool("train.py", *small, *words, "hydra.run.dir=outputs/b") == 0
    result = tool.result()
    assert result["status"] == "finished" and result["absorption"]["passed"] and result["early_exit"]["margin"] >= 0
    assert result["config"]["teacher"].endswith("teacher/checkpoints/best.ckpt")
