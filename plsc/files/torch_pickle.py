"""Reads the pickle in a file of torch.save by stand-ins: plain data, and the caller's object for each tensor."""

from __future__ import annotations

import io
import pickle
from typing import Any, Callable

import numpy as np

from plsc.errors import DataError
from plsc.files.safe_pickle import PlainUnpickler, StandIn, permitted

BFLOAT16 = "bfloat16"  # not a NumPy dtype
_STORAGES = {
    "FloatStorage": "<f4", "DoubleStorage": "<f8", "HalfStorage": "<f2", "BFloat16Storage": BFLOAT16,
    "LongStorage": "<i8", "IntStorage": "<i4", "ShortStorage": "<i2", "CharStorage": "|i1", "ByteStorage": "|u1",
    "BoolStorage": "|b1",
}  # fmt: skip
ITEM_BYTES = {name: 2 if name == BFLOAT16 else np.dtype(name).itemsize for name in _STORAGES.values()}
_MAX_AXES = 16
_NAMED_ONLY = ("pytorch_lightning", "lightning")  # Lightning lists its callbacks' classes; no object of them is created

StorageBytes = Callable[[str], int]  # key -> size of its data in bytes
MakeTensor = Callable[..., Any]  # (Storage, offset, shape, strides) -> tensor; arguments as in the pickle


class Storage:
    """Data outside of the pickle: their key, dtype (a key of ITEM_BYTES) and the number of elements."""

    __slots__ = ("key", "dtype", "numbers")

    def __init__(self, key: str, dtype: str, numbers: int) -> None:
        self.key, self.dtype, self.numbers = key, dtype, numbers


def load(pickled: bytes, storage_bytes: StorageBytes, tensor: MakeTensor) -> Any:
    """The pickled object, with ``tensor(...)`` for each tensor.

    Raises DataError for contents that weights do not need, the exceptions of both functions, and any exception for
    damaged data.
    """
    return _TorchUnpickler(pickled, storage_bytes, tensor).load()


class _TorchUnpickler(PlainUnpickler):
    max_keys = 100_000  # a model of 200 layers has 1,800 tensors
    key_types = (str, bytes, int, StandIn)  # StandIn: Lightning's classes
    dispatch = dict(PlainUnpickler.dispatch)

    def __init__(self, pickled: bytes, storage_bytes: StorageBytes, tensor: MakeTensor) -> None:
        super().__init__(io.BytesIO(pickled), {**permitted(weights=True), **_names(tensor)})
        self._storage_bytes = storage_bytes

    def find_class(self, module: str, name: str) -> Any:
        if module == "torch" and name in _STORAGES:
            return _StorageKind(_STORAGES[name])
        if module.partition(".")[0] in _NAMED_ONLY:
            return StandIn(_refuse_call)
        if (module, name) not in self._names:
            named = ascii(f"{module}.{name}"[:80])[1:-1]
            raise DataError(f"refused: it tries to load {named}, which is not a weight (save the model's state_dict)")
        return super().find_class(module, name)

    def persistent_load(self, pid: Any) -> Storage:
        """pid: ("storage", kind, key, device, number of elements)."""
        good = isinstance(pid, tuple) and len(pid) == 5 and pid[0] in ("storage", b"storage")
        if not good or not isinstance(pid[1], _StorageKind) or not isinstance(pid[2], str):
            raise DataError("refused: it tries to load an external object that is not a storage")
        (numbers,) = whole_numbers((pid[4],))
        size, needed = self._storage_bytes(pid[2]), numbers * ITEM_BYTES[pid[1].dtype]
        if size != needed:
            raise DataError(f"damaged: its storage {ascii(pid[2])[:40]} has {size} bytes instead of {needed}")
        return Storage(pid[2], pid[1].dtype, numbers)

    def _load_outside(self) -> None:
        self.append(self.persistent_load(self.stack.pop()))

    def _load_build(self) -> None:
        """The state of a dict holds torch's version numbers, which are not needed."""
        if isinstance(self.stack[-2], dict):
            self.stack.pop()
        else:
            PlainUnpickler.dispatch[pickle.BUILD[0]](self)

    dispatch[pickle.BINPERSID[0]] = _load_outside
    dispatch[pickle.BUILD[0]] = _load_build


class _StorageKind:
    __slots__ = ("dtype",)

    def __init__(self, dtype: str) -> None:
        self.dtype = dtype


def _names(make: MakeTensor) -> dict[tuple[str, str], Callable[..., Any]]:
    """The stand-ins for the names that torch writes for tensors and for objects saved with them."""

    def tensor(storage: Any, offset: Any, shape: Any, strides: Any, *_: Any) -> Any:
        if not isinstance(storage, Storage):
            raise DataError("refused: a tensor without a storage")
        return make(storage, offset, shape, strides)

    names: dict[tuple[str, str], Callable[..., Any]] = {
        ("torch._utils", "_rebuild_tensor_v2"): tensor,
        ("torch._utils", "_rebuild_parameter"): lambda data, *_: data,
        ("torch", "Size"): _size,
        ("torch", "device"): lambda *_: None,
    }
    for name in ("OrderedDict", "Counter", "defaultdict"):
        names["collections", name] = _dict
    for builtins in ("builtins", "__builtin__"):
        names[builtins, "dict"] = names[builtins, "list"] = _refuse_call  # the factory of a defaultdict
    return names


def _dict(*given: Any) -> dict:
    """A dict, empty or from another one. The factory of a defaultdict is ignored."""
    return given[0] if given and isinstance(given[0], dict) else {}


def _refuse_call(*_: Any) -> Any:
    raise DataError("refused: it tries to create objects")


def _size(items: Any = ()) -> tuple:
    """torch.Size of a tuple or list."""
    return whole_numbers(items)


def whole_numbers(values: Any) -> tuple[int, ...]:
    """Sizes, strides or offsets: integers of at least 0, for at most 16 axes."""
    good = isinstance(values, (tuple, list)) and len(values) <= _MAX_AXES
    if not good or not all(type(value) is int and 0 <= value < 2**48 for value in values):
        raise DataError("refused: a tensor whose shape is not a list of integers")
    return tuple(values)
