"""Big blocks stay in the process, and MKL is told of wide instructions on AMD processors, and only there."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from plsc.backend.cpu import mkl_cpu_type, use_wide_kernels

PROGRAM = """
import resource, sys
import numpy as np
from plsc.backend.cpu import keep_large_blocks
if sys.argv[1] == "keep":
    assert keep_large_blocks()
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
    env = {**os.environ, "NUMPY_MADVISE_HUGEPAGE": "0"}
    command = [sys.executable, "-c", PROGRAM, mode]
    return int(subprocess.run(command, check=True, capture_output=True, text=True, env=env).stdout)


def test_a_big_block_is_faulted_in_once():
    # 8 blocks of 64 MB are 131072 pages of 4 KB, or 256 of 2 MB
    assert faults("default") >= 256
    assert faults("keep") < 100


KEPT = """
import numpy as np
from pathlib import Path
from plsc.backend.cpu import release_free_memory, keep_large_blocks
def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) >> 8  # pages of 4 KB, in MB
keep_large_blocks()
blocks = [np.empty(50 << 20, np.uint8) for _ in range(4)]
for block in blocks:
    block.fill(1)
before = resident()
del blocks, block
kept = resident()
release_free_memory()
print(before - kept, kept - resident())
"""


def test_what_is_free_goes_back_at_the_end_of_a_run():
    done = subprocess.run([sys.executable, "-c", KEPT], check=True, capture_output=True, text=True)
    while_it_runs, at_its_end = map(int, done.stdout.split())
    assert while_it_runs < 10 and at_its_end > 190


HUGE = """
import sys
import numpy as np
from pathlib import Path
from plsc.backend.cpu import keep_large_blocks, use_huge_pages
keep_large_blocks()
if sys.argv[1] == "huge":
    assert use_huge_pages(5000 << 20)
blocks = [np.empty(50 << 20, np.uint8) for _ in range(2)]
for block in blocks:
    block.fill(1)
(line,) = [line for line in Path("/proc/self/smaps_rollup").read_text().splitlines() if "AnonHugePages" in line]
print(int(line.split()[1]) >> 10)
"""


@pytest.mark.parametrize("mode, least, most", [("huge", 90, 110), ("default", 0, 10)])
def test_the_next_big_blocks_lie_in_huge_pages(mode, least, most):
    setting = Path("/sys/kernel/mm/transparent_hugepage/enabled").read_text()
    if "[always]" in setting:
        least, most = 90, 200  # without asking
    elif "[never]" in setting:
        least, most = 0, 0
    env = {**os.environ, "NUMPY_MADVISE_HUGEPAGE": "0"}
    done = subprocess.run([sys.executable, "-c", HUGE, mode], check=True, capture_output=True, text=True, env=env)
    assert least <= int(done.stdout) <= most


def cpu(directory, vendor: str, flags: str):
    file = directory / "cpuinfo"
    file.write_text(f"processor\t: 0\nvendor_id\t: {vendor}\nflags\t\t: fpu {flags}\n\n")
    return file


AVX512 = "avx2 fma avx512f avx512bw avx512dq avx512vl"


@pytest.mark.parametrize(
    ("vendor", "flags", "kind"),
    [
        ("AuthenticAMD", AVX512, "7"),
        ("AuthenticAMD", "avx2 fma avx512f", "5"),  # AVX-512 in part would be an illegal instruction
        ("AuthenticAMD", "avx fma", None),
        ("GenuineIntel", AVX512, None),
    ],
)
def test_mkl_is_told_what_an_amd_processor_can(tmp_path, vendor, flags, kind):
    assert mkl_cpu_type(cpu(tmp_path, vendor, flags)) == kind


def test_a_machine_that_does_not_tell(tmp_path):
    assert mkl_cpu_type(tmp_path / "missing") is None


def test_what_the_user_has_set_stays(tmp_path, monkeypatch):
    file = cpu(tmp_path, "AuthenticAMD", AVX512)
    monkeypatch.setenv("MKL_DEBUG_CPU_TYPE", "5")
    use_wide_kernels(str(file))
    assert os.environ["MKL_DEBUG_CPU_TYPE"] == "5"
    monkeypatch.delenv("MKL_DEBUG_CPU_TYPE")
    use_wide_kernels(str(file))
    assert os.environ["MKL_DEBUG_CPU_TYPE"] == "7"


PRODUCTS = """
import sys, zlib
import numpy as np
import paddle
from plsc.backend.cpu import prepare_cpu
prepare_cpu(2)
rng = np.random.default_rng(0)
for turn_left, turn_right in ((False, False), (False, True), (True, False)):
    for n, k, m in ((64, 512, 4096), (3, 5, 7), (130, 77, 1001)):
        left, right = rng.standard_normal((n, k)).astype("float32"), rng.standard_normal((k, m)).astype("float32")
        goal = left.astype("float64") @ right.astype("float64")
        left, right = (left.T if turn_left else left), (right.T if turn_right else right)
        got = paddle.matmul(paddle.to_tensor(left), paddle.to_tensor(right), turn_left, turn_right).numpy()
        # a sum of k products of size 1 in float32: k**0.5 * 6e-8 for each of some ten standard deviations
        assert np.abs(got - goal).max() < 2e-6 * k**0.5 * 4, (n, k, m)
"""


def test_products_with_the_kernels_of_this_machine():
    done = subprocess.run([sys.executable, "-c", PRODUCTS], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
