"""Everything that differs between Paddle 2.6 (legacy static IR) and Paddle 3.x (PIR), and nothing else.

The functions append operations to the program that is being built (``paddle.static.program_guard``) and
return its values. Rank and world size are arguments: nothing here asks the process who it is. On both
versions an operation whose name ends in ``_`` changes its first argument in place, without a copy.
"""

from __future__ import annotations

import contextlib
import sys
import warnings

import paddle
from paddle.base import core, framework
from paddle.base.executor import _ExecutorCache, _get_program_cache_key
from paddle.base.layer_helper import LayerHelper

from plsc.gloo_timeout import set_timeout
from plsc.key_server import join_gloo

RING = 0  # one communication ring: all ranks
STREAM = "plsc_gradients"  # of CUDA, for the sums of the backbone's gradients
SUM, MAX = "sum", "max"
BITS_LOST = {"float16": 13, "bfloat16": 16}  # of the 24 of float32


def is_pir() -> bool:
    """True on Paddle 3.x, where a static program is PIR; False on 2.6."""
    return not paddle.__version__.startswith("2.")


def append_op(kind: str, inputs: dict, outputs: dict, attrs: dict) -> None:
    """Append one operation of the legacy IR (Paddle 2.6 only)."""
    framework.default_main_program().current_block().append_op(type=kind, inputs=inputs, outputs=outputs, attrs=attrs)


def _new_value(kind: str, dtype):
    return LayerHelper(kind).create_variable_for_type_inference(dtype=dtype)


def _out_of(kind: str, inputs: dict, attrs: dict, dtype):
    """The value "Out" of a new operation of the legacy IR."""
    out = _new_value(kind, dtype)
    append_op(kind, inputs, {"Out": out}, attrs)
    return out


def own_operation(kind: str, inputs: dict, outputs: dict):
    """Append an operation of a library that was loaded. ``outputs`` names its float32 results in order: with None for a
    new value, or with the input that it changes in place (Paddle 3 knows both by itself). Returns the results."""
    if is_pir():
        return paddle._C_ops._run_custom_op(kind, *inputs.values())
    made = {name: _new_value(kind, "float32") if value is None else value for name, value in outputs.items()}
    append_op(kind, inputs, made, {})
    return list(made.values())


def made_at(values: list) -> list[int]:
    """The number, in the program, of the operation that makes each value; of several the last."""
    ops = paddle.static.default_main_program().global_block().ops
    if is_pir():
        numbers = {op.id(): number for number, op in enumerate(ops)}
        return [numbers[value.get_defining_op().id()] for value in values]
    numbers = {name: number for number, op in enumerate(ops) for name in op.output_arg_names}
    return [numbers[value.name] for value in values]


@contextlib.contextmanager
def behind(place: int):
    """What is built inside stands directly behind operation number ``place`` of the program."""
    block = paddle.static.default_main_program().global_block()
    if is_pir():
        paddle.pir.set_insertion_point_after(block.ops[place])
        yield
        paddle.pir.reset_insertion_point_to_end()
        return
    count = len(block.ops)
    yield
    made = block.ops[count:]
    for number, op in enumerate(made, place + 1):
        block._insert_op_without_sync(number, type="nop").desc.copy_from(op.desc)
    for _ in made:
        block._remove_op(len(block.ops) - 1, sync=False)


def leaf(value):
    """``value``, or a copy of it where ``gradients`` could not be asked by ``value`` itself.

    Where a value is used several times, Paddle 3 adds up the parts of its gradient only if it comes from nowhere (a
    parameter, what is fed) or from an operation that has a gradient itself. Of the result of a collective, for one, it
    returns the first part alone, and says nothing.
    """
    return value if _adds_up(value) else paddle.assign(value)


def _adds_up(value) -> bool:
    if not is_pir():
        return True
    op = value.get_defining_op()
    if op.num_operands() == 0:
        return True
    return core.has_vjp(op) and not op.name().startswith("builtin.") and not op.name().endswith("_")


def gradients(target, leaves: list) -> list:
    """d target / d leaf for each of ``leaves``, which end as constants: a later backward pass may read them.

    Each leaf is a parameter or was made by ``leaf``. Paddle 2.6 knows a gradient by the end of its name, and a later
    pass takes every such value for zero.
    """
    found = _gradients(target, leaves, None)
    if not is_pir():
        block = framework.default_main_program().current_block()
        found = [block._rename_var(value.name, paddle.utils.unique_name.generate("leaf_gradient")) for value in found]
    return found


def gradients_from(value, gradient, leaves: list) -> list:
    """The gradient of each of ``leaves`` where ``gradient`` is that of ``value``; None if it does not depend on it."""
    return _gradients(value, leaves, [gradient])


def _gradients(target, leaves: list, given: list | None) -> list:
    wrong = [value.get_defining_op().name() for value in leaves if not _adds_up(value)]
    if wrong:
        raise ValueError(f"gradients by what {', '.join(wrong)} makes: ask by compat.leaf of it")
    return paddle.static.gradients([target], leaves, target_gradients=given)


@contextlib.contextmanager
def building(main, startup):
    """Build into these programs, with names counted from zero and without Paddle 3.3's note on each ``zeros_like``."""
    with warnings.catch_warnings(), _short_stacks():
        warnings.filterwarnings("ignore", message="Tensor do not have .place.|The Attr.force_cpu.")
        with paddle.static.program_guard(main, startup), paddle.utils.unique_name.guard():
            yield


@contextlib.contextmanager
def _short_stacks():
    """Let Paddle 3 keep nothing of Python's stack with each operation, which only its own error messages show.

    It never frees what it keeps: whole stacks are a megabyte of each training that a process has run.
    """
    if not is_pir():
        yield
        return
    missing = object()
    before = getattr(sys, "tracebacklimit", missing)
    sys.tracebacklimit = 0
    try:
        yield
    finally:
        if before is missing:
            del sys.tracebacklimit
        else:
            sys.tracebacklimit = before


def know_programs(executor) -> None:
    """Let ``executor`` find what it made of a program by the program itself, which then must not change any more.

    Paddle 3 writes the whole program out as text in every run, to look for that: 2 to 4 ms (docs/performance.md).
    """
    if is_pir():
        executor._executor_cache._CachedData = _Call


class _Call(_ExecutorCache._CachedData):
    """One call of Executor.run. It keeps the program and so on while it is in the cache: no other gets their ids."""

    def __init__(self, program, feed, fetch_list, feed_var_name, fetch_var_name, place, scope, plan=None):
        self.program, self.feed, self.fetch_list, self.plan = program, feed, fetch_list, plan
        self.feed_var_name, self.fetch_var_name, self.place, self.scope = feed_var_name, fetch_var_name, place, scope
        self.key = id(program), scope.raw_address(), _get_program_cache_key(feed, fetch_list)

    def __hash__(self):
        return hash(self.key)


# --- state: persistable variables -------------------------------------------------------------------------


def create_state(name: str, shape: list[int], dtype: str, value: float = 0.0):
    """A persistable variable that no optimizer touches, filled with ``value`` by the startup program (or, where that
    is not run, one of another program by its name)."""
    constant = paddle.nn.initializer.Constant(value)
    state = paddle.static.create_parameter(shape, dtype, name=name, default_initializer=constant)
    state.stop_gradient = True
    if not is_pir():
        state.trainable = False
    return state


def persistables(program) -> dict:
    """Every persistable value of ``program`` by name: parameters, statistics, states."""
    if is_pir():
        block = program.global_block()
        values = list(block.all_parameters())
        for op in block.ops:  # the states of Paddle's own optimizers are no parameters but persistable data
            values += [value for value in op.results() if op.name() == "pd_op.data" and value.persistable]
        return {value.name: value for value in values}
    skip = ("feed", "fetch")
    return {v.name: v for v in program.list_vars() if v.persistable and v.name not in skip}


def share_parameters(program) -> None:
    """Let layers that ask for a parameter by the same name use one value, as in Paddle 2.6.

    Paddle 3 makes a value for each of them, all of one variable; each would have a part of the gradient.
    """
    if not is_pir():
        return
    block, first = program.global_block(), {}
    for value in block.all_parameters():
        kept = first.setdefault(value.name, value)
        if kept is not value:
            value.replace_all_uses_with(kept)
            block.remove_op(value.get_defining_op())


def is_overwritten(program) -> bool:
    """True where ``paddle.assign(value, output=target)`` changes a target of which gradients are taken wrongly.

    Paddle 2.6 then computes a gradient from what is there afterwards. Paddle 3 goes back through all of the program,
    and through what has no gradient, also where the target is a state.
    """
    if is_pir():
        return any(op.name() == "pd_op.assign_out_" for op in program.global_block().ops)
    block, written = program.global_block(), set()
    for op in block.ops:
        names = [name for name in op.output_arg_names if not block._var_recursive(name).persistable]
        if op.type == "assign" and written & set(names):
            return True
        written.update(names)
    return False


def is_trainable(value) -> bool:
    """True for a parameter that an optimizer should move."""
    return bool(getattr(value, "trainable", False)) and not value.stop_gradient


def is_statistic(value) -> bool:
    """True for a float state that no optimizer moves, such as a running mean."""
    return not is_trainable(value) and "float32" in str(value.dtype).lower().replace("fp32", "float32")


def increment_(target, by: int = 1) -> None:
    """target := target + by, in place."""
    if is_pir():
        paddle._C_ops.increment_(target, float(by))
    else:
        append_op("increment", {"X": target}, {"Out": target}, {"step": float(by)})


def scatter_rows_(table, index, rows) -> None:
    """table[index] := rows, in place; costs the rows it writes, not the table. ``index`` has no duplicates."""
    if is_pir():
        paddle._C_ops.scatter_(table, index, rows, True)
    else:
        append_op("scatter", {"X": table, "Ids": index, "Updates": rows}, {"Out": table}, {"overwrite": True})


def add_rows_(table, index, rows):
    """table[index] += rows, in place; ``index`` may name a row several times. Returns the table."""
    if is_pir():
        return paddle._C_ops.index_add_(table, index, rows, 0)
    append_op("index_add", {"X": table, "Index": index, "AddValue": rows}, {"Out": table}, {"axis": 0})
    return table


def scale_channels(value, factor):
    """``value`` [1, C, 1, n], each channel times its ``factor`` [C], in one pass and without a copy of the factors."""
    zeros = paddle.zeros_like(factor)
    if is_pir():
        return paddle._C_ops.affine_channel(value, factor, zeros, "NCHW")
    inputs, attrs = {"X": value, "Scale": factor, "Bias": zeros}, {"data_layout": "NCHW"}
    return _out_of("affine_channel", inputs, attrs, value.dtype)


def round_to(value, dtype: str):
    """float32 ``value`` as float16 or bfloat16, to the nearest. On CPUs the cast of Paddle 2.6 rounds towards 0.

    Below 6e-5, where float16 has steps of 6e-8, Paddle 2.6 still does.
    """
    if not is_pir():
        # Splitting: what is left has the bits of the type, so that the cast has nothing to round (T. J. Dekker, A
        # floating-point technique for extending the available precision, 1971)
        large = value * float(2 ** BITS_LOST[dtype] + 1)
        value = large - (large - value)
    return paddle.cast(value, dtype)


def put_half_rows_(table, index, rows) -> None:
    """scatter_rows_ for float16 and bfloat16, which have no ``scatter`` on CPUs."""
    if is_pir():
        paddle._C_ops.index_put_(table, [index], rows, False)
    else:
        inputs = {"x": table, "indices": [index], "value": rows}
        append_op("index_put", inputs, {"out": table}, {"accumulate": False})


def while_loop(condition, body, carried: list) -> list:
    """carried = body(*carried) while condition(*carried) [1] bool; no gradient flows through."""
    if not is_pir():  # the loop of 2.6 changes the very values it is given
        carried = [paddle.assign(value) for value in carried]
    return paddle.static.nn.while_loop(lambda *values: paddle.reshape(condition(*values), []), body, carried, True)


def momentum_(parameter, gradient, velocity, learning_rate, momentum: float, weight_decay: float) -> tuple:
    """velocity := momentum * velocity + gradient + weight_decay * parameter; parameter -= learning_rate * velocity.

    One pass, in place; returns (parameter, velocity) as they are afterwards. ``learning_rate`` is a [1] float32 value.
    """
    if is_pir():
        parameter, velocity, *_ = paddle._C_ops.momentum_(
            parameter, gradient, velocity, learning_rate, None, momentum, False, "l2_decay", weight_decay, False, 1.0
        )
        return parameter, velocity
    inputs = {"Param": parameter, "Grad": gradient, "Velocity": velocity, "LearningRate": learning_rate}
    attrs = {"mu": momentum, "regularization_method": "l2_decay", "regularization_coeff": weight_decay}
    outputs = {"ParamOut": parameter, "VelocityOut": velocity}
    append_op("momentum", inputs, outputs, {"use_nesterov": False, **attrs})
    return parameter, velocity


def descend_(parameter, gradient, learning_rate):
    """parameter -= learning_rate * gradient, in place and in one pass; returns the parameter."""
    if is_pir():
        return paddle._C_ops.sgd_(parameter, learning_rate, gradient, None, False)[0]
    inputs = {"Param": parameter, "Grad": gradient, "LearningRate": learning_rate}
    append_op("sgd", inputs, {"ParamOut": parameter}, {})
    return parameter


def apply_gradients(optimizer, pairs: list) -> None:
    """Append the update of a user's optimizer for (parameter, gradient) pairs.

    The optimizer's own ``minimize`` would have told it the type of its states; Paddle 3.x does not build the rate of a
    scheduler without it.
    """
    if not pairs:
        return
    if optimizer._dtype is None:
        optimizer._dtype = pairs[0][0].dtype
    optimizer.apply_gradients(pairs)


# --- collectives: appended to the program -----------------------------------------------------------------


def all_gather(value, world_size: int):
    """[B, ...] on each rank -> [B * world_size, ...] on every rank, in the order of the ranks."""
    if world_size == 1:
        return value
    if is_pir():
        return paddle._C_ops.all_gather(value, RING, world_size)
    attrs = {"ring_id": RING, "nranks": world_size, "use_calc_stream": True}
    return _out_of("c_allgather", {"X": value}, attrs, value.dtype)


def all_reduce(value, world_size: int, kind: str = SUM):
    """Elementwise sum or maximum over the ranks, the same result on every rank."""
    if world_size == 1:
        return value
    if is_pir():
        reduce_op = {SUM: paddle.distributed.ReduceOp.SUM, MAX: paddle.distributed.ReduceOp.MAX}[kind]
        return paddle._C_ops.all_reduce(value, RING, reduce_op)
    return _out_of(f"c_allreduce_{kind}", {"X": value}, {"ring_id": RING, "use_calc_stream": True}, value.dtype)


def all_reduce_early(value, world_size: int, beside: bool):
    """all_reduce that the executor starts in its turn, not after all else that is ready (its rule for collectives).

    ``beside``: on a CUDA stream of its own, beside what is computed meanwhile (docs/gpu.md). ``value`` is read by
    nobody else: its place takes the sum where that is needed. Paddle 2.6 takes the memory of a result from what is free
    on the stream that computes, also for an operation on another stream, where somebody may still be reading it.
    """
    if is_pir():
        total = all_reduce(value, world_size)
        total.get_defining_op().set_scheduling_priority(0)
        if beside:
            total.get_defining_op().set_execution_stream(STREAM)
        return total
    attrs = {"ring_id": RING, "use_calc_stream": True}
    total = value if beside else _new_value("c_allreduce_sum", value.dtype)
    append_op("c_allreduce_sum", {"X": value}, {"Out": total}, attrs)
    settings = framework.default_main_program().current_block().ops[-1].dist_attr
    settings.scheduling_priority = 0
    settings.execution_stream = STREAM if beside else settings.execution_stream
    return total


def reduce_scatter(value, rank: int, world_size: int, on_gpu: bool):
    """[B * world_size, ...] on each rank -> this rank's [B, ...] of the sum over the ranks.

    Gloo has no reduce-scatter kernel in either Paddle, so the CPU sums everything and keeps its slice.
    """
    if world_size == 1:
        return value
    if not on_gpu:
        return paddle.split(all_reduce(value, world_size), world_size, axis=0)[rank]
    if is_pir():
        return paddle._C_ops.reduce_scatter(value, RING, world_size)
    attrs = {"ring_id": RING, "nranks": world_size, "use_calc_stream": True}
    return _out_of("c_reducescatter", {"X": value}, attrs, value.dtype)


# --- the two operations that are made for GPUs ------------------------------------------------------------


def class_center_sample(local, num_local: int, num_sample: int):
    """local [G] int64, classes of one shard counted from its first -> sampled rows [S] of the shard, in any order.

    All of ``local`` are among them, the rest is drawn from Paddle's generator; S grows beyond ``num_sample`` when
    there are more positives. The operation is used as with one rank, without communication: its kernel for several
    ranks counts wrongly when many positives meet a small sample or when the ranks sample different numbers of rows
    (see docs/gpu.md).
    """
    if is_pir():
        return paddle._C_ops.class_center_sample(local, num_local, num_sample, RING, 0, 1, False, 0)[1]
    attrs = {"num_classes": num_local, "num_samples": num_sample, "ring_id": RING, "rank": 0, "nranks": 1}
    remapped, index = (_new_value("class_center_sample", local.dtype) for _ in range(2))
    outputs = {"RemappedLabel": remapped, "SampledLocalClassCenter": index}
    append_op("class_center_sample", {"Label": local}, outputs, {**attrs, "fix_seed": False, "seed": 0})
    index.desc.set_shape([-1])  # Paddle 2.6 declares num_sample rows, but the kernel may return more
    return index


def margin_cross_entropy(cosine, label, margins: tuple, scale: float, rank: int, world_size: int):
    """GPU only. cosine [G, S] of this rank, remapped label [G, 1] -> loss [G, 1], the same on every rank."""
    if is_pir():
        return paddle._C_ops.margin_cross_entropy(cosine, label, False, RING, rank, world_size, *margins, scale)[1]
    softmax, loss = (_new_value("margin_cross_entropy", cosine.dtype) for _ in range(2))
    attrs = {"ring_id": RING, "rank": rank, "nranks": world_size, "scale": scale, "return_softmax": False}
    attrs.update(zip(("margin1", "margin2", "margin3"), margins))
    append_op("margin_cross_entropy", {"Logits": cosine, "Label": label}, {"Softmax": softmax, "Loss": loss}, attrs)
    return loss


def entropy_of_the_same_memory(cosine, label):
    """margin_cross_entropy for a program that is only looked at, where no kernel is there whose gradient can be built:
    it makes, keeps and overwrites tensors of the same sizes, but keeps no cosines for its gradient."""
    if is_pir():
        return paddle._C_ops.cross_entropy_with_softmax(cosine, label, False, True, True, -100, -1)[1]
    softmax, loss = (_new_value("softmax_with_cross_entropy", cosine.dtype) for _ in range(2))
    inputs, outputs = {"Logits": cosine, "Label": label}, {"Softmax": softmax, "Loss": loss}
    append_op("softmax_with_cross_entropy", inputs, outputs, {"soft_label": False, "axis": -1})
    return loss


# --- starting the communication ---------------------------------------------------------------------------


def open_store(host: str, port: int, is_server: bool, world_size: int, timeout: int):
    """A key-value store on the server rank; blocks until it is reachable, at most ``timeout`` seconds."""
    return core.TCPStore(host, port, is_server, world_size, timeout)


def start_gloo(store, rank: int, world_size: int, endpoint: str):
    """Join the Gloo ring of all ranks (CPU); returns what the caller has to keep as long as the ring is used.

    ``endpoint`` is a free host:port of rank 0, used by Paddle 2.6.
    """
    if is_pir():
        return core.CommContextManager.create_gloo_comm_context(store, str(RING), rank, world_size)
    return join_gloo(store, rank, world_size, endpoint)


def let_gloo_wait(rank: int, world_size: int, seconds: int) -> bool:
    """Let the collectives of the ring of ``start_gloo`` wait for ``seconds``; False where it stays at Paddle 3's 30.

    Paddle 2.6 waits for months.
    """
    return not is_pir() or set_timeout(paddle.__file__, RING, rank, world_size, seconds)


def start_nccl(store, rank: int, world_size: int, device_id: int) -> None:
    """Join the NCCL ring of all ranks (GPU) with card ``device_id``; blocks until every rank has joined.

    The collectives of both Paddles look for their ring, by its number, in the CommContextManager; those of 2.6 do so
    under a flag that is on unless the user's environment says otherwise.
    """
    if not is_pir():
        paddle.set_flags({"FLAGS_dynamic_static_unified_comm": True})
    core.CommContextManager.set_device_id(device_id)
    core.CommContextManager.create_nccl_comm_context(store, str(RING), rank, world_size)
