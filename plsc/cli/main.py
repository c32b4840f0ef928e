"""`plsc COMMAND ...`: finds the command, reads its options, runs it."""

from __future__ import annotations

import argparse
import difflib
import importlib
import sys
from collections.abc import Sequence
from types import ModuleType

from plsc.parallel import joining
from plsc.parallel.excepthook import install_excepthook
from plsc.terminal import flush, flush_or_discard, open_standard_streams
from plsc.version import __version__

# {command: (its module in plsc.cli, what it does in one line)}, in the order of --help
COMMANDS = {
    "train": ("train", "train a model, on one or several ranks"),
    "verify": ("verify", "accuracy of a trained model on verification sets"),
    "predict": ("predict", "features of images by a trained model"),
    "export": ("export", "write a trained model for prediction: Paddle Inference, ONNX or both"),
    "plan": ("plan", "the memory that each rank of a training run will need; runs nothing"),
    "doctor": ("doctor", "check this machine, its GPUs and the ranks in a minute, and say what to change"),
    "identify": ("identify", "rank-k and TPIR@FPIR of probes in a gallery, MegaFace's metrics"),
    "ijb": ("ijb", "TAR@FAR by the 1:1 protocol of IJB-B and IJB-C"),
    "reshard": ("reshard", "copy a checkpoint for another number of ranks, or into one file"),
    "merge-centres": ("merge_centres", "keep one of the several centres of each class (sub-centre ArcFace)"),
    "import": ("importing", "import weights of arcface_torch, AdaFace or MagFace, or a checkpoint of an old PLSC"),
    "convert-config": ("convert_config", "settings of an arcface_torch config as YAML, without running it"),
    "align": ("align", "align face images by five points to 112 x 112 pixels"),
    "make-list": ("make_list", "write an image list from folders, with identities or images held out"),
    "make-bin": ("make_bin", "make a verification set from a folder or list of identities"),
    "pack": ("pack", "write the images of a data source into RecordIO, tar shards or LMDB"),
    "show-data": ("show_data", "training images as the model sees them, as a page and a picture"),
    "check-data": ("check_data", "decode every image once: damaged, wrongly sized, repeated ones, empty classes"),
    "clean": ("clean", "wrong labels, classes to merge or split, copies and leaks, by a trained model"),
    "list": ("listing", "names of models, losses and so on that settings accept"),
    "report": ("report", "the metrics of a run as a table, its curves as a plot"),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return the exit status. arguments: by default those of the process.

    Raises a PlscError, which plsc.parallel.excepthook prints as one line; SystemExit for --help and wrong options.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    open_standard_streams()
    install_excepthook()
    joining.join()
    try:
        name, words = _command(words)
        command = module_of(name)
        return command.run(parser_of(name, command).parse_args(words)) or 0
    except SystemExit as end:  # of the options
        if end.code:
            flush()
            joining.report_unless_joined(f"its program ended with status {end.code}: plsc {' '.join(words)[:200]}")
        raise
    finally:
        flush_or_discard()


def module_of(name: str) -> ModuleType:
    """The module of a command in COMMANDS."""
    return importlib.import_module(f"plsc.cli.{COMMANDS[name][0]}")


def parser_of(name: str, command: ModuleType) -> argparse.ArgumentParser:
    """The option parser of a command."""
    parser = argparse.ArgumentParser(
        prog=f"plsc {name}",
        description=command.__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    command.add_options(parser)
    return parser


def _command(words: list[str]) -> tuple[str, list[str]]:
    """(the command, its arguments). Exits for --help, --version and an unknown command."""
    width = max(map(len, COMMANDS))
    table = "\n".join(f"  {name:{width}}  {text}" for name, (_, text) in COMMANDS.items())
    parser = argparse.ArgumentParser(
        prog="plsc",
        usage="plsc COMMAND [options], plsc COMMAND --help",
        description=f"Large-scale classification on PaddlePaddle.\n\ncommands:\n{table}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"plsc {__version__}")
    first = words[0] if words else ""
    if first in COMMANDS:
        return first, words[1:]
    if first.startswith("-"):
        parser.parse_args(words[:1])
    if not first:
        parser.error(f"give a command: {', '.join(COMMANDS)}")
    close = difflib.get_close_matches(first, COMMANDS, n=1)
    hint = f"did you mean {close[0]}?" if close else f"choose from {', '.join(COMMANDS)}"
    parser.error(f"{first!r} is not a command; {hint}")
