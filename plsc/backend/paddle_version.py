"""Checks that a supported Paddle is installed, when it is first needed, and that a crash in it ends the process."""

from __future__ import annotations

import contextlib
import ctypes
import faulthandler
import functools
import importlib
import os
import re
import signal
import sys
import threading
import warnings

from plsc.errors import LaunchError
from plsc.extras import install

_SUPPORTED = re.compile(r"2\.6\.|3\.\d")
_INSTALL = f"install it with {install('cpu')}, or {install('gpu')} for GPUs"


def require_paddle() -> str:
    """The version of Paddle. Raises LaunchError if it is missing, broken or not supported."""
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="No ccache found")  # about a compiler that is not used
            import paddle
    except ImportError as error:
        if error.name == "paddle":
            raise LaunchError(f"PaddlePaddle is not installed; {_INSTALL}") from None
        raise _broken(error) from error
    except Exception as error:  # for example, a wrong protobuf raises its own exceptions while Paddle is imported
        raise _broken(error) from error
    version = str(getattr(paddle, "__version__", "without a version"))
    if not _SUPPORTED.match(version):
        raise LaunchError(f"PaddlePaddle {version} is not supported, PLSC needs 2.6 or 3.x; {_INSTALL}")
    end_when_crashed()
    return version


def end_when_crashed() -> None:
    """Make a crash end the process, with Python's stacks on stderr.

    Paddle's own handler of SIGSEGV, SIGABRT, SIGTERM and others allocates memory: where the signal comes while malloc
    has its lock, after the heap was damaged or when SIGTERM happens to come then, it waits for the lock for ever, and
    all other ranks with it. Only in the main thread, once: elsewhere a handler of the user could not be put back.
    """
    if threading.current_thread() is threading.main_thread():
        _replace_handlers()


@functools.cache
def _replace_handlers() -> None:
    import paddle

    paddle.disable_signal_handler()
    handler = signal.getsignal(signal.SIGTERM)  # of which Paddle's took the place when it was imported
    if handler is not None:
        signal.signal(signal.SIGTERM, handler)
    faulthandler.disable()  # its handlers, if it had any, have been reset too
    if sys.__stderr__ is not None:
        with contextlib.suppress(ValueError, OSError):  # it has been closed
            faulthandler.enable(sys.__stderr__)


def _broken(error: Exception) -> LaunchError:
    reason = " ".join(str(error).split())[:200]
    return LaunchError(f"PaddlePaddle cannot be imported ({type(error).__name__}: {reason}); {_INSTALL}")


def load_zlib() -> None:
    """Load Python's zlib before Paddle 2.6, which exports the symbols of its own zlib to the whole process.

    A libz that is loaded later calls functions of both, and crashes, for example in PNG files and in numpy.random;
    Paddle itself loads it so, unless NumPy has before. Raises LaunchError if Paddle was imported first.
    """
    importlib.import_module("zlib")
    paddle = sys.modules.get("paddle")
    if not str(getattr(paddle, "__version__", "")).startswith("2.") or "zlib" in sys.builtin_module_names:
        return
    loaded = _shared_libraries()
    own = str(sys.modules["zlib"].__file__)
    libz = next((name for name in loaded if os.path.basename(name).startswith("libz.so")), own)
    libpaddle = next((name for name in loaded if os.path.basename(name) == "libpaddle.so"), None)
    if libpaddle is not None and libz in loaded and loaded.index(libpaddle) < loaded.index(libz):
        raise LaunchError("Paddle 2.6 was imported before zlib, which will crash: import plsc, or zlib, before paddle")


def _shared_libraries() -> list[str]:
    """The paths of this process's shared libraries, in the order in which they were loaded (dl_iterate_phdr(3))."""
    found: list[str] = []

    class Info(ctypes.Structure):
        _fields_ = [("address", ctypes.c_void_p), ("name", ctypes.c_char_p)]

    @ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(Info), ctypes.c_size_t, ctypes.c_void_p)
    def visit(info, size, data):
        found.append(os.fsdecode(info.contents.name or b""))
        return 0

    ctypes.CDLL(None).dl_iterate_phdr(visit, None)
    return found
