"""What the checks of ranks share: their surroundings, and how a program is run and timed."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import paddle

from plsc.backend import static
from plsc.engine.program.scopes import make_executor
from plsc.parallel.environment import Environment
from plsc.parallel.group import Group


@dataclass(frozen=True)
class Place:
    """A rank. ``env``: where programs run. ``build``: for which device they are built; the same, but in tests."""

    env: Environment
    build: Environment
    group: Group

    @property
    def name(self) -> str:
        """GPU or CPU, as it is built for."""
        return "GPU" if self.build.on_gpu else "CPU"


class Built:
    """A program that ``make(inputs)`` appends to, from inputs with the shapes and types of ``feed``. ``more``: what is
    fed too, as inputs that ``make`` declares itself."""

    def __init__(
        self,
        place: Place,
        feed: dict[str, np.ndarray],
        make: Callable[[dict], list[Any]],
        more: dict[str, np.ndarray] | None = None,
    ):
        self._feed, self._scope = {**feed, **(more or {})}, paddle.static.Scope()
        self._main, startup = paddle.static.Program(), paddle.static.Program()
        with static.building(self._main, startup):
            inputs = {
                name: paddle.static.data(name, list(value.shape), str(value.dtype)) for name, value in feed.items()
            }
            self._fetches = make(inputs)
        self._executor = make_executor(place.env)
        with paddle.static.scope_guard(self._scope):
            self._executor.run(startup)

    def run(self) -> list[np.ndarray]:
        """The values that ``make`` returned."""
        with paddle.static.scope_guard(self._scope):
            return self._executor.run(self._main, feed=self._feed, fetch_list=self._fetches)

    def seconds(self, repeats: int = 3) -> float:
        """The least seconds of a run; the first, which also prepares, does not count."""
        self.run()
        found = []
        for _ in range(repeats):
            began = time.perf_counter()
            self.run()
            found.append(time.perf_counter() - began)
        return min(found)
