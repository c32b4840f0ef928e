"""The target triton: a model repository of Triton Inference Server, NAME/config.pbtxt and NAME/1/model.onnx.

https://docs.nvidia.com/deeplearning/triton-inference-server/user-guide/docs/user_guide/model_configuration.html
"""

from __future__ import annotations

import json
import os

from plsc.config import Config
from plsc.engine.export.onnx import Port, ports
from plsc.errors import ExportError
from plsc.files.hashes import write_new

CONFIG = "config.pbtxt"


def model_file(config: Config) -> str:
    """The place of the model in the repository."""
    return f"{config.export.model_name}/1/model.onnx"


def check(config: Config) -> None:
    """Nothing of a model is refused: one input and one or two outputs of float32, any batch."""


def write(config: Config, directory: str, onnx_file: str) -> list[str]:
    """Write config.pbtxt, with the names and sizes of the ONNX graph. Raises ExportError."""
    inputs, outputs = ports(os.path.join(directory, onnx_file))
    name = f"{config.export.model_name}/{CONFIG}"
    text = _config(config, inputs, outputs)
    write_new(os.path.join(directory, name), text.encode("ascii"))
    return [name]


def _config(config: Config, inputs: list[Port], outputs: list[Port]) -> str:
    """The text format of the message ModelConfig."""
    lines = [
        f"name: {json.dumps(config.export.model_name)}",
        'platform: "onnxruntime_onnx"',
        f"max_batch_size: {config.export.max_batch_size}",
    ]
    for kind, given in (("input", inputs), ("output", outputs)):
        for port in given:
            lines += [f"{kind} {{", f"  name: {json.dumps(port.name)}", "  data_type: TYPE_FP32",
                      f"  dims: {_sizes(port)}", "}"]  # fmt: skip
    return "\n".join([*lines, "dynamic_batching { }"]) + "\n"


def _sizes(port: Port) -> list[int]:
    """The sizes of all axes but the batch, which Triton adds."""
    batch, *sizes = port.shape
    if port.kind != "tensor(float)" or isinstance(batch, int) or not all(isinstance(size, int) for size in sizes):
        raise ExportError(
            f"the ONNX graph has {port.name} of {port.kind} {port.shape}; Triton needs float32, any batch, all other "
            "sizes fixed"
        )
    return [int(size) for size in sizes]
