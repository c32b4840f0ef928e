"""Train from a YAML file: python tools/train.py -c configs/x.yaml -o lr=0.05 -o classifier.sample_ratio=0.1

On several ranks: python -m paddle.distributed.launch --nproc_per_node 2 tools/train.py -c configs/x.yaml
"""

from __future__ import annotations

import argparse
import sys

from plsc import Entry
from plsc.config import Config
from plsc.errors import VerificationError
from plsc.parallel.excepthook import EXIT_UNVERIFIED, install_excepthook, one_line


def main(arguments: list[str] | None = None) -> None:
    """Read the command line and train. A PlscError ends the process with one line and status 1, a VerificationError,
    where all is trained and saved, with EXIT_UNVERIFIED."""
    install_excepthook()
    parser = argparse.ArgumentParser(description="Train from a YAML file. The keys are in docs/configuration.md.")
    parser.add_argument("-c", "--config", metavar="FILE", help="a YAML file; the defaults without one")
    parser.add_argument(
        "-o", "--override", metavar="KEY=VALUE", action="append", default=[], help="change one key; may be repeated"
    )
    options = parser.parse_args(arguments)
    config = Config() if options.config is None else Config.from_yaml(options.config)
    config.override(options.override)
    try:
        Entry(config=config).train()
    except VerificationError as error:
        print(one_line(error, None), file=sys.stderr, flush=True)
        raise SystemExit(EXIT_UNVERIFIED) from None


if __name__ == "__main__":
    main()
