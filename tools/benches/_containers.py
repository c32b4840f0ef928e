"""Images a second and core from JPEG to a batch of pixels, uint8, for each container, in this process alone.

On a cold cache the pages of the data are dropped first (posix_fadvise, DONTNEED); resident says which part of the
images' files is in memory then. Directory entries and inodes stay in the kernel's memory, which only root could drop.
The passes alternate between all of it, and only reading the bytes (reads_per_second). per_cpu_second: by CPU time,
which other programs on the machine disturb less; it does not count waiting for the disk.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from plsc.config import Config

CONTAINERS = ("files", "recordio", "tar", "lmdb", "parquet", "pixels")  # the last: pack --to recordio --pixels
CLASSES, GROUP_ROWS, WINDOW = 50, 500, 4000


def run(case: dict, root: Path, draw: Callable[[Path, int, int], int]) -> dict:
    """The best of the passes over all images. draw: writes JPEG files 0.jpg, ... (directory, count, size)."""
    from plsc.data.batch import BatchFormat, fill_batch
    from plsc.data.sampler import GlobalBatchSampler, SampleOrder

    name, images = case["container"], case["images"]
    dataset = open_images(make(name, root, case, draw), name, case["size"])
    in_windows = name == "parquet"  # otherwise each image would cost a row group
    sampler = GlobalBatchSampler(images, case["batch"], 0, 1, 1, SampleOrder(window=WINDOW if in_windows else None))
    form = BatchFormat.of(dataset)
    pixels = np.empty((case["batch"], *form.image_shape), form.dtype)
    labels = np.empty(case["batch"], np.int64)
    steps, resident = images // case["batch"], 0.0

    def read(epoch: np.ndarray, index: np.ndarray) -> None:
        for each in index.tolist():
            dataset.source.read(each)

    def decode(epoch: np.ndarray, index: np.ndarray) -> None:
        fill_batch(dataset, epoch, index, pixels, labels)

    def one_pass(number: int, work: Callable[[np.ndarray, np.ndarray], None]) -> tuple[float, float]:
        started, cpu = time.perf_counter(), time.process_time()
        for step in range(number * steps, (number + 1) * steps):
            work(*sampler.indices(step))
        return time.perf_counter() - started, time.process_time() - cpu

    one_pass(0, decode)  # opens files, and reads all of them for a warm cache
    passes = []
    for number in range(1, 1 + case["passes"]):
        for work in (decode, read):
            if case["cache"] == "cold":
                resident = max(resident, drop_pages(root / name))
            passes.append(one_pass(number, work))
    best = [min(values) for kind in (passes[::2], passes[1::2]) for values in zip(*kind)]
    names = "images_per_second", "images_per_cpu_second", "reads_per_second", "reads_per_cpu_second"
    rates = {name: round(steps * case["batch"] / seconds) for name, seconds in zip(names, best)}
    return {"seconds": round(best[0], 3), **rates, "resident": round(resident, 3)}


def make(name: str, root: Path, case: dict, draw) -> dict:
    """Write the images into a container; returns the settings of section data."""
    from plsc.data.opening import open_to_read
    from plsc.data.packing.pack import pack

    files = root / "files"
    files.mkdir()
    drawn = min(case["images"], 256)
    draw(files, drawn, case["size"])
    encoded = [(files / f"{number}.jpg").read_bytes() for number in range(drawn)]
    for number in range(drawn, case["images"]):
        (files / f"{number}.jpg").write_bytes(encoded[number % drawn])
    lines = [f"{number}.jpg\t{number % CLASSES}\n" for number in range(case["images"])]
    (files / "label.txt").write_text("".join(lines))
    os.sync()
    if name == "files":
        return {"dataset_dir": str(files)}
    if name == "parquet":
        write_parquet(root / name, encoded, case["images"])
    else:
        config = settings({"dataset_dir": str(files)}, case["size"])
        pixels = name == "pixels"
        to = "recordio" if pixels else name
        pack(open_to_read(config, lambda line: None), to, str(root / name), pixels=pixels)
    os.sync()
    return {"dataset_dir": str(root / name)}


def write_parquet(directory: Path, encoded: list[bytes], count: int) -> None:
    import pyarrow
    from pyarrow import parquet

    directory.mkdir()
    images = [encoded[number % len(encoded)] for number in range(count)]
    table = pyarrow.table({"image": images, "label": [number % CLASSES for number in range(count)]})
    parquet.write_table(table, directory / "train.parquet", row_group_size=GROUP_ROWS, use_dictionary=False)


def settings(data: dict, size: int) -> Config:
    config = Config()
    config.update({"model": {"image_shape": [3, size, size]}, "data": data})
    return config


def open_images(data: dict, name: str, size: int):
    from plsc.data.opening import open_dataset

    options = {"options": {"cached_groups": 32}, "shuffle_window": WINDOW} if name == "parquet" else {}
    return open_dataset(settings({**data, **options}, size), lambda line: None)


def drop_pages(directory: Path) -> float:
    """Drop the pages of all files from the kernel's cache; returns the part of them that is still there."""
    libc, pages, kept = ctypes.CDLL(None, use_errno=True), 0, 0
    for path in directory.iterdir():
        with open(path, "rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            size = os.fstat(file.fileno()).st_size
            if not size:
                continue
            with mmap.mmap(file.fileno(), 0, flags=mmap.MAP_PRIVATE) as memory:
                vector = (ctypes.c_ubyte * -(-size // mmap.PAGESIZE))()
                place = ctypes.addressof(start := ctypes.c_char.from_buffer(memory))
                if libc.mincore(ctypes.c_void_p(place), ctypes.c_size_t(size), vector):
                    raise OSError(ctypes.get_errno(), "mincore")
                del start
                pages, kept = pages + len(vector), kept + int((np.frombuffer(vector, np.uint8) & 1).sum())
    return kept / max(pages, 1)
