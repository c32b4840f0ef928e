"""The options of plsc.launch that Paddle's launcher does not have."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from plsc.errors import LaunchError
from plsc.parallel.environment import parse_port_range


@dataclass(frozen=True)
class LaunchOptions:
    """``--port-range``: the ports of this launch, or None for any. ``--interface``: the network interface to use."""

    ports: range | None = None
    interface: str | None = None


def take_options(arguments: Sequence[str]) -> tuple[LaunchOptions, list[str]]:
    """(these options, the other arguments). The options of the script, which follow its name, are left alone.

    Raises LaunchError for a value that is missing or invalid.
    """
    values: dict[str, str] = {}
    rest: list[str] = []
    words = list(arguments)
    while words and words[0].startswith("-"):  # every option of Paddle's launcher takes a value
        name, given, value = words[0].partition("=")
        count = 1 if given else 2
        if name not in ("--port-range", "--interface"):
            rest += words[:count]
        elif not given and len(words) < 2:
            raise LaunchError(f"{name} needs a value")
        else:
            values[name] = value if given else words[1]
        words = words[count:]
    text = values.get("--port-range")
    ports = None if text is None else parse_port_range(text, "--port-range ")
    return LaunchOptions(ports, values.get("--interface")), rest + words
