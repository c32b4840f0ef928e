"""Big blocks stay in the process: their pages are faulted in once, not at every allocation."""

from __future__ import annotations

import subprocess
import sys

PROGRAM = """
import resource, sys
import numpy as np
from plsc.engine.memory import keep_big_blocks
if sys.argv[1] == "keep":
    assert keep_big_blocks()
def use():
    np.empty(64 << 20, np.uint8).fill(1)
use()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(8):
    use()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(mode: str) -> int:
    # huge pages, where the kernel gives them, make few faults of many; numpy asks for them unless told not to
    import os

    env = {**os.environ, "NUMPY_MADVISE_HUGEPAGE": "0"}
    command = [sys.executable, "-c", PROGRAM, mode]
    return int(subprocess.run(command, check=True, capture_output=True, text=True, env=env).stdout)


def test_a_big_block_is_faulted_in_once():
    # 8 blocks of 64 MB are 131072 pages of 4 KB, or 256 of 2 MB
    assert faults("default") >= 256
    assert faults("keep") < 100
