"""Verify a trained model: plsc verify --checkpoint output/run --output out -o data.dataset_dir=faces

--checkpoint is a checkpoint, the directory of a run (its newest checkpoint) or an exported model. The sets are
data.val_targets in data.dataset_dir. Without -c the settings are those that the checkpoint was trained with.
"""

from __future__ import annotations

import argparse

from plsc.cli.options import STDOUT, add_json, add_model, add_quiet, json_file, log_lines, model_config
from plsc.terminal import print_stdout


def add_options(parser: argparse.ArgumentParser) -> None:
    add_model(parser)
    add_json(parser)
    parser.add_argument("--html", metavar="FILE",
                        help="write a page with metrics, curves and images of the worst errors")  # fmt: skip
    add_quiet(parser)


def run(options: argparse.Namespace) -> None:
    from plsc.entry import Entry
    from plsc.evaluation.tables import metric_tables

    config = model_config(options)
    with json_file(options) as file, log_lines(options):
        results = Entry(config=config).test(file, options.html or "")
    if options.json == STDOUT:
        return
    if options.quiet:
        print_stdout("\n".join(metric_tables(results.sets)))
