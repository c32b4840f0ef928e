"""The options of plsc.launch itself, taken out of those of Paddle's launcher."""

from __future__ import annotations

import pytest

from plsc.errors import LaunchError
from plsc.parallel.launch_options import LaunchOptions, take_options


@pytest.mark.parametrize("words, options, rest", [
    ("--nnodes 2 --port-range 2000-2001 --master a:1 x", LaunchOptions(range(2000, 2002)), "--nnodes 2 --master a:1 x"),
    ("--interface=eth1 --port-range=2000-2001 x.py", LaunchOptions(range(2000, 2002), "eth1"), "x.py"),
    ("--nnodes=2 x.py --interface eth0 -c y", LaunchOptions(), "--nnodes=2 x.py --interface eth0 -c y"),
    ("", LaunchOptions(), ""),
])  # fmt: skip
def test_options(words, options, rest):
    assert take_options(words.split()) == (options, rest.split())


@pytest.mark.parametrize("words, said", [
    ("--port-range", "--port-range needs a value"), ("--port-range 5 x.py", "--port-range '5': must be FIRST-LAST"),
    ("--interface", "--interface needs a value"),
])  # fmt: skip
def test_errors(words, said):
    with pytest.raises(LaunchError, match=said):
        take_options(words.split())
