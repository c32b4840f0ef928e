"""Convolutions and PReLU on CPUs by oneDNN, all other operations by Paddle's own kernels.

Paddle's flag for oneDNN (FLAGS_use_onednn) replaces every operation that it can, and silently trains wrongly: the
gradient of PReLU reads the incoming gradient as if it had the layout of its input (2.6.2 and 3.3.1). Where only some
operations are replaced, an in-place operation may overwrite a result of oneDNN that others still read (3.3.1).
Therefore the operations are selected here, and each result is converted to Paddle's layout at once: no operation sees
another layout, and each block of memory has one owner. tests/backend/test_onednn.py compares them with the plain
kernels.
"""

from __future__ import annotations

from dataclasses import dataclass

import paddle

from plsc.backend import private, static

TESTED = ("2.6.", "3.3.")  # other versions use the plain kernels: the names below are private in Paddle
CONV = ("strides", "paddings", "padding_algorithm", "dilations", "groups", "data_format")
PRELU = ("mode", "data_format")
TYPES = {"mkldnn_data_type": "float32", "onednn_data_type": "float32"}


@dataclass(frozen=True)
class Replacement:
    """An operation of Paddle 3, ``name``, and the one of oneDNN that replaces it, ``onednn``.

    ``inputs``, ``outputs``, ``attributes``: the names of both. ``extra``: additional attributes of the second.
    """

    name: str
    onednn: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: tuple[str, ...]
    extra: dict[str, bool | str]


_CONV_GRAD = ("x", "filter", "dout"), ("dx", "dfilter"), CONV, {"is_test": False}
_CONV = ("x", "filter"), ("out",), CONV, {"is_test": False, "force_fp32_output": False, **TYPES}
REPLACEMENTS = (
    Replacement("conv2d", "conv2d", *_CONV),
    Replacement("depthwise_conv2d", "conv2d", *_CONV),
    Replacement("conv2d_grad", "conv2d_grad", *_CONV_GRAD),
    Replacement("depthwise_conv2d_grad", "conv2d_grad", *_CONV_GRAD),
    Replacement("prelu", "prelu", ("x", "alpha"), ("out",), PRELU, {"is_test": False, **TYPES}),
    Replacement(
        "prelu_grad", "prelu_grad", ("x", "alpha", "dout"), ("dx", "dalpha"), PRELU, {"is_test": False, **TYPES}
    ),
)


def is_available() -> bool:
    """True where this Paddle has oneDNN and its version is tested."""
    is_built_with_it = private.find("base.core.is_compiled_with_mkldnn")
    return paddle.__version__.startswith(TESTED) and is_built_with_it is not None and is_built_with_it()


def disable_paddle_flags() -> None:
    """Disable Paddle's own use of oneDNN, also where the user's environment enables it."""
    names = ("FLAGS_use_mkldnn", "FLAGS_use_onednn") if static.is_pir() else ("FLAGS_use_mkldnn",)
    for name in names:
        private.set_flag(name, False, without="it cannot be disabled")


def clear_cache(blocks: int) -> None:
    """Free oneDNN's cache of an executor whose programs have run ``blocks`` loops and branches.

    Paddle clears the cache when an executor is destroyed, and forgets that it ran a program in NHWC layout, in which
    the next program would get the results of oneDNN. But each ``while`` loop or branch that has run makes it skip one
    such clearing, of whichever executor: 2 GB of a ResNet50's layouts would stay allocated (batch 16), and a run in
    NCHW would fail after one in NHWC. So ``blocks`` empty executors are created and destroyed, 0.7 us each; one too
    many does no harm.
    """
    if not is_available():
        return  # oneDNN was not used
    core = private.require("base.core")
    place = core.Place()
    place.set_place(core.CPUPlace())
    for _ in range(blocks):
        core.Executor(place)


def use_onednn(program) -> int:
    """Replace the operations of ``REPLACEMENTS`` in a finished ``program`` that has not run yet; returns their number.

    Only operations on [B, C, H, W] float32 in NCHW layout are replaced. Python references to their values become
    invalid; features, losses and parameters are not among these.
    """
    if not is_available():
        return 0
    return _replace_pir(program) if static.is_pir() else _replace_legacy(program)


# --- Paddle 3: a pass of pattern and replacement ----------------------------------------------------------


def _replace_pir(program) -> int:
    # Paddle registers the operations of oneDNN when an executor prepares its first program
    paddle.static.Executor(paddle.CPUPlace()).run(paddle.static.Program())
    manager = paddle.pir.PassManager()
    rules = [_rule(each) for each in REPLACEMENTS]  # must outlive the pass
    for each, rule in zip(REPLACEMENTS, rules):
        manager.register_pass(f"plsc_{each.name}_pass", rule)
    manager.run(program)
    return sum(op.name().startswith("onednn_op.") for op in program.global_block().ops)


def _rule(each: Replacement):
    context = paddle.pir.DrrPatternContext()
    source = context.SourcePattern()
    attributes = {name: source.Attr(name) for name in each.attributes}
    tensors = [[source.Tensor(name) for name in names] for names in (each.inputs, each.outputs)]
    source.Op(f"pd_op.{each.name}", attributes)(*tensors)
    source.AddConstraint(lambda found: _fits(found, "mode" in each.attributes))
    result = source.ResultPattern()
    extra = {n: result.BoolAttr(v) if isinstance(v, bool) else result.StrAttr(v) for n, v in each.extra.items()}
    made = [result.Tensor(f"{name}_of_onednn") for name in each.outputs]
    inputs = [result.Tensor(name) for name in each.inputs]
    result.Op(f"onednn_op.{each.onednn}", {**attributes, **extra})(inputs, made)
    for name, value in zip(each.outputs, made):
        # an operation of Paddle's that costs nothing; its input is converted to Paddle's layout
        result.Op("pd_op.share_data_")([value], [result.Tensor(name)])
    return context


def _fits(found, is_prelu: bool) -> bool:
    x, float32 = found.Tensor("x"), private.require("base.core").DataType.FLOAT32
    if x.dtype != float32 or len(x.shape) != 4 or found.StrAttr("data_format") != "NCHW":
        return False
    return not is_prelu or found.StrAttr("mode") == "channel"


# --- Paddle 2.6: an attribute of the operation ------------------------------------------------------------

LEGACY = {  # operation: (its image, its results)
    "conv2d": ("Input", ("Output",)), "conv2d_grad": ("Input", ("Input@GRAD", "Filter@GRAD")),
    "prelu": ("X", ("Out",)), "prelu_grad": ("X", ("X@GRAD", "Alpha@GRAD")),
}  # fmt: skip
EMPTY = "@EMPTY@"  # the name of a gradient that is not computed
LEGACY |= {f"depthwise_{kind}": slots for kind, slots in LEGACY.items() if kind.startswith("conv")}


def _replace_legacy(program) -> int:
    block, replaced, position = program.global_block(), 0, 0
    while position < len(block.ops):
        op = block.ops[position]
        position += 1
        if op.type not in LEGACY or not _fits_legacy(block, op):
            continue
        replaced += 1
        op._set_attr("use_mkldnn", True)
        for name in [name for slot in LEGACY[op.type][1] for name in op.output(slot) if name]:
            variable = block.var(name)
            made = block.create_var(name=f"{name}.of_onednn", dtype=variable.dtype, shape=variable.shape)
            op._rename_output(name, made.name)
            inputs, outputs = {"X": [made.name]}, {"Out": [name]}
            block._insert_op_without_sync(position, type="share_data", inputs=inputs, outputs=outputs)
            position += 1
    block._sync_with_cpp()  # once: it reads every operation
    return replaced


def _fits_legacy(block, op) -> bool:
    x = block.var(op.input(LEGACY[op.type][0])[0])
    layout, float32 = op.attr("data_format"), private.require("base.core").VarDesc.VarType.FP32
    if x.dtype != float32 or len(x.shape) != 4 or layout not in ("NCHW", "AnyLayout"):
        return False
    if "prelu" not in op.type:
        return True
    # a frozen slope has no gradient, nor has an input behind which all is frozen: the kernel would write to no address
    complete = all(name != EMPTY for slot in LEGACY[op.type][1] for name in op.output(slot) or [EMPTY])
    return op.attr("mode") == "channel" and complete
