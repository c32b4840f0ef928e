"""Cases that run on several numbers of ranks; those of one number are one job, begun when a test asks for a result."""

from __future__ import annotations

import functools
from dataclasses import dataclass

import pytest

from tests.dist import ranks


def by_name(cases: list[dict]) -> dict[str, dict]:
    """{case["name"]: case}; no name twice."""
    named = {case["name"]: case for case in cases}
    assert len(named) == len(cases), "two cases of one name"
    return named


def on_ranks(world_size: int, *values):
    """A parameter of a test; more ranks than a small machine has cores are slow."""
    return pytest.param(world_size, *values, marks=[pytest.mark.slow] if world_size > 2 else [])


@dataclass(frozen=True)
class Cross:
    """``function`` is ``module:function`` of (env, cases), which returns what this rank found of each case."""

    function: str
    cases: dict[str, dict]
    names: dict[int, tuple[str, ...]]  # number of ranks: which cases it runs

    def outcome(self):
        """A fixture, a function: number of ranks -> [what each rank found, by the name of the case]."""

        @pytest.fixture(scope="module")
        def outcome(tmp_path_factory):
            @functools.cache
            def on(world_size):
                names = self.names[world_size]
                cwd = tmp_path_factory.mktemp(f"ranks{world_size}")
                parts = ranks.run(self.function, world_size, cwd, [self.cases[name] for name in names])
                return [dict(zip(names, part)) for part in parts]

            return on

        return outcome

    def each(self, wanted=lambda case: True):
        """Parametrise a test of (outcome, world_size, name) over the numbers of ranks and the cases that each runs."""
        found = [
            on_ranks(size, name) for size, names in self.names.items() for name in names if wanted(self.cases[name])
        ]
        return pytest.mark.parametrize("world_size, name", found)
