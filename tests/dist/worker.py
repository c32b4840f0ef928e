"""One rank of tests.dist.ranks.run: in a fork of the server, or as a process of its own."""

from __future__ import annotations

import importlib
import pickle
import sys
from pathlib import Path


def work(target: str, cwd: str) -> None:
    """Call ``module:function(env, payload)`` and write what it returns to ``cwd/result<rank>.pickle``."""
    module, function = target.split(":")
    payload = pickle.loads((Path(cwd) / "payload.pickle").read_bytes())
    from plsc.parallel.environment import Environment
    from plsc.parallel.group import join

    # isort: split
    # plsc comes first, see plsc.paddle_version.load_zlib
    import paddle

    paddle.enable_static()
    env = Environment.from_launch()
    join(env)
    result = getattr(importlib.import_module(module), function)(env, payload)
    (Path(cwd) / f"result{env.rank}.pickle").write_bytes(pickle.dumps(result))


if __name__ == "__main__":
    work(*sys.argv[1:])
