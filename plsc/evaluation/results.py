"""The results of all metrics on an evaluation set."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from plsc.evaluation.metric import Computed
from plsc.evaluation.verification import Verification


@dataclass
class SetResult:
    """computed: {metric: result}, in the order of the setting ``metrics``. skipped: {metric: reason}."""

    name: str
    computed: dict[str, Computed] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)

    @property
    def verification(self) -> Verification | None:
        found = self.computed.get("verification")
        return found.result if found and isinstance(found.result, Verification) else None

    @property
    def values(self) -> dict[str, float | None]:
        """{name: number} of all metrics."""
        return {name: value for one in self.computed.values() for name, value in one.values.items()}

    @property
    def record(self) -> dict[str, Any]:
        """The data for scalars.jsonl and JSON."""
        return {key: value for one in self.computed.values() for key, value in one.record.items()}

    def lines(self) -> Iterator[str]:
        """Yield a log line for each metric."""
        for one in self.computed.values():
            yield f"[{self.name}] {one.text}"


class Verifications(dict):
    """{set: Verification} of the sets with verification. sets: {set: SetResult} of all sets."""

    def __init__(self, results: Mapping[str, SetResult]):
        super().__init__({name: one.verification for name, one in results.items() if one.verification is not None})
        self.sets = dict(results)

    @property
    def metrics(self) -> dict[str, dict[str, float | None]]:
        """{set: {name: number}} of all sets and metrics."""
        return {name: one.values for name, one in self.sets.items()}
