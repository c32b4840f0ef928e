"""Import weights of other projects as a checkpoint: plsc import model.pt --to RUN

Reads files of torch.save by arcface_torch (model.pt, backbone.pth, checkpoint_gpu_0.pt and those of the other ranks),
AdaFace and MagFace, without torch and without running code; .pdparams of PLSC 2.4; ONNX graphs of these models; and
directories of PLSC 0.2 and 2.2. The embeddings are compared with those of the original before anything is written.
More: docs/coming_from.md, docs/checkpoints.md.
"""

from __future__ import annotations

import argparse
import os

from plsc.terminal import print_stdout
from plsc.weights.names import BGR, KIND_NAMES, RGB

OLD_EPSILON = {"0.2": 2e-5, "2.2": 1e-5}
FOR_WEIGHTS = ("channels", "mean", "std", "bn_epsilon", "image_shape")  # options for other projects


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", help="a file of weights, or the directory of one epoch of PLSC 0.2 or 2.2")
    parser.add_argument("--from", dest="kind", choices=[*OLD_EPSILON, *KIND_NAMES],
                        help="what wrote it; needed for 0.2 and 2.2, detected otherwise")  # fmt: skip
    parser.add_argument("--to", metavar="RUN", required=True, help="the checkpoint is made in RUN/checkpoints")
    parser.add_argument("--samples", type=int, help="0.2 and 2.2: samples used so far: epochs done times images")
    weights = parser.add_argument_group("settings that are not in the file, if they are not the project's defaults")
    weights.add_argument("--channels", choices=[RGB, BGR], help="the order of the channels in training")
    weights.add_argument("--mean", type=float, help="what is subtracted from pixels of 0 to 255")
    weights.add_argument("--std", type=float, help="what they are divided by after that")
    weights.add_argument("--bn-epsilon", type=float, help="what batch norm adds to variances")
    weights.add_argument("--image-shape", type=_shape, metavar="C,H,W", help="of images that are not square")
    parser.set_defaults(refuse=parser.error)


def run(options: argparse.Namespace) -> None:
    old = options.kind in OLD_EPSILON
    if os.path.isdir(options.file) and not old:
        options.refuse(f"{options.file} is a directory; give --from 0.2 or 2.2, or one file of weights")
    given = [name for name in FOR_WEIGHTS if getattr(options, name) is not None]
    if old and given:
        options.refuse(f"--{given[0].replace('_', '-')} is for other projects, not for --from {options.kind}")
    if not old and options.samples is not None:
        options.refuse("--samples is for --from 0.2 and 2.2")
    path, notes = _import_old(options) if old else _import_weights(options)
    print_stdout(str(path))
    for note in notes:
        print_stdout(f"note: {note}")


def _import_old(options: argparse.Namespace) -> tuple[str, list[str]]:
    from plsc.checkpoint.old_plsc import import_old

    samples = options.samples or 0
    if samples < 0:
        options.refuse("--samples must be at least 0")
    return import_old(options.file, options.to, OLD_EPSILON[options.kind], samples)


def _import_weights(options: argparse.Namespace) -> tuple[str, list[str]]:
    from plsc.backend.paddle_version import require_paddle
    from plsc.parallel.environment import quiet_paddle_logs
    from plsc.weights.foreign import InputOptions, open_model

    _check_numbers(options)
    input_options = InputOptions(options.channels, options.mean, options.std, options.bn_epsilon, options.image_shape)
    model = open_model(options.file, options.kind, input_options)
    quiet_paddle_logs()
    require_paddle()
    from plsc.engine.weights.importing import import_model

    imported = import_model(model, options.to)
    return imported.directory, imported.notes


def _check_numbers(options: argparse.Namespace) -> None:
    for name, least, most in (("mean", -1000.0, 1000.0), ("std", 1e-3, 1000.0), ("bn_epsilon", 1e-12, 1.0)):
        value = getattr(options, name)
        if value is not None and not least <= value <= most:
            options.refuse(f"--{name.replace('_', '-')} {value:g} must be in [{least:g}, {most:g}]")


def _shape(text: str) -> list[int]:
    parts = text.split(",")
    if len(parts) != 3 or not all(part.strip().isdecimal() and 1 <= int(part) <= 16384 for part in parts):
        raise argparse.ArgumentTypeError(f"{text!r:.40} must be channels,height,width, such as 3,112,96")
    return [int(part) for part in parts]
