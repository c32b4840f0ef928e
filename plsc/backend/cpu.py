"""How the process uses the CPU: glibc keeps its blocks, MKL takes the processor's wide instructions, on all threads."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import os
from collections.abc import Iterator
from pathlib import Path

from plsc.backend import onednn, private, static

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_MMAP_MAX, M_ARENA_MAX = -1, -3, -4, -8  # malloc.h of glibc
NEVER = -1  # for M_TRIM_THRESHOLD; the largest int is 2 GB, and a classifier may leave more than that free
MADV_HUGEPAGE = 14  # mman.h of Linux
HUGE_PAGE = 2**21
GARBAGE_GB = 0.004
MANY_BLOCKS = 30_000  # Linux allows a process 65,530 mappings

AVX512 = {"avx512f", "avx512bw", "avx512dq", "avx512vl"}
AVX2 = {"avx2", "fma"}


def prepare_cpu(threads: int) -> None:
    """Make this process ready to compute with ``threads`` threads, or to order what a GPU computes. To be called before
    Paddle's first product."""
    use_wide_kernels()
    set_threads = private.find("base.core.set_num_threads")
    if set_threads is None:
        private.warn_missing("base.core.set_num_threads", "it computes with as many threads as it likes")
    else:
        set_threads(threads)
    run_in_order()
    batch_garbage_collection()
    onednn.disable_paddle_flags()
    keep_large_blocks()


def run_in_order() -> None:
    """Let the executor start operations one after the other, each with all threads, as they stand in the program.

    Collectives that do not depend on each other then start in the same order on every rank, and initial weights
    are drawn in the same order. Without the second flag it begins with all that waits for nothing, such as every row
    that a step will read; and on GPUs Paddle 2.6 would start the sums of the backbone's gradients, which have a stream
    of their own, behind all that is computed beside them (docs/gpu_program.md).
    """
    private.set_flag("FLAGS_new_executor_serial_run", True)
    in_order = "FLAGS_enable_pir_in_executor_trace_run" if static.is_pir() else "FLAGS_new_executor_sequential_run"
    private.set_flag(in_order, True)


def batch_garbage_collection() -> None:
    """Let the executor drop the tensors that nobody reads any more some MB at a time and not after each operation.

    It does so in a thread of its own, which the operation has to wake: on two cores, up to a sixth of the step of a
    classifier (docs/history.md). Read when a program is first run.
    """
    private.set_flag("FLAGS_eager_delete_tensor_gb", GARBAGE_GB, without="steps take somewhat longer")


def use_wide_kernels(cpuinfo: str = "/proc/cpuinfo") -> None:
    """Let the MKL that Paddle's wheels ship use AVX-512 or AVX2 on processors of AMD as well.

    That MKL is of 2019 and looks at the maker first: on any processor but Intel's it takes kernels of 2006, three to
    five times slower (docs/history.md). It reads this variable at its first product; a value that the user has
    set stays. numpy and PyTorch bring libraries of their own, which do not read it.
    """
    kind = mkl_cpu_type(Path(cpuinfo))
    if kind is not None:
        os.environ.setdefault("MKL_DEBUG_CPU_TYPE", kind)


def mkl_cpu_type(cpuinfo: Path) -> str | None:
    """MKL's number for the widest instructions of an AMD processor; None where MKL chooses rightly by itself."""
    vendor, flags = _processor(cpuinfo)
    if vendor != "AuthenticAMD":
        return None
    if AVX512 <= flags:
        return "7"
    return "5" if AVX2 <= flags else None


def widest_instructions(cpuinfo: Path) -> str:
    """What decides how a processor rounds sums: its maker, which MKL asks for, and how wide its vectors are."""
    vendor, flags = _processor(cpuinfo)
    width = "AVX-512" if AVX512 <= flags else "AVX2" if AVX2 <= flags else "no AVX2"
    return f"{vendor} {width}" if vendor else "of unknown kind"


def _processor(cpuinfo: Path) -> tuple[str, set[str]]:
    """(maker, flags) of the last processor; empty where Linux does not say."""
    try:
        lines = dict(line.split(":", 1) for line in cpuinfo.read_text().splitlines() if ":" in line)
    except OSError:  # not Linux
        return "", set()
    found = {name.strip(): value.strip() for name, value in lines.items()}
    return found.get("vendor_id", ""), set(found.get("flags", "").split())


def keep_large_blocks() -> bool:
    """Take big blocks from the heap and do not give them back to the kernel between steps; True if glibc obeyed.

    By default glibc maps each block above 32 MB anew at every allocation, and the first use of each page faults: a step
    of a large model or classifier spends more time on that than on arithmetic (measured in docs/design.md). The price
    is some unused memory between blocks, which the kernel gets back when ``release_free_memory`` is called. All
    threads share one heap: otherwise the thread that saves would take 33 MB for itself, which are never released,
    while the heap of the others has room.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except AttributeError:  # not glibc
        return False
    return all([mallopt(M_MMAP_MAX, 0), mallopt(M_TRIM_THRESHOLD, NEVER), mallopt(M_ARENA_MAX, 1)])


@contextlib.contextmanager
def map_large_blocks() -> Iterator[None]:
    """After ``keep_large_blocks``: within this context blocks of 1 MB and more are mapped separately, and unmapped when
    they are freed.

    For the first run of a program. Memory that stays allocated after it, such as oneDNN's layouts, would fragment the
    heap among the temporary tensors of a step: 0.8 GB with a ResNet50 (batch 16).
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except AttributeError:  # not glibc
        yield
        return
    mallopt(M_MMAP_THRESHOLD, 2**20)
    mallopt(M_MMAP_MAX, MANY_BLOCKS)
    try:
        yield
    finally:
        mallopt(M_MMAP_MAX, 0)


def release_free_memory() -> None:
    """Give what nobody uses back to the kernel, at the end of a run: the process may go on.

    Executors and programs refer to each other in circles; with them go the layouts that oneDNN keeps.
    """
    gc.collect()
    with contextlib.suppress(AttributeError):  # not glibc
        ctypes.CDLL(None).malloc_trim(0)


def use_huge_pages(size: int) -> bool:
    """Let the next ``size`` bytes of big blocks lie in pages of 2 MB. After keep_large_blocks. True if Linux took the
    wish, which it also does where its administrator has switched such pages off.

    A step of sampled rows goes here and there through all of them, and with pages of 4 KB misses the TLB at nearly
    every row (docs/history.md). Most systems give larger pages only to who asks. The memory is taken from the heap,
    marked, and given back to the heap, which keeps it for the blocks to come; nothing is touched.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    libc.malloc.argtypes, libc.malloc.restype = [ctypes.c_size_t], ctypes.c_void_p
    libc.free.argtypes = [ctypes.c_void_p]
    libc.madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    start = libc.malloc(size + 2 * HUGE_PAGE)
    if not start:
        return False
    first = -(-start // HUGE_PAGE) * HUGE_PAGE
    agreed = libc.madvise(first, size + HUGE_PAGE, MADV_HUGEPAGE) == 0
    libc.free(start)
    return agreed
