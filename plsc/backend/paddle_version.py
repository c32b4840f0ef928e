"""Checks that a supported Paddle is installed, when it is first needed."""

from __future__ import annotations

import importlib
import re
import sys
import warnings

from plsc.errors import LaunchError
from plsc.extras import install

_SUPPORTED = re.compile(r"2\.6\.|3\.\d")
_LIBPADDLE = "paddle.base.libpaddle"  # the library with the symbols
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
    return version


def _broken(error: Exception) -> LaunchError:
    reason = " ".join(str(error).split())[:200]
    return LaunchError(f"PaddlePaddle cannot be imported ({type(error).__name__}: {reason}); {_INSTALL}")


def load_zlib() -> None:
    """Load Python's zlib before Paddle 2.6, which exports the symbols of its own zlib to the whole process.

    A zlib that is loaded later mixes the two and crashes, for example in PNG files and in numpy.random; Paddle itself
    loads it so. Raises LaunchError if Paddle was imported first.
    """
    importlib.import_module("zlib")
    loaded = list(sys.modules)  # in the order in which their loading began
    too_late = _LIBPADDLE in loaded and loaded.index(_LIBPADDLE) < loaded.index("zlib")
    paddle = sys.modules.get("paddle")
    if too_late and "zlib" not in sys.builtin_module_names and str(getattr(paddle, "__version__", "")).startswith("2."):
        raise LaunchError("Paddle 2.6 was imported before zlib, which will crash: import plsc, or zlib, before paddle")
