"""The checks of plsc doctor that ranks make together: what is right passes, what is broken fails and says how."""

from __future__ import annotations

import pytest

from plsc.engine.doctor.findings import FAIL, NOT_HERE, PASS, Finding, worst
from tests.dist import ranks
from tests.kernels.library import library

# case: (on CPUs, on GPUs, what the finding says on GPUs)
EXPECTED = {
    "ring": (PASS, PASS, "sums are right"),
    "ring: slow": (FAIL, FAIL, "GB/s for 25 MB"),
    "ring: the own part only": (FAIL, FAIL, "wrong all-reduce (sum), all-reduce (max)"),
    "ring: gathered in another order": (FAIL, FAIL, "wrong all-gather"),
    "products": (PASS, PASS, "float32, error"),
    "products: of few bits": (FAIL, FAIL, "wrong products"),
    "host to device": (NOT_HERE, PASS, "back"),
    "host to device: slow": (NOT_HERE, FAIL, "GB/s"),
    "kernels paddle": (NOT_HERE, PASS, "2 rank(s), loss and gradients equal NumPy's"),
    "kernels paddle: another margin": (NOT_HERE, FAIL, "errors above 5e-03 with all classes"),
    "kernels plsc": (PASS, PASS, "2 rank(s), loss and gradients equal NumPy's"),
    "kernels plsc: another sample": (FAIL, FAIL, "a sample"),
    "step": (PASS, PASS, "images/s"),
    "step: slow": (FAIL, FAIL, "images/s"),
    "step: no number": (FAIL, FAIL, "losses nan"),
    "step: other losses": (FAIL, FAIL, "of all ranks [[0.0"),
    "step: raises": (FAIL, FAIL, "ZeroDivisionError"),
    "timing": (PASS, None, "500 classes a rank"),  # on GPUs either may be faster
    "timing: plsc is faster": (PASS, FAIL, "paddle 300.0 ms, plsc 100.0 ms"),
    "timing: paddle is faster": (PASS, PASS, "keep classifier.kernels: auto"),
}


@pytest.fixture(scope="module")
def outcome(tmp_path_factory):
    return ranks.run("tests.dist.doctor_cases:run_all", 2, tmp_path_factory.mktemp("doctor"), library())


def test_each_check_on_two_ranks(outcome):
    for place, device in enumerate(("cpu", "gpu")):
        cases = [part[device] for part in outcome]
        assert set(cases[0]) == set(EXPECTED)
        for name, expected in EXPECTED.items():
            found = worst(case[name] for case in cases)
            wanted = expected[place]
            assert wanted is None or found.status == wanted, (device, name, str(found))
            assert (found.status == FAIL) == bool(found.advice) or "NVIDIA_TF32" in found.seen, str(found)
            if device == "gpu":
                assert expected[2] in found.seen, str(found)
            assert "\n" not in found.seen and "\n" not in found.advice


def test_the_finding_of_all_ranks_is_the_first_failure():
    fine, bad = Finding("ring", PASS, "right"), Finding("ring", FAIL, "wrong", "change it")
    assert worst([fine, fine]) == fine
    assert worst([fine, bad, bad]) == Finding("ring", FAIL, "rank 1: wrong", "change it")
    assert worst([bad]) == bad
