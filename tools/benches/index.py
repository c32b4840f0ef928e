"""The index of a large data set on one machine: seconds to make and to open it, and memory of several processes.

A RecordIO file with images of four bytes and its .idx are made up, 60 bytes an image on disk, and deleted. The first
process makes the index; then so many processes have it open at the same time, as ranks of one machine, each with the
order of an epoch. pss_gb: the proportional share of memory (/proc/PID/smaps_rollup) of all, without that of as many
processes that have imported PLSC and opened nothing. anonymous_gb: of it what is no file, which the kernel cannot free.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import resource
import tempfile
import time
from pathlib import Path

import numpy as np

HELP = "memory and time of the index of a large RecordIO data set"
RECORD_BYTES = 36
CLASSES = 1_000_000


def add_options(command: argparse.ArgumentParser) -> None:
    command.add_argument("--images", type=int, default=50_000_000)
    command.add_argument("--processes", type=int, default=4)
    command.add_argument("--directory", help="where the files are made (default: that of temporary files)")


def cases(options: argparse.Namespace) -> list[dict]:
    return [{"images": options.images, "processes": options.processes, "directory": options.directory}]


def run(case: dict) -> dict:
    with tempfile.TemporaryDirectory(dir=case["directory"]) as directory:
        os.environ["XDG_CACHE_HOME"] = os.path.join(directory, "cache")
        write_records(Path(directory), case["images"])
        first = in_processes(1, directory)[0]
        nothing = in_processes(case["processes"], None)
        found = in_processes(case["processes"], directory)
        size = sum(path.stat().st_size for path in Path(directory, "cache").rglob("*") if path.is_file())

    def beside(key: str) -> float:
        return round((sum(one[key] for one in found) - sum(one[key] for one in nothing)) / 1e9, 3)

    return {
        "seconds": round(max(one["seconds"] for one in found), 2), "seconds_to_make": round(first["seconds"], 1),
        "peak_to_make_gb": round(first["peak"] / 1e9, 3), "cached_gb": round(size / 1e9, 3),
        "pss_gb": beside("Pss"), "anonymous_gb": beside("Anonymous"),
        "process_gb": round(nothing[0]["Pss"] / 1e9, 3),
    }  # fmt: skip


def in_processes(count: int, directory: str | None) -> list[dict]:
    """Open the data in so many processes; measure each when all have it open."""
    context = multiprocessing.get_context("spawn")
    barrier, results = context.Barrier(count), context.Queue()
    workers = [context.Process(target=measure, args=(directory, barrier, results)) for _ in range(count)]
    for worker in workers:
        worker.start()
    found = [results.get(timeout=3600) for _ in workers]
    for worker in workers:
        worker.join()
    return found


def measure(directory: str | None, barrier, results) -> None:
    from plsc.data import GlobalBatchSampler
    from plsc.data.sources.recordio import RecordIOSource

    started, kept = time.perf_counter(), []
    if directory is not None:
        source = RecordIOSource(directory, CLASSES, (3, 112, 112))
        source.check(check_files=True)
        sampler = GlobalBatchSampler(len(source), 64, 0, 1, seed=1)
        sampler.indices(0)
        kept = [source, sampler]
    seconds = time.perf_counter() - started
    barrier.wait(3600)
    found = {"seconds": seconds, "peak": 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss}
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()[1:]
    found.update({line.split(":")[0]: 1024 * int(line.split()[1]) for line in lines})
    barrier.wait(3600)
    del kept
    results.put(found)


def write_records(directory: Path, count: int) -> None:
    """train.rec and train.idx, images by class."""
    kinds = ("magic", "<u4"), ("length", "<u4"), ("flag", "<u4"), ("label", "<f4"), ("id", "<u8"), ("id2", "<u8")
    dtype = np.dtype([*kinds, ("image", "<u4")])
    assert dtype.itemsize == RECORD_BYTES
    block = 1_000_000
    with open(directory / "train.rec", "wb") as records, open(directory / "train.idx", "wb") as listing:
        for first in range(0, count, block):
            number = np.arange(first, min(first + block, count))
            data = np.zeros(len(number), dtype)
            data["magic"], data["length"] = 0xCED7230A, RECORD_BYTES - 8
            data["label"], data["id"] = number * CLASSES // count, number + 1
            records.write(data.tobytes())
            lines = map("%d\t%d\n".__mod__, zip((number + 1).tolist(), (number * RECORD_BYTES).tolist()))
            listing.write("".join(lines).encode())
