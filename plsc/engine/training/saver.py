"""Asynchronous checkpoints: a snapshot in memory, and a thread that writes it while training continues."""

from __future__ import annotations

import os
import threading
import time
from dataclasses import dataclass
from typing import Any

import numpy as np

from plsc import checkpoint, remote
from plsc.checkpoint import WINDOW, ArrayShard
from plsc.checkpoint.layout import checkpoints_dir, step_name
from plsc.checkpoint.pending_rows import describe_optimizer
from plsc.engine.memory.free import free_memory
from plsc.engine.program.session import Session
from plsc.engine.run.start import Run
from plsc.engine.training import checkpointing
from plsc.engine.training.grace import GracePeriod
from plsc.engine.training.steps import Progress

MEMORY_SHARE = 0.5  # the fraction of the free memory that the snapshots of this machine's ranks may take


@dataclass(frozen=True)
class Target:
    """A place for checkpoints: `<run_dir>/checkpoints/`, of which the newest ``keep`` stay (0 or less: all)."""

    run_dir: str
    keep: int


class Saver:
    """Saves a session, one checkpoint at a time; every rank calls ``save`` and ``finish`` at the same steps.

    ``protect``: the checkpoint that the run was started from, which is never deleted. With ``save_async`` training
    continues as soon as a copy is made; errors while writing are raised by the next ``save`` or by ``finish``, on every
    rank. Where the copies of the ranks of a machine would take more than half of its free memory, saves are synchronous
    and the log says so.
    """

    def __init__(self, run: Run, session: Session, protect: str | None):
        self._run, self._session = run, session
        self._protect = [protect] if protect else []
        self._grace = GracePeriod(run)
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None
        self._removed: list[str] = []  # here, and not yet at the address to which saves are copied
        self._is_async = run.config.save_async and self._fits_in_memory()
        self._group = run.group.side(unique_name(run)) if self._is_async else run.group

    def save(self, progress: Progress, epoch: int, targets: list[Target], extra: dict[str, Any]) -> str:
        """Save to each target; returns the directory in the last one, which with ``save_async`` is written later.

        Raises CheckpointError, also that of the previous save.
        """
        self.finish()
        began = time.monotonic()
        run, session = self._run, self._session
        spec = session.program.spec
        has_shard = spec.model_parallel or run.env.rank == 0
        meta, replicated, shard = {}, None, session if has_shard else None
        if run.env.rank == 0:
            meta, replicated = checkpointing.manifest_fields(run, spec, progress, epoch, extra), session.replicated()
            if session.rows_pending:
                replicated[WINDOW] = session.history.window()
                meta["row_history"] = describe_optimizer(session.history.optimizer, session.history.weight_decay)
        if self._is_async and has_shard:
            shard = snapshot(session)
        tensors = checkpoint.RankTensors(replicated, shard, session.checksum())

        def write() -> None:
            for target in targets:
                path = checkpoint.save(target.run_dir, progress.step, tensors, meta, self._group, run.places)
                protect = [*self._protect, path]
                removed = checkpoint.remove_old(target.run_dir, target.keep, self._group, protect, run.places)
                run.log.info(f"Save model to {path}, {time.monotonic() - began:.3f} s")
                if remote.uploads_saves(run.config):
                    copying = remote.Copying(run.config, run.env, self._group, run.places, run.log)
                    self._removed += removed
                    if remote.publish_save(copying, path, self._removed):
                        self._removed = []
            self._grace.saved(time.monotonic() - began)

        if self._is_async:
            self._thread = threading.Thread(target=self._write_in_thread, args=(write,), name="plsc-save", daemon=True)
            self._thread.start()
            run.log.info(f"training was paused for {time.monotonic() - began:.3f} s to save step {progress.step:,}")
        else:
            write()
        return os.path.join(checkpoints_dir(targets[-1].run_dir), step_name(progress.step))

    def link(self, path: str, targets: list[Target], extra: dict[str, Any]) -> None:
        """Keep the checkpoint ``path`` in each target, with another ``extra``, without writing its tensors again."""
        self.finish()
        for target in targets:
            group, places = self._run.group, self._run.places
            copy = checkpoint.link(path, target.run_dir, extra, group, places)
            checkpoint.remove_old(target.run_dir, target.keep, group, [*self._protect, copy], places)
            if not os.path.samefile(copy, path):
                self._run.log.info(f"Save model to {copy}, linked to {path}")

    def finish(self) -> None:
        """Wait for the save in progress; raises its error."""
        self._wait()
        error, self._error = self._error, None
        if error is not None:
            raise error

    def __enter__(self) -> Saver:
        return self

    def __exit__(self, kind, error, trace) -> None:
        self._wait()  # a failing run still completes its save

    def _wait(self) -> None:
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def _write_in_thread(self, write) -> None:
        try:
            write()
        except BaseException as error:
            self._error = error
            self._run.log.info(f"an asynchronous save failed, the run ends at the next one: {error}")

    def _fits_in_memory(self) -> bool:
        """The same answer on every rank."""
        session = self._session
        need = sum(spec.num_bytes for spec in session.tensors()) + sum(s.num_bytes for s in session.replicated_specs())
        allowed = MEMORY_SHARE * free_memory() / self._run.env.local_world_size
        fits = self._run.group.all_gather(need <= allowed)
        if not all(fits):
            self._run.log.info(
                f"save_async: rank {fits.index(False)} has no room for a copy of its weights (here {need >> 20:,} MB, "
                f"allowed {int(allowed) >> 20:,} MB); training waits for each save"
            )
        return all(fits)


def snapshot(session: Session) -> ArrayShard:
    """A copy of this rank's rows in memory, made block by block."""
    arrays = {spec.name: np.empty(spec.shape, spec.numpy_dtype) for spec in session.tensors()}
    for name, first, rows in session.blocks():
        arrays[name][first : first + len(rows)] = rows
    return ArrayShard(arrays)


def unique_name(run: Run) -> str:
    """A name for the saver's channel that no earlier run of this process used, the same on every rank."""
    return run.group.broadcast(f"save/{time.time_ns()}")
