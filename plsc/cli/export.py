"""Export a trained model: plsc export --checkpoint output/run --output exported -o export.format=both

The model goes to OUTPUT/inference, where plsc.Predictor reads it. Without -c the settings are those that the checkpoint
was trained with. The checkpoint is only read.

With --to insightface, triton or kserve the model goes to OUTPUT/TARGET in ONNX, as these programs load it; Predictor
reads it as well. With --to torch the weights of a ResNet go to OUTPUT/model.pt instead, by the names of arcface_torch's
iresnet, for torch.load(file, weights_only=True).
"""

from __future__ import annotations

import argparse

from plsc.cli.options import add_model, add_quiet, log_lines, model_config
from plsc.config import Config
from plsc.terminal import print_stdout

_PROGRAMS = ("insightface", "triton", "kserve")  # those of export.target


def add_options(parser: argparse.ArgumentParser) -> None:
    add_model(parser)
    parser.add_argument("--images", metavar="PATH",
                        help="images on which exported and trained model are compared; sets export.images")  # fmt: skip
    parser.add_argument("--to", choices=[*_PROGRAMS, "torch"],
                        help="the program that will load it: sets export.target; torch: weights only")  # fmt: skip
    add_quiet(parser)


def run(options: argparse.Namespace) -> None:
    from plsc.entry import Entry

    config = model_config(options, {"images": "export.images"})
    if options.to in _PROGRAMS:
        config.set("export.target", options.to, "--to")
    if options.to == "torch":
        _export_torch(config, options.quiet)
        return
    with log_lines(options):
        directory = Entry(config=config).convert_for_prediction()
    if options.quiet:
        print_stdout(str(directory))


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
