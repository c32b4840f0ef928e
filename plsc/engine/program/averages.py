"""The averaged weights of a running program: begun, and used in place of the weights for a while."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from plsc.engine.program.session import Session


def begin_averages(session: Session) -> None:
    """Set each average to its weight."""
    names = session.program.averages
    values = session.read(names)
    session.load_replicated({average: values[name] for name, average in names.items()})


@contextlib.contextmanager
def averaged_weights(session: Session) -> Iterator[None]:
    """Inside, programs compute with the averages; then the weights are the same as before, to the bit.

    Needs memory for a copy of the backbone.
    """
    names = session.program.averages
    if not names:
        yield
        return
    weights = session.read(names)
    try:
        for name, average in names.items():  # one at a time, for memory
            session.load_replicated({name: session.read([average])[average]})
        yield
    finally:
        session.load_replicated(weights)
