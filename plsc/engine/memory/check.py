"""Checks, before anything is allocated, whether a run fits into the free memory of its machines."""

from __future__ import annotations

import time

from plsc.backend.private import Missing
from plsc.engine.memory.estimate import estimate_memory
from plsc.engine.memory.free import free_memory
from plsc.engine.memory.plan import GB, resident_bytes
from plsc.engine.memory.teacher import teacher_bytes
from plsc.engine.program.programs import EvalProgram, TrainProgram
from plsc.engine.run.start import Run
from plsc.errors import ConfigError, PlscError

LONG_SECONDS = 1.0  # a check that takes longer is logged


def check_memory(run: Run, program: TrainProgram, evaluation: EvalProgram | None) -> None:
    """Raise ConfigError, on every rank, where the ranks of a machine need more than its free memory; on CPUs only.

    The estimate: plsc.engine.memory.estimate. Swap does not count: with it a step takes minutes.
    """
    env = run.env
    if not run.config.memory_check or env.on_gpu:
        return
    began, held = time.monotonic(), resident_bytes()
    need = run.group.agree(lambda: _needed_bytes(run, program, evaluation, held))
    share = held + free_memory() / env.local_world_size
    run.group.agree(lambda: _refuse(need, held, env.local_world_size) if need is not None and need > share else None)
    seconds = time.monotonic() - began
    if need is not None and seconds > LONG_SECONDS:
        need_of = f"{need / GB:.1f} of {share / GB:.1f} GB"
        run.log.info(f"memory: a rank will need {need_of} (estimated in {seconds:.1f} s)")


def _needed_bytes(run: Run, program: TrainProgram, evaluation: EvalProgram | None, held: int) -> int | None:
    """Bytes; None, with a log line, where a user's model has something that the estimate does not support."""
    try:
        sizes = estimate_memory(run.config, run.env, program, evaluation, held).sizes
        return sum(sizes.values()) + teacher_bytes(run.config)
    except Exception as error:
        if isinstance(error, PlscError) and not isinstance(error, Missing):
            raise
        reason = (str(error).splitlines() or [""])[0]
        run.log.info(f"memory was not estimated, the run continues unchecked: {type(error).__name__}: {reason}")
        return None


def _refuse(need: int, held: int, ranks: int) -> None:
    whole, free = (need - held) * ranks, free_memory()
    raise ConfigError(
        f"memory: {ranks} rank(s) on this machine need {whole / GB:.1f} GB more than they hold, {free / GB:.1f} GB are "
        "free (swap does not count); lower classifier.sample_ratio or train_batch_size (raise accumulate "
        "to keep the global batch), set classifier.storage: bfloat16, or distribute the classes over more machines; "
        "`plsc plan` shows the details; memory_check: false turns this check off"
    )
