"""A `.pdparams` file of PLSC 2.4 (dynamic graph): a pickled dict of arrays, read without running anything it names.

Paddle's layers name three tensors otherwise than torch's, and store the matrix of a Linear turned: here they get the
names and the order of arcface_torch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from plsc.errors import DataError
from plsc.files import safe_open
from plsc.files.safe_pickle import PlainUnpickler, as_array, permitted

MAGIC = b"\x80"  # a pickle
HEAD = "head.weight"  # the class centres, of a model trained by one rank
_NAMES = {"_mean": "running_mean", "_variance": "running_var", "_weight": "weight"}
_NAME_TABLE = "StructuredToParameterName@@"
_LINEAR = "fc.weight"


@dataclass(frozen=True)
class Array:
    """An array as TorchFile's tensors are: shape, dtype, is_float, read()."""

    array: np.ndarray

    @property
    def shape(self) -> tuple[int, ...]:
        """Its sizes."""
        return self.array.shape

    @property
    def dtype(self) -> str:
        """Its type, as NumPy writes it."""
        return self.array.dtype.str

    @property
    def is_float(self) -> bool:
        """Whether it holds floats."""
        return self.array.dtype.kind == "f"

    def read(self) -> np.ndarray:
        """The numbers."""
        return self.array


class _Unpickler(PlainUnpickler):
    max_keys = 100_000


def read_pdparams(path: str) -> dict[str, Array]:
    """{arcface_torch's name: array}. Raises DataError, without the name of the file, and OSError."""
    with safe_open.open_bytes(path, safe_open.TENSORS) as file:
        try:
            value: Any = _Unpickler(file, permitted(weights=True)).load()
        except (DataError, OSError):
            raise
        except Exception as error:  # damaged pickles raise anything
            raise DataError(f"damaged: it cannot be read: {type(error).__name__}") from None
    if not isinstance(value, dict):
        raise DataError(f"holds {type(value).__name__}, must hold the tensors of a model by name")
    found = {}
    for key, one in value.items():
        array = as_array(one)
        if not isinstance(key, str) or not isinstance(array, np.ndarray):
            if key == _NAME_TABLE:
                continue
            raise DataError(f"{ascii(key)[:60]} holds {type(array).__name__}, must hold an array")
        place, _, part = key.rpartition(".")
        name = f"{place}.{_NAMES.get(part, part)}" if place else key
        found[name] = Array(array.T if name == _LINEAR and array.ndim == 2 else array)
    return found
