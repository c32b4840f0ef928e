"""An action on all ranks: an error on one rank is raised on all."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from plsc.errors import CheckpointError
from plsc.parallel.ranks import Ranks


def on_all_ranks(group: Ranks, what: str, action: Callable[[], Any]) -> list[Any]:
    """Run `action` on this rank and return the JSON values that it returned on every rank.

    If it fails anywhere, every rank raises CheckpointError "<what>: rank <r>: <reason>".
    """
    value, cause, message = None, None, None
    try:
        value = action()
    except Exception as error:  # any error: the other ranks must be told before this one raises
        cause, message = error, describe(error)
    answers = group.all_gather([message, value])
    for rank, (failure, _) in enumerate(answers):
        if failure is not None:
            where = f"rank {rank}: " if group.world_size > 1 else ""
            raise CheckpointError(f"{what}: {where}{failure}") from cause
    return [value for _, value in answers]


def describe(error: Exception) -> str:
    """One line that says what went wrong and where."""
    if isinstance(error, OSError) and error.strerror:
        return f"{error.strerror}: {error.filename}" if error.filename else error.strerror
    if isinstance(error, CheckpointError):
        return str(error)
    first_line = (str(error).splitlines() or [""])[0]
    return f"{type(error).__name__}: {first_line}"
