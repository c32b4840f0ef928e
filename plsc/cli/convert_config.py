"""Settings of an arcface_torch config as YAML: plsc convert-config configs/ms1mv3_r50.py --ranks 8 > ms1mv3_r50.yaml

The config is read, not run. Comments in the YAML name what has no equal. Then: plsc train -c ms1mv3_r50.yaml --ranks 8
"""

from __future__ import annotations

import argparse

from plsc.cli.options import print_result

MOST_RANKS = 65536


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("config", help="a Python file of arcface_torch's configs; base.py beside it is read first")
    parser.add_argument("--ranks", type=int, required=True,
                        help="GPUs of the run: the learning rate there is for the batch of all of them")  # fmt: skip
    parser.set_defaults(refuse=parser.error)


def run(options: argparse.Namespace) -> None:
    import yaml

    from plsc.config.arcface_torch import convert_arcface_torch

    if not 1 <= options.ranks <= MOST_RANKS:
        options.refuse(f"--ranks {options.ranks} must be in [1, {MOST_RANKS}]")
    settings, notes = convert_arcface_torch(options.config, options.ranks)
    first = f"# From {ascii(options.config)[1:-1]} of arcface_torch, for {options.ranks} ranks"
    comments = "\n".join([first, *(f"# {note}" for note in notes)])
    print_result(f"{comments}\n\n{yaml.safe_dump(settings, sort_keys=False).rstrip()}")
