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
    image = b.program.feeds["image"].name
    if b.case.accumulate == 1:
        _check_normalized(b, image)
        return
    cuts, size = [op for op in b.graph.ops if image in op.reads], BATCH // b.case.accumulate
    bounds = [(number * size, (number + 1) * size) for number in range(b.case.accumulate)]
    found = [(*op.attr("starts"), *op.attr("ends")) for op in cuts]
    assert sorted(found) == sorted(2 * bounds), "not each micro-batch in the forward pass and once again"
    for cut in cuts:
        assert (cut.kind, cut.attr("axes")) == ("slice", [0])
        _check_normalized(b, cut.output("Out"))


def _check_normalized(b: Built, pixels: str) -> None:
    graph = b.graph
    cast = _only_reader(b, pixels)
    assert cast.kind == "cast" and graph.dtype(cast.output("Out")) == "float32"
    minus = _only_reader(b, cast.output("Out"))
    assert minus.kind == "scale" and not minus.inputs.get("ScaleTensor")
    assert (minus.attr("scale"), minus.attr("bias")) == (1.0, -MEAN)
    divided = _only_reader(b, minus.output("Out"))
    assert divided.kind == "elementwise_div" and divided.input("X") == minus.output("Out")
    std = graph.writer(divided.input("Y"), divided)
    assert (std.kind, std.attr("value"), std.attr("shape")) == ("fill_constant", STD, [1])
    assert graph.dtype(divided.output("Out")) == "float32"
    fed = divided.output("Out")
    if b.case.half:  # NHWC inside the net
        fed = _only_reader(b, fed).output("Out")
    readers = [op for op in graph.ops if fed in op.reads]
    assert {op.kind for op in readers} <= {"conv2d", "conv2d_grad", "cast"}, "something else comes before the net"
    assert all(graph.dtype(op.output("Out")) == b.case.dtype for op in readers if op.kind == "cast")
    assert any(op.index in graph.downstream(divided) for op in graph.of_kind("conv2d")), "the net does not see it"


def _only_reader(b: Built, name: str) -> Op:
    (op,) = [op for op in b.graph.ops if name in op.reads]
    return op


def check_layout(b: Built) -> None:
    """NHWC with mixed precision, and the images transposed once; NCHW without."""
    layout = "NHWC" if b.case.half else "NCHW"
    of_layout = b.graph.of_kind("conv2d", "conv2d_grad", "batch_norm", "prelu", "prelu_grad")
    layouts = {op.attr("data_layout" if "norm" in op.kind else "data_format") for op in of_layout if _is_image(b, op)}
    assert layouts == {layout}
    transposed = [op.attr("axis") for op in b.graph.of_kind("transpose2")]
    passes = 1 if b.case.accumulate == 1 else 2 * b.case.accumulate  # each micro-batch is computed twice
    assert transposed == ([[0, 2, 3, 1], [0, 3, 1, 2]] * passes if b.case.half else []), "once at each end of the net"


def _is_image(b: Built, op: Op) -> bool:
    (name,) = op.inputs.get("X") or op.inputs["Input"]
    return len(b.graph.shape(name)) == 4


SIZES = {"uint8": 1, "float32": 4, "int64": 8}
INPUT_CHECKS = [check_images_are_fed_as_pixels, check_pixels_are_normalized, check_layout]
