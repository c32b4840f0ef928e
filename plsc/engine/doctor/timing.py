"""Both kernels of the classifier, timed at the sizes of a large one, and which of them to set."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import paddle

from plsc.backend import ops, static
from plsc.classifiers import ClassifierSpec, Shard, StepContext, classify
from plsc.config.schema.classifier import AUTO, PADDLE, PLSC
from plsc.config.user_objects import UserObjects
from plsc.engine.doctor.findings import PASS, verdict
from plsc.engine.doctor.rank import Built, Place
from plsc.engine.program.build import RowRate, make_rows
from plsc.rows.blocks import BLOCK_ROWS, gpu_block_rows
from plsc.rows.optimizers.momentum import Momentum

# classes of a rank, sample ratio, images of a rank
SIZES = {"GPU": (1_000_000, 0.1, 128), "CPU": (20_000, 0.1, 32)}
EMBEDDING, WINDOW = 512, 2
ENOUGH = 1.1  # the faster one is worth a setting


def timing(place: Place, seconds_of: Callable[[Place, str], float] | None = None) -> tuple[str, str, str]:
    """``seconds_of(place, kernels)``: a measurement, for tests. Sampling, loss and gradients of a step, all ranks."""
    seconds_of = _seconds if seconds_of is None else seconds_of
    classes, ratio, batch = SIZES[place.name]
    about = f"{classes:,} classes a rank, sample {ratio}, batch {batch}"
    both = {which: seconds_of(place, which) for which in ((PADDLE, PLSC) if place.build.on_gpu else (PLSC,))}
    both = {which: max(place.group.all_gather(seconds)) for which, seconds in both.items()}  # of the slowest rank
    seen = ", ".join(f"{which} {1e3 * seconds:.1f} ms" for which, seconds in both.items())
    if len(both) == 1:
        return PASS, f"{seen} ({about}); Paddle's kernels exist for GPUs only", ""
    if both[PADDLE] > ENOUGH * both[PLSC]:
        times = both[PADDLE] / both[PLSC]
        return verdict(False, f"{seen} ({about})", f"set classifier.kernels: {PLSC}, {times:.1f} times as fast")
    return PASS, f"{seen} ({about}): keep classifier.kernels: {AUTO}", ""


def _seconds(place: Place, which: str) -> float:
    classes, ratio, batch = SIZES[place.name]
    ranks, build = place.env.world_size, place.build
    spec = ClassifierSpec(classes * ranks, EMBEDDING, sample_ratio=ratio, kernels=which, features=batch * ranks)
    rng = np.random.default_rng(build.rank)
    feed = {
        "feature": rng.standard_normal((batch, EMBEDDING)).astype("float32"),
        "label": rng.integers(0, spec.num_classes, batch),
    }
    of_rows = {
        # rows that have missed nothing, see plsc.rows.history
        "row_table": np.tile(np.array([[1, 0, 0, 1]], np.float32), (WINDOW, 1)),
        "window_step": np.zeros(1, np.int64),
    }
    return Built(place, feed, lambda inputs: _step(inputs, spec, place), of_rows).seconds()


def _step(inputs: dict, spec: ClassifierSpec, place: Place) -> list:
    """Loss and gradient of the features, and of the rows a number that depends on all of their gradients."""
    build = place.build
    shard = Shard.of(spec, build)
    rows = make_rows(UserObjects(), spec, shard, build, Momentum(0.9), RowRate(5e-4))
    step = static.create_state("step", [1], "int64")
    ops.increment_(step)
    size = gpu_block_rows(shard.num_sample, spec.features) if build.on_gpu else BLOCK_ROWS
    output = classify(inputs["feature"], inputs["label"], rows, StepContext(spec, shard, build, step, block_rows=size))
    total = output.row_gradients.sum(lambda gradient: paddle.reshape(paddle.sum(gradient), [1]))
    return [output.loss, paddle.sum(output.dfeature), total]
