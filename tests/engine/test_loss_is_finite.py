"""What a run says where its loss is no number: at once, with what is to be corrected."""

from __future__ import annotations

import math
from types import SimpleNamespace

import numpy as np
import pytest

from plsc.engine.training.loop import Loop
from plsc.errors import TrainingError

MANY = "lower lr, add warm-up"


def stopped(loss, own, others=()):
    """What a rank with the labels ``own`` raises, where the other ranks name the labels ``others``."""
    program = SimpleNamespace(spec=SimpleNamespace(num_classes=10))
    group = SimpleNamespace(all_gather=lambda found: [list(others), found])
    loop = SimpleNamespace(_session=SimpleNamespace(program=program), _run=SimpleNamespace(group=group))
    with pytest.raises(TrainingError) as error:
        Loop._require_finite(loop, loss, 7, np.array(own))
    return str(error.value)


@pytest.mark.parametrize("own, others, named", [([0, 10, 3], [], 10), ([-1, 2], [], -1), ([0, 9], [12], 12)])
def test_a_label_that_is_no_class_is_named_on_every_rank(own, others, named):
    said = stopped(math.nan, own, others)
    assert f"label {named} is outside 0..9 (set by classifier.num_classes=10)" in said and MANY not in said


def test_otherwise_the_learning_rate_is_too_high():
    assert MANY in stopped(math.inf, [[0], [9]]) and "label" not in stopped(math.nan, [0])


def test_a_number_goes_on():
    Loop._require_finite(SimpleNamespace(), 1.0, 7, np.array([99]))  # who computes a loss knows what it is of
