"""The memory that a training run will need: plsc plan -c ms1mv3_r50 --ranks 8 --memory-gb 32

Prints what each rank needs and the largest number of classes that fits; runs nothing. With classifier.num_classes: null
the classes are counted in the data. The exit status is 1 where the memory is too small.
"""

from __future__ import annotations

import argparse
import dataclasses

from plsc.cli.options import add_config, add_json, check_json, print_json, read_config
from plsc.terminal import print_stdout


def add_options(parser: argparse.ArgumentParser) -> None:
    add_config(parser)
    parser.add_argument("--ranks", metavar="N", type=int, help="number of ranks; default: 1")
    parser.add_argument(
        "--memory-gb", metavar="GB", type=float,
        help="memory of a rank in 1e9 bytes; default: an equal part of the free memory here",
    )  # fmt: skip
    add_json(parser)


def run(options: argparse.Namespace) -> int:
    from plsc.entry import Entry

    config = read_config(options)
    check_json(options)
    plan = Entry(config=config).plan(options.ranks, options.memory_gb)
    values = {**dataclasses.asdict(plan), "total": plan.total, "fits": plan.fits}
    if not print_json(options, values):
        print_stdout(str(plan))
    return 1 if plan.fits is False else 0
