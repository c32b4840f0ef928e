"""Imports the modules of the setting ``plugins``: a user's code that registers losses, models and so on."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import os
import sys
from types import ModuleType

from plsc.errors import ConfigError, reason_of


def load(plugin: str) -> ModuleType:
    """Import a module by its name (``my_package.nets``) or a file by its path (``nets.py``), once in a process.

    This runs the user's code. Raises ConfigError, on one line, for a missing module and for any exception of its code.
    """
    is_file = plugin.endswith(".py") or os.sep in plugin
    try:
        return _of_file(plugin) if is_file else importlib.import_module(plugin)
    except ConfigError as error:  # what registering says: it names the module already
        raise ConfigError(f"plugins: {plugin}: {error}") from None
    except ModuleNotFoundError as error:
        if error.name is not None and (plugin == error.name or plugin.startswith(error.name + ".")):
            raise ConfigError(
                f"plugins: {plugin}: there is no module {error.name}; install it, add its directory to PYTHONPATH, or "
                "give the path of its file (.py)"
            ) from None
        raise ConfigError(f"plugins: {plugin}: {reason_of(error)}") from error
    except (Exception, SystemExit) as error:
        raise ConfigError(f"plugins: {plugin}: importing it raised {reason_of(error)}") from error


def _of_file(path: str) -> ModuleType:
    """The module of a file. Another path of the same file is the same module."""
    real = os.path.realpath(path)
    if not os.path.isfile(real):
        raise ConfigError("there is no such file; give the name of a module, or the path of a file (.py)")
    stem = os.path.splitext(os.path.basename(real))[0]
    name = f"plsc_plugin_{hashlib.sha256(real.encode('utf-8', 'surrogateescape')).hexdigest()[:8]}_{stem}"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, real)
    if spec is None or spec.loader is None:
        raise ConfigError("is not a Python file (.py)")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses and pickles look their module up
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module
