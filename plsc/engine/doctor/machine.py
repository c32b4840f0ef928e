"""What needs no ranks: Python and Paddle, the card, compiler, decoder, shared memory, open files, disk."""

from __future__ import annotations

import io
import os
import resource
import shutil
import sys
import time

import numpy as np

from plsc.backend.compiler import CompileError, compiled_library
from plsc.backend.paddle_version import require_paddle
from plsc.data.jpeg import decoder_name, open_jpeg_decoder
from plsc.data.transforms import decode_image
from plsc.engine.doctor.card import card, read_card
from plsc.engine.doctor.findings import PASS, Check, verdict
from plsc.rows.row_kernels import SOURCE

TESTED = ("2.6.2", "3.3.1")
SHARED_BYTES = 256 * 2**20  # of /dev/shm for each rank: NCCL's buffers between two GPUs of a machine
OPEN_FILES = 4096
DISK_BYTES = 10**10
DECODED = 200  # images of 112 x 112 a second: less than a tenth of what one core of 2015 decodes


def machine_checks(directory: str, ranks: int) -> list[Check]:
    """``directory``: of the checkpoints. ``ranks``: on this machine."""
    return [
        Check("versions", lambda: versions(sys.version_info[:2], require_paddle())),
        Check("card", lambda: card(read_card())),
        Check("compiler", compiler),
        Check("decoding", lambda: decoding(decoded_per_second())),
        Check("/dev/shm", lambda: shared_memory(free_bytes("/dev/shm"), ranks)),
        Check("open files", lambda: open_files(resource.getrlimit(resource.RLIMIT_NOFILE)[0])),
        Check("disk", lambda: disk(free_bytes(existing(directory)), directory)),
    ]


def versions(python: tuple[int, ...], paddle: str) -> tuple[str, str, str]:
    """A supported Python, and a Paddle that PLSC is tested with."""
    seen = f"Python {'.'.join(map(str, python))}, Paddle {paddle}"
    if not (3, 9) <= python <= (3, 12):
        return verdict(False, seen, "use Python 3.9 to 3.12")
    return verdict(paddle in TESTED, seen, f"PLSC is tested with Paddle {' and '.join(TESTED)} only: install one")


def compiler() -> tuple[str, str, str]:
    """The two operations in C++ for sampled rows on CPUs, compiled now if they are not in the cache."""
    try:
        return PASS, f"the operations in C++ are in {compiled_library(SOURCE).path}", ""
    except CompileError as error:
        return verdict(False, str(error), "install g++ 8 or newer, or set classifier.compiled: false (slower on CPUs)")


def decoded_per_second(seconds: float = 0.3) -> float:
    """JPEG images of 112 x 112 that this process decodes in a second, as training does (data.decoder: auto)."""
    from PIL import Image

    pixels = np.random.default_rng(0).integers(0, 256, (14, 14, 3), dtype=np.uint8).repeat(8, 0).repeat(8, 1)
    stored = io.BytesIO()
    Image.fromarray(pixels).save(stored, "JPEG", quality=95)
    fast, encoded, count = open_jpeg_decoder("auto"), stored.getvalue(), 0
    began = time.perf_counter()
    while time.perf_counter() - began < seconds:
        decoded = decode_image(encoded, jpeg=fast)
        if decoded.shape != pixels.shape or np.abs(decoded.astype(int) - pixels).mean() > 12:
            return 0.0  # other pixels than were stored
        count += 1
    return count / (time.perf_counter() - began)


def decoding(rate: float) -> tuple[str, str, str]:
    """``rate``: images a second of one process."""
    name = decoder_name("auto")
    return verdict(
        rate >= DECODED, f"{rate:,.0f} images/s of 112 x 112 in one process, by {name}",
        "pip install simplejpeg; if it is installed, its pixels are wrong or the processor is busy",
    )  # fmt: skip


def free_bytes(directory: str) -> int:
    """0 where there is no such directory."""
    return shutil.disk_usage(directory).free if os.path.isdir(directory) else 0


def existing(directory: str) -> str:
    """The directory, or the nearest one above it that is there already."""
    path = os.path.abspath(directory)
    while not os.path.isdir(path):
        path = os.path.dirname(path)
    return path


def shared_memory(free: int, ranks: int) -> tuple[str, str, str]:
    """Several ranks of a machine exchange data through it."""
    need = SHARED_BYTES * ranks if ranks > 1 else 0
    advice = f"give the container at least {need >> 20} MB: docker run --shm-size={need >> 20}m"
    return verdict(free >= need, f"{free >> 20:,} MB free", advice)


def open_files(limit: int) -> tuple[str, str, str]:
    """The soft limit of this process; -1 for none."""
    advice = f"ulimit -n {OPEN_FILES}: workers keep files of data sets open, and ranks connections"
    return verdict(limit < 0 or limit >= OPEN_FILES, f"limit {'none' if limit < 0 else limit}", advice)


def disk(free: int, directory: str) -> tuple[str, str, str]:
    """The directory of the checkpoints."""
    seen = f"{free / 1e9:,.1f} GB free in {directory}"
    return verdict(free >= DISK_BYTES, seen, "free space, or set model_save_dir to another disk (--output)")
