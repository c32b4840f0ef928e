"""CPU settings of the process: memory allocation by glibc, MKL's instruction sets, threads, the executor's order."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import os
from collections.abc import Iterator
from pathlib import Path

from plsc.backend import onednn, private, static

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_MMAP_MAX, M_ARENA_MAX = -1, -3, -4, -8  # malloc.h of glibc
NEVER = -1  # for M_TRIM_THRESHOLD; the largest int is 2 GB, and a classifier may free more than that
MADV_HUGEPAGE = 14  # mman.h of Linux
HUGE_PAGE = 2**21
GARBAGE_GB = 0.004
MANY_BLOCKS = 30_000  # Linux allows a process 65,530 mappings

AVX512 = {"avx512f", "avx512bw", "avx512dq", "avx512vl"}
AVX2 = {"avx2", "fma"}


def prepare_cpu(threads: int) -> None:
    """Prepare this process to compute with ``threads`` threads, or to control a GPU. Call it before Paddle's first
    matrix product."""
    use_wide_kernels()
    set_threads = private.find("base.core.set_num_threads")
    if set_threads is None:
        private.warn_missing("base.core.set_num_threads", "the number of threads is Paddle's default")
    else:
        set_threads(threads)
    run_in_order()
    batch_garbage_collection()
    onednn.disable_paddle_flags()
    keep_large_blocks()


def run_in_order() -> None:
    """Make the executor run operations one after the other in program order, each with all threads.

    Independent collectives then start in the same order on every rank, and initial weights are drawn in the same order.
    Without the second flag, the executor first runs all operations without inputs, such as the lookup of every row that
    a step will read. And on GPUs Paddle 2.6 would start the sums of the backbone's gradients, which have a separate
    stream, after the computations that they should overlap with (docs/gpu_program.md).
    """
    private.set_flag("FLAGS_new_executor_serial_run", True)
    in_order = "FLAGS_enable_pir_in_executor_trace_run" if static.is_pir() else "FLAGS_new_executor_sequential_run"
    private.set_flag(in_order, True)


def batch_garbage_collection() -> None:
    """Make the executor free dead tensors when they sum to some MB, instead of after each operation.

    It frees them in a separate thread, which the operation has to wake: on two cores this took up to a sixth of the
    step of a classifier (docs/history.md). The flag is read when a program is first run.
    """
    private.set_flag("FLAGS_eager_delete_tensor_gb", GARBAGE_GB, without="steps take a little longer")


def use_wide_kernels(cpuinfo: str = "/proc/cpuinfo") -> None:
    """Make the MKL in Paddle's wheels use AVX-512 or AVX2 on AMD processors.

    That MKL is from 2019 and checks the vendor first: on other processors than Intel's it uses kernels for SSE, which
    are three to five times slower (docs/history.md). It reads this variable at its first matrix product; a value set by
    the user takes precedence. NumPy and PyTorch have their own libraries, which do not read it.
    """
    kind = mkl_cpu_type(Path(cpuinfo))
    if kind is not None:
        os.environ.setdefault("MKL_DEBUG_CPU_TYPE", kind)


def mkl_cpu_type(cpuinfo: Path) -> str | None:
    """MKL's number for the widest instructions of an AMD processor; None where MKL's own choice is right."""
    vendor, flags = _processor(cpuinfo)
    if vendor != "AuthenticAMD":
        return None
    if AVX512 <= flags:
        return "7"
    return "5" if AVX2 <= flags else None


def widest_instructions(cpuinfo: Path) -> str:
    """The vendor and vector width of the processor, which determine how MKL's sums are rounded."""
    vendor, flags = _processor(cpuinfo)
    width = "AVX-512" if AVX512 <= flags else "AVX2" if AVX2 <= flags else "no AVX2"
    return f"{vendor} {width}" if vendor else "unknown processor"


def _processor(cpuinfo: Path) -> tuple[str, set[str]]:
    """(vendor, flags) of the last processor in ``cpuinfo``; empty where they are not listed."""
    try:
        lines = dict(line.split(":", 1) for line in cpuinfo.read_text().splitlines() if ":" in line)
    except OSError:  # not Linux
        return "", set()
    found = {name.strip(): value.strip() for name, value in lines.items()}
    return found.get("vendor_id", ""), set(found.get("flags", "").split())


def keep_large_blocks() -> bool:
    """Allocate large blocks on the heap and do not return them to the kernel between steps; True if glibc supports it.

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
    """Return unused memory to the kernel at the end of a run; the process may continue.

    Executors and programs form reference cycles, so the garbage collector runs first; it also frees oneDNN's layouts.
    """
    gc.collect()
    with contextlib.suppress(AttributeError):  # not glibc
        ctypes.CDLL(None).malloc_trim(0)


def use_huge_pages(size: int) -> bool:
    """Request pages of 2 MB for the next ``size`` bytes of large blocks. Call it after ``keep_large_blocks``. True if
    Linux accepted the request, which it also does where the administrator has disabled such pages.

    A step of sampled rows accesses rows in random order; with pages of 4 KB nearly every row is a TLB miss
    (docs/history.md). Most systems use larger pages only on request. The memory is allocated, marked and freed again;
    the heap keeps it for later blocks. No page is touched.
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
