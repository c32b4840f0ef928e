"""Features of images: plsc predict --checkpoint exported/inference --images photos --output out

OUTPUT/predictions holds features.npy and pictures.csv (row, path) in the same order. A run that was stopped
continues where it was. --checkpoint is a checkpoint, the directory of a run (its newest checkpoint) or an exported
model. Without -c the settings are those that it was trained with.
"""

from __future__ import annotations

import argparse

from plsc.cli.options import add_model, add_quiet, log_lines, model_config
from plsc.terminal import print_stdout


def add_options(parser: argparse.ArgumentParser) -> None:
    add_model(parser)
    parser.add_argument("--images", metavar="PATH",
                        help="a folder, or a list with one path per line; sets predict.images")  # fmt: skip
    add_quiet(parser)


def run(options: argparse.Namespace) -> None:
    from plsc.entry import Entry

    config = model_config(options, {"images": "predict.images"})
    with log_lines(options):
        prediction = Entry(config=config).predict()
    if options.quiet:
        print_stdout(str(prediction.features_file))
