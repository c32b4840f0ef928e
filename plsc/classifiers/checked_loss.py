"""A user's loss with checked results: an exception or a wrong result of a method is one line that names the method."""

from __future__ import annotations

import math
import numbers
from collections.abc import Callable
from typing import Any

import paddle

from plsc.errors import ConfigError, PlscError, reason_of
from plsc.losses import Batch, Loss, PairLoss


class CheckedLoss:
    """Calls ``loss`` and checks number, shape and type of each result. Raises ConfigError."""

    def __init__(self, loss: Loss):
        self._loss = loss
        self.elementwise = loss.elementwise
        self.is_pairs = isinstance(loss, PairLoss)

    def overrides(self, method: str) -> bool:
        """Whether the loss implements this optional method."""
        return self._loss.overrides(method)

    def states(self) -> dict[str, float]:
        """{name: initial value}."""
        found = self._call("states") if self.overrides("states") else {}
        for name, value in found.items():
            taken = self.is_pairs and name == "bias"
            if not (isinstance(name, str) and name.isidentifier() and _is_finite(value)) or taken:
                raise self._error("states", f"{{{name!r}: {value!r:.40}}}", "{name: a finite number}")
        return found

    def update(self, batch: Batch, names: tuple[str, ...]) -> dict[str, Any]:
        """{name: [1] float64} of each of ``names``."""
        found = self._call("update", batch)
        if not isinstance(found, dict) or set(found) != set(names):
            given = ", ".join(map(str, found)) if isinstance(found, dict) else type(found).__name__
            raise self._error("update", given, f"a dict of the states {', '.join(names)}")
        return {name: self._value("update", paddle.reshape(found[name], [-1]), [1], "float64") for name in names}

    def target(self, batch: Batch, shape) -> tuple:
        """(cosine with margin, slope, slope by the norm or None), ``shape`` float64."""
        found = self._call("target", batch)
        if not isinstance(found, tuple) or len(found) not in (2, 3):
            raise self._error("target", _describe(found), "(cosine with margin, slope), or also the slope by the norm")
        values = [self._value("target", value, shape, "float64") for value in found]
        return (*values, None)[:3]

    def penalty(self, batch: Batch, shape) -> tuple:
        """(penalty, slope by the norm), ``shape`` float64."""
        return self._value_and_slope("penalty", (batch,), shape, "float64")

    def others(self, cosine, batch: Batch) -> tuple:
        """(replacement for ``cosine``, slope), of its shape, float32."""
        return self._value_and_slope("others", (cosine, batch), cosine.shape, "float32")

    def pairs(self, scale: float, num_classes: int) -> tuple[float, float, float, float]:
        """(positive weight, negative weight, initial bias, bias_rate) of a PairLoss."""
        weights = self._call("weights", scale)
        fits = isinstance(weights, tuple) and len(weights) == 2
        if not fits or not all(_is_finite(value) and value > 0.0 for value in weights):
            raise self._error("weights", f"{weights!r:.60}", "(positive, negative), two finite numbers above 0")
        bias, rate = self._call("initial_bias", scale, num_classes), getattr(self._loss, "bias_rate", None)
        if not _is_finite(bias):
            raise self._error("initial_bias", f"{bias!r:.40}", "a finite number")
        if not (_is_finite(rate) and rate >= 0.0):
            raise ConfigError(f"loss {self._name}: bias_rate is {rate!r:.40}; it must be a finite number of at least 0")
        return (*map(float, weights), float(bias), float(rate))

    def _value_and_slope(self, method: str, given: tuple, shape, dtype: str) -> tuple:
        found = self._call(method, *given)
        if not isinstance(found, tuple) or len(found) != 2:
            raise self._error(method, _describe(found), "(value, slope)")
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
        """``value`` as ``dtype`` if it has the ``shape``; a size unknown at build time matches any size."""
        found = getattr(value, "shape", None)
        if found is None or isinstance(value, numbers.Number):
            raise self._error(method, _describe(value), f"values of shape {list(shape)}")
        same = len(found) == len(shape) and all(-1 in pair or pair[0] == pair[1] for pair in zip(found, shape))
        if not same:
            raise self._error(method, f"a value of shape {list(found)}", f"values of shape {list(shape)}")
        return value if _has_dtype(value, dtype) else paddle.cast(value, dtype)

    def _error(self, method: str, got: str, wanted: str) -> ConfigError:
        return ConfigError(f"loss {self._name}: {method} returned {got}; it must return {wanted}")

    @property
    def _name(self) -> str:
        return type(self._loss).__name__


def _is_finite(value) -> bool:
    return isinstance(value, numbers.Real) and math.isfinite(value)


def _has_dtype(value, dtype: str) -> bool:
    return dtype in str(value.dtype).lower().replace("fp", "float")


def _describe(value) -> str:
    if isinstance(value, (tuple, list)):
        return f"{type(value).__name__} of {len(value)}"
    return type(value).__name__
