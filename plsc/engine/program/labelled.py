"""Features and labels of training images on every rank, by the backbone in inference mode."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import paddle

from plsc.backend import collectives, static
from plsc.backend.onednn import use_onednn
from plsc.config import Config
from plsc.config.user_objects import UserObjects
from plsc.engine.program.build import make_model
from plsc.engine.program.inputs import make_inputs
from plsc.engine.program.session import Session
from plsc.models import build_feature, require_same_parameters
from plsc.parallel.environment import Environment


@dataclass(frozen=True)
class LabelledProgram:
    """Images [B, C, H, W] and labels [B] of each rank -> ``feature`` [B * world_size, E] and ``label``
    [B * world_size] of all ranks, on every rank; in the variables of the training program."""

    main: Any
    inputs: tuple[str, str]
    feature: Any
    label: Any


def build_labelled(config: Config, user_objects: UserObjects, env: Environment, batch_size: int) -> LabelledProgram:
    """The program for batches of ``batch_size`` on each rank."""
    main, startup = paddle.static.Program(), paddle.static.Program()
    with static.building(main, startup):
        inputs = make_inputs(config, batch_size, with_label=True).values
        label = inputs.pop("label")
        feature = build_feature(make_model(config, user_objects), inputs, is_train=False)
        features = collectives.all_gather(feature, env.world_size)
        labels = collectives.all_gather(paddle.reshape(label, [-1]), env.world_size)
    if config.use_onednn and not env.on_gpu:
        use_onednn(main)
    (image,) = inputs
    return LabelledProgram(main, (image, "label"), features, labels)


def embed(
    session: Session, program: LabelledProgram, batches: Iterable[tuple[int, np.ndarray, np.ndarray]]
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """(features [G, E] float32, labels [G] int64) of each of the ``batches`` of a Loader, the same on every rank, which
    call it together."""
    require_same_parameters(session.program.main, program.main)
    for _, images, labels in batches:
        feed = dict(zip(program.inputs, (images, labels)))
        feature, label = session.run(program.main, feed, [program.feature, program.label])
        yield feature, label
