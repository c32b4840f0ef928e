"""Gradients of a static program, without the cases in which Paddle returns wrong ones and says nothing."""

from __future__ import annotations

import paddle

from plsc.backend import private
from plsc.backend.static import is_pir


def as_leaf(value):
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
    has_gradient = private.find("base.core.has_vjp")
    if has_gradient is None:  # leaf makes a copy then, also of what needs none
        return op.name() == "pd_op.assign"
    return has_gradient(op) and not op.name().startswith("builtin.") and not op.name().endswith("_")


def gradients(target, leaves: list) -> list:
    """d target / d leaf for each of ``leaves``, which end as constants: a later backward pass may read them.

    Each leaf is a parameter or was made by ``leaf``. Paddle 2.6 knows a gradient by the end of its name, and a later
    pass takes every such value for zero.
    """
    found = _gradients(target, leaves, None)
    if not is_pir():
        block = private.require("base.framework").default_main_program().current_block()
        found = [block._rename_var(value.name, paddle.utils.unique_name.generate("leaf_gradient")) for value in found]
    return found


def gradients_from(value, gradient, leaves: list) -> list:
    """The gradient of each of ``leaves`` where ``gradient`` is that of ``value``; None if it does not depend on it."""
    return _gradients(value, leaves, [gradient])


def _gradients(target, leaves: list, given: list | None) -> list:
    wrong = [value.get_defining_op().name() for value in leaves if not _adds_up(value)]
    if wrong:
        raise ValueError(f"gradients by what {', '.join(wrong)} makes: ask by autodiff.as_leaf of it")
    return paddle.static.gradients([target], leaves, target_gradients=given)


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


def has_unsafe_assign(program) -> bool:
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
