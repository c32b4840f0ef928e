"""Import a checkpoint of PLSC 0.2 or 2.2 (static graph): plsc import OLD/24 --from 2.2 --to RUN

Prints what an old checkpoint does not contain. What cannot be imported: docs/checkpoints.md.
"""

from __future__ import annotations

import argparse

from plsc.terminal import print_stdout

EPSILON = {"0.2": 2e-5, "2.2": 1e-5}


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("old", help="the directory of one epoch, with meta.json in it")
    parser.add_argument("--from", dest="version", choices=sorted(EPSILON), required=True, help="what wrote it")
    parser.add_argument("--to", metavar="RUN", required=True, help="the checkpoint is made in RUN/checkpoints")
    parser.add_argument("--samples", type=int, default=0, help="samples used so far: epochs done times images")
    parser.set_defaults(refuse=parser.error)


def run(options: argparse.Namespace) -> None:
    from plsc.checkpoint.old_plsc import import_old

    if options.samples < 0:
        options.refuse("--samples must be at least 0")
    path, notes = import_old(options.old, options.to, EPSILON[options.version], options.samples)
    print_stdout(str(path))
    for note in notes:
        print_stdout(f"note: {note}")
