"""A save that the launcher would not wait for is said, in the run and at the start of the next one."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest

from plsc.engine.training.grace import SLOW_SAVE, GracePeriod


def run_in(tmp_path, rank: int = 0):
    lines: list[str] = []
    return SimpleNamespace(
        config=SimpleNamespace(model_save_dir=str(tmp_path)), env=SimpleNamespace(rank=rank), lines=lines,
        group=SimpleNamespace(broadcast=lambda value: 45.0 if value is None else value),
        log=SimpleNamespace(info=lines.append),
    )  # fmt: skip


@pytest.mark.parametrize("seconds, told", [(20.0, False), (25.0, True), (45.0, True)])
def test_a_slow_save_is_told_once_and_at_the_next_start(tmp_path, seconds, told):
    run = run_in(tmp_path)
    grace = GracePeriod(run, 30.0)
    assert run.lines == []
    for _ in range(2):
        grace.saved(seconds)
    assert len(run.lines) == told
    later = run_in(tmp_path)
    GracePeriod(later, 30.0)
    assert later.lines == run.lines
    assert not told or (f"took {seconds:.0f} s" in run.lines[0] and "python -m plsc.launch" in run.lines[0])


def test_the_other_ranks_hear_what_rank_0_read(tmp_path):
    run = run_in(tmp_path, rank=1)
    GracePeriod(run, 30.0).saved(60.0)
    assert "took 45 s" in run.lines[0] and not (tmp_path / SLOW_SAVE).exists()


def test_without_a_limit_nothing_is_said_and_a_fast_save_forgets(tmp_path):
    (tmp_path / SLOW_SAVE).write_text(json.dumps({"seconds": 45.0}))
    run = run_in(tmp_path)
    grace = GracePeriod(run)  # nobody launched this process
    grace.saved(3.0)
    assert run.lines == [] and not (tmp_path / SLOW_SAVE).exists()


@pytest.mark.parametrize("text", ["", "[]", '{"seconds": "x"}'])
def test_a_spoiled_note_is_no_note(tmp_path, text):
    (tmp_path / SLOW_SAVE).write_text(text)
    GracePeriod(run_in(tmp_path), 30.0).saved(1.0)
