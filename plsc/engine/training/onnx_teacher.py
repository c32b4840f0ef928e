"""An ONNX file of another project as the teacher: what it takes is in the graph, how images enter it is not."""

from __future__ import annotations

import numpy as np

from plsc.config import Config
from plsc.errors import ConfigError, ExportError, PlscError
from plsc.files.hashes import hash_file
from plsc.serving.runtimes import OnnxRuntime, RuntimeOptions


class OnnxTeacher:
    """A graph with one input, images float32 [B, C, H, W] of this run, and an output [B, E] for the run's E.

    Embeddings may have any length, as only their directions are used. A graph for one image is run image by image.
    identity: SHA-256 of the file. Raises ConfigError for another graph, ExportError for a file that is none.
    """

    runtime = "onnx"

    def __init__(self, path: str, config: Config, options: RuntimeOptions):
        self._path, self._image_shape = path, list(config.model.image_shape)
        try:
            self.identity = hash_file(path)
            self._runtime = OnnxRuntime(path, options)
        except OSError as error:
            raise ExportError(f"distill.model={path!r}: {error.strerror}") from None
        except PlscError:
            raise
        except Exception as error:  # ONNX Runtime's own have no base but this
            raise ExportError(f"{path}: onnx cannot open it: {' '.join(str(error).split())[-300:]}") from None
        batch, *shape = self._runtime.input_shape
        if len(shape) != 3 or any(isinstance(size, int) and size != own for size, own in zip(shape, self._image_shape)):
            raise ConfigError(
                f"distill.model={path!r}: takes images {shape}, this run has model.image_shape={self._image_shape}; "
                "they must be equal: set model.image_shape, or take another teacher"
            )
        if isinstance(batch, int) and batch != 1:
            raise ConfigError(
                f"distill.model={path!r}: takes {batch} images at a time; export it for one, or for any number"
            )
        self._one_by_one = batch == 1
        self._output = self._find_output(config.model.embedding_size)

    def run(self, images: np.ndarray) -> list[np.ndarray]:
        """[embeddings [B, E]] of images float32 [B, C, H, W]."""
        parts = [images[i : i + 1] for i in range(len(images))] if self._one_by_one else [images]
        return [np.concatenate([self._runtime.run(part)[self._output] for part in parts])]

    def _find_output(self, size: int) -> int:
        """The place of the first output [B, size], seen when the graph is run."""
        found = [list(output.shape) for output in self._runtime.run(np.zeros((1, *self._image_shape), np.float32))]
        if [1, size] not in found:
            raise ConfigError(
                f"distill.model={self._path!r}: its outputs are {found} for one image, none is [1, {size}]; set "
                "model.embedding_size to what it gives, or take another teacher"
            )
        return found.index([1, size])
