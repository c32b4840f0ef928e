"""The loader: the same batches from any number of workers, and no worker left behind however things end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from plsc.data import GlobalBatchSampler, ImageListDataset, Loader, LoaderOptions, SampleOrder, SyntheticDataset
from plsc.data.batch import BatchFormat
from plsc.errors import DataError

ROOT = Path(__file__).resolve().parents[2]
SHAPE = (3, 8, 8)


class _Numbers:
    """Image and label say which sample it is; `trap` is called for one of them."""

    image_shape = SHAPE
    sequential = False

    def __init__(self, trap_at: int = -1, trap: object = None) -> None:
        self.trap_at, self.trap = trap_at, trap

    def __len__(self) -> int:
        return 40

    def get(self, index: int, epoch: int) -> tuple[np.ndarray, np.int64]:
        if index == self.trap_at:
            self.trap()
        return np.full(SHAPE, index + 100 * epoch, dtype=np.float32), np.int64(index)


def _sampler(shuffle: bool = False) -> GlobalBatchSampler:
    return GlobalBatchSampler(40, 4, 0, 2, seed=3, order=SampleOrder(shuffle))


def _pids(loader: Loader) -> list[int]:
    return [worker.process.pid for worker in loader._pool._workers]


def _alive(pid: int) -> bool:
    """A process that runs; a zombie that nobody has waited for yet does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] not in "ZX"
    except OSError:
        return False


def _assert_gone(pids: list[int], seconds: float = 10.0) -> None:
    end = time.monotonic() + seconds
    while any(map(_alive, pids)) and time.monotonic() < end:
        time.sleep(0.02)
    assert pids and not any(map(_alive, pids))


@pytest.mark.parametrize("workers", [0, 1, 2, 3])
@pytest.mark.parametrize("prefetch", [1, 3])
@pytest.mark.parametrize("first_step, last_step", [(0, 1), (0, 12), (5, 12), (4, 4)])
def test_batches_are_those_of_the_sampler(workers: int, prefetch: int, first_step: int, last_step: int) -> None:
    sampler = _sampler(shuffle=True)
    with Loader(_Numbers(), sampler, workers, first_step, last_step, LoaderOptions(prefetch)) as loader:
        out = list(loader)  # kept, so that a slot used again would show
    assert [step for step, _, _ in out] == list(range(first_step, last_step))
    for step, images, labels in out:
        epoch, index = sampler.indices(step)
        assert images.dtype == np.float32 and images.shape == (4, *SHAPE) and labels.dtype == np.int64
        np.testing.assert_array_equal(labels, index)
        np.testing.assert_array_equal(images, np.broadcast_to((index + 100 * epoch)[:, None, None, None], images.shape))


def test_flipped_images_are_the_same_for_any_workers_and_ranks(tmp_path) -> None:
    for number in range(12):
        pixels = np.random.default_rng(number).integers(0, 256, (8, 8, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{number}.png")
    (tmp_path / "label.txt").write_text("".join(f"{number}.png\t{number}\n" for number in range(12)))
    data = ImageListDataset(tmp_path, "label.txt", 12, SHAPE, seed=5)
    runs = []
    for workers, world in [(0, 1), (1, 1), (2, 1), (3, 1), (0, 2), (2, 3)]:
        samplers = [GlobalBatchSampler(12, 6 // world, rank, world, seed=5) for rank in range(world)]
        loaders = [Loader(data, sampler, workers, 0, 6) for sampler in samplers]
        runs.append(np.stack([np.concatenate([part[1] for part in parts]) for parts in zip(*map(list, loaders))]))
    for run in runs[1:]:
        np.testing.assert_array_equal(run, runs[0])


def _data_error() -> None:
    raise DataError("label.txt:7: image 'a.png' is broken")


def _bug() -> None:
    raise ZeroDivisionError("our own mistake")


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("channels, pixel_std", [(3, 127.5), (1, 128.0)])
def test_batches_are_stored_as_pixels_and_normalized_to_the_same_bits(tmp_path, workers, channels, pixel_std) -> None:
    for number in range(4):  # every value of a pixel
        pixels = np.random.default_rng(number).permutation(np.arange(7 * 9 * 3 * 4) % 256)[: 7 * 9 * 3].reshape(7, 9, 3)
        Image.fromarray(pixels.astype(np.uint8)).save(tmp_path / f"{number}.png")
    (tmp_path / "label.txt").write_text("".join(f"{number}.png\t{number}\n" for number in range(4)))
    data = ImageListDataset(tmp_path, "label.txt", 4, (channels, 7, 9), 3, pixel_std=pixel_std)
    sampler = GlobalBatchSampler(4, 2, 0, 1, seed=3)
    with Loader(data, sampler, workers, 0, 6, LoaderOptions(pixels=True)) as loader:
        for step, images, labels in loader:
            assert images.dtype == np.uint8 and images.flags.c_contiguous and images.flags.writeable
            samples = [data.get_pixels(int(index), int(epoch)) for epoch, index in zip(*sampler.indices(step))]
            assert np.array_equal(images, [image for image, _ in samples])
            assert labels.tolist() == [label for _, label in samples]
            images[:] = 0  # the caller's own array
    with Loader(data, sampler, workers, 0, 6) as loader:
        if workers:
            slot = loader._pool._workers[0].slots[0]
            assert slot.images.dtype == np.uint8 and slot.images.nbytes == 2 * channels * 7 * 9
        for step, images, labels in loader:
            assert images.dtype == np.float32 and images.flags.c_contiguous and images.flags.writeable
            epochs, indices = sampler.indices(step)
            for row, (epoch, index) in enumerate(zip(epochs.tolist(), indices.tolist())):
                stored, label = data.get_pixels(index, epoch)
                # the arithmetic of one sample in float32, number by number
                values = [np.float32(value) for value in stored.ravel().tolist()]
                expected = [(value - np.float32(127.5)) / np.float32(pixel_std) for value in values]
                assert images[row].tobytes() == np.array(expected, np.float32).tobytes() and labels[row] == label
                assert images[row].tobytes() == data.get(index, epoch)[0].tobytes()


def test_inputs_that_are_ready_are_stored_as_they_are() -> None:
    data = SyntheticDataset(8, 2, SHAPE, 0)
    for stored in (BatchFormat.of(data), BatchFormat.of(_Numbers())):
        assert stored.dtype == np.float32 and stored.num_bytes(5) == 4 * 5 * 3 * 8 * 8
        given = np.ones((2, *SHAPE), np.float32)
        found = stored.take(given)
        given[:] = 0  # the slot is filled anew
        assert (found == 1).all()


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_an_error_comes_in_its_step_as_what_it_was(workers: int) -> None:
    # index 16 is the first of rank 0 in step 2
    loader = Loader(_Numbers(16, _data_error), _sampler(), workers, 0, 5)
    pids = _pids(loader) if workers else []
    assert [next(loader)[0], next(loader)[0]] == [0, 1]
    with pytest.raises(DataError, match=r"^label.txt:7: image 'a.png' is broken$"):
        next(loader)
    if pids:
        _assert_gone(pids, seconds=0)  # already, without close()
    with pytest.raises(ValueError, match="closed"):
        next(loader)


class _Broken(_Numbers):
    """Some samples cannot be used."""

    def __init__(self, broken: set[int], sequential: bool = False) -> None:
        super().__init__()
        self.broken, self.sequential = broken, sequential

    def get(self, index: int, epoch: int) -> tuple[np.ndarray, np.int64]:
        if index in self.broken:
            raise DataError(f"picture {index} is broken")
        return super().get(index, epoch)


@pytest.mark.parametrize("workers", [0, 1])
def test_all_broken_samples_of_a_batch_come_in_one_error(workers: int) -> None:
    """Rank 0 of 2 takes samples 0 to 3 of every 8."""
    with Loader(_Broken({9, 11, 17, 4}), _sampler(), workers, 0, 2) as loader:
        next(loader)
        with pytest.raises(DataError) as caught:
            next(loader)
    assert str(caught.value) == "2 samples cannot be used: picture 9 is broken; picture 11 is broken"


@pytest.mark.parametrize("workers", [0, 1])
def test_of_samples_read_in_order_the_first_broken_one_is_named(workers: int) -> None:
    with Loader(_Broken({1, 3}, sequential=True), _sampler(), workers, 0, 2) as loader:
        with pytest.raises(DataError, match="^picture 1 is broken$"):
            next(loader)


def test_what_other_workers_have_found_meanwhile_is_said_too() -> None:
    with Loader(_Broken({1, 2, 8, 9, 17}), _sampler(), 3, 0, 4, LoaderOptions(prefetch=1)) as loader:
        workers = loader._pool._workers
        while not all(worker.results.poll() for worker in workers):
            time.sleep(0.01)
        with pytest.raises(DataError) as caught:
            next(loader)
    named = "; ".join(f"picture {index} is broken" for index in (1, 2, 8, 9, 17))
    assert str(caught.value) == f"5 samples cannot be used: {named}"


def test_ten_broken_samples_are_named_and_the_others_counted() -> None:
    sampler = GlobalBatchSampler(40, 16, 0, 1, seed=3, order=SampleOrder(shuffle=False))
    with Loader(_Broken(set(range(12))), sampler, 0, 0, 1) as loader, pytest.raises(DataError) as caught:
        next(loader)
    assert str(caught.value).startswith("12 samples cannot be used: picture 0 is broken; ")
    assert str(caught.value).endswith("picture 9 is broken; and 2 more") and "\n" not in str(caught.value)


def test_an_error_of_our_own_keeps_its_trace() -> None:
    with pytest.raises(RuntimeError, match="(?s)_bug.*ZeroDivisionError: our own mistake"):
        list(Loader(_Numbers(16, _bug), _sampler(), 2, 0, 5))


def test_a_workers_sigterm_is_the_parents_business() -> None:
    # a launcher ends the whole group by SIGTERM; the parent saves first, and needs its batches for that
    trapped = Loader(_Numbers(16, lambda: os.kill(os.getpid(), signal.SIGTERM)), _sampler(), 2, 0, 5)
    with trapped:
        assert [step for step, _, _ in trapped] == [0, 1, 2, 3, 4]


@pytest.mark.parametrize(
    "trap, text",
    [
        (lambda: os.kill(os.getpid(), signal.SIGKILL), "ended by signal SIGKILL.*out of memory"),
        (lambda: os.kill(os.getpid(), signal.SIGABRT), "ended by signal SIGABRT"),
        (lambda: os._exit(3), "ended with exit code 3"),
        (lambda: sys.exit(4), "ended with exit code 4"),
    ],
)
def test_a_worker_that_dies_is_an_error_and_no_hang(trap: object, text: str) -> None:
    loader = Loader(_Numbers(16, trap), _sampler(), 2, 0, 5)
    pids = _pids(loader)
    assert [next(loader)[0], next(loader)[0]] == [0, 1]
    with pytest.raises(DataError, match="data worker plsc-data-0.*" + text):
        next(loader)
    _assert_gone(pids, seconds=0)


def test_workers_killed_between_two_steps() -> None:
    loader = Loader(_Numbers(), _sampler(), 2, 0, 1000)
    next(loader)
    for pid in _pids(loader):
        os.kill(pid, signal.SIGKILL)
    with pytest.raises(DataError, match="SIGKILL"):
        for _ in loader:
            pass


def test_ctrl_c_is_the_parents_to_handle() -> None:
    with Loader(_Numbers(), _sampler(), 2, 0, 50) as loader:
        assert [next(loader)[0], next(loader)[0]] == [0, 1]  # both workers are at work
        for pid in _pids(loader):
            os.kill(pid, signal.SIGINT)
        assert len(list(loader)) == 48


def test_workers_give_way_to_the_training() -> None:
    with Loader(_Numbers(), _sampler(), 2, 0, 8) as loader:
        next(loader), next(loader)  # one of each worker: it has begun
        (here, *there) = [os.getpriority(os.PRIO_PROCESS, pid) for pid in (0, *_pids(loader))]
    assert there == [min(19, here + 5)] * 2


def test_workers_end_with_the_loader() -> None:
    loader = Loader(_Numbers(), _sampler(), 2, 0, 100)
    closed = _pids(loader)
    loader.close()
    loader.close()
    with pytest.raises(KeyError), Loader(_Numbers(), _sampler(), 2, 0, 100) as loader:
        left = _pids(loader)
        raise KeyError
    done = Loader(_Numbers(), _sampler(), 2, 0, 3)
    finished = _pids(done)
    list(done)
    forgotten = Loader(_Numbers(), _sampler(), 2, 0, 100)
    lost = _pids(forgotten)
    del forgotten
    _assert_gone(closed + left + finished + lost, seconds=0)


def test_a_batch_that_does_not_come_is_named_when_it_is_given_up() -> None:
    asked = []

    def stop_waiting(waited: float) -> str | None:
        asked.append(waited)
        return "enough" if len(asked) == 2 else None

    options = LoaderOptions(stop_waiting=stop_waiting)
    loader = Loader(_Numbers(16, lambda: time.sleep(600)), _sampler(), 2, 0, 5, options)
    pids = _pids(loader)
    expected = rf"plsc-data-0 \(pid {pids[0]}\) is still reading the batch of step 3 \(samples 16, 17, .*\): enough$"
    with pytest.raises(DataError, match=expected):
        for step, _, _ in loader:
            assert step < 2
    assert asked[-2:] == [0.5, 1.0]
    _assert_gone(pids, seconds=0)


def test_closing_does_not_wait_for_a_slow_image() -> None:
    loader = Loader(_Numbers(0, lambda: time.sleep(60)), _sampler(), 1, 0, 3)
    time.sleep(0.1)
    start = time.monotonic()
    loader.close()
    assert time.monotonic() - start < 30  # half of what the image takes


SCRIPT = """
import signal, sys, time
from plsc.data import GlobalBatchSampler, Loader, SyntheticDataset
end = sys.argv[1]
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it, and so their children
if end == "handled":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(7))
loader = Loader(SyntheticDataset(40, 4, (3, 64, 64), 0), GlobalBatchSampler(40, 8, 0, 1, 0), 2, 0, 10**6)
next(loader)
print(*[worker.process.pid for worker in loader._pool._workers], flush=True)
if end == "exit":
    sys.exit(0)
if end == "raise":
    raise KeyError
for _ in loader:
    pass
"""


@pytest.mark.parametrize(
    "end, number, code",
    [
        ("exit", None, 0),
        ("raise", None, 1),
        ("run", signal.SIGTERM, -signal.SIGTERM),
        ("run", signal.SIGKILL, -signal.SIGKILL),
        ("run", signal.SIGINT, -signal.SIGINT),
        ("handled", signal.SIGTERM, 7),
    ],
)
def test_workers_end_with_their_parent(end: str, number: int | None, code: int) -> None:
    run = subprocess.Popen(
        [sys.executable, "-c", SCRIPT, end],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    pids = [int(pid) for pid in run.stdout.readline().split()]
    if number == signal.SIGINT:
        os.killpg(run.pid, number)  # Ctrl-C in a terminal reaches the workers too
    elif number is not None:
        run.send_signal(number)
    try:
        _, errors = run.communicate(timeout=60)
    except subprocess.TimeoutExpired:
        os.killpg(run.pid, signal.SIGKILL)  # nothing stays behind where this test fails
        raise
    assert run.returncode == code
    assert "resource_tracker" not in errors and "leaked" not in errors
    assert errors.count("Traceback") == (1 if end == "raise" or number == signal.SIGINT else 0)  # none of a worker
    _assert_gone(pids)


def test_data_does_not_import_paddle_and_brings_zlib_first() -> None:
    code = "import sys, plsc.data; print(*sys.modules)"
    out = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    modules = out.split()  # in the order of their import
    assert "paddle" not in modules
    assert modules.index("zlib") < modules.index("numpy")


def test_synthetic_data_through_workers() -> None:
    data = SyntheticDataset(40, 4, SHAPE, seed=1)
    with Loader(data, _sampler(), 2, 0, 5) as loader:
        for step, images, labels in loader:
            for row in range(4):
                image, label = data.get(step * 8 + row, 0)
                np.testing.assert_array_equal(images[row], image)
                assert labels[row] == label
