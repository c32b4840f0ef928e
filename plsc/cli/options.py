"""The options that commands share: -c, -o, --checkpoint, --output, --json, --quiet."""

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
from plsc.errors import DataError
from plsc.files import safe_open

STDOUT = "-"


def add_config(parser: argparse.ArgumentParser, without: str = "without one, the defaults") -> None:
    """Add -c and -o. without: what applies without -c, for --help."""
    parser.add_argument(
        "-c", "--config", metavar="FILE",
        help=f"a YAML file, or the name of one that comes with PLSC, such as ms1mv3_r50; {without}",
    )  # fmt: skip
    parser.add_argument(
        "-o", "--override", metavar="KEY=VALUE", action="append", default=[],
        help="set one key (docs/configuration.md); may be repeated",
    )  # fmt: skip


def add_model(parser: argparse.ArgumentParser) -> None:
    """Add -c, -o, --checkpoint, --output, --weights to a command that uses a trained model; see model_config."""
    parser.add_argument(
        "--checkpoint", metavar="DIR",
        help="a checkpoint, the directory of a run or an exported model; sets checkpoint_dir",
    )  # fmt: skip
    parser.add_argument("--output", metavar="DIR", help="the directory for results; sets model_save_dir")
    parser.add_argument("--weights", choices=("ema", "last"),
                        help="averaged weights (the default where there are any) or those of the last step; sets "
                        "ema.weights")  # fmt: skip
    add_config(parser, "without one, the settings that the checkpoint was trained with")
    parser.set_defaults(refuse=parser.error)


def add_image_model(parser: argparse.ArgumentParser) -> None:
    """Add --checkpoint and --output to a command that takes features, or images and a model."""
    parser.add_argument("--checkpoint", metavar="DIR", help="the model, for folders of images")
    parser.add_argument("--output", metavar="DIR", help="the directory for the features of images")


def add_json(parser: argparse.ArgumentParser) -> None:
    """Add --json [FILE]; see check_json and print_json."""
    parser.add_argument("--json", metavar="FILE", nargs="?", const=STDOUT,
                        help="write all values as JSON to FILE, or print them instead of the text")  # fmt: skip


def add_quiet(parser: argparse.ArgumentParser) -> None:
    """Add --quiet; see log_lines."""
    parser.add_argument("--quiet", action="store_true",
                        help="print no log lines, only results and errors; the log file has them all")  # fmt: skip


def add_processes(parser: argparse.ArgumentParser) -> None:
    """Add --processes; see count_processes."""
    parser.add_argument("--processes", metavar="N", type=int, help="that decode; 0: this one; all cores by default")
    parser.set_defaults(refuse=parser.error)


def count_processes(options: argparse.Namespace) -> int:
    """The number of --processes. Exits with one line for a number that cannot be."""
    from plsc.data.fork_pool import MOST_PROCESSES
    from plsc.parallel.environment import cores

    processes = cores() if options.processes is None else options.processes
    if not 0 <= processes <= MOST_PROCESSES:
        options.refuse(f"--processes {processes}: must be from 0 to {MOST_PROCESSES}")
    return processes


def read_config(options: argparse.Namespace) -> Config:
    """The configuration of -c and -o. Raises ConfigError."""
    config = Config() if options.config is None else Config.from_yaml(find_config(options.config))
    config.override(options.override)
    return config


def model_config(options: argparse.Namespace, paths: Mapping[str, str] | None = None) -> Config:
    """The configuration of -c, -o, --checkpoint, --output, --weights. paths: {option: key that it sets}, for others.

    Without -c the settings are those of the checkpoint. Raises ConfigError, CheckpointError.
    """
    from plsc.cli.trained import stored_config

    if options.config is None and not (options.checkpoint and options.output):
        options.refuse("give -c FILE, or both --checkpoint and --output")
    if options.config is None:
        # the checkpoint's model may be registered by a plugin
        Config().override(item for item in options.override if item.partition("=")[0].strip() == "plugins")
        config = stored_config(options.checkpoint)
        config.override(options.override)
    else:
        config = read_config(options)
    own = {"checkpoint": "checkpoint_dir", "output": "model_save_dir", "weights": "ema.weights"}
    for option, key in {**own, **(paths or {})}.items():
        if getattr(options, option, None):
            config.set(key, getattr(options, option), f"--{option}")
    return config


@contextlib.contextmanager
def log_lines(options: argparse.Namespace) -> Iterator[None]:
    """Log lines go to stdout; nowhere with --quiet; to stderr where --json prints to stdout."""
    if getattr(options, "quiet", False):
        with open(os.devnull, "w", encoding="utf-8") as nowhere, contextlib.redirect_stdout(nowhere):
            yield
    elif getattr(options, "json", None) == STDOUT:
        with contextlib.redirect_stdout(sys.stderr):
            yield
    else:
        yield


def print_result(text: str) -> None:
    """Print to stdout what a command was asked for, such as a file that the shell writes.

    Raises DataError where it cannot be written, as on a full disk. A reader that is gone has read enough.
    """
    try:
        sys.stdout.write(text + "\n")
        sys.stdout.flush()
    except (BrokenPipeError, ValueError, AttributeError):
        pass
    except OSError as error:
        raise DataError(f"stdout cannot be written: {error.strerror or error}; what it has is incomplete") from None


@contextlib.contextmanager
def json_file(options: argparse.Namespace) -> Iterator[str]:
    """The file that --json names, to be written in the context; "" for none. For stdout it is printed at the end."""
    if options.json != STDOUT:
        yield options.json or ""
        return
    with tempfile.TemporaryDirectory() as folder:
        file = os.path.join(folder, "out.json")
        yield file
        with safe_open.open_text(file, safe_open.LIST) as written:
            print_result(written.read().rstrip("\n"))


def check_json(options: argparse.Namespace) -> None:
    """Raise DataError where the file of --json cannot be written, before the work."""
    if options.json and options.json != STDOUT:
        from plsc.evaluation.output_files import require_writable

        require_writable(options.json, "--json")


def print_json(options: argparse.Namespace, values: Any) -> bool:
    """Write the values as --json says. Returns True where they replace the text. Raises DataError."""
    if not options.json:
        return False
    text = json.dumps(values, indent=2) + "\n"
    if options.json == STDOUT:
        print_result(text.rstrip("\n"))
        return True
    from plsc.evaluation.output_files import write_text

    write_text(options.json, text, "--json")
    return False
