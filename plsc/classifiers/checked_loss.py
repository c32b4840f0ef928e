"""A loss whose results are checked: what its methods raise, or return wrongly, is one line that names the method."""

from __future__ import annotations

import math
import numbers
from collections.abc import Callable
from typing import Any

import paddle

from plsc.errors import ConfigError, PlscError, reason_of
from plsc.losses import Batch, Loss


class CheckedLoss:
    """``loss`` with results of the right number, shape and type. Raises ConfigError."""

    def __init__(self, loss: Loss):
        self._loss = loss
        self.elementwise = loss.elementwise

    def has(self, method: str) -> bool:
        """Whether the loss has written this optional method."""
        return self._loss.overrides(method)

    def states(self) -> dict[str, float]:
        """{name: first value}."""
        found = self._call("states") if self.has("states") else {}
        for name, value in found.items():
            number = isinstance(value, numbers.Real) and math.isfinite(value)
            if not (isinstance(name, str) and name.isidentifier() and number):
                raise self._wrong("states", f"{{{name!r}: {value!r:.40}}}", "{name: a finite number}")
        return found

    def update(self, batch: Batch, names: tuple[str, ...]) -> dict[str, Any]:
        """{name: [1] float64} of each of ``names``."""
        found = self._call("update", batch)
        if not isinstance(found, dict) or set(found) != set(names):
            given = ", ".join(map(str, found)) if isinstance(found, dict) else type(found).__name__
            raise self._wrong("update", given, f"a dict of the states {', '.join(names)}")
        return {name: self._value("update", paddle.reshape(found[name], [-1]), [1], "float64") for name in names}

    def target(self, batch: Batch, shape) -> tuple:
        """(cosine with margin, slope, slope by the norm or None), ``shape`` float64."""
        found = self._call("target", batch)
        if not isinstance(found, tuple) or len(found) not in (2, 3):
            raise self._wrong("target", _said(found), "(cosine with margin, slope), or also the slope by the norm")
        values = [self._value("target", value, shape, "float64") for value in found]
        return (*values, None)[:3]

    def penalty(self, batch: Batch, shape) -> tuple:
        """(penalty, slope by the norm), ``shape`` float64."""
        return self._two("penalty", (batch,), shape, "float64")

    def others(self, cosine, batch: Batch) -> tuple:
        """(what stands for ``cosine``, slope), of its shape, float32."""
        return self._two("others", (cosine, batch), cosine.shape, "float32")

    def _two(self, method: str, given: tuple, shape, dtype: str) -> tuple:
        found = self._call(method, *given)
        if not isinstance(found, tuple) or len(found) != 2:
            raise self._wrong(method, _said(found), "(value, slope)")
        return tuple(self._value(method, value, shape, dtype) for value in found)

    def _call(self, method: str, *given):
        call: Callable = getattr(self._loss, method)
        try:
            return call(*given)
        except PlscError:
            raise
        except Exception as error:
            raise ConfigError(f"loss {self._name}: {method} raised {reason_of(error)}") from error

    def _value(self, method: str, value, shape, dtype: str):
        """``value`` as ``dtype`` where it has the ``shape``; sizes that are not known while building fit all."""
        found = getattr(value, "shape", None)
        if found is None or isinstance(value, numbers.Number):
            raise self._wrong(method, _said(value), f"values of shape {list(shape)}")
        same = len(found) == len(shape) and all(-1 in pair or pair[0] == pair[1] for pair in zip(found, shape))
        if not same:
            raise self._wrong(method, f"a value of shape {list(found)}", f"values of shape {list(shape)}")
        return value if _is(value, dtype) else paddle.cast(value, dtype)

    def _wrong(self, method: str, got: str, wanted: str) -> ConfigError:
        return ConfigError(f"loss {self._name}: {method} returned {got}; it must return {wanted}")

    @property
    def _name(self) -> str:
        return type(self._loss).__name__


def _is(value, dtype: str) -> bool:
    return dtype in str(value.dtype).lower().replace("fp", "float")


def _said(value) -> str:
    if isinstance(value, (tuple, list)):
        return f"{type(value).__name__} of {len(value)}"
    return type(value).__name__
