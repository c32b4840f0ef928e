"""Steps that are queued behind each other, as a GPU does them: here by a queue that works only while the host waits."""

from __future__ import annotations

from collections import deque
from types import SimpleNamespace

import numpy as np
import paddle
import pytest

from plsc.backend.copies import Behind, InTime, copies_of_gpu
from plsc.engine.program.results import Reading
from plsc.engine.program.session import Session
from plsc.engine.training import loop
from plsc.engine.training.late import make_reading
from plsc.errors import TrainingError
from tests.dist.tiny_run import make_entry, manifest, told

STEPS, SAVES = 12, (5, 10, 12)


class LaterQueue:
    """Copies and programs that are done in their order, one each time that the host looks for an event."""

    def __init__(self):
        self.place = self.pinned = paddle.CPUPlace()
        self.waiting = deque()
        self.seen = []  # what began ("begin") and what was done ("run"), in order

    def copy(self, source, target, place):
        self.waiting.append(lambda: target._copy_from(source, place))

    def run(self, work):
        self.waiting.append(lambda: (work(), self.seen.append("run")))
        self.seen.append("begin")

    def mark(self):
        passed = []
        self.waiting.append(lambda: passed.append(True))

        def done():
            if self.waiting:
                self.waiting.popleft()()
            return bool(passed)

        return done

    def finish(self):
        """As a copy on the legacy default stream does: all that was queued before comes first."""
        while self.waiting:
            self.waiting.popleft()()


def train(run_dir, monkeypatch, behind=Behind, ahead: int = 1, **options):
    """A run whose steps are queued; its queue."""
    queue, run, read = LaterQueue(), Session.run, Session._read

    def queued(self, program, feed, fetches):
        if program is self.program.main:
            assert not fetches  # a fetch would wait
            return queue.run(lambda: run(self, program, feed, fetches))
        queue.finish()
        return run(self, program, feed, fetches)

    with monkeypatch.context() as patched:
        patched.setattr(Session, "run", queued)
        patched.setattr(Session, "_read", lambda self, name: (queue.finish(), read(self, name))[1])
        patched.setattr(loop, "make_reading", lambda run: Reading(behind(queue), ahead))
        # no dropout: it draws when the program is run, here after the seed of the next step was set
        make_entry(run_dir, {"train_steps": STEPS, "with_test": False, **options}, plain=True).train()
    return queue


ADAM = {"optimizer.name": "adamw", "lr": 0.5, "classifier.hard_negative_share": 0.5}
OPTIONS = {"classifier.sample_ratio": 0.3}, ADAM


@pytest.mark.parametrize("options", OPTIONS, ids=["momentum", "adamw, hard negatives"])
def test_steps_overlap_and_are_the_same_to_the_bit(tmp_path, monkeypatch, options):
    plain = {"train_steps": STEPS, "with_test": False, **options}
    make_entry(tmp_path / "in time", plain, plain=True).train()
    queue = train(tmp_path / "queued", monkeypatch, **options)
    assert told(tmp_path / "queued") == told(tmp_path / "in time")
    for step in SAVES:
        assert manifest(tmp_path / "queued", step)["files"] == manifest(tmp_path / "in time", step)["files"], step
    # all steps but those after a save, and the first, were started while the one before was still to be done
    open_steps = np.cumsum([1 if what == "begin" else -1 for what in queue.seen])
    assert open_steps.max() == 2 and (open_steps == 2).sum() == STEPS - len(SAVES)


class TooEarly(Behind):
    """Breaks the wait: results are taken at once."""

    def begin_read(self, variable, sent):
        self._queue.mark = lambda: lambda: True
        return super().begin_read(variable, sent)


class TooSoonAgain(Behind):
    """Breaks the buffers: those of a step are given to the next one."""

    def send(self, feed):
        sent = super().send(feed)
        for name, buffer in sent.buffers.items():
            self._free[name] = [buffer]
        return sent


def test_results_that_are_not_there_yet_are_refused(tmp_path, monkeypatch):
    with pytest.raises(TrainingError, match="results of step 1 of the program were read when it was at nan"):
        train(tmp_path, monkeypatch, TooEarly, ahead=0)


def test_a_buffer_that_is_used_again_too_soon_would_be_noticed(tmp_path, monkeypatch):
    """The comparison above can fail: the images of one step would be those of the next."""
    train(tmp_path / "right", monkeypatch)
    train(tmp_path / "wrong", monkeypatch, TooSoonAgain)
    assert told(tmp_path / "wrong") != told(tmp_path / "right")


class Event:
    """An event of a stream that is named by its number; has passed when asked for the second time."""

    def __init__(self):
        self.asked = 0

    def record(self, stream):
        assert stream == "stream 3"

    def query(self):
        self.asked += 1
        return self.asked > 1


def copies(monkeypatch, event=Event):
    """What copies_of_gpu(3) returns where the GPU is the CPU."""
    for name in ("CUDAPlace", "CUDAPinnedPlace"):
        monkeypatch.setattr(paddle, name, lambda *number: paddle.CPUPlace())
    monkeypatch.setattr(paddle.device.cuda, "Event", event)
    monkeypatch.setattr(paddle.base.core, "_get_current_stream", lambda number: f"stream {number}")
    return copies_of_gpu(3)


def test_a_gpu_gets_queues_where_they_work(monkeypatch, caplog):
    behind = copies(monkeypatch)
    assert isinstance(behind, Behind) and not caplog.records
    values = {"image": np.arange(12, dtype="uint8").reshape(3, 4).T, "rate": np.array([0.5], "float32")}
    sent = behind.send(values)
    for name, value in values.items():
        found = np.array(sent.feed[name])
        assert found.dtype == value.dtype and np.array_equal(found, value)


class Broken(Event):
    def query(self):
        raise RuntimeError("no such stream")


@pytest.mark.parametrize("event", [Broken, Event], ids=["an error", "other numbers"])
def test_else_a_step_is_waited_for_and_the_log_says_so(monkeypatch, caplog, event):
    if event is Event:
        monkeypatch.setattr(Behind, "begin_read", lambda *given: lambda: np.zeros(3))
    assert isinstance(copies(monkeypatch, event), InTime)
    assert "the results of each step are waited for" in caplog.text


@pytest.mark.parametrize("on_gpu, late, others, wanted", [
    (True, "auto", [True], (Behind, 1)), (True, "auto", [False], (InTime, 0)), (True, "never", [], (InTime, 0)),
    (True, "always", [], (Behind, 1)), (False, "auto", [], (InTime, 0)), (False, "always", [], (InTime, 1)),
])  # fmt: skip
def test_all_ranks_are_as_far_ahead(monkeypatch, on_gpu, late, others, wanted):
    """One whose queues do not work waits, and then all do."""
    monkeypatch.setattr("plsc.engine.training.late.copies_of_gpu", lambda number: Behind(LaterQueue()))
    env = SimpleNamespace(on_gpu=on_gpu, device_id=3)
    group = SimpleNamespace(all_gather=lambda own: [own, *others])
    made = make_reading(SimpleNamespace(env=env, group=group, config=SimpleNamespace(late_results=late)))
    assert (type(made.copies), made.ahead) == wanted
