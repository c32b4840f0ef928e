"""What the model sees, as a contact sheet: plsc show-data -c ms1mv3_r50 -o data.augmentations=strong --html data.html

The first images of an epoch of training, decoded and augmented as in the run, with their labels and the names of their
classes. The status is 1 where one of them cannot be used.
"""

from __future__ import annotations

import argparse
import math

from plsc.cli.options import add_config, read_config
from plsc.terminal import print_stderr, print_stdout

MOST_IMAGES = 10_000
MOST_BYTES = 2**29  # of all images together


def add_options(parser: argparse.ArgumentParser) -> None:
    add_config(parser)
    parser.add_argument("--html", metavar="FILE", help="write this page; data.html where neither is given")
    parser.add_argument("--png", metavar="FILE", help="write this image")
    parser.add_argument("--images", metavar="N", type=int, default=64, help="how many; 64 by default")
    parser.add_argument("--epoch", metavar="E", type=int, default=0, help="of this epoch, 0 by default")
    parser.set_defaults(refuse=parser.error)


def run(options: argparse.Namespace) -> int:
    from plsc.data.contact_sheet import samples, sheet_html, sheet_png
    from plsc.data.opening import open_dataset, sample_order
    from plsc.evaluation.output_files import require_writable, whole_file, write_text

    for option, value, most in (("images", options.images, MOST_IMAGES), ("epoch", options.epoch, 2**31)):
        least = 1 if option == "images" else 0
        if not least <= value <= most:
            options.refuse(f"--{option} {value}: must be from {least} to {most}")
    page = options.html or ("" if options.png else "data.html")
    for option, path in (("--html", page), ("--png", options.png)):
        if path:
            require_writable(path, option)
    config = read_config(options)
    dataset = open_dataset(config, print_stderr, check_files=False)
    if options.png and dataset.source.takes_in(options.png):
        options.refuse(f"--png {options.png}: would be taken for one of the images; give a place outside")
    size = math.prod(dataset.image_shape)
    if options.images * size > MOST_BYTES:
        options.refuse(f"--images {options.images}: of {size} bytes each, at most {max(1, MOST_BYTES // size)}")
    if config.seed is None:
        print_stderr("seed: null: the images are those of seed 0; a run draws a seed")
    shown = samples(dataset, config.seed or 0, options.images, options.epoch, sample_order(config, dataset))
    if page:
        title = f"{dataset.source.place}: {len(shown)} of {len(dataset):,} images in the order of epoch {options.epoch}"
        write_text(page, sheet_html(shown, title), "--html")
    if options.png:
        with whole_file(options.png, "--png") as file:
            file.write(sheet_png(shown))
    problems = [one.problem for one in shown if one.problem]
    for line in problems:
        print_stderr(line)
    written = " and ".join(path for path in (page, options.png) if path)
    print_stdout(f"{written}: {len(shown)} images" + (f", {len(problems)} cannot be used" if problems else ""))
    return 1 if problems else 0
