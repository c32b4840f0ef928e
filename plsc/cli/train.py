"""Train a model: plsc train -c ms1mv3_r50 -o data.dataset_dir=MS1M -o lr=0.05

On several ranks:    plsc train -c x.yaml --ranks 2, or on GPUs --devices 0,1,2,3
On several machines: plsc train -c x.yaml --ranks 8 --nnodes 2 --master 10.0.0.1:6170, on each of them

The exit status is 0 after training, 75 for a run that was stopped and saved (`-o resume=auto` continues it), 65 for a
run that was trained and saved but not verified, and 1 after an error, which is one line.
"""

from __future__ import annotations

import argparse
import sys

from plsc.cli.launching import add_launch, launch_words, wants_launch
from plsc.cli.options import add_config, add_quiet, log_lines, read_config
from plsc.errors import VerificationError
from plsc.parallel.excepthook import EXIT_UNVERIFIED, one_line
from plsc.parallel.rendezvous import reported_to_launchers
from plsc.terminal import print_stdout


def add_options(parser: argparse.ArgumentParser) -> None:
    add_config(parser)
    add_launch(parser)
    add_quiet(parser)


def run(options: argparse.Namespace) -> int:
    words: list[str] = []
    with reported_to_launchers(options.master, options.nnodes or 1, options.interface):
        config = read_config(options)
        if wants_launch(options):
            words = launch_words(options, config)
    if words:
        from plsc.launch import launch

        return launch(words)
    from plsc.entry import Entry

    try:
        with log_lines(options):
            result = Entry(config=config).train()
    except VerificationError as error:
        print(one_line(error, None), file=sys.stderr, flush=True)
        return EXIT_UNVERIFIED
    if options.quiet:
        print_stdout(str(result))
    return 0
