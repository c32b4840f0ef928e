"""LargeScaleClassifier: the classifier on its own, in a user's static program."""

from __future__ import annotations

import math
import numbers
from collections import OrderedDict
from dataclasses import replace
from typing import Any

import paddle

from plsc.backend import fleet, ops, static
from plsc.classifiers.initializer import ShardInitializer, default_distribution
from plsc.classifiers.spec import ClassifierSpec, Shard, StepContext
from plsc.classifiers.step import classify
from plsc.errors import ConfigError
from plsc.losses.combined import Combined
from plsc.parallel.environment import Environment
from plsc.rows.blocks import RowPiece
from plsc.rows.operations import squared_length


class LargeScaleClassifier:
    """Margin softmax over classes that are split over the ranks, with the signature of PLSC 2.2.

    ``feature`` [B, E] float32 and ``label`` [B] or [B, 1] int64 are values of the program being built; B is the same
    on every rank. ``output_dict['loss']`` [1] is the mean over the global batch of all ranks. Pass it to
    ``append_backward``, ``paddle.static.gradients`` or an optimizer's ``minimize``: the gradients of ``feature`` and
    of the rank's ``weight`` [num_local, embedding_size] are then the true ones on any number of ranks. Gradients of
    the layers that compute the feature are this rank's part; the caller sums (not averages) them over the ranks.

    This rank holds ``num_local`` classes and uses ``num_sample`` of them in a step (more where the batch contains
    more of them). On more than one rank, connect them by ``plsc.parallel.group.Group(env).connect(env)`` before the
    program runs. The gradient of the weight is dense, as optimizers expect; ``Entry`` updates sampled rows only.
    ``paddle.distributed.fleet`` cannot be used on more than one rank: its optimizer would begin all shards with that of
    rank 0, sum their gradients and divide all by the number of ranks.

    Raises ConfigError for invalid sizes, margins, ratios, shapes or types, and after ``fleet.init`` of several ranks. A
    label outside [0, num_classes) makes the loss NaN, as well as the gradients of its feature and of all rows.
    """

    def __init__(
        self,
        feature,
        label,
        rank,
        world_size,
        num_classes,
        margin1=1.0,
        margin2=0.5,
        margin3=0.0,
        scale=64.0,
        sample_ratio=1.0,
        embedding_size=512,
        name=None,
    ):
        margins = tuple(_number(f"margin{place}", value) for place, value in enumerate((margin1, margin2, margin3), 1))
        _check_numbers(rank, world_size, num_classes, scale, sample_ratio)
        _check_inputs(feature, label, embedding_size)
        _check_fleet(fleet.num_ranks())
        spec = ClassifierSpec(
            num_classes, embedding_size, Combined(*margins), scale=float(scale), sample_ratio=float(sample_ratio)
        )
        on_gpu = paddle.device.get_device().startswith("gpu")
        env = Environment(rank=rank, world_size=world_size, device="gpu" if on_gpu else "cpu")
        shard = Shard.of(spec, env)
        self.num_classes = num_classes
        self.num_local = shard.num_local
        self.num_sample = shard.num_sample
        prefix = f"dist@{name or 'fc'}@rank@{rank:05d}"
        initializer = ShardInitializer(shard.first, spec.seed, default_distribution(num_classes, embedding_size))
        attr = paddle.ParamAttr(name=prefix + ".w", initializer=initializer)
        self.weight = paddle.static.create_parameter([shard.num_local, embedding_size], "float32", attr=attr)
        self.weight.is_distributed = True
        self.input_dict = OrderedDict([("feature", feature), ("label", label)])
        self.output_dict = OrderedDict([("loss", self._loss(feature, label, StepContext(spec, shard, env), prefix))])

    def _loss(self, feature, label, context: StepContext, prefix: str):
        if context.shard.samples:
            step = static.create_state(prefix + ".step", [1], "int64")
            ops.increment_(step)
            context = replace(context, step=step)
        values = _frozen(feature)
        frozen = _FrozenRows(self.weight)
        output = classify(values, label, frozen, context)
        # loss + (x - frozen x) * gradient has the value of the loss and, by construction, its gradient by x
        carrier = paddle.sum((feature - values) * _freeze(output.dfeature))
        piece = output.row_gradients.blocks.only_piece
        index = piece.block.index
        rows = self.weight if index is None else paddle.gather(self.weight, _freeze(index))
        drows = output.row_gradients.compute(piece, frozen.fetch(piece))
        carrier = carrier + paddle.sum((rows - frozen.fetch(piece)) * _freeze(drows))
        return _freeze(output.loss) + carrier


class _FrozenRows:
    """The rows of a step; no gradient flows through them."""

    def __init__(self, weight):
        self._weight = weight
        self._rows: dict[RowPiece, Any] = {}

    def fetch(self, piece: RowPiece):
        if piece not in self._rows:
            index = piece.block.index
            self._rows[piece] = _frozen(self._weight if index is None else paddle.gather(self._weight, index))
        return self._rows[piece]

    def squares(self, piece: RowPiece):
        return squared_length(self.fetch(piece), piece.block.for_cpu)


def _freeze(value):
    value.stop_gradient = True
    return value


def _frozen(value):
    """A copy of ``value``; no gradient flows through it."""
    return _freeze(paddle.assign(value))


def _number(name: str, value) -> float:
    if isinstance(value, bool) or not isinstance(value, numbers.Real) or not math.isfinite(value):
        raise ConfigError(f"{name}={value!r}: must be a finite number")
    return float(value)


def _check_numbers(rank, world_size, num_classes, scale, sample_ratio) -> None:
    if not 0 <= rank < world_size:
        raise ConfigError(f"rank={rank}: must be in [0, world_size={world_size})")
    if num_classes < 1:
        raise ConfigError(f"num_classes={num_classes}: must be at least 1")
    if not 0.0 < _number("sample_ratio", sample_ratio) <= 1.0:
        raise ConfigError(f"sample_ratio={sample_ratio}: must be above 0 and at most 1")
    if not _number("scale", scale) > 0.0:
        raise ConfigError(f"scale={scale}: must be above 0")


def _check_fleet(ranks: int) -> None:
    if ranks > 1:
        raise ConfigError(
            f"fleet.init was called with {ranks} ranks: fleet's optimizer would sum the shards of the classes as if "
            "they were copies, and train wrongly; leave fleet out, connect the ranks by "
            "plsc.parallel.group.connected_group(env), and sum the gradients of the other layers over the ranks"
        )


def _check_inputs(feature, label, embedding_size) -> None:
    if len(feature.shape) != 2 or feature.shape[1] != embedding_size:
        raise ConfigError(
            f"feature has the shape {list(feature.shape)}: must be [batch, embedding_size={embedding_size}]"
        )
    if "float32" not in str(feature.dtype).lower().replace("fp32", "float32"):
        raise ConfigError(f"feature is {feature.dtype}: must be float32")
    batch, shape = feature.shape[0], list(label.shape)
    if shape not in ([batch], [batch, 1]) or "int" not in str(label.dtype).lower():
        raise ConfigError(f"label is {label.dtype} {shape}: must be int64 [{batch}] or [{batch}, 1], as the feature")
