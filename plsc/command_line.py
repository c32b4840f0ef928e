"""The command line that tools/export.py, tools/predict.py and tools/verify.py share, and that of `plsc plan`."""

from __future__ import annotations

import argparse
import os
from typing import Any

import numpy as np

from plsc import checkpoint
from plsc.config import Config
from plsc.entry import Entry
from plsc.errors import ConfigError
from plsc.parallel.excepthook import install_excepthook
from plsc.serving import is_exported
from plsc.serving.gallery import FEATURES, read_predictions


def main(
    doc: str,
    action: str,
    extra: dict[str, tuple[str, str]],
    arguments: list[str] | None = None,
    files: dict[str, tuple[str, str]] | None = None,
) -> Any:
    """Read the command line and call ``action`` of Entry. extra: {option: (the key it sets, help)}.

    files: {option: (the argument of ``action`` that it gives, help)}, for files that the action writes.

    A PlscError ends the process with one line and status 1.
    """
    install_excepthook()
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-c", "--config", metavar="FILE", help="a YAML file; without one the checkpoint's own settings")
    parser.add_argument(
        "-o", "--override", metavar="KEY=VALUE", action="append", default=[], help="change one key; may be repeated"
    )
    parser.add_argument("--checkpoint", metavar="DIR", help="sets checkpoint_dir")
    parser.add_argument("--output", metavar="DIR", help="sets model_save_dir; needed without -c")
    for name, (key, text) in extra.items():
        parser.add_argument(name, metavar="PATH", dest=key, help=f"sets {key}: {text}")
    for name, (argument, text) in (files or {}).items():
        parser.add_argument(name, metavar="FILE", dest=argument, default="", help=text)
    options = vars(parser.parse_args(arguments))
    if options["config"] is None and not (options["checkpoint"] and options["output"]):
        parser.error("give -c FILE, or both --checkpoint and --output")
    config = settings_of(options["checkpoint"]) if options["config"] is None else Config.from_yaml(options["config"])
    config.override(options["override"])
    for option, key in [("checkpoint", "checkpoint_dir"), ("output", "model_save_dir")]:
        if options[option]:
            config.set(key, options[option], f"--{option}")
    for name, (key, _) in extra.items():
        if options[key]:
            config.set(key, options[key], name)
    written = {argument: options[argument] for argument, _ in (files or {}).values()}
    return getattr(Entry(config=config), action)(**written)


def console(arguments: list[str] | None = None) -> None:
    """The command `plsc`: `plsc plan -c configs/x.yaml --ranks 8 --memory-gb 32`; tools/plan.py is the same.

    Ends with status 1 where a rank's memory is too small, and for a PlscError with one line.
    """
    install_excepthook()
    parser = argparse.ArgumentParser(prog="plsc", description="Large-scale classification on PaddlePaddle.")
    commands = parser.add_subparsers(dest="command", required=True)
    text = "what each rank of a training run will need in memory, and the most classes that fit; runs nothing"
    command = commands.add_parser("plan", help=text, description=text)
    command.add_argument("-c", "--config", metavar="FILE", help="a YAML file; the defaults without one")
    command.add_argument(
        "-o", "--override", metavar="KEY=VALUE", action="append", default=[], help="change one key; may be repeated"
    )
    command.add_argument("--ranks", type=int, help="how many there will be; those of this launch by default")
    command.add_argument(
        "--memory-gb", type=float, help="memory of a rank in 1e9 bytes; an equal part of what is free here by default"
    )
    options = parser.parse_args(arguments)
    config = Config() if options.config is None else Config.from_yaml(options.config)
    config.override(options.override)
    plan = Entry(config=config).plan(options.ranks, options.memory_gb)
    print(plan)
    raise SystemExit(1 if plan.fits is False else 0)


def embed(source: str, checkpoint_dir: str | None, output: str | None) -> tuple[np.ndarray, list[str]]:
    """(features [M, E], their paths) of what predict() wrote into ``source``, or of a folder or list of pictures.

    The pictures go through the net in ``checkpoint_dir``; ``output``/predictions then holds what predict() writes.
    Raises DataError, and ConfigError for pictures without a net or without an output.
    """
    if os.path.isfile(os.path.join(source, FEATURES)):
        return read_predictions(source)
    if not checkpoint_dir or not output:
        raise ConfigError(f"{source}: has no {FEATURES}; for pictures give --checkpoint and --output, too")
    config = settings_of(checkpoint_dir)
    config.update({"checkpoint_dir": checkpoint_dir, "model_save_dir": output, "predict": {"images": source}}, "tool")
    prediction = Entry(config=config).predict()
    return prediction.features, prediction.paths


def settings_of(path: str) -> Config:
    """What the checkpoint was trained with; the defaults for an exported model, which says itself what it needs.

    Only the settings of net, classes, pictures and device count here; how it was trained does not.
    """
    if is_exported(path):
        return Config()
    resolved = checkpoint.resolve(path)
    stored = checkpoint.read_manifest(resolved).config
    keys = ("model", "classifier", "data", "device", "num_threads", "test_batch_size")
    try:
        return Config.from_dict({key: stored[key] for key in keys if key in stored})
    except ConfigError as error:
        raise ConfigError(f"{resolved}: holds settings that this PLSC does not take ({error}); use -c") from None
