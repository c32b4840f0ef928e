"""What a rank of tests.dist.ranks does, in a fork of the server or as a process of its own."""

from __future__ import annotations

import importlib
import os
import pickle
import sys
from pathlib import Path

from tests.dist.launch import ROOT


def call(target: str, *arguments: str) -> None:
    """``module:function(*arguments)``."""
    module, function = target.split(":")
    getattr(importlib.import_module(module), function)(*arguments)


def work(target: str, cwd: str) -> None:
    """Call ``module:function(env, payload)`` and write what it returns to ``cwd/result<rank>.pickle``."""
    module, function = target.split(":")
    payload = pickle.loads((Path(cwd) / "payload.pickle").read_bytes())
    from plsc.parallel.environment import Environment
    from plsc.parallel.group import connected_group

    # isort: split
    # plsc comes first, see plsc.backend.paddle_version.load_zlib
    import paddle

    paddle.enable_static()
    env = Environment.from_launch()
    connected_group(env)
    result = getattr(importlib.import_module(module), function)(env, payload)
    (Path(cwd) / f"result{env.rank}.pickle").write_bytes(pickle.dumps(result))


def run_main(module: str, cwd: str) -> None:
    """The module's ``main()`` as if it had been started with ``cwd`` as its argument, in the checkout."""
    os.chdir(ROOT)
    sys.argv = [module, cwd]
    importlib.import_module(module).main()


if __name__ == "__main__":
    call(*sys.argv[1:])
