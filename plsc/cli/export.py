"""Export a trained model: plsc export --checkpoint output/run --output exported -o export.format=both

The model goes to OUTPUT/inference, where plsc.Predictor reads it. Without -c the settings are those that the checkpoint
was trained with. The checkpoint is only read.
"""

from __future__ import annotations

import argparse

from plsc.cli.options import add_model, add_quiet, log_lines, model_config
from plsc.terminal import print_stdout


def add_options(parser: argparse.ArgumentParser) -> None:
    add_model(parser)
    parser.add_argument("--images", metavar="PATH",
                        help="images on which exported and trained model are compared; sets export.images")  # fmt: skip
    add_quiet(parser)


def run(options: argparse.Namespace) -> None:
    from plsc.entry import Entry

    config = model_config(options, {"images": "export.images"})
    with log_lines(options):
        directory = Entry(config=config).convert_for_prediction()
    if options.quiet:
        print_stdout(str(directory))
