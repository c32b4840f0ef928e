"""The ten faults of tests.breaks can still be made: code that moves takes them along."""

from __future__ import annotations

import pytest

from tests.breaks import BREAKS, ROOT


@pytest.mark.parametrize("name", BREAKS)
def test_each_fault_fits_the_code_and_names_its_tests(name):
    fault = BREAKS[name]
    assert (ROOT / fault.file).read_text(encoding="utf-8").count(fault.right) == 1 and fault.right != fault.wrong
    files = [word for word in fault.tests if word.endswith(".py")]
    assert files and all((ROOT / file).is_file() for file in files)
