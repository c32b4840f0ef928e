"""Reading the pickle inside a `.bin`, or a weight of an old PLSC, without running anything that it names.

A pickle may name any function of any module and have it called. These files need a handful of names, all about bytes
and arrays. Each of these is answered here by a stand-in that checks its arguments and builds plain data;
not even NumPy's own reconstruction is called with what the file says. Every other name is refused.
"""

from __future__ import annotations

import pickle
import re
from typing import Any, BinaryIO, Callable

import numpy as np

from plsc.errors import DataError


class _StandIn:
    """What a permitted name becomes: callable with checked arguments, and closed to changes by the pickle."""

    __slots__ = ("_build",)

    def __init__(self, build: Callable[..., Any]) -> None:
        self._build = build

    def __call__(self, *args: Any) -> Any:
        return self._build(*args)

    def __setstate__(self, state: Any) -> None:  # without this, BUILD would set attributes by name
        raise DataError("refused: it tries to change what it loads")


class _DType:
    """A dtype as pickled: the name, then a state whose second field is the byte order."""

    __slots__ = ("name",)
    numbers, words = re.compile(r"[|<>=]?(b1|[ui][1248])"), "bool and integers"

    def __init__(self, name: Any, *_: Any) -> None:
        text = _text(name)
        if not self.numbers.fullmatch(text):
            raise DataError(f"refused: it holds an array of dtype {text[:20]!r} (allowed: {self.words})")
        self.name = text

    def __setstate__(self, state: Any) -> None:
        order = _text(state[1])
        if order not in ("<", ">", "|", "="):
            raise DataError(f"refused: it holds a dtype of byte order {order[:20]!r}")
        self.name = order + self.name.lstrip("|<>=")

    def array(self, data: Any, shape: Any, fortran: bool) -> np.ndarray:
        if not isinstance(data, (bytes, bytearray)):
            raise DataError(f"refused: array data is a {type(data).__name__}, not bytes")
        sizes = tuple(int(size) for size in shape)
        # reshape checks that the data fills the shape; a negative size must not be taken as "the rest"
        if min(sizes, default=0) < 0:
            raise DataError(f"refused: it holds an array of shape {sizes}")
        return np.frombuffer(data, self.name).reshape(sizes, order="F" if fortran else "C")


class _WeightDType(_DType):
    __slots__ = ()
    numbers, words = re.compile(r"[|<>=]?(b1|[ui][1248]|f[248])"), "bool, integers and floats"


class _Array:
    """An ndarray as pickled: made empty, then filled by its state (version, shape, dtype, fortran, data)."""

    __slots__ = ("value",)

    def __init__(self, value: Any = None) -> None:
        self.value = value

    def __setstate__(self, state: Any) -> None:
        shape, dtype, fortran, data = state[-4:]
        self.value = _dtype(dtype).array(data, shape, bool(fortran))


def _text(value: Any) -> str:
    """Names are bytes in Python 2 pickles and str in those of Python 3."""
    if isinstance(value, bytes):
        return value.decode("ascii")
    if not isinstance(value, str):
        raise DataError(f"refused: a {type(value).__name__} stands where a name should")
    return value


def _dtype(value: Any) -> _DType:
    if not isinstance(value, _DType):
        raise DataError("refused: an array without a dtype")
    return value


def _reconstruct(*_: Any) -> _Array:
    return _Array()


def _frombuffer(data: Any, dtype: Any, shape: Any, order: Any) -> _Array:  # protocol 5
    return _Array(_dtype(dtype).array(data, shape, _text(order) == "F"))


def _scalar(dtype: Any, data: Any) -> Any:
    return _dtype(dtype).array(data, (), False).item()


def _encode(text: Any, encoding: Any) -> bytes:
    """How Python 3 writes bytes for protocols 0 to 2."""
    if not isinstance(text, str) or _text(encoding) != "latin1":
        raise DataError(f"refused: it tries to encode by {encoding!r}")
    return text.encode("latin1")


def _no_bytes(*args: Any) -> bytes:
    """How Python 3 writes b'' for protocols 0 to 2: bytes()."""
    if args:
        raise DataError("refused: it tries to call bytes with arguments")
    return b""


def _bytearray(*args: Any) -> bytes:
    """How Python writes a bytearray for protocols below 5: bytearray(), bytearray(bytes), bytearray(text, "latin-1").

    5 has an opcode of its own. What is given back is plain bytes, without a copy.
    """
    if not args:
        return b""
    if len(args) == 2 and isinstance(args[0], str) and _text(args[1]) in ("latin-1", "latin1"):
        return args[0].encode("latin1")
    if len(args) != 1 or not isinstance(args[0], (bytes, bytearray)):
        raise DataError("refused: it tries to call bytearray with other than bytes")
    return args[0]


def _data(*args: Any) -> Any:
    """How paddle.save writes a tensor: eval("data", {"data": array}). Nothing is evaluated: the array is the answer."""
    scope = args[1] if len(args) == 2 else None
    named = isinstance(scope, dict) and list(scope) in (["data"], [b"data"])
    if not named or _text(args[0]) != "data":
        raise DataError("refused: it tries to evaluate a text")
    return next(iter(scope.values()))


def _permitted(weights: bool) -> dict[tuple[str, str], Callable[..., Any]]:
    names: dict[tuple[str, str], Callable[..., Any]] = {
        ("numpy", "dtype"): _WeightDType if weights else _DType,
        ("numpy", "ndarray"): _reconstruct,  # only ever an argument of _reconstruct
        ("_codecs", "encode"): _encode,
    }
    for core in ("numpy.core", "numpy._core"):  # renamed in NumPy 2
        names[core + ".multiarray", "_reconstruct"] = _reconstruct
        names[core + ".multiarray", "scalar"] = _scalar
        names[core + ".numeric", "_frombuffer"] = _frombuffer
    for builtins in ("builtins", "__builtin__"):
        names[builtins, "bytes"] = _no_bytes
        names[builtins, "bytearray"] = _bytearray
        if weights:
            names[builtins, "eval"] = _data
    return names


class _Unpickler(pickle.Unpickler):
    def __init__(self, file: BinaryIO, weights: bool) -> None:
        super().__init__(file, encoding="bytes")
        self._names = _permitted(weights)

    def find_class(self, module: str, name: str) -> Any:
        build = self._names.get((module, name))
        if build is None:
            raise DataError(f"refused: it tries to load {module}.{name}, which no such file needs")
        return _StandIn(build)


def load_plain(file: BinaryIO, weights: bool = False) -> Any:
    """The pickled object: lists, tuples, numbers, bytes, text, and arrays (ask `as_array`).

    weights: arrays may hold floats, and stand in the form in which paddle.save writes a tensor.
    Raises DataError for a name that is not permitted; for damaged data whatever `pickle` raises, of any type.
    """
    return _Unpickler(file, weights).load()


def as_array(value: Any) -> Any:
    """The ndarray behind a value of `load_plain` (read-only, over the bytes of the pickle); other values unchanged."""
    return value.value if isinstance(value, _Array) else value
