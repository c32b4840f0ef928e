"""Worker processes that read whole batches into shared memory.

Why fork: a worker does not import the user's script (no `if __name__ == "__main__"` is needed), a data set need not be
picklable, a list of millions of images is shared instead of copied, and a worker starts in milliseconds. A fork of a
process with Paddle's threads is safe as long as the child does not use them: it runs only Python, Pillow and NumPy.

Why an anonymous mapping: it has no name in /dev/shm, so nothing can leak if the process is killed, and the small
/dev/shm of a container is no limit.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import mmap
import multiprocessing
import os
import signal
import traceback
import warnings
import weakref
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any

import numpy as np
from PIL import Image

from plsc.data.batch import BatchFormat, fill_batch, merge_errors
from plsc.data.datasets import Dataset
from plsc.data.listed import BatchSampler
from plsc.errors import DataError, PlscError

_PR_SET_PDEATHSIG = 1  # prctl(2): the signal of a process whose parent has ended
# With few cores, a request for a batch wakes a worker, which would take the core of the training process although its
# next batch is ready (docs/history.md). While the training waits for data, its core is free for workers anyway.
WORKER_NICENESS = 5  # added to the niceness of the training process
POLL_SECONDS = 0.5  # between two calls of stop_waiting
MAX_LISTED = 4  # samples of a late batch that a message lists
_JOIN_SECONDS = 5.0  # until a dead worker has an exit code


@dataclass(frozen=True)
class LoaderOptions:
    """prefetch: how many batches each worker may be ahead; each takes B*C*H*W bytes, as
    pixels, or four times as many, as inputs (see plsc.data.batch.BatchFormat).

    stop_waiting: called twice a second while a worker's batch is awaited, with the seconds so far; returns the reason
    to stop waiting, or None to go on. It is not called without workers.

    pixels: batches are pixels, uint8, that the program normalizes; the data set must give such (BatchFormat.of).
    """

    prefetch: int = 2
    stop_waiting: Callable[[float], str | None] = lambda waited: None
    pixels: bool = False


@dataclass
class _Slot:
    """One batch in shared memory: indices written by the parent; images and labels written by the worker."""

    epoch: np.ndarray  # int64 [B]
    index: np.ndarray  # int64 [B]
    labels: np.ndarray  # int64 [B]
    images: np.ndarray  # [B,C,H,W], as BatchFormat says


@dataclass
class _Worker:
    process: BaseProcess
    tasks: Connection  # parent -> worker: the number of the slot to fill
    results: Connection  # worker -> parent: None when done, else an exception
    slots: list[_Slot]


class WorkerPool:
    """num_workers processes; worker w reads step steps.start + w + k*num_workers into its slot k % prefetch."""

    def __init__(
        self,
        dataset: Dataset,
        sampler: BatchSampler,
        num_workers: int,
        steps: range,
        options: LoaderOptions,
    ) -> None:
        self._options = options
        self._format = BatchFormat.of(dataset)
        self._sampler = sampler
        self._steps = steps
        self._num_workers = num_workers
        self._workers: list[_Worker] = []
        # Also called when the pool is garbage-collected, and at interpreter exit.
        self._finalizer = weakref.finalize(self, _kill_all, self._workers)
        Image.init()  # import Pillow's plugins once, before the forks
        libc = ctypes.CDLL(None)
        try:
            for number in range(num_workers):
                self._workers.append(_start(dataset, sampler.batch_size, options.prefetch, number, libc))
            for step in steps[: num_workers * options.prefetch]:
                self._request(step)
        except BaseException:
            self.close()
            raise

    def get(self, step: int) -> tuple[np.ndarray, np.ndarray]:
        """(images [B,C,H,W], labels [B]) of a step, copied from its slot, which a later step reuses."""
        worker, number = self._slot_of(step)
        slot = worker.slots[number]
        self._await(worker, slot, step)
        try:
            failure = worker.results.recv()
        except (EOFError, OSError) as error:
            raise _exit_error(worker.process) from error
        if failure is not None:
            raise self._with_other_errors(failure)
        images, labels = self._format.take(slot.images, self._options.pixels), slot.labels.copy()
        later = step + self._num_workers * self._options.prefetch
        if later < self._steps.stop:
            self._request(later)
        return images, labels

    def _await(self, worker: _Worker, slot: _Slot, step: int) -> None:
        """Wait for a message of the worker. Raises DataError if it died, or if ``stop_waiting`` returns a reason."""
        waited = 0.0  # counted, not measured, so that a suspended process (Ctrl-Z) does not time out
        while not worker.results.poll():
            ready = wait([worker.results, worker.process.sentinel], POLL_SECONDS)
            if (
                worker.process.sentinel in ready and not worker.results.poll()
            ):  # its last message may still be in the pipe
                raise _exit_error(worker.process)
            if ready:
                continue
            waited += POLL_SECONDS
            reason = self._options.stop_waiting(waited)
            if reason is not None:
                samples = ", ".join(map(str, slot.index[:MAX_LISTED])) + (
                    ", ..." if len(slot.index) > MAX_LISTED else ""
                )
                process = worker.process
                raise DataError(
                    f"data worker {process.name} (pid {process.pid}) is still reading the batch of step {step + 1} "
                    f"(samples {samples}): {reason}"
                )

    def _with_other_errors(self, failure: Exception) -> Exception:
        """The failure, merged with the errors that other workers found so far in later batches."""
        problems = [failure]
        for worker in self._workers:
            with contextlib.suppress(EOFError, OSError):
                while worker.results.poll():
                    problems.append(worker.results.recv())
        found = [problem for problem in problems if isinstance(problem, DataError)]
        return merge_errors(found) if isinstance(failure, DataError) else failure

    def close(self) -> None:
        self._finalizer()

    def _slot_of(self, step: int) -> tuple[_Worker, int]:
        """The worker that reads a step, and the number of its slot."""
        turn, worker = divmod(step - self._steps.start, self._num_workers)
        return self._workers[worker], turn % self._options.prefetch

    def _request(self, step: int) -> None:
        worker, number = self._slot_of(step)
        slot = worker.slots[number]
        slot.epoch[:], slot.index[:] = self._sampler.indices(step)
        try:
            worker.tasks.send(number)
        except OSError:
            pass  # it died: get() of its next step raises, after the batches that it had finished


def _start(dataset: Dataset, batch_size: int, prefetch: int, number: int, libc: ctypes.CDLL) -> _Worker:
    context = multiprocessing.get_context("fork")
    slots = _make_slots(prefetch, batch_size, BatchFormat.of(dataset))
    task_reader, task_writer = context.Pipe(duplex=False)
    result_reader, result_writer = context.Pipe(duplex=False)
    process = context.Process(
        target=_run_worker,
        args=(dataset, slots, task_reader, result_writer, os.getpid(), libc),
        name=f"plsc-data-{number}",
        daemon=True,
    )
    with warnings.catch_warnings(), _paused_garbage_collection():
        # Python 3.12 warns about fork in a process with threads; see the docstring of this module.
        warnings.simplefilter("ignore", DeprecationWarning)
        process.start()
    task_reader.close()
    result_writer.close()
    return _Worker(process, task_writer, result_reader, slots)


@contextlib.contextmanager
def _paused_garbage_collection() -> Iterator[None]:
    """Keep the child from collecting the parent's objects, whose destructors may be Paddle's and wait for its threads.

    Objects are frozen before the fork, as the child may collect before it runs our code.
    """
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


def _make_slots(count: int, batch_size: int, stored: BatchFormat) -> list[_Slot]:
    slots = []
    for _ in range(count):
        memory = mmap.mmap(-1, 3 * 8 * batch_size + stored.num_bytes(batch_size))  # freed with its last array
        numbers = np.frombuffer(memory, dtype=np.int64, count=3 * batch_size).reshape(3, batch_size)
        images = np.frombuffer(memory, dtype=stored.dtype, offset=numbers.nbytes)
        slots.append(_Slot(numbers[0], numbers[1], numbers[2], images.reshape(batch_size, *stored.image_shape)))
    return slots


def _run_worker(
    dataset: Dataset, slots: list[_Slot], tasks: Connection, results: Connection, parent: int, libc: ctypes.CDLL
) -> None:
    """The main loop of a worker: fill the requested slots, until an error or the end of its parent."""
    libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    os.nice(WORKER_NICENESS)
    if os.getppid() != parent:  # the parent ended before prctl
        os._exit(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole process group; the parent ends the workers
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # also: the parent saves first, and needs data until then
    try:
        while True:
            slot = slots[tasks.recv()]
            fill_batch(dataset, slot.epoch, slot.index, slot.images, slot.labels)
            results.send(None)
    except (EOFError, BrokenPipeError):
        return
    except PlscError as error:
        results.send(error)
    except Exception:
        results.send(RuntimeError(f"a data worker failed:\n{traceback.format_exc()}"))


def call_in_fork(work: Callable[[], Any]) -> Any:
    """Return ``work()``, run in a child process: users' code may start threads and advance iterators there, while this
    process stays safe to fork. Raises its PlscError, or DataError if the process died."""
    context = multiprocessing.get_context("fork")
    reader, writer = context.Pipe(duplex=False)
    libc = ctypes.CDLL(None)
    process = context.Process(
        target=_run_once, args=(work, writer, os.getpid(), libc), name="plsc-data-check", daemon=True
    )
    with warnings.catch_warnings(), _paused_garbage_collection():
        warnings.simplefilter("ignore", DeprecationWarning)
        process.start()
    writer.close()
    try:
        value, failure = reader.recv()
    except (EOFError, OSError) as error:
        raise _exit_error(process) from error
    finally:
        reader.close()
        process.kill()
        process.join()
    if failure is not None:
        raise failure
    return value


def _run_once(work: Callable[[], Any], result: Connection, parent: int, libc: ctypes.CDLL) -> None:
    libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        result.send((work(), None))
    except PlscError as error:
        result.send((None, error))
    except Exception:
        result.send((None, RuntimeError(f"a data process failed:\n{traceback.format_exc()}")))


def _exit_error(process: BaseProcess) -> DataError:
    process.join(_JOIN_SECONDS)
    code = process.exitcode
    how = f"by signal {signal.Signals(-code).name}" if code is not None and code < 0 else f"with exit code {code}"
    hint = ": the machine may be out of memory, lower data.num_workers" if code == -signal.SIGKILL else ""
    return DataError(f"data worker {process.name} (pid {process.pid}) ended {how}{hint}")


def _kill_all(workers: list[_Worker]) -> None:
    for worker in workers:
        worker.process.kill()  # immediately, even during a slow read: a worker has no unfinished writes
    for worker in workers:
        worker.process.join()
        worker.process.close()
        worker.tasks.close()
        worker.results.close()
    workers.clear()
