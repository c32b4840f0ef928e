"""The images of any data source as one container: plsc pack --to recordio --output DIR -o data.dataset_dir=FACES

Images are copied as they are encoded, in their order, and read back at the end. What was interrupted goes on when the
same command is given again. What each container is good for: docs/data_sets.md.
"""

from __future__ import annotations

import argparse

from plsc.cli.options import add_config, add_quiet, log_lines, read_config
from plsc.terminal import print_stdout

FORMATS = ("recordio", "tar", "lmdb", "list")


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--to", choices=FORMATS, required=True, help="the container; list: image files with a list")
    parser.add_argument("--output", metavar="DIR", required=True, help="the directory to make")
    parser.add_argument("--pixels", action="store_true", help="as decoded pixels: larger, and read faster")
    add_config(parser)
    add_quiet(parser)


def run(options: argparse.Namespace) -> None:
    from plsc.data.opening import open_to_read
    from plsc.data.packing.pack import pack

    config = read_config(options)
    with log_lines(options):
        source = open_to_read(config, print_stdout)
        packed = pack(source, options.to, options.output, print_stdout, options.pixels)
    print_stdout(f"{packed.path}: {packed.images:,} images of {packed.classes:,} classes, read back and equal")
