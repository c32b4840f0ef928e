"""The classifier's kernels on all ranks against NumPy in float64: loss and gradients, all classes and a sample."""

from __future__ import annotations

import numpy as np
import paddle

from plsc.classifiers import ClassifierSpec, Shard, StepContext, classify
from plsc.config.schema.classifier import PADDLE, PLSC
from plsc.engine.doctor.findings import NOT_HERE, verdict
from plsc.engine.doctor.rank import Built, Place
from plsc.parallel.shards import class_range
from plsc.rows.given_rows import GivenRows

BATCH, EMBEDDING, SCALE, MARGIN = 4, 32, 16.0, 0.5
# Relative to the largest number. float32: cosines are off by 1e-7, times the scale and a slope of a few; TF32: by 7e-5
LIMITS = {"CPU": 2e-5, "GPU": 5e-3}


def kernels(place: Place, which: str, limit: float | None = None) -> tuple[str, str, str]:
    """``which`` of classifier.kernels."""
    if which == PADDLE and not place.build.on_gpu:
        return NOT_HERE, "Paddle's kernels exist for GPUs only", ""
    limit = LIMITS[place.name] if limit is None else limit
    errors = {name: _error(place, which, ratio) for name, ratio in (("all classes", 1.0), ("a sample", 0.4))}
    far = [f"{name} {error:.1e}" for name, error in errors.items() if not error < limit]  # NaN is far
    ranks = place.env.world_size
    if far:
        other = PLSC if which == PADDLE else PADDLE
        advice = f"set classifier.kernels: {other} if its check passes; report this, with Paddle's version and the GPU"
        return verdict(False, f"{ranks} rank(s): errors above {limit:.0e} with {', '.join(far)}", advice)
    seen = f"{ranks} rank(s), loss and gradients equal NumPy's in float64: largest error {max(errors.values()):.0e}"
    return verdict(True, seen, "")


def _error(place: Place, which: str, ratio: float) -> float:
    """The largest error on this rank of loss and gradients, each relative to the largest number."""
    ranks, rank = place.env.world_size, place.env.rank
    num_classes = 41 * ranks - 1  # the last rank has one class fewer
    rng = np.random.default_rng(7)
    rows, feature = (rng.standard_normal((n, EMBEDDING)).astype("float32") for n in (num_classes, BATCH * ranks))
    label = rng.integers(0, num_classes, BATCH * ranks)
    spec = ClassifierSpec(num_classes, EMBEDDING, scale=SCALE, sample_ratio=ratio, kernels=which)
    first, end = class_range(num_classes, rank, ranks)
    mine = slice(rank * BATCH, (rank + 1) * BATCH)
    feed = {"feature": feature[mine], "label": label[mine], "rows": rows[first:end]}
    loss, dfeature, drows, index = Built(place, feed, lambda inputs: _step(inputs, spec, place)).run()
    sampled = np.concatenate(place.group.all_gather((index.reshape(-1) + first).tolist()))
    wanted, wanted_feature, wanted_rows = softmax_in_float64(feature, rows[sampled], _places(label, sampled))
    found = np.isin(sampled, index.reshape(-1) + first)
    pairs = (loss, wanted), (dfeature, wanted_feature[mine]), (drows, wanted_rows[found])
    sizes = np.abs(wanted), np.abs(wanted_feature).max(), np.abs(wanted_rows).max()
    return float(max(np.abs(got - right).max() / size for (got, right), size in zip(pairs, sizes)))


def _step(inputs: dict, spec: ClassifierSpec, place: Place) -> list:
    shard = Shard.of(spec, place.build)
    fed = GivenRows(inputs["rows"])
    step = paddle.full([1], 3, "int64")
    output = classify(inputs["feature"], inputs["label"], fed, StepContext(spec, shard, place.build, step))
    piece = output.row_gradients.blocks.only_piece
    index = paddle.arange(shard.num_local, dtype="int64") if piece.block.index is None else piece.block.index
    return [output.loss, output.dfeature, output.row_gradients.compute(piece, fed.fetch(piece)), index]


def _places(label: np.ndarray, sampled: np.ndarray) -> np.ndarray:
    """Where each label is in ``sampled``. Raises ValueError for a label that was not sampled."""
    where = {int(one): place for place, one in enumerate(sampled)}
    missing = sorted({int(one) for one in label} - set(where))
    if missing or len(where) < len(sampled):
        raise ValueError(f"the sample has {len(sampled) - len(where)} classes twice, and lacks {missing} of the batch")
    return np.array([where[int(one)] for one in label])


def softmax_in_float64(feature: np.ndarray, rows: np.ndarray, label: np.ndarray) -> tuple:
    """ArcFace (Deng et al. 2019, eq. 3): (mean loss, its gradient by ``feature`` [G, E], by ``rows`` [S, E])."""
    vectors = [values.astype("float64") for values in (feature, rows)]
    norms = [np.linalg.norm(values, axis=1, keepdims=True) for values in vectors]
    f, u = (values / norm for values, norm in zip(vectors, norms))
    cosine = f @ u.T
    every = np.arange(len(f))
    theta = np.arccos(cosine[every, label])
    logits = SCALE * cosine
    logits[every, label] = SCALE * np.cos(theta + MARGIN)
    logits -= logits.max(1, keepdims=True)
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    loss = -np.log(p[every, label]).mean()
    dcosine = p * SCALE / len(f)
    dcosine[every, label] = (p[every, label] - 1) * SCALE / len(f) * np.sin(theta + MARGIN) / np.sin(theta)
    through = lambda gradient, unit, norm: (gradient - unit * (gradient * unit).sum(1, keepdims=True)) / norm  # noqa: E731
    return loss, through(dcosine @ u, f, norms[0]), through(dcosine.T @ f, u, norms[1])
