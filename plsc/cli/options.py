"""The options that commands share, and what they mean: -c, -o, --checkpoint, --output, --json, --quiet."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys
import tempfile
from collections.abc import Iterator, Mapping
from typing import Any

from plsc.cli.packaged_configs import find_config
from plsc.config import Config
from plsc.files import safe_open
from plsc.terminal import print_stdout

STDOUT = "-"


def add_config(parser: argparse.ArgumentParser, without: str = "the defaults without one") -> None:
    """-c and -o. without: what holds where -c is left out."""
    parser.add_argument(
        "-c", "--config", metavar="FILE",
        help=f"a YAML file, or the name of one that comes with PLSC, such as ms1mv3_r50; {without}",
    )  # fmt: skip
    parser.add_argument(
        "-o", "--override", metavar="KEY=VALUE", action="append", default=[],
        help="set one key (docs/configuration.md); may be repeated",
    )  # fmt: skip


def add_model(parser: argparse.ArgumentParser) -> None:
    """-c, -o, --checkpoint and --output of a command that uses a trained model; its settings: model_config."""
    parser.add_argument(
        "--checkpoint", metavar="DIR",
        help="a checkpoint, the directory of a run or an exported model; sets checkpoint_dir",
    )  # fmt: skip
    parser.add_argument("--output", metavar="DIR", help="where results go; sets model_save_dir")
    add_config(parser, "the settings that the checkpoint was trained with without one")
    parser.set_defaults(refuse=parser.error)


def add_image_model(parser: argparse.ArgumentParser) -> None:
    """--checkpoint and --output of a command that takes features, or images and a model that makes them."""
    parser.add_argument("--checkpoint", metavar="DIR", help="the model, for folders of images")
    parser.add_argument("--output", metavar="DIR", help="where the features of images go")


def add_json(parser: argparse.ArgumentParser) -> None:
    """--json [FILE]; what to do with it: check_json, print_json."""
    parser.add_argument("--json", metavar="FILE", nargs="?", const=STDOUT,
                        help="write all numbers as JSON to FILE, or print them in place of the text")  # fmt: skip


def add_quiet(parser: argparse.ArgumentParser) -> None:
    """--quiet; what to do with it: log_lines."""
    parser.add_argument("--quiet", action="store_true",
                        help="print no log lines, only results and errors; the log file has them all")  # fmt: skip


def read_config(options: argparse.Namespace) -> Config:
    """What -c and -o say. Raises ConfigError."""
    config = Config() if options.config is None else Config.from_yaml(find_config(options.config))
    config.override(options.override)
    return config


def model_config(options: argparse.Namespace, paths: Mapping[str, str] | None = None) -> Config:
    """What -c, -o, --checkpoint and --output say. paths: {option: the key it sets}, for more of their kind.

    Without -c the settings are those of the checkpoint. Raises ConfigError, CheckpointError.
    """
    from plsc.cli.trained import stored_config

    if options.config is None and not (options.checkpoint and options.output):
        options.refuse("give -c FILE, or both --checkpoint and --output")
    if options.config is None:
        Config().override([text for text in options.override if text.startswith("plugins=")])  # the model may be theirs
        # the checkpoint's model may be one of theirs
        Config().override(item for item in options.override if item.partition("=")[0].strip() == "plugins")
        config = stored_config(options.checkpoint)
        config.override(options.override)
    else:
        config = read_config(options)
    for option, key in {"checkpoint": "checkpoint_dir", "output": "model_save_dir", **(paths or {})}.items():
        if getattr(options, option):
            config.set(key, getattr(options, option), f"--{option}")
    return config


@contextlib.contextmanager
def log_lines(options: argparse.Namespace) -> Iterator[None]:
    """Within it log lines go to stdout; nowhere with --quiet; to stderr where --json needs stdout for itself."""
    if getattr(options, "quiet", False):
        with open(os.devnull, "w", encoding="utf-8") as nowhere, contextlib.redirect_stdout(nowhere):
            yield
    elif getattr(options, "json", None) == STDOUT:
        with contextlib.redirect_stdout(sys.stderr):
            yield
    else:
        yield


@contextlib.contextmanager
def json_file(options: argparse.Namespace) -> Iterator[str]:
    """A file for what --json asks for, to be written within; "" for none; printed at the end for stdout."""
    if options.json != STDOUT:
        yield options.json or ""
        return
    with tempfile.TemporaryDirectory() as folder:
        file = os.path.join(folder, "out.json")
        yield file
        with safe_open.open_text(file, safe_open.LIST) as written:
            print_stdout(written.read().rstrip("\n"))


def check_json(options: argparse.Namespace) -> None:
    """Raise DataError for a place of --json that cannot be written, before the work."""
    if options.json and options.json != STDOUT:
        from plsc.evaluation.output_files import require_writable

        require_writable(options.json, "--json")


def print_json(options: argparse.Namespace, values: Any) -> bool:
    """Write what --json asks for. Returns True where it took the place of the text. Raises DataError."""
    if not options.json:
        return False
    text = json.dumps(values, indent=2) + "\n"
    if options.json == STDOUT:
        print_stdout(text.rstrip("\n"))
        return True
    from plsc.evaluation.output_files import write_text

    write_text(options.json, text, "--json")
    return False
