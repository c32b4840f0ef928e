"""The process behind tests.dist.ranks.run: one rank."""

from __future__ import annotations

import importlib
import os
import pickle
import sys
from pathlib import Path


def main() -> None:
    target, cwd = sys.argv[1], Path(sys.argv[2])
    module, function = target.split(":")
    payload = pickle.loads((cwd / "payload.pickle").read_bytes())
    import paddle

    from plsc.parallel.environment import Environment
    from plsc.parallel.group import Group

    paddle.enable_static()
    env = Environment.from_launch()
    group = Group(env)
    result = getattr(importlib.import_module(module), function)(env, payload)
    (cwd / f"result{env.rank}.pickle").write_bytes(pickle.dumps(result))
    group.close()
    sys.stdout.flush()
    os._exit(0)  # Paddle 2.6's Gloo threads may abort at interpreter exit


if __name__ == "__main__":
    main()
