"""Aligned faces of 112 x 112 pixels: plsc align FACES --landmarks points.csv --output aligned

Each image is turned, scaled and shifted so that eyes, nose and mouth come to the positions that face recognition models
expect. The files keep their folders and names. What was interrupted goes on when the same command is given again. The
status is 1 where an image was refused. Formats of landmark files: docs/data_sets.md.
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from plsc.cli.options import add_processes, add_quiet, count_processes, log_lines
from plsc.terminal import print_stdout

if TYPE_CHECKING:
    from plsc.data.alignment.images import ImageFiles
    from plsc.data.alignment.job import Finder


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("images", metavar="IMAGES", help="a folder of images, or a list with a path on each line")
    points = parser.add_mutually_exclusive_group(required=True)
    points.add_argument("--landmarks", metavar="FILE", help="five points a face: CSV or JSON lines")
    points.add_argument("--detector", choices=("yuface",), help="find the faces by this package")
    parser.add_argument("--output", metavar="DIR", required=True, help="the directory to make")
    parser.add_argument("--size", choices=("112x112", "96x112"), default="112x112",
                        help="width and height; 112x112 by default")  # fmt: skip
    parser.add_argument("--format", choices=("jpg", "png"), default="jpg", help="of the aligned images; jpg by default")
    parser.add_argument("--several-faces", choices=("refuse", "largest"), default="refuse",
                        help="what is done to an image with several faces; refuse by default")  # fmt: skip
    add_processes(parser)
    add_quiet(parser)


def run(options: argparse.Namespace) -> int:
    from plsc.data.alignment.images import find_images
    from plsc.data.alignment.job import Style, align_images

    processes = count_processes(options)
    style = Style(options.size, options.format, options.several_faces)
    with log_lines(options):
        images = find_images(options.images)
        finder, notes = _finder(options, images)
        for note in (*images.notes, *notes):
            print_stdout(note)
        done = align_images(images, finder, style, options.output, processes, print_stdout)
    print_stdout(f"{done.path}: {done.aligned:,} of {done.images:,} images aligned to {options.size} pixels")
    for kind, (count, example) in done.refused.items():
        print_stdout(f"refused, {kind}: {count:,}, such as {example}")
    if done.refused:
        print_stdout(f"all that were refused: {done.refused_list}")
    return 1 if done.refused else 0


def _finder(options: argparse.Namespace, images: ImageFiles) -> tuple[Finder, list[str]]:
    """What finds the points of the faces, and lines for the log."""
    from plsc.data.alignment.detector import YuFace
    from plsc.data.alignment.landmarks import read_landmarks, require_of

    if options.detector:
        return YuFace(), []
    landmarks = read_landmarks(options.landmarks, images.key)
    return landmarks, [*landmarks.notes, *require_of(landmarks, images)]
