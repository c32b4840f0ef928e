"""Worker processes that read whole batches into shared memory.

Why fork: a worker needs no import of the user's script (so no `if __name__ == "__main__"`), a data set need not be
picklable, a list of millions of images is shared and not copied, and it starts in milliseconds. Fork beside Paddle's
threads is safe as long as the child stays away from them: it runs Python, Pillow and NumPy only.

Why an anonymous mapping: it has no name in /dev/shm, so nothing can leak, whatever kills the process, and a container's
small /dev/shm does not limit it.
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

from plsc.data.batch import fill_batch, merge_errors
from plsc.data.datasets import Dataset
from plsc.data.sampler import GlobalBatchSampler
from plsc.errors import DataError, PlscError

_PR_SET_PDEATHSIG = 1  # prctl(2): the signal a process gets when its parent is gone
# Where cores are short, the order for a batch would wake a worker that takes the core of who gave it: the training then
# waits although its next batch is there (docs/history.md). Who waits for data leaves the core to the worker anyway.
WORKER_NICENESS = 5  # added to the niceness of the process
POLL_SECONDS = 0.5  # between two questions whether to wait for a batch any longer
MAX_LISTED = 4  # samples of a batch that did not come
_JOIN_SECONDS = 5.0  # from the last sign of a dying worker to its exit code


@dataclass(frozen=True)
class LoaderOptions:
    """prefetch: how many batches each worker may be ahead; each takes B*3*H*W*4 bytes.

    stop_waiting: called twice a second while a worker's batch is awaited, with the seconds so far; returns the reason
    to stop waiting, or None to go on. It is not called without workers.
    """

    prefetch: int = 2
    stop_waiting: Callable[[float], str | None] = lambda waited: None


@dataclass
class _Slot:
    """One batch in shared memory: what to read (written by the parent) and what was read (written by the worker)."""

    epoch: np.ndarray  # int64 [B]
    index: np.ndarray  # int64 [B]
    labels: np.ndarray  # int64 [B]
    images: np.ndarray  # float32 [B,3,H,W]


@dataclass
class _Worker:
    process: BaseProcess
    tasks: Connection  # parent -> worker: the slot to fill
    results: Connection  # worker -> parent: None when done, else what went wrong
    slots: list[_Slot]


class WorkerPool:
    """num_workers processes; worker w reads step steps.start + w + k*num_workers into its slot k % prefetch."""

    def __init__(
        self,
        dataset: Dataset,
        sampler: GlobalBatchSampler,
        num_workers: int,
        steps: range,
        options: LoaderOptions,
    ) -> None:
        self._options = options
        self._sampler = sampler
        self._steps = steps
        self._num_workers = num_workers
        self._workers: list[_Worker] = []
        # Runs also when the pool is forgotten, and at the exit of the interpreter.
        self._finalizer = weakref.finalize(self, _kill_all, self._workers)
        Image.init()  # Pillow's plugins are imported once, here
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
        """(images [B,3,H,W], labels [B]) of a step, copied out of the slot, which is then filled with a later step."""
        worker, number = self._slot_of(step)
        slot = worker.slots[number]
        self._await(worker, slot, step)
        try:
            failure = worker.results.recv()
        except (EOFError, OSError) as error:
            raise _exit_error(worker.process) from error
        if failure is not None:
            raise self._with_other_errors(failure)
        images, labels = slot.images.copy(), slot.labels.copy()
        later = step + self._num_workers * self._options.prefetch
        if later < self._steps.stop:
            self._request(later)
        return images, labels

    def _await(self, worker: _Worker, slot: _Slot, step: int) -> None:
        """Return when the worker has said something. Raises DataError where it died or is not waited for any longer."""
        waited = 0.0  # counted, not by the clock: none goes by while all processes are stopped (Ctrl-Z)
        while not worker.results.poll():
            ready = wait([worker.results, worker.process.sentinel], POLL_SECONDS)
            if worker.process.sentinel in ready and not worker.results.poll():  # what it sent before still counts
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
                    f"data worker {process.name} (pid {process.pid}) is still reading the batch of step {step} "
                    f"(samples {samples}): {reason}"
                )

    def _with_other_errors(self, failure: Exception) -> Exception:
        """The failure, and what other workers have met by now in the batches that they read ahead."""
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
            pass  # it died: take() of its next step says so, after the batches it had finished


def _start(dataset: Dataset, batch_size: int, prefetch: int, number: int, libc: ctypes.CDLL) -> _Worker:
    context = multiprocessing.get_context("fork")
    slots = _make_slots(prefetch, batch_size, dataset.image_shape)
    task_reader, task_writer = context.Pipe(duplex=False)
    result_reader, result_writer = context.Pipe(duplex=False)
    process = context.Process(
        target=_run_worker,
        args=(dataset, slots, task_reader, result_writer, os.getpid(), libc),
        name=f"plsc-data-{number}",
        daemon=True,
    )
    with warnings.catch_warnings(), _paused_garbage_collection():
        # Python 3.12 warns of fork in a process with threads; the head of this file says why it is right here.
        warnings.simplefilter("ignore", DeprecationWarning)
        process.start()
    task_reader.close()
    result_writer.close()
    return _Worker(process, task_writer, result_reader, slots)


@contextlib.contextmanager
def _paused_garbage_collection() -> Iterator[None]:
    """The child must not collect the parent's objects: their destructors may be Paddle's, and wait for its threads.

    Frozen before the fork: the child may collect before its first line of ours.
    """
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


def _make_slots(count: int, batch_size: int, image_shape: tuple[int, int, int]) -> list[_Slot]:
    pixels = batch_size * int(np.prod(image_shape))
    slots = []
    for _ in range(count):
        memory = mmap.mmap(-1, 3 * 8 * batch_size + 4 * pixels)  # freed with its last array
        numbers = np.frombuffer(memory, dtype=np.int64, count=3 * batch_size).reshape(3, batch_size)
        images = np.frombuffer(memory, dtype=np.float32, count=pixels, offset=numbers.nbytes)
        slots.append(_Slot(numbers[0], numbers[1], numbers[2], images.reshape(batch_size, *image_shape)))
    return slots


def _run_worker(
    dataset: Dataset, slots: list[_Slot], tasks: Connection, results: Connection, parent: int, libc: ctypes.CDLL
) -> None:
    """The life of a worker: fill the slots it is told to, until an error or the end of its parent."""
    libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    os.nice(WORKER_NICENESS)
    if os.getppid() != parent:  # the parent ended before prctl
        os._exit(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent ends the workers
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # the same: the parent saves first, and needs data until then
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
    """What ``work()`` returns in a process that ends with it: users' code may start threads and move iterators there,
    and this process stays fit to fork workers. Raises its PlscError, or DataError where the process died."""
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
        worker.process.kill()  # at once, also from within a slow read: a worker has nothing to leave half done
    for worker in workers:
        worker.process.join()
        worker.process.close()
        worker.tasks.close()
        worker.results.close()
    workers.clear()
