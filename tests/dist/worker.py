"""The process behind tests.dist.ranks.run: one rank."""

from __future__ import annotations

import importlib
import pickle
import sys
from pathlib import Path


def main() -> None:
    target, cwd = sys.argv[1], Path(sys.argv[2])
    module, function = target.split(":")
    payload = pickle.loads((cwd / "payload.pickle").read_bytes())
    from plsc.parallel.environment import Environment
    from plsc.parallel.group import join

    # isort: split
    # plsc comes first, see plsc.paddle_version.load_zlib
    import paddle

    paddle.enable_static()
    env = Environment.from_launch()
    join(env)
    result = getattr(importlib.import_module(module), function)(env, payload)
    (cwd / f"result{env.rank}.pickle").write_bytes(pickle.dumps(result))


if __name__ == "__main__":
    main()
