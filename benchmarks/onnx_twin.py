"""The ReLU twin in onnxruntime: float32, and int8 by its static quantisation."""

from __future__ import annotations

import io
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from benchmarks.harness import Unavailable

INPUT = "images"


class Twin(nn.Module):
    """A network of logits ``[T, B, classes]`` as one of logits ``[B, classes]``, for T = 1."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        """Logits of one step."""
        return self.network(images)[0]


def runner(twin: nn.Module, x: Tensor, threads: int, int8: bool = False) -> Callable[[], object]:
    """A call that runs a network in evaluation mode on images ``[B, C, H, W]`` in onnxruntime's CPU provider.

    int8: activations and weights as QDQ int8, per channel, calibrated on these images. Raises Unavailable.
    """
    try:
        import onnx
        import onnxruntime
    except ImportError as error:
        raise Unavailable(f"{error.name} is not installed (pip install 'qbsnn[deploy]')") from None
    content = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that this exporter is the old one; the new one needs a further package
        torch.onnx.export(Twin(twin).eval(), (x,), content, input_names=[INPUT], opset_version=17, dynamo=False)
    model = onnx.load_from_string(content.getvalue())
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = threads, 3
    images = {INPUT: x.numpy()}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "twin.onnx"
        onnx.save(model, path)
        if int8:
            path = _quantised(path, images)
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return lambda: session.run(None, images)


def _quantised(path: Path, images: dict[str, object]) -> Path:
    from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Once(CalibrationDataReader):
        """Gives the images, then nothing."""

        def __init__(self) -> None:
            self.left = [images]

        def get_next(self) -> dict[str, object] | None:
            """The next batch."""
            return self.left.pop() if self.left else None

    prepared, quantised = path.with_name("prepared.onnx"), path.with_name("int8.onnx")
    quant_pre_process(str(path), str(prepared), skip_symbolic_shape=True)  # sizes are fixed already
    types = {"activation_type": QuantType.QUInt8, "weight_type": QuantType.QInt8}
    quantize_static(str(prepared), str(quantised), Once(), per_channel=True, **types)
    return quantised
