"""Train from a YAML file: python tools/train.py -c configs/x.yaml -o lr=0.05 -o classifier.sample_ratio=0.1

The same as `plsc train`. On several ranks: python -m paddle.distributed.launch --nproc_per_node 2 tools/train.py -c ...
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from plsc.cli.main import main as plsc


def main(arguments: Sequence[str] | None = None) -> int:
    """Return the exit status of the process (see plsc.cli.train)."""
    return plsc(["train", *(sys.argv[1:] if arguments is None else arguments)])


if __name__ == "__main__":
    sys.exit(main())
