"""Names that settings accept: plsc list models, plsc list schedules, or plsc list for all kinds

Your own are listed as well if -c or -o plugins=[...] names their module.
"""

from __future__ import annotations

import argparse
import textwrap
from typing import Any

from plsc.cli.options import STDOUT, add_config, add_json, check_json, print_json, read_config
from plsc.registry import REGISTRIES
from plsc.terminal import print_stdout

WIDTH = 100  # of a line


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("kind", metavar="KIND", nargs="?", help=f"one of {', '.join(REGISTRIES)}; default: all")
    add_config(parser)
    add_json(parser)
    parser.set_defaults(refuse=parser.error)


def run(options: argparse.Namespace) -> None:
    if options.kind is None and options.json in REGISTRIES:  # `plsc list --json models`
        options.kind, options.json = options.json, STDOUT
    if options.kind is not None and options.kind not in REGISTRIES:
        options.refuse(f"{options.kind!r} is not a kind; choose from {', '.join(REGISTRIES)}")
    check_json(options)
    read_config(options)  # imports the plugins
    kinds = [options.kind] if options.kind else list(REGISTRIES)
    found = {kind: entries(kind) for kind in kinds}
    if print_json(options, found[options.kind] if options.kind else found):
        return
    for kind in kinds:
        if len(kinds) > 1:
            print_stdout(f"{kind}:")
        print_stdout("\n".join(table_lines(found[kind])) + "\n" * (len(kinds) > 1))


def entries(kind: str) -> list[dict[str, Any]]:
    """Name, summary, source and module of each entry of a kind, as plain data."""
    return [
        {"name": entry.name, "summary": entry.summary, "source": entry.source, "module": entry.module}
        for entry in REGISTRIES[kind].entries()
    ]


def table_lines(found: list[dict[str, Any]]) -> list[str]:
    """A table of names and summaries, with the paper below."""
    width = max((len(entry["name"]) for entry in found), default=0)
    lines = []
    for entry in found:
        said = textwrap.wrap(entry["summary"], WIDTH - width - 2) or [""]
        if entry["source"]:
            said += textwrap.wrap(entry["source"], WIDTH - width - 2)
        lines += [f"{entry['name'] if not number else '':{width}}  {line}".rstrip() for number, line in enumerate(said)]
    return lines
