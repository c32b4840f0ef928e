"""Where programs run: the device, the executor, and the scope that holds their variables."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

import paddle

from plsc.backend import executors, static
from plsc.parallel.environment import Environment


def device_place(env: Environment):
    """Where this rank computes: its card, or the CPU."""
    return paddle.CUDAPlace(env.device_id) if env.on_gpu else paddle.CPUPlace()


def make_scope(owner: Any) -> tuple[Any, Callable[[], None]]:
    """(a scope, what frees it and its variables), which happens at the latest when ``owner`` goes.

    Paddle lists all scopes that were made and keeps them to the end of the process. What is freed must not be used. The
    executor may go later: it does not look at the variables then (tried with MALLOC_PERTURB_).
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
