"""Export: the backbone, optionally with the classes, as an inference model, compared with the trained one."""

from __future__ import annotations

import functools
import os
from dataclasses import replace

import numpy as np
import paddle

from plsc import checkpoint
from plsc.classifiers.head import ZERO_NORM
from plsc.config import Config
from plsc.data.transforms import PIXEL_MEAN
from plsc.engine.export.onnx import MAX_BYTES, convert
from plsc.engine.export.targets import Target, target_of
from plsc.engine.inference import output_dir
from plsc.engine.inference.agreement import compare
from plsc.engine.inference.saved_model import Classes, fed_std, save_inference_model
from plsc.engine.program.inputs import input_names
from plsc.engine.program.trained_backbone import TrainedBackbone
from plsc.engine.run.start import Run, threads
from plsc.errors import CheckpointError, ConfigError, ExportError
from plsc.files import class_names
from plsc.files.class_names import CLASS_NAMES
from plsc.files.hashes import write_new
from plsc.parallel.environment import Environment
from plsc.serving import Predictor
from plsc.serving.description import DESCRIPTION, Description, describe_files
from plsc.version import __version__


def export(run: Run) -> str:
    """Write the model to its target's directory, compare it, make it visible; returns the directory.

    Every rank calls it, rank 0 does it. Raises CheckpointError, ExportError, ConfigError.
    """
    target = target_of(run.config)
    final = os.path.join(os.path.abspath(run.config.model_save_dir), target.directory)
    alone = replace(run.env, rank=0, world_size=1)
    backbone = TrainedBackbone(run, alone, -1)
    if run.env.rank == 0:
        output_dir.check_free(final, DESCRIPTION)
        for line in target.without_effect(run.config):
            run.log.info(line)
        try:
            agreement = _write(run, target, backbone, alone, final)
            output_dir.publish(final)
        except OSError as error:
            raise ExportError(f"{error.filename or final}: cannot be written: {error.strerror}") from None
        run.log.info(f"model of {backbone.path} in {final}; {agreement}")
    run.group.barrier("exported")
    return final


def _write(run: Run, target: Target, backbone: TrainedBackbone, env: Environment, final: str) -> str:
    """Write model and description to a temporary directory and compare; returns a summary of the comparison."""
    config = run.config
    classes = read_classes(config, backbone) if config.export.with_classifier else None
    _check_size(backbone, classes, target.kinds)
    unfinished = output_dir.create_unfinished(final)
    models = {"paddle": save_inference_model(config, run.user_objects, backbone, classes, env, unfinished)}
    beside = []
    if "onnx" in target.kinds:
        models["onnx"] = [target.onnx_file]
        paths = [os.path.join(unfinished, name) for name in (*models["paddle"], *models["onnx"])]
        os.makedirs(os.path.dirname(paths[-1]), exist_ok=True)
        convert(*paths)
        beside = target.write(config, unfinished, target.onnx_file)
    if "paddle" not in target.kinds:
        for name in models.pop("paddle"):
            os.remove(os.path.join(unfinished, name))
    names = [] if classes is None else checkpoint.read_class_names(backbone.path, backbone.manifest)
    if names:
        write_new(os.path.join(unfinished, CLASS_NAMES), class_names.to_bytes(names, classes.number))
        beside.append(CLASS_NAMES)
    files = describe_files(unfinished, [*(name for names in models.values() for name in names), *beside])
    description = _describe(config, backbone, classes, models, files)
    _write_description(unfinished, description)
    open_predictor = functools.partial(
        Predictor, unfinished, device=env.device, threads=threads(config, run.env), card=env.device_id
    )
    agreement = compare(config, backbone, classes, models, open_predictor)
    _write_description(unfinished, replace(description, agreement=agreement))
    return ", ".join(f"{kind} differs by {agreement[kind]:.1e}" for kind in models)


def read_classes(config: Config, backbone: TrainedBackbone) -> Classes:
    """All class centres of the checkpoint, in the memory of one rank. Raises CheckpointError."""
    path, manifest, size = backbone.path, backbone.manifest, backbone.manifest.embedding_size
    softmax = not config.loss().normalised
    specs = {spec.name: spec for spec in manifest.shard_tensors}
    shape = (manifest.num_classes, size + 1 if softmax else manifest.sub_centres * size)
    if "weight" not in specs or specs["weight"].shape != shape:
        found = list(specs["weight"].shape) if "weight" in specs else "no weight"
        raise CheckpointError(
            f"{path}: its classes have {found}, classifier.loss_type={config.classifier.loss_type!r} needs "
            f"{list(shape)}; set loss_type as it was trained, or export.with_classifier: false"
        )
    rows = np.zeros(shape, np.float32)
    for _, first, block in checkpoint.read_rows(
        path, manifest, 0, manifest.num_classes, checkpoint.ReadOptions(["weight"])
    ):
        rows[first : first + len(block)] = block if softmax else _unit(block.reshape(-1, size)).reshape(block.shape)
    if softmax:
        return Classes(np.ascontiguousarray(rows[:, :size]), np.ascontiguousarray(rows[:, size]), 1.0)
    return Classes(rows.reshape(-1, size), None, config.classifier.scale, manifest.sub_centres)


def _unit(centres: np.ndarray) -> np.ndarray:
    length = np.linalg.norm(centres.astype(np.float64), axis=1, keepdims=True)
    return np.where(length > ZERO_NORM, centres / np.maximum(length, ZERO_NORM), 0.0)


def _describe(
    config: Config, backbone: TrainedBackbone, classes, models: dict[str, list[str]], files: dict[str, dict]
) -> Description:
    manifest, section = backbone.manifest, config.export
    return Description(
        plsc_version=__version__,
        paddle_version=paddle.__version__,
        step=manifest.step,
        checkpoint=backbone.identity,
        input_name=input_names(config)[0],
        image_shape=list(config.model.image_shape),
        pixel_mean=PIXEL_MEAN,
        pixel_std=fed_std(config),
        embedding_size=manifest.embedding_size,
        num_classes=None if classes is None else classes.number,
        l2_normalised=section.l2_normalise,
        flip_fused=section.fuse_flip,
        outputs=["embedding"] if classes is None else ["embedding", "scores"],
        models=models,
        files=files,
        agreement={},
        resize=config.data.resize,
    )


def _write_description(where: str, description: Description) -> None:
    with open(os.path.join(where, DESCRIPTION), "wb") as file:
        file.write(description.to_bytes())


def _check_size(backbone: TrainedBackbone, classes: Classes | None, kinds) -> None:
    """Raise ConfigError where the weights are more than an ONNX file can hold."""
    size = sum(array.nbytes for array in backbone.stored.values()) + (0 if classes is None else classes.centres.nbytes)
    if "onnx" in kinds and size > MAX_BYTES:
        raise ConfigError(
            f"export: the weights take {size / 2**30:.1f} GiB, an ONNX file holds "
            "2 GiB at most; set export.with_classifier: false, or export.target: predictor and export.format: paddle"
        )
