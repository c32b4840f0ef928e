"""One Predictor used by many threads, closed under their hands, and inherited by a fork."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from plsc import Predictor
from plsc.errors import ConfigError, ExportError
from plsc.serving import runtimes
from plsc.serving.thread_pool import ObjectPool
from tests import using_kit as kit

ROOT = Path(__file__).resolve().parents[2]
THREADS, ROUNDS = 6, 12


def in_threads(work, count: int = THREADS) -> list:
    """What work(0), work(1), ... return, each called in a thread of its own; the first exception is raised."""
    results, errors, together = [None] * count, [], threading.Barrier(count)

    def call(number: int) -> None:
        together.wait()
        try:
            results[number] = work(number)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=call, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for error in errors:
        raise error
    return results


@pytest.mark.parametrize("callers", [1, 3])
def test_each_thread_gets_the_embeddings_of_its_own_images(trained_run, exported, callers):
    """In batches of several sizes, by threads that did not open the model."""
    images = np.concatenate([kit.net_input(kit.pixels(seed)) for seed in range(2 * THREADS)])
    expected = kit.evaluation_program(trained_run, images)
    own = [slice(n, n + 1 + n % 3) for n in range(THREADS)]
    with Predictor(exported, callers=callers) as predictor:
        found = in_threads(lambda n: [predictor.run(images[own[n]])[0] for _ in range(ROUNDS)])
        embeddings = in_threads(lambda n: predictor.embed(kit.pixels(n)))
    for n in range(THREADS):
        for result in [*found[n], embeddings[n]]:
            kit.assert_close(result, expected[own[n]][: len(result)])
        assert [len(result) for result in found[n]] == [1 + n % 3] * ROUNDS


def test_the_files_are_needed_only_to_open_it(trained_run, exported, tmp_path):
    """Another model may be put in their place while callers come and go."""
    directory = shutil.copytree(exported, tmp_path / "model")
    with Predictor(directory, callers=3) as predictor:
        shutil.rmtree(directory)
        images = [kit.net_input(kit.pixels(seed)) for seed in range(THREADS)]
        expected = kit.evaluation_program(trained_run, np.concatenate(images))
        found = in_threads(lambda n: predictor.run(images[n])[0])
    kit.assert_close(np.concatenate(found), expected)


def test_closed_while_others_run(trained_run, exported):
    """What was given out before is right; afterwards one line for everybody."""
    predictor, closing = Predictor(exported), threading.Event()
    image = kit.net_input(kit.pixels(1))
    expected = kit.evaluation_program(trained_run, image)

    def work(number: int) -> str:
        if number == 0:
            assert closing.wait(120), "no call has been answered"
            predictor.close()
            return "closed"
        try:
            while True:
                kit.assert_close(predictor.run(image)[0], expected)
                closing.set()
        except ExportError as error:
            return str(error)

    assert in_threads(work) == ["closed"] + ["the model is closed; open a new Predictor"] * (THREADS - 1)
    predictor.close()
    with pytest.raises(ExportError, match="is closed"):
        predictor.embed(kit.pixels(1))


FORK = """
import os, sys, numpy
from plsc import Predictor
from plsc.errors import ExportError
directory, images = sys.argv[1], numpy.load(sys.argv[2])
predictor = Predictor(directory)
expected = predictor.run(images)[0]
child = os.fork()
if child == 0:
    try:
        predictor.run(images)
    except ExportError as error:
        print(error, flush=True)
    predictor.close()
    assert abs(Predictor(directory).run(images)[0] - expected).max() < 1e-3
    sys.exit(7)  # as any program ends: what the parent had is freed, or not
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
assert abs(predictor.run(images)[0] - expected).max() < 1e-3
"""


def test_a_fork_opens_its_own(exported, tmp_path):
    """In the fork that of its parent is refused, one of its own works, and it ends in peace."""
    np.save(tmp_path / "images.npy", kit.net_input(kit.pixels(1)))
    command = [sys.executable, "-c", FORK, exported, str(tmp_path / "images.npy")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    (line,) = done.stdout.splitlines()
    assert line.startswith("the model was opened in process ") and "open a Predictor in each process" in line


def test_wrong_number_of_callers(exported):
    with pytest.raises(ConfigError, match="callers=-1"):
        Predictor(exported, callers=-1)


class Owned:
    """Fails where another thread than its maker's uses it, or two at a time."""

    made = 0

    def __init__(self):
        self.thread, self.busy = threading.get_ident(), threading.Lock()
        Owned.made += 1

    def work(self, number: int) -> int:
        assert threading.get_ident() == self.thread and self.busy.acquire(blocking=False)
        self.busy.release()
        return number


def test_workers_keep_to_their_threads_and_number():
    Owned.made = 0
    workers = ObjectPool(Owned, 3)
    found = in_threads(lambda n: [workers.run(lambda owned: owned.work(n)) for _ in range(50)], 8)
    assert found == [[n] * 50 for n in range(8)] and 1 <= Owned.made <= 3


def test_workers_hand_on_what_goes_wrong():
    def refuse():
        raise ValueError("no memory")

    workers = ObjectPool(refuse, 1)
    for _ in range(2):
        with pytest.raises(ValueError, match="no memory"):
            workers.run(lambda owned: owned)
    with pytest.raises(ZeroDivisionError):
        ObjectPool(Owned, 1).run(lambda owned: 1 / 0)


def test_who_waits_when_it_is_closed_is_served():
    workers, inside, go_on = ObjectPool(Owned, 1), threading.Event(), threading.Event()

    def slow(owned) -> int:
        inside.set()
        go_on.wait()
        return owned.work(1)

    def work(number: int):
        if number == 0:
            return workers.run(slow)
        inside.wait()
        if number == 1:
            threading.Timer(0.05, go_on.set).start()
            workers.close()
            return "closed"
        try:
            return workers.run(lambda owned: owned.work(number))
        except ExportError as error:
            return str(error)

    first, closed, *others = in_threads(work, 5)
    assert (first, closed) == (1, "closed")
    assert all(found in (2 + i, "the model is closed; open a new Predictor") for i, found in enumerate(others))


def test_onnx_closed_and_in_a_fork(monkeypatch):
    """Its session is for many threads; a stand-in shows that a call keeps the session that it has begun with."""

    class Session:
        def __init__(self, *_, **__):
            pass

        def get_inputs(self):
            return [type("Input", (), {"name": "x", "shape": [None, 1]})]

        def run(self, _, feed):
            if feed["x"][0] == 1:
                runtime.close()
            return [feed["x"] * 2]

    fake = type("onnxruntime", (), {
        "get_available_providers": staticmethod(list), "SessionOptions": type("Options", (), {}),
        "InferenceSession": Session,
    })  # fmt: skip
    monkeypatch.setitem(sys.modules, "onnxruntime", fake)
    runtime = runtimes.OnnxRuntime("x.onnx", runtimes.RuntimeOptions(1, "cpu"))
    assert runtime.run(np.zeros(1, np.float32))[0] == 0
    child = os.fork()
    if child == 0:
        try:
            runtime.run(np.zeros(1, np.float32))
        except ExportError as error:
            os._exit(7 if "open a Predictor in each process" in str(error) else 1)
        os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
    assert runtime.run(np.ones(1, np.float32))[0] == 2  # closed meanwhile
    with pytest.raises(ExportError, match="is closed"):
        runtime.run(np.zeros(1, np.float32))
