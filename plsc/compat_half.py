"""plsc.compat for variables of 16 bits: operations that differ between the Paddles or lack a kernel on CPUs."""

from __future__ import annotations

import paddle

from plsc import compat

BITS_LOST = {"float16": 13, "bfloat16": 16}  # of the 24 of float32


def round_to(value, dtype: str):
    """float32 ``value`` as float16 or bfloat16, to the nearest. On CPUs the cast of Paddle 2.6 rounds towards 0.

    Below 6e-5, where float16 has steps of 6e-8, Paddle 2.6 still does.
    """
    if not compat.is_pir():
        # Splitting: what is left has the bits of the type, so that the cast has nothing to round (T. J. Dekker, A
        # floating-point technique for extending the available precision, 1971)
        large = value * float(2 ** BITS_LOST[dtype] + 1)
        value = large - (large - value)
    return paddle.cast(value, dtype)


def put_rows_(table, index, rows) -> None:
    """table[index] := rows, in place; ``index`` has no duplicates. CPUs have no ``scatter`` of these types."""
    if compat.is_pir():
        paddle._C_ops.index_put_(table, [index], rows, False)
    else:
        inputs = {"x": table, "indices": [index], "value": rows}
        compat.append_op("index_put", inputs, {"out": table}, {"accumulate": False})
