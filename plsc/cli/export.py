"""Export a trained model: plsc export --checkpoint output/run --output exported -o export.format=both

The model goes to OUTPUT/inference, where plsc.Predictor reads it. Without -c the settings are those that the checkpoint
was trained with. The checkpoint is only read.

With --to insightface, triton or kserve the model goes to OUTPUT/TARGET in ONNX, as these programs load it; Predictor
reads it as well. With --to torch the weights go to OUTPUT/model.pt instead, by the names of arcface_torch or AdaFace,
for torch.load(file, weights_only=True). With --to safetensors those of any backbone go to OUTPUT/safetensors, with a
model card.
"""

from __future__ import annotations

import argparse
import re

from plsc.cli.options import add_model, add_quiet, log_lines, model_config
from plsc.config import Config
from plsc.terminal import print_stdout

_LICENSE = re.compile(r"[A-Za-z0-9][A-Za-z0-9.+-]{0,63}")  # as SPDX names them
_PROGRAMS = ("insightface", "triton", "kserve")  # those of export.target


def add_options(parser: argparse.ArgumentParser) -> None:
    add_model(parser)
    parser.add_argument("--images", metavar="PATH",
                        help="images on which exported and trained model are compared; sets export.images")  # fmt: skip
    parser.add_argument("--to", choices=[*_PROGRAMS, "torch", "safetensors"],
                        help="who will load it: sets export.target; torch, safetensors: weights only")  # fmt: skip
    parser.add_argument("--license", metavar="NAME",
                        help="of the weights, for the model card of --to safetensors, such as apache-2.0")  # fmt: skip
    add_quiet(parser)


def run(options: argparse.Namespace) -> None:
    from plsc.entry import Entry

    config = model_config(options, {"images": "export.images"})
    if options.license is not None and (options.to != "safetensors" or not _LICENSE.fullmatch(options.license)):
        options.refuse("--license is a name such as apache-2.0, of --to safetensors")
    if options.to == "safetensors":
        _export_safetensors(config, options.license)
        return
    if options.to in _PROGRAMS:
        config.set("export.target", options.to, "--to")
    if options.to == "torch":
        _export_torch(config, options.quiet)
        return
    with log_lines(options):
        directory = Entry(config=config).convert_for_prediction()
    if options.quiet:
        print_stdout(str(directory))


def _export_safetensors(config: Config, license: str | None) -> None:
    from plsc.engine.weights.model_card import UNKNOWN
    from plsc.engine.weights.safetensors import export_safetensors

    stated = license or UNKNOWN
    print_stdout(export_safetensors(config.checkpoint_dir, config.model_save_dir, stated, config.ema.weights))
    if license is None:
        print_stdout("note: the model card states no license; give --license")


def _export_torch(config: Config, quiet: bool) -> None:
    from plsc.backend.paddle_version import require_paddle
    from plsc.parallel.environment import quiet_paddle_logs

    quiet_paddle_logs()
    require_paddle()
    from plsc.engine.weights.exporting import export_torch

    file, notes = export_torch(config)
    print_stdout(file)
    for note in [] if quiet else notes:
        print_stdout(f"note: {note}")
