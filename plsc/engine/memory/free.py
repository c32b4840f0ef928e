"""Free memory: of the machine, and of the control group that limits a container."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import PurePosixPath

# (the controllers of a line of /proc/self/cgroup, where its tree is mounted, limit, use, the shares of the use that the
# kernel can give back: pages of files, also of those that were read more than once)
_KINDS = (
    ("", "sys/fs/cgroup", "memory.max", "memory.current", ("inactive_file", "active_file")),  # version 2
    (
        "memory",
        "sys/fs/cgroup/memory",
        "memory.limit_in_bytes",
        "memory.usage_in_bytes",
        ("total_inactive_file", "total_active_file"),
    ),
)


def free_memory(root: str = "/") -> int:
    """Bytes that this machine, or a control group of this process, has free; swap does not count.

    ``root``: where proc and sys are.
    """
    return max(0, min([_of_machine(root), *_of_groups(root)]))


def _of_machine(root: str) -> int:
    for line in _lines(os.path.join(root, "proc/meminfo")):
        if line.startswith("MemAvailable:"):  # Linux's own estimate
            return int(line.split()[1]) * 1024
    return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _of_groups(root: str) -> Iterator[int]:
    """The free bytes of each limited control group: that of this process and those above it."""
    for line in _lines(os.path.join(root, "proc/self/cgroup")):
        _, controllers, path = line.split(":", 2)
        for names, mount, limit, use, reclaimable in _KINDS:
            if names not in controllers.split(","):
                continue
            for group in (PurePosixPath(path), *PurePosixPath(path).parents):
                directory = os.path.join(root, mount, *group.parts[1:])
                left = _left(directory, limit, use, reclaimable)
                if left is not None:
                    yield left


def _left(directory: str, limit: str, use: str, reclaimable: tuple[str, ...]) -> int | None:
    """None where there is no limit, or no such directory: a container sees its own group as the root."""
    most, used = (_lines(os.path.join(directory, name)) for name in (limit, use))
    if not (most and used and most[0].isdigit() and used[0].isdigit()):
        return None
    statistics = dict(line.split(" ", 1) for line in _lines(os.path.join(directory, "memory.stat")) if " " in line)
    return int(most[0]) - int(used[0]) + sum(int(statistics.get(name, 0)) for name in reclaimable)


def _lines(path: str) -> list[str]:
    try:
        with open(path, encoding="ascii") as file:
            return file.read().splitlines()
    except (OSError, ValueError):
        return []
