"""`plsc train --ranks N`: this process becomes the launcher of N processes that run the same command as ranks."""

from __future__ import annotations

import argparse
import os
import sys

from plsc.config import Config
from plsc.errors import LaunchError
from plsc.parallel.launcher import is_rank

# {option: that of plsc.launch}
_LAUNCHER = {"ranks": "nproc_per_node", "devices": "devices", "nnodes": "nnodes", "master": "master",
             "interface": "interface", "port_range": "port-range"}  # fmt: skip


def add_launch(parser: argparse.ArgumentParser) -> None:
    """--ranks, --devices, --nnodes, --master, --interface, --port-range, --log-dir."""
    group = parser.add_argument_group(
        "several ranks", "started as by plsc.launch; `python -m paddle.distributed.launch` works as well"
    )
    group.add_argument("--ranks", metavar="N", type=int, help="processes on this machine")
    group.add_argument("--devices", metavar="0,1,...", help="GPUs of this machine, one process each")
    group.add_argument("--nnodes", metavar="N", type=int, help="number of machines; run the same command on each")
    group.add_argument("--master", metavar="HOST:PORT", help="the rendezvous address, on one of the machines")
    group.add_argument("--interface", metavar="NAME", help="the network of this machine; default: the one of --master")
    group.add_argument("--port-range", metavar="FIRST-LAST", help="the ports on which to listen; default: any")
    group.add_argument("--log-dir", metavar="DIR", help="the output of each rank; default: model_save_dir/launch")
    parser.set_defaults(refuse=parser.error)


def wants_launch(options: argparse.Namespace) -> bool:
    """Whether to start ranks. Exits for options that contradict each other."""
    given = [name for name in (*_LAUNCHER, "log_dir") if getattr(options, name) is not None]
    if not given:
        return False
    if options.ranks is None and options.devices is None:
        options.refuse(f"--{given[0].replace('_', '-')} needs --ranks or --devices")
    for name in ("ranks", "nnodes"):
        if getattr(options, name) is not None and getattr(options, name) < 1:
            options.refuse(f"--{name} {getattr(options, name)}: must be at least 1")
    cards = None if options.devices is None else options.devices.split(",")
    if cards is not None and not all(card.isdecimal() for card in cards):
        options.refuse(f"--devices {options.devices}: must be numbers of GPUs with commas between, as in 0,1,2,3")
    if cards is not None and options.ranks not in (None, len(cards)):
        options.refuse(f"--ranks {options.ranks} and --devices {options.devices} contradict each other; give one")
    if (options.nnodes or 1) > 1 and not options.master:
        options.refuse("--nnodes needs --master HOST:PORT, the same on every machine")
    return True


def launch_words(options: argparse.Namespace, config: Config) -> list[str]:
    """The arguments of plsc.launch that start the ranks. Raises LaunchError, ConfigError."""
    if is_rank():
        raise LaunchError("this process is a rank of a launcher already: leave out --ranks and the like")
    ranks = len(options.devices.split(",")) if options.devices else options.ranks
    config.check(ranks * (options.nnodes or 1))  # here once, not on every rank
    words = []
    for name, theirs in _LAUNCHER.items():
        if getattr(options, name) is not None:
            words += [f"--{theirs}", str(getattr(options, name))]
    logs = options.log_dir or os.path.join(config.model_save_dir, "launch")
    return [*words, "--log_dir", logs, "--log_level", "WARNING", *program(), "train", *_arguments(options)]


def _arguments(options: argparse.Namespace) -> list[str]:
    """The arguments of each rank: all but those of the launch."""
    words = ["-c", options.config] if options.config is not None else []
    for text in options.override:
        words += ["-o", text]
    return words + ["--quiet"] * options.quiet


def program() -> list[str]:
    """The command line of this program, for Paddle's launcher, which runs only files ending in .py with Python.

    It is started as this process was: the installed script `plsc` finds its own package, while `python -m` first
    searches the working directory, which may be a checkout of another version.
    """
    script = os.path.abspath(sys.argv[0])
    if os.path.basename(script) == "plsc" and os.path.isfile(script):
        return [sys.executable, "-u", script]
    return [sys.executable, "-u", "-m", "plsc"]
