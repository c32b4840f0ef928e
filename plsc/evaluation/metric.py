"""The base class of metrics, their registry, and their checked calls.

A metric computes named numbers from embeddings and identities or pairs. They appear in the log, the scalars, the table,
the JSON and the page, and ``best_metric`` may name them. See docs/add_a_metric.md.
"""

from __future__ import annotations

import inspect
import json
import math
import numbers
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from plsc.config.format_value import format_value
from plsc.errors import ConfigError, DataError, PlscError, reason_of
from plsc.registry import METRICS
from plsc.signatures import problem_with_options, select_arguments

if TYPE_CHECKING:
    from plsc.config import Config

LARGER, SMALLER = "larger", "smaller"
PAIRS, IDENTITIES = NEEDS = "pairs", "identities"
DISTRACTOR = -1  # the identity of images that belong to no identity
RESERVED = ("step", "test", "roc", "tar_at_far")  # keys of a line of scalars.jsonl
_NAME, _NUMBER = re.compile(r"[A-Za-z]\w*"), re.compile(r"[A-Za-z][\w@+-]*(\.\w+)*")


@dataclass(frozen=True)
class Embedded:
    """The embeddings of an evaluation set.

    name: the name of the set. embeddings: float64 [M, E] of length 1 (a zero embedding stays zero). identities:
    int64 [M], for metrics that need identities; DISTRACTOR (-1) marks gallery images that are never a query.
    issame: bool [M / 2], for metrics that need pairs: rows 2i and 2i + 1 are pair i. xnorm: the mean length of the
    embeddings before normalization.
    """

    name: str
    embeddings: np.ndarray
    identities: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    issame: np.ndarray = field(default_factory=lambda: np.zeros(0, bool))
    xnorm: float | None = None


class Metric:
    """Base class of metrics. A subclass defines ``compute`` and ``better``; the rest has defaults.

    needs: "identities" or "pairs": what a set must have. better: {name of a number: "larger", "smaller" or None};
    ``best_metric`` accepts names with a direction. on_every_rank: compute on every rank instead of rank 0 only.
    name: the registered name, set by PLSC. The parameters of the constructor are options, set by ``metric_options``.
    """

    needs: str = IDENTITIES
    better: Mapping[str, str | None] = {}
    on_every_rank: bool = False
    name: str = ""

    def compute(self, data: Embedded) -> Any:
        """Return {name: number} for every name in ``better``; None for a number that the set does not support."""
        raise NotImplementedError

    def gives(self, data: Embedded) -> Collection[str]:
        """Return the names of the numbers that a set supports. Called before training, with empty embeddings."""
        return tuple(self.better)

    def numbers(self, result: Any) -> Mapping[str, float | None]:
        """Return the numbers of a result of ``compute``, if ``compute`` returns more than numbers."""
        return result

    def describe(self, values: Mapping[str, float | None]) -> str:
        """Return the text of the log line, after the name of the set."""
        known = ", ".join(f"{name}: {format_number(value)}" for name, value in values.items() if value is not None)
        return f"{self.name}: {known or 'the set supports none of its numbers'}"

    def record(self, result: Any) -> dict[str, Any] | None:
        """Return plain data for scalars.jsonl and JSON; None to write the numbers."""
        return None


def register_metric(name: str, *, source: str = "") -> Callable[[type[Metric]], type[Metric]]:
    """Decorator that registers a subclass of ``Metric`` under ``name`` for the setting ``metrics``. source: the paper.

    Raises ConfigError for a name that is already registered and for an invalid class.
    """

    def add(kind: type[Metric]) -> type[Metric]:
        if not _NAME.fullmatch(name):
            raise ConfigError(f"metric {name!r}: its name must be letters, digits and _, such as my_metric")
        _check_class(name, kind)
        return METRICS.register(name, source=source)(kind)

    return add


def make_metrics(config: Config) -> list[Metric]:
    """Create the metrics of a run from ``metrics`` and ``metric_options``.

    Raises ConfigError for a metric that cannot be created, and for two numbers of the same name.
    """
    made: dict[str, Metric] = {}
    owner: dict[str, str] = {}
    for name in config.metrics:
        if name in made:
            raise ConfigError(f"metrics: {name} is named twice; leave one out")
        made[name] = _make(name, config.metric_options.get(name, {}), {"protocol": config.protocol})
        for number in made[name].better:
            if number in owner:
                raise ConfigError(
                    f"metrics: {number} is a number of {owner[number]} and of {name}; rename one, or leave out a metric"
                )
            owner[number] = name
    unknown = [name for name in config.metric_options if name not in made]
    if unknown:
        raise ConfigError(f"metric_options: {unknown[0]} is not among metrics={list(made)}; add it, or leave it out")
    return list(made.values())


@dataclass(frozen=True)
class Computed:
    """A metric of a set: its numbers, its log text, its JSON data, and the result of ``compute`` (None on a rank that
    did not compute it)."""

    values: dict[str, float | None]
    text: str
    record: dict[str, Any]
    result: Any = None


def compute_metric(metric: Metric, data: Embedded) -> Computed:
    """Compute ``metric`` and check all that it returns. Raises DataError, in one line, for any error."""
    result = _call(metric, "compute", data)
    values = _check_numbers(metric, _call(metric, "numbers", result))
    text, record = _call(metric, "describe", values), _call(metric, "record", result)
    record = values if record is None else record
    try:
        return Computed(values, " ".join(str(text).split()), json.loads(json.dumps(record, allow_nan=False)), result)
    except (TypeError, ValueError) as error:
        raise DataError(f"metric {metric.name}: record is no plain data for JSON: {error}") from None


def supported_numbers(metric: Metric, data: Embedded) -> list[str]:
    """The names of the numbers that a set supports, in order. Raises DataError if ``gives`` fails."""
    names = _call(metric, "gives", data)
    if isinstance(names, str) or not isinstance(names, Collection) or not set(names) <= set(metric.better):
        raise DataError(f"metric {metric.name}: gives returned {names!r}; expected names of `better`")
    return [name for name in metric.better if name in names]


def _call(metric: Metric, method: str, argument: Any) -> Any:
    try:
        return getattr(metric, method)(argument)
    except PlscError as error:
        raise DataError(str(error)) from error
    except Exception as error:  # users' code may raise anything
        raise DataError(f"metric {metric.name}: {method} raised {reason_of(error)}") from error


def dry_run(metric: Metric, data: Embedded, size: int) -> None:
    """Compute ``metric`` once on random embeddings [M, size] with the labels of ``data``. Raises DataError."""
    count = 2 * len(data.issame) if metric.needs == PAIRS else len(data.identities)
    draw = np.random.Generator(np.random.Philox(key=[0, 0]))
    random_units = draw.standard_normal((count, size))
    random_units /= np.linalg.norm(random_units, axis=1, keepdims=True)
    compute_metric(metric, replace(data, embeddings=random_units, xnorm=1.0))


def format_number(value: float) -> str:
    """Format a number: integers unchanged, others with five digits."""
    return str(value) if isinstance(value, int) else f"{value:.5f}"


def resolve_number(name: str, known: Collection[str]) -> str | None:
    """Return the entry of ``known`` that ``name`` denotes: tar@1e-3 is tar@0.001. None if there is none."""
    if name in known:
        return name
    base, at, number = name.partition("@")
    for one in known:
        its_base, its_at, its_number = one.partition("@")
        if at and its_at and base == its_base and _float(number) == _float(its_number) is not None:
            return one
    return None


def _float(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _check_class(name: str, kind: Any) -> None:
    if not (isinstance(kind, type) and issubclass(kind, Metric)):
        raise ConfigError(f"metric {name!r}: is {_describe_type(kind)}; a subclass of plsc.evaluation.Metric is needed")
    if kind.compute is Metric.compute:
        raise ConfigError(f"metric {name!r}: {kind.__name__} has no method compute(self, data)")
    for method in ("compute", "gives", "numbers", "describe", "record"):
        try:
            inspect.signature(getattr(kind, method)).bind(None, None)
        except TypeError:
            own = inspect.signature(getattr(kind, method))
            wanted = inspect.signature(getattr(Metric, method))
            raise ConfigError(
                f"metric {name!r}: {kind.__name__}.{method}{_parameters(own)}; {method}{_parameters(wanted)} is needed"
            ) from None
    if kind.needs not in NEEDS:
        raise ConfigError(f"metric {name!r}: {kind.__name__}.needs={kind.needs!r}; allowed: {', '.join(NEEDS)}")


def _parameters(signature: inspect.Signature) -> str:
    return f"({', '.join(signature.parameters)})"


def _make(name: str, options: Any, settings: Mapping[str, Any]) -> Metric:
    kind = METRICS.find(name)
    if not isinstance(options, Mapping):
        raise ConfigError(f"metric_options: {name}: {format_value(options)}; a mapping of its options is needed")
    problem = problem_with_options(kind, options, {setting: setting for setting in settings})
    if problem:
        raise ConfigError(f"metric_options: {name}={format_value(options)}: {problem}")
    try:
        metric = kind(**select_arguments(kind, settings), **options)
        metric.name = name
        better = metric.better
    except ConfigError as error:
        raise ConfigError(f"metric_options: {name}: {error}") from error
    except Exception as error:
        raise ConfigError(f"metric {name}: making a {kind.__name__} raised {reason_of(error)}") from error
    if not isinstance(better, Mapping) or not better:
        raise ConfigError(
            f"metric {name}: {kind.__name__}.better={better!r}; a mapping of each number's name to 'larger', "
            "'smaller' or None is needed"
        )
    for number, direction in better.items():
        if not isinstance(number, str) or not _NUMBER.fullmatch(number) or number in RESERVED:
            raise ConfigError(
                f"metric {name}: {number!r} cannot be the name of a number; allowed: letters, digits, _ @ + - such as "
                f"recall@1, but not {', '.join(RESERVED)}"
            )
        if direction not in (LARGER, SMALLER, None):
            raise ConfigError(f"metric {name}: better[{number!r}]={direction!r}; allowed: 'larger', 'smaller', None")
    return metric


def _check_numbers(metric: Metric, values: Any) -> dict[str, float | None]:
    if not isinstance(values, Mapping):
        raise DataError(
            f"metric {metric.name}: returned {_describe_type(values)}; a mapping of names to numbers is needed"
        )
    missing, foreign = [n for n in metric.better if n not in values], [n for n in values if n not in metric.better]
    if missing or foreign:
        wrong = f"lacks {missing[0]!r}" if missing else f"has {foreign[0]!r}, which is not in `better`"
        raise DataError(f"metric {metric.name}: what it returned {wrong}; its numbers are {', '.join(metric.better)}")
    return {name: _to_number(metric, name, values[name]) for name in metric.better}


def _to_number(metric: Metric, name: str, value: Any) -> float | int | None:
    if isinstance(value, np.ndarray) and value.ndim == 0:
        value = value[()]
    if value is None:
        return None
    if isinstance(value, numbers.Integral) and not isinstance(value, (bool, np.bool_)):
        return int(value)
    if not isinstance(value, numbers.Real) or isinstance(value, (bool, np.bool_)):
        raise DataError(
            f"metric {metric.name}: {name} is {_describe_type(value)}; a number is needed, or None for none"
        )
    if not math.isfinite(value):
        raise DataError(f"metric {metric.name}: {name} is {float(value)}; a finite number is needed, or None for none")
    return float(value)


def _describe_type(value: Any) -> str:
    return f"the class {value.__name__}" if isinstance(value, type) else f"a {type(value).__name__}"
