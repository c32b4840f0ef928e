"""The memory plan of a run, before it begins: each rank's bytes, and the largest number of classes that fits.

All ranks are alike except the last, which may have fewer classes; the plan is that of the first. The accuracy of the
values: plsc.engine.memory.estimate.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass

import paddle

from plsc.config import Config
from plsc.config.user_objects import UserObjects
from plsc.engine.memory.estimate import STEP, MemoryEstimator
from plsc.engine.memory.free import free_memory
from plsc.errors import ConfigError
from plsc.parallel.environment import Environment

GB = 1e9


@dataclass(frozen=True)
class MemoryPlan:
    """``bytes``: what a rank needs by name, in the order of the table; ``detail``: the parts of a step at its peak.
    ``memory``: bytes available to a rank, None where unknown; ``most_classes`` that fit into it, 0 if not even one per
    rank does. ``snapshot``: bytes of the copy that save_async makes if there is room; without it saves are synchronous.
    """

    ranks: int
    num_classes: int
    device: str
    bytes: dict[str, int]
    detail: dict[str, int]
    snapshot: int
    memory: float | None
    most_classes: int | None

    @property
    def total(self) -> int:
        """Bytes of a rank."""
        return sum(self.bytes.values())

    @property
    def fits(self) -> bool | None:
        """None where the memory is not known."""
        return None if self.memory is None else self.total <= self.memory

    @property
    def verdict(self) -> str:
        """One line."""
        need = f"{self.num_classes:,} classes on {self.ranks} rank(s) need {self.total / GB:.2f} GB per rank"
        if self.memory is None:
            return f"{need}; set memory_gb (--memory-gb) to check whether that fits"
        answer = "fits" if self.fits else "does not fit"
        most = f"at most {self.most_classes:,} classes fit" if self.most_classes else "no number of classes fits"
        return f"{need}: {answer} in {self.memory / GB:.2f} GB; {most}"

    def __str__(self) -> str:
        lines = [f"{name:<34}{size / 1e6:>12,.1f} MB" for name, size in self.bytes.items()]
        place = next(number for number, name in enumerate(self.bytes) if name == STEP)
        lines[place + 1 : place + 1] = [f"  {name:<32}{size / 1e6:>12,.1f} MB" for name, size in self.detail.items()]
        lines.append(f"{'per rank, at its peak':<34}{self.total / 1e6:>12,.1f} MB")
        if self.snapshot:
            lines.append(f"{'plus, for asynchronous saves':<34}{self.snapshot / 1e6:>12,.1f} MB")
        if self.device == "gpu":
            half = "" if paddle.is_compiled_with_cuda() else ", all in float32"
            lines.append(f"a GPU's tensors{half}, counted from the program for GPUs; not measured on a GPU")
        return "\n".join([*lines, self.verdict])


def plan(config: Config, user_objects: UserObjects, ranks: int | None, memory_gb: float | None) -> MemoryPlan:
    """The memory plan of a training run. Builds its programs, runs nothing and reads no data.

    ``config``: with a number of classes (see ``left_open.with_classes``). ``ranks``: None for those of this launch.
    ``memory_gb``: of each rank, in 1e9 bytes; None for an equal part of what this machine has free, if the run is on
    CPUs. Raises ConfigError.
    """
    ranks = Environment.from_launch().world_size if ranks is None else ranks
    check(ranks, memory_gb)
    device = device_of(config)
    config.check(ranks, device)
    process = resident_bytes()
    paddle.enable_static()
    memory = memory_gb * GB if memory_gb is not None else None
    if memory is None and device == "cpu":
        memory = process + free_memory() / ranks
    need = MemoryEstimator(config, user_objects, ranks, process if device == "cpu" else None, device)
    rank = need.of(config.classifier.num_classes)
    classes = config.classifier.num_classes
    most = None if memory is None else most_classes(need.total, memory, ranks, classes)
    snapshot = rank.snapshot if config.save_async and device == "cpu" else 0
    return MemoryPlan(ranks, classes, device, rank.sizes, rank.detail, snapshot, memory, most)


def check(ranks: int, memory_gb: float | None) -> None:
    """Raise ConfigError for an invalid number of ranks or amount of memory."""
    if isinstance(ranks, bool) or not isinstance(ranks, int) or ranks < 1:
        raise ConfigError(f"ranks={ranks!r}: must be a whole number of at least 1")
    if memory_gb is not None and not (isinstance(memory_gb, (int, float)) and 0 < memory_gb < 1e9):
        raise ConfigError(f"memory_gb={memory_gb!r}: must be a number above 0, in units of 1e9 bytes")


def device_of(config: Config) -> str:
    """The device of the run. A plan for GPUs does not need one."""
    has_gpu = paddle.is_compiled_with_cuda() and paddle.device.cuda.device_count() > 0
    meant = has_gpu or config.mixed_precision.enabled  # which only a GPU can do
    return "gpu" if config.device == "gpu" or (meant and config.device == "auto") else "cpu"


def most_classes(need: Callable[[int], int], memory: float, ranks: int, known: int) -> int:
    """The largest number of classes that fits according to ``need``, within about 1 %; 0 if none does.

    Begins with ``known`` classes and follows the line through the last two answers; each costs building the programs.
    """
    low, high, guess, slope = 0, None, known, 1.2 * 4096 / ranks
    before = None
    if need(known) > memory:
        low = 2 * ranks
        if need(low) > memory:
            return 0
    for _ in range(12):
        found = need(guess)
        if found <= memory:
            low = max(low, guess)
        else:
            high = guess if high is None else min(high, guess)
        if before is not None:
            slope = max((found - before[1]) / (guess - before[0]), 1.0)
        before = guess, found
        near = 0 <= memory - found < 0.002 * memory
        if near or (high is not None and high - low <= max(2 * ranks, low // 100)):
            break
        wanted = int(guess + (0.999 * memory - found) / slope)
        if high is not None and not low < wanted < high:
            wanted = (low + high) // 2
        guess = max(wanted // ranks, 2) * ranks  # classes that any number of ranks can share
        if guess in (low, high, before[0]):
            break
    return low


def resident_bytes() -> int:
    """The resident memory of this process, 0 where the system does not report it."""
    try:
        with open("/proc/self/statm", encoding="ascii") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0
