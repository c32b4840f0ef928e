"""Export: the backbone, and the classes if asked for, as one net without training in it; compared before it is used."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import paddle

from plsc import checkpoint, compat
from plsc.classifiers.head import ZERO_NORM, inverse_norm
from plsc.config import Config
from plsc.data.transforms import PIXEL_MEAN
from plsc.engine import place
from plsc.engine.agreement import compare
from plsc.engine.build import make_inputs, make_model
from plsc.engine.data import input_names
from plsc.engine.inference import Backbone, Variables, weights_identity
from plsc.engine.onnx import MAX_BYTES, convert
from plsc.engine.start import Run, threads
from plsc.errors import CheckpointError, ConfigError, ExportError
from plsc.models import build_feature
from plsc.parallel.environment import Environment
from plsc.parallel.group import first_line
from plsc.parts import Parts
from plsc.serving.description import DESCRIPTION, KINDS, Description, describe_files
from plsc.version import __version__

CENTRES, BIAS = "classifier.centres", "classifier.bias"


@dataclass(frozen=True)
class Classes:
    """The classifier's rows as the exported net uses them.

    centres float32 [C, E]: of length 1, or as they are where there is a ``bias`` [C] (softmax). scale: of the cosines.
    """

    centres: np.ndarray
    bias: np.ndarray | None
    scale: float


def export(run: Run) -> str:
    """Write the model to ``model_save_dir``/inference, compare it, make it visible; returns the directory.

    Every rank calls it, rank 0 does it. Raises CheckpointError, ExportError, ConfigError.
    """
    final = os.path.join(os.path.abspath(run.config.model_save_dir), "inference")
    alone = replace(run.env, rank=0, world_size=1)
    backbone = Backbone(run, alone, -1)
    if run.env.rank == 0:
        place.check_free(final, DESCRIPTION)
        try:
            agreement = _write(run, backbone, alone, final)
            place.publish(final)
        except OSError as error:
            raise ExportError(f"{error.filename or final}: cannot be written: {error.strerror}") from None
        run.journal.say(f"model of {backbone.path} in {final}; {agreement}")
    run.group.barrier("exported")
    return final


def _write(run: Run, backbone: Backbone, env: Environment, final: str) -> str:
    """Write model and description aside and compare; returns what the comparison says."""
    config, section = run.config, run.config.export
    kinds = KINDS if section.format == "both" else (section.format,)
    classes = read_classes(config, backbone) if section.with_classifier else None
    _check_size(config, backbone, classes, kinds)
    unfinished = place.start_anew(final)
    models = {"paddle": _save_paddle(config, run.parts, backbone, classes, env, unfinished)}
    if "onnx" in kinds:
        models["onnx"] = ["backbone.onnx"]
        paths = [os.path.join(unfinished, name) for name in (*models["paddle"], *models["onnx"])]
        convert(*paths)
    if "paddle" not in kinds:
        for name in models.pop("paddle"):
            os.remove(os.path.join(unfinished, name))
    description = _describe(config, backbone, classes, models, unfinished)
    _write_description(unfinished, description)
    agreement = compare(config, backbone, classes, unfinished, description, env, threads(config, run.env))
    _write_description(unfinished, replace(description, agreement=agreement))
    return ", ".join(f"{kind} differs by {agreement[kind]:.1e}" for kind in models)


def read_classes(config: Config, backbone: Backbone) -> Classes:
    """All class centres of the checkpoint, in the memory of one rank. Raises CheckpointError."""
    path, manifest, size = backbone.path, backbone.manifest, backbone.manifest.embedding_size
    softmax = config.margins() is None
    specs = {spec.name: spec for spec in manifest.shard_tensors}
    shape = (manifest.num_classes, size + 1 if softmax else size)
    if "weight" not in specs or specs["weight"].shape != shape:
        found = list(specs["weight"].shape) if "weight" in specs else "no weight"
        raise CheckpointError(
            f"{path}: its classes have {found}, classifier.loss_type={config.classifier.loss_type!r} needs "
            f"{list(shape)}; set loss_type as it was trained, or export.with_classifier: false"
        )
    rows = np.zeros(shape, np.float32)
    for name, first, block in checkpoint.read_rows(path, manifest, 0, manifest.num_classes):
        if name == "weight":
            length = np.linalg.norm(block.astype(np.float64), axis=1, keepdims=True)
            unit = np.where(length > ZERO_NORM, block / np.maximum(length, ZERO_NORM), 0.0)
            rows[first : first + len(block)] = block if softmax else unit
    if softmax:
        return Classes(np.ascontiguousarray(rows[:, :size]), np.ascontiguousarray(rows[:, size]), 1.0)
    return Classes(rows, None, config.classifier.scale)


def build_export(config: Config, parts: Parts, classes: Classes | None) -> tuple[Any, Any, Any, list[Any]]:
    """(main, startup, input value, output values) of the net to export, for any batch size.

    A net of ours is built as NCHW, whatever it was trained as: the weights are the same, and ONNX knows nothing else.
    """
    section, image_name = config.export, input_names(config)[0]
    config = config.copy()
    config.set("model.data_format", "NCHW")
    main, startup = paddle.static.Program(), paddle.static.Program()
    with paddle.static.program_guard(main, startup), paddle.utils.unique_name.guard():
        inputs = make_inputs(config, -1, with_label=False)
        image = inputs[image_name]
        if section.fuse_flip:
            inputs[image_name] = paddle.concat([image, paddle.flip(image, [3])], axis=0)
        feature = build_feature(make_model(config, parts), inputs, is_train=False)
        if section.fuse_flip:
            feature = paddle.mean(paddle.reshape(feature, [2, -1, feature.shape[1]]), axis=0)
        unit = feature * inverse_norm(feature)
        outputs = [unit if section.l2_normalise else feature * 1.0]  # an op of its own, so that the output has a name
        if classes is not None:
            outputs.append(_scores(feature, unit, classes))
    return main, startup, image, outputs


def _scores(feature, unit, classes: Classes):
    centres = compat.create_state(CENTRES, list(classes.centres.shape), "float32")
    if classes.bias is None:
        return paddle.matmul(unit, centres, transpose_y=True) * classes.scale
    return paddle.matmul(feature, centres, transpose_y=True) + compat.create_state(BIAS, [len(classes.bias)], "float32")


def _save_paddle(config: Config, parts: Parts, backbone: Backbone, classes, env: Environment, where: str) -> list[str]:
    """Write the Paddle inference model; returns the names of its two files."""
    main, startup, image, outputs = build_export(config, parts, classes)
    variables = Variables(env)
    variables.run(startup, {}, [])
    variables.load(main, backbone.path, backbone.stored, own=(CENTRES, BIAS))
    if classes is not None:
        variables.set(CENTRES, classes.centres)
        if classes.bias is not None:
            variables.set(BIAS, classes.bias)
    prefix = os.path.join(where, "backbone")
    with paddle.static.scope_guard(variables.scope):
        try:
            paddle.static.save_inference_model(prefix, [image], outputs, variables.executor, program=main)
        except (RuntimeError, ValueError) as error:
            raise ExportError(f"{prefix}: Paddle cannot write the model: {first_line(error)}") from error
    return ["backbone.json" if compat.is_pir() else "backbone.pdmodel", "backbone.pdiparams"]


def _describe(config: Config, backbone: Backbone, classes, models: dict[str, list[str]], where: str) -> Description:
    manifest, section = backbone.manifest, config.export
    return Description(
        plsc_version=__version__,
        paddle_version=paddle.__version__,
        step=manifest.step,
        checkpoint=weights_identity(manifest),
        input_name=input_names(config)[0],
        image_shape=list(config.model.image_shape),
        pixel_mean=PIXEL_MEAN,
        pixel_std=config.data.pixel_std,
        embedding_size=manifest.embedding_size,
        num_classes=None if classes is None else len(classes.centres),
        l2_normalised=section.l2_normalise,
        flip_fused=section.fuse_flip,
        outputs=["embedding"] if classes is None else ["embedding", "scores"],
        models=models,
        files=describe_files(where, [name for names in models.values() for name in names]),
        agreement={},
    )


def _write_description(where: str, description: Description) -> None:
    with open(os.path.join(where, DESCRIPTION), "wb") as file:
        file.write(description.to_bytes())


def _check_size(config: Config, backbone: Backbone, classes: Classes | None, kinds) -> None:
    """Raise ConfigError where the weights are more than an ONNX file can hold."""
    size = sum(array.nbytes for array in backbone.stored.values()) + (0 if classes is None else classes.centres.nbytes)
    if "onnx" in kinds and size > MAX_BYTES:
        raise ConfigError(
            f"export.format={config.export.format!r}: the weights take {size / 2**30:.1f} GiB, an ONNX file holds "
            "2 GiB at most; set export.with_classifier: false or export.format: paddle"
        )
