"""The exported model: the backbone, optionally with the classes, as a Paddle inference model."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

import numpy as np
import paddle

from plsc.backend import static
from plsc.classifiers.head import inverse_norm
from plsc.config import Config
from plsc.config.user_objects import UserObjects
from plsc.engine.program.build import make_model
from plsc.engine.program.inputs import input_names, make_inputs
from plsc.engine.program.trained_backbone import TrainedBackbone, Variables
from plsc.errors import ExportError, first_line
from plsc.models import build_feature
from plsc.parallel.environment import Environment

CENTRES, BIAS = "classifier.centres", "classifier.bias"
INSIGHTFACE_STD = 127.5


@dataclass(frozen=True)
class Classes:
    """The classifier's rows as the exported model uses them.

    centres float32 [C, E]: of length 1, or unnormalised with a ``bias`` [C] (softmax). scale: of the cosines. With
    several ``sub_centres`` K of a class, the scores are of the nearest one and ``centres`` is [C * K, E].
    """

    centres: np.ndarray
    bias: np.ndarray | None
    scale: float
    sub_centres: int = 1

    @property
    def number(self) -> int:
        """C."""
        return len(self.centres) // self.sub_centres


def fed_std(config: Config) -> float:
    """The standard deviation by which the exported model expects its images to be divided: insightface knows one
    only, so its models do the rest themselves."""
    return INSIGHTFACE_STD if config.export.target == "insightface" else config.data.pixel_std


def build_export(config: Config, user_objects: UserObjects, classes: Classes | None) -> tuple[Any, Any, Any, list[Any]]:
    """(main, startup, input value, output values) of the model to export, for any batch size.

    A built-in model is built as NCHW, whatever layout it was trained in: the weights are the same, and ONNX supports
    only that.
    """
    section, image_name = config.export, input_names(config)[0]
    config = config.copy()
    config.set("model.data_format", "NCHW")
    main, startup = paddle.static.Program(), paddle.static.Program()
    with static.building(main, startup):
        inputs = make_inputs(config, -1, with_label=False).values
        image = inputs[image_name]
        if fed_std(config) != config.data.pixel_std:
            inputs[image_name] = image * (fed_std(config) / config.data.pixel_std)
        if section.fuse_flip:
            inputs[image_name] = _with_mirror_image(inputs[image_name])
        feature = build_feature(make_model(config, user_objects), inputs, is_train=False)
        if section.fuse_flip:
            feature = paddle.mean(paddle.reshape(feature, [2, -1, feature.shape[1]]), axis=0)
        unit = feature * inverse_norm(feature)
        outputs = [unit if section.l2_normalise else feature * 1.0]  # an op of its own, so that the output has a name
        if classes is not None:
            outputs.append(_scores(feature, unit, classes))
    return main, startup, image, outputs


def _with_mirror_image(image):
    return paddle.concat([image, paddle.flip(image, [3])], axis=0)


def _scores(feature, unit, classes: Classes):
    centres = static.create_state(CENTRES, list(classes.centres.shape), "float32")
    if classes.bias is None:
        scores = paddle.matmul(unit, centres, transpose_y=True) * classes.scale
        if classes.sub_centres == 1:
            return scores
        return paddle.max(paddle.reshape(scores, [-1, classes.number, classes.sub_centres]), axis=2)
    return paddle.matmul(feature, centres, transpose_y=True) + static.create_state(BIAS, [len(classes.bias)], "float32")


def save_inference_model(
    config: Config,
    user_objects: UserObjects,
    backbone: TrainedBackbone,
    classes: Classes | None,
    env: Environment,
    where: str,
) -> list[str]:
    """Write the Paddle inference model into the directory ``where``; returns the names of its two files.

    What comes out is set by the section ``export``. Raises ExportError where Paddle cannot.
    """
    main, startup, image, outputs = build_export(config, user_objects, classes)
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
    return ["backbone.json" if static.is_pir() else "backbone.pdmodel", "backbone.pdiparams"]
