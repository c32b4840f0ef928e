"""What the launcher's variables say, and what is said where they are set in part."""

from __future__ import annotations

import pytest

from plsc.errors import LaunchError
from plsc.parallel.environment import LAUNCH_VARIABLES, Environment

WHOLE = {
    "PADDLE_TRAINER_ID": "1", "PADDLE_TRAINERS_NUM": "3", "PADDLE_TRAINER_ENDPOINTS": "a:1,b:1,a:2",
    "PADDLE_CURRENT_ENDPOINT": "b:1",
}  # fmt: skip


def test_a_whole_launch():
    env = Environment.from_launch("cpu", WHOLE)
    assert (env.rank, env.world_size, env.local_rank, env.local_world_size) == (1, 3, 0, 1)
    assert env.endpoints == ("a:1", "b:1", "a:2")


@pytest.mark.parametrize("environ", [
    {}, {"PADDLE_TRAINERS_NUM": "1"}, {"PADDLE_TRAINERS_NUM": "1", "PADDLE_TRAINER_ID": "0"},
    {"PADDLE_TRAINERS_NUM": "1", "PADDLE_TRAINER_ID": ""}, {name: "" for name in LAUNCH_VARIABLES},
    {"PADDLE_TRAINERS_NUM": "1", "PADDLE_CURRENT_ENDPOINT": "a:1", "PADDLE_TRAINER_ENDPOINTS": "a:1"},
])  # fmt: skip
def test_one_rank(environ):
    """One rank is rank 0 and meets nobody, whatever else is set or not."""
    assert Environment.from_launch("cpu", environ) == Environment()


@pytest.mark.parametrize("left", range(1, 15))
def test_set_in_part(left):
    """Whatever of three ranks' variables is left out: the message names what is missing and what is there."""
    present = [name for place, name in enumerate(LAUNCH_VARIABLES) if left & 1 << place]
    with pytest.raises(LaunchError, match="the launch environment is incomplete: ") as caught:
        Environment.from_launch("cpu", {name: WHOLE[name] for name in present})
    missing, there = str(caught.value).split(" missing; start with ")
    assert [name in missing for name in LAUNCH_VARIABLES] == [name not in present for name in LAUNCH_VARIABLES]
    assert [name in there for name in LAUNCH_VARIABLES] == [name in present for name in LAUNCH_VARIABLES]


@pytest.mark.parametrize("change, message", [
    ({"PADDLE_TRAINERS_NUM": "three"}, "PADDLE_TRAINERS_NUM='three': must be a whole number"),
    ({"PADDLE_TRAINER_ID": "x"}, "PADDLE_TRAINER_ID='x': must be a whole number"),
    ({"PADDLE_TRAINER_ID": "3"}, "PADDLE_TRAINER_ID=3, PADDLE_TRAINERS_NUM=3 and 3 PADDLE_TRAINER_ENDPOINTS contra"),
    ({"PADDLE_TRAINERS_NUM": "2"}, "PADDLE_TRAINER_ID=1, PADDLE_TRAINERS_NUM=2 and 3 PADDLE_TRAINER_ENDPOINTS contra"),
    ({"PADDLE_TRAINERS_NUM": "1"}, "PADDLE_TRAINER_ID=1, PADDLE_TRAINERS_NUM=1 and 3 PADDLE_TRAINER_ENDPOINTS contra"),
    ({"PADDLE_CURRENT_ENDPOINT": "a:1"}, "PADDLE_CURRENT_ENDPOINT='a:1' and .* contradict each other: rank 1 must"),
    ({"PADDLE_TRAINER_ENDPOINTS": "a:1,b:1,a:1"}, "contradict each other: rank 1 must have entry 1, and all entries"),
])  # fmt: skip
def test_contradictions(change, message):
    with pytest.raises(LaunchError, match=message) as caught:
        Environment.from_launch("cpu", {**WHOLE, **change})
    assert "\n" not in str(caught.value)
