"""What a training program must say of the images: fed as pixels, a quarter of the bytes, and normalized once."""

from __future__ import annotations

import math

from tests.gpu.cases import BATCH, Built
from tests.gpu.graph import Op

MEAN, STD = 127.5, 127.5


def check_images_are_fed_as_pixels(b: Built) -> None:
    shape = b.case.config().model.image_shape
    image = b.program.feeds["image"]
    assert b.graph.dtype(image.name) == "uint8" and list(image.shape) == [BATCH, *shape]
    fed = sum(SIZES[b.graph.dtype(v.name)] * math.prod(v.shape) for v in b.program.feeds.values() if v.shape[0] >= 0)
    assert fed <= BATCH * (math.prod(shape) + 8) + 100, "more is copied to the GPU than a byte a pixel and the labels"


def check_pixels_are_normalized(b: Built) -> None:
    """cast to float32, minus the mean, divided by a number that the program makes: no product, which rounds."""
    graph, image = b.graph, b.program.feeds["image"]
    cast = _only_reader(b, image.name)
    assert cast.kind == "cast" and graph.dtype(cast.output("Out")) == "float32"
    minus = _only_reader(b, cast.output("Out"))
    assert minus.kind == "scale" and not minus.inputs.get("ScaleTensor")
    assert (minus.attr("scale"), minus.attr("bias")) == (1.0, -MEAN)
    divided = _only_reader(b, minus.output("Out"))
    assert divided.kind == "elementwise_div" and divided.input("X") == minus.output("Out")
    std = graph.writer(divided.input("Y"), divided)
    assert (std.kind, std.attr("value"), std.attr("shape")) == ("fill_constant", STD, [1])
    assert graph.dtype(divided.output("Out")) == "float32"
    readers = [op for op in graph.ops if divided.output("Out") in op.reads]
    assert {op.kind for op in readers} <= {"conv2d", "conv2d_grad", "cast"}, "something else comes before the net"
    assert all(graph.dtype(op.output("Out")) == "float16" for op in readers if op.kind == "cast")
    assert divided.index in graph.upstream(graph.of_kind("conv2d")[0]), "the net does not see it"


def _only_reader(b: Built, name: str) -> Op:
    (op,) = [op for op in b.graph.ops if name in op.reads]
    return op


SIZES = {"uint8": 1, "float32": 4, "int64": 8}
INPUT_CHECKS = [check_images_are_fed_as_pixels, check_pixels_are_normalized]
