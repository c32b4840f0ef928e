"""Are the training images fit for training? plsc check-data -c ms1mv3_r50 --html check.html --json check.json

Every image is decoded once. Told are images that cannot be read or decoded or have another size, images that are there
twice (the same bytes, or almost the same to look at), and classes without or with one image. The status is 1 where
training would stop at an image.
"""

from __future__ import annotations

import argparse

from plsc.cli.options import add_config, add_json, add_processes, check_json, count_processes, print_json, read_config
from plsc.terminal import print_stderr, print_stdout


def add_options(parser: argparse.ArgumentParser) -> None:
    add_config(parser)
    parser.add_argument("--html", metavar="FILE", help="write a page with the images in question")
    add_processes(parser)
    add_json(parser)
    parser.set_defaults(refuse=parser.error)


def run(options: argparse.Namespace) -> int:
    from plsc.data.checking.page import check_page
    from plsc.data.checking.report import check
    from plsc.data.opening import open_dataset
    from plsc.evaluation.output_files import require_writable, write_text

    processes = count_processes(options)
    check_json(options)
    if options.html:
        require_writable(options.html, "--html")
    dataset = open_dataset(read_config(options), print_stderr, check_files=False)
    report = check(dataset, processes, print_stderr)
    if options.html:
        write_text(options.html, check_page(report), "--html")
    if not print_json(options, report.plain()):
        print_stdout(report.table())
    return 1 if report.stops else 0
