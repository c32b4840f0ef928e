"""What holds for every test."""

from __future__ import annotations

import signal
import sys

import pytest

from tests import short_stacks

short_stacks.use()
signal.signal(signal.SIGINT, signal.default_int_handler)  # a script's background jobs ignore it, and their children


@pytest.fixture(autouse=True)
def static_mode():
    """Every test begins in Paddle's static mode, whatever mode the one before it left the process in."""
    paddle = sys.modules.get("paddle")
    if paddle is not None:
        paddle.enable_static()
