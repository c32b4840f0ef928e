"""Keep one centre of each class: plsc merge-centres --checkpoint run --output merged

For a checkpoint that was trained with several centres of each class (classifier.sub_centres). All training images are
embedded, and of each class the centre that most of its images are nearest to is kept, with its optimizer states. The
checkpoint in OUTPUT/checkpoints has classifier.sub_centres: 1: training can go on with it, and it is exported and
identified with like any other. The data are those that the checkpoint was trained with; -c and -o give others.
OUTPUT/clean keeps the embeddings. See docs/clean.md.
"""

from __future__ import annotations

import argparse

from plsc.cli.options import add_model, add_quiet, log_lines, model_config
from plsc.terminal import print_stdout


def add_options(parser: argparse.ArgumentParser) -> None:
    add_model(parser)
    add_quiet(parser)


def run(options: argparse.Namespace) -> None:
    from plsc.entry import Entry

    config = model_config(options)
    with log_lines(options):
        merged = Entry(config=config).merge_centres()
    if merged is not None:  # rank 0 writes
        print_stdout(merged.directory)
