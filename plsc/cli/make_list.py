"""A list of image files: plsc make-list --output faces/label.txt -o data.dataset_dir=faces --hold-out-identities 0.1

Writes path<TAB>label for each image of a data source whose images are files, with paths relative to the list, and a
table of the classes beside it (label.classes.tsv). What is held out is in label.held_out.txt: whole identities, or some
images of each. The same images and seed give the same lists.
"""

from __future__ import annotations

import argparse

from plsc.cli.options import add_config, add_quiet, log_lines, read_config
from plsc.terminal import print_stdout

MOST_SEED = 2**64 - 1


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--output", metavar="FILE", required=True, help="the list to write, as label.txt")
    parser.add_argument("--min-images", metavar="N", type=int, default=1, help="leave out classes with fewer images")
    split = parser.add_mutually_exclusive_group()
    split.add_argument("--hold-out-identities", metavar="N", type=float, default=0,
                       help="so many identities, or a fraction of them")  # fmt: skip
    split.add_argument("--hold-out-images", metavar="N", type=int, default=0, help="so many images of each identity")
    parser.add_argument("--seed", metavar="N", type=int, default=0, help="of what is held out; 0 by default")
    add_config(parser)
    add_quiet(parser)
    parser.set_defaults(refuse=parser.error)


def run(options: argparse.Namespace) -> None:
    from plsc.data.make_list import Split, make_lists
    from plsc.data.opening import open_to_read
    from plsc.evaluation.output_files import require_writable

    _check_numbers(options)
    split = Split(options.min_images, options.hold_out_identities, options.hold_out_images, options.seed)
    require_writable(options.output, "--output")
    with log_lines(options):
        lists = make_lists(open_to_read(read_config(options), print_stdout), options.output, split)
    for written in (lists.train, lists.held_out):
        if written is not None:
            where = f"names in {written.names}"
            print_stdout(f"{written.path}: {written.images:,} images of {written.classes:,} classes, {where}")
    if lists.left_out[0]:
        classes, images = lists.left_out
        print_stdout(f"left out: {classes:,} classes with fewer than {split.min_images} images, {images:,} images")
    if lists.small:
        print_stdout(f"nothing is held out of {lists.small:,} classes with {split.images} images or fewer")


def _check_numbers(options: argparse.Namespace) -> None:
    identities = options.hold_out_identities
    if not 0 <= identities < 2**31 or (identities > 1 and identities != int(identities)):
        options.refuse(f"--hold-out-identities {identities:g}: must be a whole number, or a fraction below 1")
    for option, value, least, most in (
        ("min-images", options.min_images, 1, 2**31), ("hold-out-images", options.hold_out_images, 0, 2**31),
        ("seed", options.seed, 0, MOST_SEED),
    ):  # fmt: skip
        if not least <= value <= most:
            options.refuse(f"--{option} {value}: must be from {least} to {most}")
