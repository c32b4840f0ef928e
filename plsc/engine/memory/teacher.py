"""The memory of the teacher of `distill.model`: its weights, and what a batch of it takes at its peak."""

from __future__ import annotations

import os

import paddle

from plsc.backend import program_view
from plsc.config import Config
from plsc.errors import ExportError
from plsc.serving.description import read_description
from plsc.serving.runtimes import ONNX_SUFFIX, preferred_kind

# Of an ONNX file no operations are counted: ONNX Runtime holds the weights as they are in the file and as its kernels
# want them, and a batch is taken to have three results of a first layer of 64 channels, as in ResNets, at a time.
ONNX_COPIES, ONNX_CHANNELS, ONNX_RESULTS = 2, 64, 3


def teacher_bytes(config: Config) -> int:
    """Bytes of the teacher on each rank, 0 without one. Nothing is run: the tensors of a program are counted, an
    ONNX file is by a rule. Raises ExportError where it is not there."""
    path = config.distill.model
    if not path:
        return 0
    images = min(config.train_batch_size, config.step_batch_size)  # at a time, see training.teacher
    if path.endswith(ONNX_SUFFIX):
        return _onnx_bytes(path, config, images)
    description = read_description(path)
    kind = preferred_kind(description)
    files = [os.path.join(path, name) for name in description.models[kind]]
    return _onnx_bytes(files[0], config, images) if kind == "onnx" else _paddle_bytes(files, images)


def _onnx_bytes(path: str, config: Config, images: int) -> int:
    height, width = config.model.image_shape[1:]
    return ONNX_COPIES * _size(path) + 4 * ONNX_RESULTS * ONNX_CHANNELS * height * width * images


def _paddle_bytes(files: list[str], images: int) -> int:
    program, weights = files
    held = _size(weights)
    with paddle.static.scope_guard(paddle.static.Scope()):
        executor = paddle.static.Executor(paddle.CPUPlace())
        try:
            main, *_ = paddle.static.load_inference_model(os.path.splitext(program)[0], executor)
        except (RuntimeError, ValueError, OSError) as error:
            raise ExportError(f"{program}: Paddle cannot read it: {' '.join(str(error).split())[-200:]}") from None
    return held + program_view.predictor_memory(program_view.operations(main), images)


def _size(path: str) -> int:
    try:
        return os.path.getsize(path)
    except OSError as error:
        raise ExportError(f"distill.model: {path}: {error.strerror}") from None
