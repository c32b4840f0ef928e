"""The device, the executor and the scope of variables of programs."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

import paddle

from plsc.backend import executors, static
from plsc.parallel.environment import Environment


def device_place(env: Environment):
    """The Paddle place of this rank: its GPU or the CPU."""
    return paddle.CUDAPlace(env.device_id) if env.on_gpu else paddle.CPUPlace()


def make_scope(owner: Any) -> tuple[Any, Callable[[], None]]:
    """(a scope, a function that frees it and its variables); it is freed at the latest with ``owner``.

    Paddle itself keeps all scopes until the process ends. A freed scope must not be used. The executor may be destroyed
    later: it does not access the variables then (tested with MALLOC_PERTURB_).
    """
    scope = paddle.static.Scope()
    free = weakref.finalize(owner, static.free_scope, scope)
    free.atexit = False
    return scope, free


def make_executor(env: Environment):
    """An executor on this rank's device; a program that it has run must not change any more."""
    executor = paddle.static.Executor(device_place(env))
    executors.cache_by_program(executor)
    return executor
