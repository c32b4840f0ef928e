"""The runtimes of exported models: Paddle Inference and ONNX Runtime."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from plsc.errors import ConfigError, ExportError, PlscError
from plsc.extras import install
from plsc.serving.description import Description, check_files
from plsc.serving.thread_pool import Lifetime, ObjectPool

DEVICES = ("auto", "cpu", "gpu")
ONNX_SUFFIX = ".onnx"  # of a graph


@dataclass(frozen=True)
class RuntimeOptions:
    """Where a model runs. threads: of the CPU, for a batch. device: one of DEVICES. card: number of the GPU.

    callers: how many threads Paddle Inference serves at a time, on a GPU one.
    """

    threads: int
    device: str = "auto"
    card: int = 0
    callers: int = 1


class PaddleRuntime:
    """Paddle Inference, for any number of threads: ``callers`` of them run in parallel (one on a GPU), each with a
    clone of the predictor in its own thread. Clones share the weights in Paddle 2.6; Paddle 3.3 loads them again."""

    kind = "paddle"

    def __init__(self, program: str, weights: str, options: RuntimeOptions):
        from plsc.backend.paddle_version import require_paddle

        version = require_paddle()
        import paddle
        from paddle import inference

        has_gpu = paddle.is_compiled_with_cuda() and paddle.device.cuda.device_count() > 0
        _check_device(options.device, has_gpu, "Paddle")
        if program.endswith(".json") and version.startswith("2."):
            raise ExportError(
                f"{program}: was exported with Paddle 3 and cannot be read by Paddle {version}; use Paddle 3"
            )
        config = inference.Config(program, weights)
        config.disable_glog_info()
        config.set_cpu_math_library_num_threads(options.threads)
        on_gpu = has_gpu and options.device != "cpu"
        if on_gpu:
            config.enable_use_gpu(256, options.card)  # MB of initial memory
        predictor, limit = inference.create_predictor(config), 1 if on_gpu else options.callers
        # clone now, not later: Paddle 3 reads the program file for each clone, and it may change
        copies = [predictor, *(predictor.clone() for _ in range(limit - 1))]
        self._workers = ObjectPool(lambda: _Copy(copies.pop()), limit)

    def run(self, images: np.ndarray) -> list[np.ndarray]:
        """Return the outputs, in order, for images float32 [B, C, H, W]."""
        return self._workers.run(lambda copy: copy.run(images))

    def close(self) -> None:
        """Wait for running calls, then free the model."""
        self._workers.close()


class _Copy:
    """A predictor with its input and output handles, for one thread."""

    def __init__(self, predictor: Any):
        self._predictor = predictor
        self._input = predictor.get_input_handle(predictor.get_input_names()[0])
        self._outputs = [predictor.get_output_handle(name) for name in predictor.get_output_names()]

    def run(self, images: np.ndarray) -> list[np.ndarray]:
        self._input.copy_from_cpu(np.ascontiguousarray(images, np.float32))
        self._predictor.run()
        return [output.copy_to_cpu() for output in self._outputs]


class OnnxRuntime:
    """ONNX Runtime, without Paddle. Any number of threads may run its session at once.

    input_shape: as the graph declares it, a text or None for an axis of any size."""

    kind = "onnx"

    def __init__(self, file: str, options: RuntimeOptions):
        try:
            import onnxruntime
        except ImportError:
            raise ExportError(
                f"{file}: ONNX Runtime is not installed; install it with {install('onnx', 'onnxruntime')}"
            ) from None
        has_gpu = "CUDAExecutionProvider" in onnxruntime.get_available_providers()
        _check_device(options.device, has_gpu, "ONNX Runtime")
        on_gpu = has_gpu and options.device != "cpu"
        providers = [("CUDAExecutionProvider", {"device_id": options.card})] if on_gpu else []
        session = onnxruntime.SessionOptions()
        session.intra_op_num_threads = options.threads
        session.log_severity_level = 3  # errors
        self._lifetime, self._file = Lifetime(self), file
        self._session = onnxruntime.InferenceSession(file, session, providers=[*providers, "CPUExecutionProvider"])
        first = self._session.get_inputs()[0]
        self._input, self.input_shape = first.name, list(first.shape)

    def run(self, images: np.ndarray) -> list[np.ndarray]:
        """Return the outputs, in order, for images float32 [B, C, H, W]."""
        session = self._session  # keeps it alive for this call if another thread closes it
        self._lifetime.require_usable()
        try:
            return session.run(None, {self._input: np.ascontiguousarray(images, np.float32)})
        except Exception as error:  # ONNX Runtime's exceptions have no common base class
            raise ExportError(f"{self._file}: ONNX Runtime cannot run it: {_one_line(error)}") from error

    def close(self) -> None:
        """Free the session after the last running call."""
        self._lifetime.closed = True
        if self._lifetime.in_own_process:
            self._session = None


def open_runtime(path: str, description: Description, kind: str, options: RuntimeOptions):
    """Open the runtime of ``kind``: "paddle", "onnx", or "auto" for the first usable one. Raises ExportError."""
    if kind not in ("auto", "paddle", "onnx") or options.device not in DEVICES:
        raise ConfigError(
            f"runtime={kind!r}, device={options.device!r}: must be one of auto, paddle, onnx and one of "
            f"{', '.join(DEVICES)}"
        )
    if kind != "auto" and kind not in description.models:
        raise ExportError(f"{path}: was not exported for {kind}, only for {', '.join(description.models)}")
    kind = preferred_kind(description) if kind == "auto" else kind
    files = check_files(path, description, kind)
    try:
        if kind == "paddle":
            program, weights = files
            return PaddleRuntime(program, weights, options)
        (file,) = files
        return OnnxRuntime(file, options)
    except PlscError:
        raise
    except Exception as error:  # ONNX Runtime's exceptions have no common base class
        raise ExportError(f"{files[0]}: {kind} cannot open it: {_one_line(error)}") from error


def preferred_kind(description: Description) -> str:
    """What "auto" opens: the first of Paddle and ONNX that was exported and is installed, else the first exported."""
    usable = [name for name in _installed() if name in description.models]
    return (usable or list(description.models))[0]


def _one_line(error: Exception) -> str:
    """The end of a runtime's message, in one line; its beginning is source locations."""
    return " ".join(str(error).split())[-300:]


def _installed() -> list[str]:
    """The installed runtimes, found without importing them."""
    from importlib.util import find_spec

    return [kind for kind, package in (("paddle", "paddle"), ("onnx", "onnxruntime")) if find_spec(package)]


def _check_device(device: str, has_gpu: bool, program: str) -> None:
    if device == "gpu" and not has_gpu:
        raise ConfigError(f"device='gpu': {program} sees no GPU here; use device='cpu' or 'auto'")
