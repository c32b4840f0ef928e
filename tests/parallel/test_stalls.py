"""Who is late: judged by a clock of the test's own, without threads."""

from __future__ import annotations

import pytest

from plsc.parallel.stalls import StallWatch

SECONDS = 100.0


class Watch:
    """The watch of one rank of three; ``pass_time`` looks as often as the thread would, the other ranks being there."""

    def __init__(self, rank: int = 0):
        self.now, self.steps = 0.0, {other: 0 for other in range(3) if other != rank}
        self.watch = StallWatch(rank, 3, SECONDS, lambda step: None, lambda reason: None, clock=lambda: self.now)

    def pass_time(self, seconds: float, silent: tuple = ()) -> str | None:
        end = self.now + seconds
        while self.now < end:
            self.now += 1.0
            for rank, step in self.steps.items():
                if rank not in silent:
                    self.watch.record(rank, step)
            reason = self.watch.late_reason()
            if reason:
                return reason
        return None


def test_nobody_is_late_while_all_are_in_one_step_or_between_steps():
    ranks = Watch()
    ranks.watch.begin_step(7)
    ranks.steps = {1: 7, 2: 7}
    assert ranks.pass_time(20 * SECONDS) is None


def test_who_has_not_begun_the_step_of_the_others_is_late():
    ranks = Watch()
    ranks.watch.begin_step(7)
    ranks.steps = {1: 7, 2: 6}
    assert ranks.pass_time(SECONDS) is None
    assert ranks.pass_time(2.0) == (
        "rank 2, which is late: for 100 s it has not begun step 7, in which the other ranks wait (stall_timeout=100)"
    )


def test_rank_0_may_be_the_late_one():
    ranks = Watch()
    ranks.watch.begin_step(6)
    ranks.steps = {1: 7, 2: 7}
    assert ranks.pass_time(SECONDS + 3.0).startswith("rank 0, which is late: for 100 s it has not begun step 7")


def test_a_slow_rank_that_comes_in_time_is_not_late():
    ranks = Watch()
    for step in range(1, 6):
        ranks.watch.begin_step(step)
        ranks.steps = {1: step, 2: step - 1}
        assert ranks.pass_time(0.9 * SECONDS) is None
        ranks.steps = {1: step, 2: step}
        assert ranks.pass_time(3 * SECONDS) is None


@pytest.mark.parametrize("rank, silent", [(0, 1), (0, 2), (1, 0)])
def test_of_whom_nothing_is_heard_is_late(rank, silent):
    ranks = Watch(rank)
    assert ranks.pass_time(SECONDS - 1.0, silent=(silent,)) is None
    assert f"rank {silent}, which is late: for 100 s it has sent nothing" in ranks.pass_time(3.0, silent=(silent,))


def test_the_other_ranks_do_not_judge_each_other():
    ranks = Watch(rank=1)
    ranks.watch.begin_step(9)
    assert ranks.pass_time(5 * SECONDS, silent=(2,)) is None


def test_who_stood_still_itself_accuses_nobody():
    ranks = Watch()
    ranks.watch.begin_step(7)
    ranks.steps = {1: 7, 2: 6}
    assert ranks.pass_time(10.0) is None
    ranks.now += 50 * SECONDS  # the machine slept, and all ranks with it
    assert ranks.watch.late_reason() is None
    assert ranks.pass_time(0.9 * SECONDS) is None
    assert "rank 2" in ranks.pass_time(0.2 * SECONDS)
