"""Errors in the training data by a trained model: plsc clean --checkpoint run --output found --list cleaned.txt

All training images and the verification sets are embedded. Told are images with a wrong label, classes that are one
identity or two, images that are in two classes, and images and identities that a verification set has as well. The
data are those that the checkpoint was trained with; -c and -o give others. Nothing is changed: --list writes a new
list, and beside it what was removed and why. OUTPUT/clean keeps the embeddings, so that the same command with other
limits is fast. See docs/clean.md.
"""

from __future__ import annotations

import argparse

from plsc.cli.options import STDOUT, add_json, add_model, add_quiet, check_json, log_lines, model_config, print_json
from plsc.terminal import print_stderr, print_stdout

MOST_PROCESSES = 1024
# {option: (what a cosine below or above it means, its default)}
LIMITS = {
    "far": ("an image is like no class below this cosine", "the median cosine with the nearest other centre"),
    "near": ("an image is like a class from this cosine on", "the median own cosine less three deviations"),
    "class_pair": ("two classes are one identity from this estimated cosine on, and the parts of a class are two below",
                   "halfway from the median cosine of nearest classes to 1"),
    "copy": ("two images are copies from this cosine on", "a tenth of the usual distance within a class"),
}  # fmt: skip


def add_options(parser: argparse.ArgumentParser) -> None:
    add_model(parser)
    parser.add_argument("--list", metavar="FILE", help="write a label list without the images that are in error")
    parser.add_argument("--remove", metavar="KINDS", help="which these are: of leak, mislabelled, copy, outlier and "
                        "known, with commas; leak,mislabelled,copy by default")  # fmt: skip
    parser.add_argument("--html", metavar="FILE", help="write a page with the images in question")
    for name, (text, default) in LIMITS.items():
        parser.add_argument(f"--{name.replace('_', '-')}", metavar="COSINE", type=float,
                            help=f"{text}; by default {default}")  # fmt: skip
    parser.add_argument("--processes", metavar="N", type=int, help="that decode; 0: this one; all cores by default")
    add_json(parser)
    add_quiet(parser)


def run(options: argparse.Namespace) -> None:
    from plsc.cleaning.find import Limits
    from plsc.cleaning.page import clean_page
    from plsc.cleaning.removal import reasons, write_list
    from plsc.cleaning.request import Request
    from plsc.entry import Entry
    from plsc.evaluation.output_files import require_writable, write_text
    from plsc.parallel.environment import cores

    limits = Limits(**{name: _limit(options, name) for name in LIMITS})
    kinds = _kinds(options)
    processes = cores() if options.processes is None else options.processes
    if not 0 <= processes <= MOST_PROCESSES:
        options.refuse(f"--processes {processes}: must be from 0 to {MOST_PROCESSES}")
    check_json(options)
    if options.html:
        require_writable(options.html, "--html")
    config = model_config(options)
    with log_lines(options):
        report = Entry(config=config).clean(Request(limits, processes, options.list or ""))
    if report is None:  # another rank writes
        return
    if options.html:
        write_text(options.html, clean_page(report), "--html")
    if not print_json(options, report.plain()):
        print_stdout(report.table())
    if options.list:
        removed = reasons(report.findings, report.labels, kinds)
        line = write_list(options.list, report.images, removed)
        (print_stderr if options.json == STDOUT else print_stdout)(line)


def _limit(options: argparse.Namespace, name: str) -> float | None:
    value = getattr(options, name)
    if value is not None and not -1 <= value <= 1:
        options.refuse(f"--{name.replace('_', '-')} {value}: a cosine is from -1 to 1")
    return value


def _kinds(options: argparse.Namespace) -> tuple[str, ...]:
    from plsc.cleaning.removal import DEFAULT, KINDS

    if options.remove is None:
        return DEFAULT
    if not options.list:
        options.refuse(f"--remove {options.remove}: has an effect with --list only")
    kinds = tuple(one.strip() for one in options.remove.split(","))
    for one in kinds:
        if one not in KINDS:
            options.refuse(f"--remove {options.remove}: {one!r} is none of {', '.join(KINDS)}")
    return kinds
