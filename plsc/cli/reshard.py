"""Copy a checkpoint for another number of ranks, or into one file: plsc reshard CHECKPOINT --ranks 4 --to RUN

Training reads checkpoints of any number of ranks; this is for copies and for other programs.
"""

from __future__ import annotations

import argparse

from plsc.terminal import print_stdout


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("checkpoint", help="a checkpoint, or the directory of a run (its newest complete checkpoint)")
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--ranks", type=int, metavar="N", help="write it with N shards; needs --to")
    what.add_argument("--merge", metavar="FILE", help="write all tensors into this one safetensors file")
    parser.add_argument("--to", metavar="RUN", help="the directory of a run; the checkpoint is made in RUN/checkpoints")
    parser.set_defaults(refuse=parser.error)


def run(options: argparse.Namespace) -> None:
    from plsc.checkpoint import merge, reshard, resolve

    if (options.ranks is None) != (options.to is None):
        options.refuse("--ranks and --to go together")
    path = resolve(options.checkpoint)
    if options.merge:
        entry = merge(path, options.merge)
        print_stdout(f"{options.merge}: {entry.num_bytes:,} bytes, SHA-256 {entry.sha256}")
    else:
        print_stdout(reshard(path, options.to, options.ranks))
