"""What a check found, and how it is printed."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Iterable
from dataclasses import dataclass

PASS, FAIL, NOT_HERE = "pass", "FAIL", "not here"


@dataclass(frozen=True)
class Finding:
    """``status``: PASS, FAIL, or NOT_HERE where there is nothing to check. ``seen``: what was found, with units.
    ``advice``: what to change; "" for nothing."""

    name: str
    status: str
    seen: str
    advice: str = ""

    def __str__(self) -> str:
        line = f"{self.status:<8} {self.name:<14} {self.seen}"
        return line if not self.advice else f"{line}\n{textwrap.indent('change: ' + self.advice, ' ' * 24)}"


@dataclass(frozen=True)
class Check:
    """``run()`` returns (status, seen, advice)."""

    name: str
    run: Callable[[], tuple[str, str, str]]

    def find(self) -> Finding:
        """The finding. A check that raises has failed."""
        try:
            return Finding(self.name, *self.run())
        except Exception as error:
            reason = " ".join(str(error).split())[:200]
            return Finding(self.name, FAIL, f"{type(error).__name__}: {reason}", "see docs/gpu.md")


def verdict(ok: bool, seen: str, advice: str) -> tuple[str, str, str]:
    """PASS without advice, or FAIL with it."""
    return (PASS, seen, "") if ok else (FAIL, seen, advice)


def worst(findings: Iterable[Finding]) -> Finding:
    """One finding for those of all ranks of one check: the first that failed, with its rank, else that of rank 0."""
    every = list(findings)
    for rank, found in enumerate(every):
        if found.status == FAIL:
            seen = f"rank {rank}: {found.seen}" if len(every) > 1 else found.seen
            return Finding(found.name, FAIL, seen, found.advice)
    return every[0]
