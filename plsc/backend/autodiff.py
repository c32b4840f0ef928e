"""Gradients of a static program, avoiding the cases in which Paddle silently returns wrong ones."""

from __future__ import annotations

import paddle

from plsc.backend import private
from plsc.backend.static import is_pir


def as_leaf(value):
    """``value``, or a copy of it where ``gradients`` by ``value`` itself would be wrong.

    Where a value is used several times, Paddle 3 sums the parts of its gradient only if the value is an input or a
    parameter, or the result of an operation that has a gradient itself. For the result of a collective, for example, it
    silently returns the first part alone.
    """
    return value if _sums_gradients(value) else paddle.assign(value)


def _sums_gradients(value) -> bool:
    if not is_pir():
        return True
    op = value.get_defining_op()
    if op.num_operands() == 0:
        return True
    has_gradient = private.find("base.core.has_vjp")
    if has_gradient is None:  # as_leaf then always makes a copy
        return op.name() == "pd_op.assign"
    return has_gradient(op) and not op.name().startswith("builtin.") and not op.name().endswith("_")


def gradients(target, leaves: list) -> list:
    """d target / d leaf for each of ``leaves``. The results are constants: a later backward pass may use them.

    Each leaf is a parameter or a result of ``as_leaf``. Paddle 2.6 recognises a gradient by the suffix of its name, and
    a later backward pass would treat it as zero; so the results are renamed.
    """
    found = _gradients(target, leaves, None)
    if not is_pir():
        block = private.require("base.framework").default_main_program().current_block()
        found = [block._rename_var(value.name, paddle.utils.unique_name.generate("leaf_gradient")) for value in found]
    return found


def gradients_from(value, gradient, leaves: list) -> list:
    """The gradient of each of ``leaves``, given the ``gradient`` of ``value``; None if ``value`` does not depend on
    it."""
    return _gradients(value, leaves, [gradient])


def _gradients(target, leaves: list, given: list | None) -> list:
    if not leaves:  # Paddle would build the whole backward pass
        return []
    wrong = [value.get_defining_op().name() for value in leaves if not _sums_gradients(value)]
    if wrong:
        raise ValueError(f"gradients by the result of {', '.join(wrong)} may be wrong: use autodiff.as_leaf of it")
    return paddle.static.gradients([target], leaves, target_gradients=given)


def share_parameters(program) -> None:
    """Make layers that use a parameter of the same name share one value, as in Paddle 2.6.

    Paddle 3 creates one value per layer for the same variable; each would get a part of the gradient.
    """
    if not is_pir():
        return
    block, first = program.global_block(), {}
    for value in block.all_parameters():
        kept = first.setdefault(value.name, value)
        if kept is not value:
            value.replace_all_uses_with(kept)
            block.remove_op(value.get_defining_op())


def has_unsafe_assign(program) -> bool:
    """True where the program has a ``paddle.assign(value, output=target)`` for which Paddle computes wrong gradients.

    Paddle 2.6 computes a gradient from the value after the assignment. Paddle 3 differentiates the whole program, also
    operations without a gradient, and also where the target is a state.
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
