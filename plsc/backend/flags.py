"""Paddle's flags in the environment of the process, where a user sets them."""

from __future__ import annotations

import os


def in_environment(name: str) -> str | None:
    """What the environment says of a flag; None where it says nothing."""
    return os.environ.get(name)
