"""The search of `bench.py capacity`: how near it comes, in how few tries, and what counts as too big."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [path for path in (str(ROOT), str(ROOT / "tools")) if path not in sys.path]

from benches import capacity  # noqa: E402

LIMIT, PROCESS = 2e9, 0.35e9


def counted(peak):
    tries = []

    def measure(classes):
        tries.append(classes)
        found = peak(classes)
        return found if found <= LIMIT else None

    return measure, tries


@pytest.mark.parametrize(
    "peak",
    [
        lambda classes: PROCESS + 4200 * classes,
        lambda classes: PROCESS + 9000 * classes,  # far more than the first guess, which is then too big
        lambda classes: max(0.6e9, PROCESS + 4500 * classes),  # flat at first
        lambda classes: PROCESS + 4200 * classes + (classes % 7) * 2e6,  # as it comes with a noisy machine
    ],
)
def test_the_search_ends_within_a_few_hundredths(peak):
    measure, tries = counted(peak)
    classes, found = capacity.search(measure, LIMIT, PROCESS)
    assert found == peak(classes) <= LIMIT and classes == max(n for n in tries if peak(n) <= LIMIT)
    assert peak(int(classes * 1.03)) > LIMIT
    assert len(tries) <= capacity.MOST_TRIES and len(set(tries)) == len(tries)


def test_a_process_that_passes_the_limit_is_too_big():
    case = {"ratio": 0.1, "batch": 4, "threads": 1, "storage": "float32"}
    # 2,000 classes of 512 numbers with momentum are 8 MB, and Paddle itself takes hundreds
    assert capacity.peak_of(case, 2000, 100e6) is None
    assert 150e6 < capacity.peak_of(case, 2000, 4e9) < 1e9
