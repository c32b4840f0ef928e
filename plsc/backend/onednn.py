"""Convolutions and PReLU on the CPU by oneDNN, the rest of a program by Paddle's own kernels.

Paddle's switch for oneDNN (FLAGS_use_onednn) moves all that it can and trains wrongly, without a word: the gradient of
PReLU reads what it is given as if it were laid out like its input (2.6.2 and 3.3.1). And where some operations are
moved and others not, one that works in place may write over a result of oneDNN that others still read (3.3.1). So the
operations are chosen here, and each result goes back to Paddle's layout at once: none sees another layout, and each
block has one owner. What is moved is held against the plain kernels in tests/backend/test_onednn.py.
"""

from __future__ import annotations

from dataclasses import dataclass

import paddle

from plsc.backend import private, static

TESTED = ("2.6.", "3.3.")  # other versions keep the plain kernels: the names below are not an interface of Paddle
CONV = ("strides", "paddings", "padding_algorithm", "dilations", "groups", "data_format")
PRELU = ("mode", "data_format")
TYPES = {"mkldnn_data_type": "float32", "onednn_data_type": "float32"}


@dataclass(frozen=True)
class Kind:
    """An operation of Paddle 3 and the one of oneDNN that takes its place. ``sets``: attributes it has in addition."""

    name: str
    becomes: str
    reads: tuple[str, ...]
    writes: tuple[str, ...]
    attributes: tuple[str, ...]
    sets: dict[str, bool | str]


_CONV_GRAD = ("x", "filter", "dout"), ("dx", "dfilter"), CONV, {"is_test": False}
_CONV = ("x", "filter"), ("out",), CONV, {"is_test": False, "force_fp32_output": False, **TYPES}
KINDS = (
    Kind("conv2d", "conv2d", *_CONV),
    Kind("depthwise_conv2d", "conv2d", *_CONV),
    Kind("conv2d_grad", "conv2d_grad", *_CONV_GRAD),
    Kind("depthwise_conv2d_grad", "conv2d_grad", *_CONV_GRAD),
    Kind("prelu", "prelu", ("x", "alpha"), ("out",), PRELU, {"is_test": False, **TYPES}),
    Kind("prelu_grad", "prelu_grad", ("x", "alpha", "dout"), ("dx", "dalpha"), PRELU, {"is_test": False, **TYPES}),
)


def is_available() -> bool:
    """True where this Paddle has oneDNN and its operations are known to be right."""
    is_built_with_it = private.find("base.core.is_compiled_with_mkldnn")
    return paddle.__version__.startswith(TESTED) and is_built_with_it is not None and is_built_with_it()


def disable_paddle_flags() -> None:
    """Switch off Paddle's own choice of operations for oneDNN, also where the user's environment switches it on."""
    names = ("FLAGS_use_mkldnn", "FLAGS_use_onednn") if static.is_pir() else ("FLAGS_use_mkldnn",)
    for name in names:
        private.set_flag(name, False, without="it is not switched off")


def clear_cache(loops: int) -> None:
    """Make what oneDNN keeps of an executor go with it, where its programs have run ``loops`` loops.

    Paddle clears it when an executor goes, but each loop that was run makes it pass over one such clearing, whoever's
    that is: 2 GB of a ResNet50's layouts would stay (batch 16). An executor that has run nothing has a clearing too, of
    0.7 us; one too many does no harm.
    """
    if not is_available():
        return  # nothing was moved to it
    core = private.require("base.core")
    place = core.Place()
    place.set_place(core.CPUPlace())
    for _ in range(loops):
        core.Executor(place)


def use_onednn(program) -> int:
    """Move the operations of ``KINDS`` in a finished ``program`` that has not run yet; returns how many were moved.

    Only those on [B, C, H, W] float32 in the layout NCHW. Values of a moved operation that somebody keeps in Python are
    no longer in the program; features, losses and parameters are not among them.
    """
    if not is_available():
        return 0
    return _move_pir(program) if static.is_pir() else _move_legacy(program)


# --- Paddle 3: a pass of pattern and replacement ----------------------------------------------------------


def _move_pir(program) -> int:
    # the operations of oneDNN are known to Paddle from the first program that an executor prepares
    paddle.static.Executor(paddle.CPUPlace()).run(paddle.static.Program())
    manager = paddle.pir.PassManager()
    rules = [_rule(kind) for kind in KINDS]  # must outlive the pass
    for kind, rule in zip(KINDS, rules):
        manager.register_pass(f"plsc_{kind.name}_pass", rule)
    manager.run(program)
    return sum(op.name().startswith("onednn_op.") for op in program.global_block().ops)


def _rule(kind: Kind):
    context = paddle.pir.DrrPatternContext()
    source = context.SourcePattern()
    attributes = {name: source.Attr(name) for name in kind.attributes}
    tensors = [[source.Tensor(name) for name in names] for names in (kind.reads, kind.writes)]
    source.Op(f"pd_op.{kind.name}", attributes)(*tensors)
    source.AddConstraint(lambda found: _fits(found, "mode" in kind.attributes))
    result = source.ResultPattern()
    sets = {n: result.BoolAttr(v) if isinstance(v, bool) else result.StrAttr(v) for n, v in kind.sets.items()}
    made = [result.Tensor(f"{name}_of_onednn") for name in kind.writes]
    result.Op(f"onednn_op.{kind.becomes}", {**attributes, **sets})([result.Tensor(name) for name in kind.reads], made)
    for name, value in zip(kind.writes, made):
        # an operation of Paddle's that costs nothing: to reach it the value is converted to Paddle's layout
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
LEGACY |= {f"depthwise_{kind}": slots for kind, slots in LEGACY.items() if kind.startswith("conv")}


def _move_legacy(program) -> int:
    block, moved, place = program.global_block(), 0, 0
    while place < len(block.ops):
        op = block.ops[place]
        place += 1
        if op.type not in LEGACY or not _fits_legacy(block, op):
            continue
        moved += 1
        op._set_attr("use_mkldnn", True)
        for name in [name for slot in LEGACY[op.type][1] for name in op.output(slot) if name]:
            variable = block.var(name)
            made = block.create_var(name=f"{name}.of_onednn", dtype=variable.dtype, shape=variable.shape)
            op._rename_output(name, made.name)
            block._insert_op(place, type="share_data", inputs={"X": [made.name]}, outputs={"Out": [name]})
            place += 1
    return moved


def _fits_legacy(block, op) -> bool:
    x = block.var(op.input(LEGACY[op.type][0])[0])
    layout, float32 = op.attr("data_format"), private.require("base.core").VarDesc.VarType.FP32
    if x.dtype != float32 or len(x.shape) != 4 or layout not in ("NCHW", "AnyLayout"):
        return False
    return "prelu" not in op.type or op.attr("mode") == "channel"
