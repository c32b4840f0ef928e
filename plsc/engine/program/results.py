"""The results of a step: numbers for the log and the loop, in one tensor, so that a step waits for one copy only."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import paddle


def one_tensor(results: Mapping[str, Any]):
    """float64 [K], in the order of ``results``, each of which is one number: exact for float32, and for counts below
    2^53."""
    return paddle.concat([paddle.reshape(paddle.cast(value, "float64"), [1]) for value in results.values()])
