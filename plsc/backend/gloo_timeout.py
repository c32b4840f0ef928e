"""The timeout of collectives on CPUs: with Paddle 3, Gloo ends the process after 30 s without giving a reason.

Paddle has no setting for it. Gloo's context has one, which is accessed here through the symbols that Paddle's library
exports. Where these differ from 3.3.1, nothing is changed.
"""

from __future__ import annotations

import ctypes
import os

PADDLE_SECONDS = 30
_STRING = "NSt7__cxx1112basic_stringIcSt11char_traitsIcESaIcEEE"
_MANAGER = "_ZZN3phi11distributed18CommContextManager11GetInstanceEvE8instance"
_GET = f"_ZNK3phi11distributed18CommContextManager3GetERK{_STRING}"
_HAS = f"_ZNK3phi11distributed18CommContextManager3HasERK{_STRING}"
_READ = "_ZNK4gloo7Context10getTimeoutEv"
_WRITE = "_ZN4gloo7Context10setTimeoutENSt6chrono8durationIlSt5ratioILl1ELl1000EEEE"


class _String(ctypes.Structure):
    """std::string of libstdc++ with inline text of up to 15 bytes."""

    _fields_ = [("text", ctypes.c_void_p), ("length", ctypes.c_size_t), ("place", ctypes.c_char * 16)]


class _GlooCommContext(ctypes.Structure):
    _fields_ = [
        ("table", ctypes.c_void_p),
        ("rank", ctypes.c_int),
        ("size", ctypes.c_int),
        ("context", ctypes.c_void_p),
    ]


def set_timeout(paddle_file: str, ring: int, rank: int, size: int, seconds: int) -> bool:
    """Set the timeout of a ring's collectives to ``seconds``; False, without any change, where Paddle's library is not
    as expected.

    paddle_file: ``paddle.__file__``. Call it after the ring was created.
    """
    try:
        library = ctypes.CDLL(os.path.join(os.path.dirname(paddle_file), "libs", "libphi_core.so"))
        manager = ctypes.addressof(ctypes.c_char.in_dll(library, _MANAGER))
        has = _function(library, _HAS, ctypes.c_bool, ctypes.c_void_p, ctypes.c_void_p)
        get = _function(library, _GET, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p)
        read = _function(library, _READ, ctypes.c_long, ctypes.c_void_p)
        write = _function(library, _WRITE, None, ctypes.c_void_p, ctypes.c_long)
    except (OSError, ValueError, AttributeError):
        return False
    key = _String(None, len(str(ring)), str(ring).encode())
    key.text = ctypes.addressof(key) + _String.place.offset
    if not has(manager, ctypes.addressof(key)):
        return False
    ours = ctypes.cast(get(manager, ctypes.addressof(key)), ctypes.POINTER(_GlooCommContext)).contents
    if (ours.rank, ours.size) != (rank, size) or read(ours.context) != 1000 * PADDLE_SECONDS:
        return False
    write(ours.context, 1000 * seconds)
    return read(ours.context) == 1000 * seconds


def _function(library: ctypes.CDLL, name: str, result, *arguments):
    function = library[name]
    function.restype, function.argtypes = result, list(arguments)
    return function
