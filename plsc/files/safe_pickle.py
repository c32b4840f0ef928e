"""Reads the pickle in a `.bin` file, or a weight of an old PLSC, without calling any function that it names.

A pickle can call any function of any module. These files need only a few names, all about bytes and arrays. Each of
them is replaced by a stand-in that checks its arguments and builds plain data; not even NumPy's own reconstruction is
called with arguments from the file. Every other name is refused.

The opcodes are executed by Python's unpickler in Python. The one in C stores its memo in an array: eight bytes with a
large index allocated 1.5 GB. Only opcodes that these files need are allowed, and none may create more data than the
file contains: no integers beyond 64 bits, no dict keys except text and integers (hashing a deeply nested tuple crashes
Python), no length beyond the end of the file.
"""

from __future__ import annotations

import functools
import io
import pickle
import re
import struct
from typing import Any, BinaryIO, Callable

import numpy as np

from plsc.errors import DataError


class StandIn:
    """Replaces a permitted name: callable with checked arguments, and immutable for the pickle."""

    __slots__ = ("_build",)

    def __init__(self, build: Callable[..., Any]) -> None:
        self._build = build

    def __call__(self, *args: Any) -> Any:
        return self._build(*args)

    def __setstate__(self, state: Any) -> None:  # without this, BUILD could set attributes
        raise DataError("refused: it tries to change a name that it loads")


class _DType:
    """A pickled dtype: the name, then a state whose second field is the byte order."""

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
        # reshape checks that the data fills the shape; a negative size would mean "infer it"
        if min(sizes, default=0) < 0:
            raise DataError(f"refused: it holds an array of shape {str(sizes)[:60]}")
        return np.frombuffer(data, self.name).reshape(sizes, order="F" if fortran else "C")


class _WeightDType(_DType):
    __slots__ = ()
    numbers, words = re.compile(r"[|<>=]?(b1|[ui][1248]|f[248])"), "bool, integers and floats"


class _Array:
    """A pickled ndarray: created empty, then filled by its state (version, shape, dtype, fortran, data)."""

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
        raise DataError(f"refused: it holds a {type(value).__name__} in place of a name")
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


_LATIN = ("latin1", "latin-1")


class _Encoder:
    """Python 3 writes bytes in protocols 0 to 2 as calls of _codecs.encode.

    Encoding the same text again returns the same bytes object, so that no more data is created than the file contains.
    """

    def __init__(self) -> None:
        self._done: dict[int, tuple[str, bytes]] = {}

    def __call__(self, text: Any, encoding: Any) -> bytes:
        if not isinstance(text, str) or _text(encoding) not in _LATIN:
            raise DataError("refused: it tries to encode something else than text as latin1")
        if id(text) not in self._done:
            self._done[id(text)] = (text, text.encode("latin1"))  # keeps the text alive, and so its id
        return self._done[id(text)][1]


def _no_bytes(*args: Any) -> bytes:
    """Python 3 writes b'' in protocols 0 to 2 as bytes()."""
    if args:
        raise DataError("refused: it tries to call bytes with arguments")
    return b""


def _bytearray(encode: Callable[[Any, Any], bytes], *args: Any) -> bytes:
    """Python writes a bytearray in protocols below 5 as bytearray(), bytearray(bytes) or bytearray(text, "latin-1").

    Protocol 5 has an opcode for it. The result is plain bytes, without a copy.
    """
    if not args:
        return b""
    if len(args) == 2 and isinstance(args[0], str) and _text(args[1]) in _LATIN:
        return encode(*args)
    if len(args) != 1 or not isinstance(args[0], (bytes, bytearray)):
        raise DataError("refused: it tries to call bytearray with something else than bytes")
    return args[0]  # type: ignore[return-value]  # a bytearray will do as well


def _data(*args: Any) -> Any:
    """paddle.save writes a tensor as eval("data", {"data": array}). Nothing is evaluated: the array is returned."""
    scope = args[1] if len(args) == 2 else None
    named = isinstance(scope, dict) and list(scope) in (["data"], [b"data"])
    if not named or _text(args[0]) != "data":
        raise DataError("refused: it tries to evaluate a text")
    return next(iter(args[1].values()))


def permitted(weights: bool) -> dict[tuple[str, str], Callable[..., Any]]:
    """The names that such files need, and what answers each. weights: as in `load_plain`."""
    encode = _Encoder()
    names: dict[tuple[str, str], Callable[..., Any]] = {
        ("numpy", "dtype"): _WeightDType if weights else _DType,
        ("numpy", "ndarray"): _reconstruct,  # only ever an argument of _reconstruct
        ("_codecs", "encode"): encode,
    }
    for core in ("numpy.core", "numpy._core"):  # renamed in NumPy 2
        names[core + ".multiarray", "_reconstruct"] = _reconstruct
        names[core + ".multiarray", "scalar"] = _scalar
        names[core + ".numeric", "_frombuffer"] = _frombuffer
    for builtins in ("builtins", "__builtin__"):
        names[builtins, "bytes"] = _no_bytes
        names[builtins, "bytearray"] = functools.partial(_bytearray, encode)
        if weights:
            names[builtins, "eval"] = _data
    return names


class _Bounded:
    """A file for the unpickler that refuses reads beyond its end."""

    def __init__(self, file: BinaryIO) -> None:
        self._file, start = file, file.tell()
        self._left = file.seek(0, io.SEEK_END) - start
        file.seek(start)

    def read(self, size: int) -> bytes:
        if not 0 <= size <= self._left:
            raise EOFError("it is shorter than a length that it contains")
        self._left -= size
        return self._file.read(size)

    def readline(self) -> bytes:
        line = self._file.readline()
        self._left -= len(line)
        return line


_OPCODES = (
    "PROTO FRAME STOP MARK POP POP_MARK DUP NONE NEWTRUE NEWFALSE BININT BININT1 BININT2 BINFLOAT STRING BINSTRING "
    "SHORT_BINSTRING BINBYTES SHORT_BINBYTES BINBYTES8 UNICODE BINUNICODE SHORT_BINUNICODE BINUNICODE8 EMPTY_TUPLE "
    "TUPLE TUPLE1 TUPLE2 TUPLE3 EMPTY_LIST LIST APPEND APPENDS EMPTY_DICT GLOBAL STACK_GLOBAL REDUCE BINPUT "
    "LONG_BINPUT MEMOIZE BINGET LONG_BINGET"
).split()
_NUMBER_BYTES = 8


class PlainUnpickler(pickle._Unpickler):
    """What `load_plain` reads with. A subclass permits other names: `permitted` {(module, name): what answers it}."""

    max_keys = 1000  # of a dict
    key_types: tuple[type, ...] = (str, bytes, int)  # Python crashes over the hash of a tuple that is nested deeply
    dispatch = {getattr(pickle, name)[0]: pickle._Unpickler.dispatch[getattr(pickle, name)[0]] for name in _OPCODES}

    def __init__(self, file: BinaryIO, permitted: dict[tuple[str, str], Callable[..., Any]]) -> None:
        super().__init__(_Bounded(file), encoding="bytes")
        self._names = permitted

    def load(self) -> Any:
        try:
            return super().load()
        except KeyError as error:  # from `dispatch`, or from a missing memo entry
            raise pickle.UnpicklingError(f"unknown opcode or memo entry {str(error)[:40]}") from None

    def find_class(self, module: str, name: str) -> Any:
        build = self._names.get((module, name))
        if build is None:
            named = ascii(f"{module}.{name}"[:80])[1:-1]
            raise DataError(f"refused: it tries to load {named}, which such files do not need")
        return StandIn(build)

    def persistent_load(self, pid: Any) -> Any:
        raise DataError("refused: it tries to load an external object")

    def _digits(self) -> bytes:
        line = self.readline()
        if len(line) > 32:
            raise DataError(f"refused: it holds a number of {len(line)} digits")
        return line.strip()

    def _load_put(self) -> None:
        self.memo[int(self._digits())] = self.stack[-1]

    def _load_get(self) -> None:
        self.append(self.memo[int(self._digits())])

    def _load_number(self) -> None:  # INT, LONG, FLOAT: a line of text
        text = self._digits().rstrip(b"L")
        if text in (b"00", b"01"):
            self.append(text == b"01")
        else:
            self.append(float(text) if any(sign in text.lower() for sign in (b".", b"e", b"n")) else int(text))

    def _load_long(self, form: str) -> None:
        (size,) = struct.unpack(form, self.read(struct.calcsize(form)))
        if not 0 <= size <= _NUMBER_BYTES:
            raise DataError(f"refused: it holds a number of {size} bytes (allowed: up to {_NUMBER_BYTES})")
        self.append(int.from_bytes(self.read(size), "little", signed=True))

    def _load_bytearray(self) -> None:  # as bytes: without a copy, and without allocating memory in advance
        (size,) = struct.unpack("<Q", self.read(8))
        self.append(self.read(size))

    def _load_build(self) -> None:
        state, built = self.stack.pop(), self.stack[-1]
        if not isinstance(built, (StandIn, _Array, _DType)):
            raise DataError(f"refused: it tries to change a {type(built).__name__}")
        built.__setstate__(state)

    def _load_dict(self) -> None:
        items = self.pop_mark()
        self.append({})
        self._set(items)

    def _load_setitem(self) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        self._set([key, value])

    def _set(self, items: list) -> None:
        target = self.stack[-1]
        if not isinstance(target, dict) or len(target) + len(items) // 2 > self.max_keys:
            raise DataError(f"refused: it sets more than {self.max_keys} keys, or keys of something else than a dict")
        for key in items[::2]:
            if not isinstance(key, self.key_types):
                raise DataError(f"refused: it uses a {type(key).__name__} as a key")
        target.update(zip(items[::2], items[1::2]))

    def _refuse(self) -> None:
        raise DataError("refused: it tries to create objects, or to load external ones")

    for _name in ("INT", "LONG", "FLOAT"):
        dispatch[getattr(pickle, _name)[0]] = _load_number
    for _name in ("INST", "OBJ", "NEWOBJ", "NEWOBJ_EX", "EXT1", "EXT2", "EXT4", "PERSID", "BINPERSID", "NEXT_BUFFER",
                  "READONLY_BUFFER", "EMPTY_SET", "ADDITEMS", "FROZENSET"):  # fmt: skip
        dispatch[getattr(pickle, _name)[0]] = _refuse
    dispatch[pickle.PUT[0]], dispatch[pickle.GET[0]] = _load_put, _load_get
    dispatch[pickle.LONG1[0]] = lambda self: self._load_long("<B")
    dispatch[pickle.LONG4[0]] = lambda self: self._load_long("<i")
    dispatch[pickle.BYTEARRAY8[0]] = _load_bytearray
    dispatch[pickle.BUILD[0]] = _load_build
    dispatch[pickle.DICT[0]] = _load_dict
    dispatch[pickle.SETITEM[0]] = _load_setitem
    dispatch[pickle.SETITEMS[0]] = lambda self: self._set(self.pop_mark())


def load_plain(file: BinaryIO, weights: bool = False) -> Any:
    """The pickled object: lists, tuples, numbers, bytes, text, and arrays (see `as_array`).

    weights: arrays may hold floats and have the form in which paddle.save writes a tensor.
    Raises DataError for a name that is not permitted, and any exception of `pickle` for damaged data.
    """
    return PlainUnpickler(file, permitted(weights)).load()


def as_array(value: Any) -> Any:
    """The ndarray of a value of `load_plain` (a read-only view of the pickle's bytes); other values are unchanged."""
    return value.value if isinstance(value, _Array) else value
