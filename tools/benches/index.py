"""The index of a large data set on one machine: seconds to make and to open it, and memory of several processes.

Files with images of a few bytes are made up (benches/_made_data.py), and deleted. The first process makes the index;
then so many processes have it open at the same time, as ranks of one machine, each with the order of an epoch.
pss_gb: the proportional share of memory (/proc/PID/smaps_rollup) of all, without that of as many processes that have
imported PLSC and opened nothing. anonymous_gb: of it what is no file, which the kernel cannot free. peak_gb: the most
that one process had (resident, with its shared pages), of those that make it and of those that open it.
per_image: bytes of an image of pss_gb, and of peak_to_make_gb without a process that has opened nothing. Any number of
images is treated as a large one.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import queue
import tempfile
import time
from pathlib import Path

from benches._made_data import WRITERS

HELP = "memory and time of the index of a large data set"


def add_options(command: argparse.ArgumentParser) -> None:
    command.add_argument("--images", type=int, default=50_000_000)
    command.add_argument("--processes", type=int, default=4)
    command.add_argument("--container", nargs="+", choices=[*WRITERS], default=["recordio"])
    command.add_argument("--directory", help="where the files are made (default: that of temporary files)")


def cases(options: argparse.Namespace) -> list[dict]:
    common = {"images": options.images, "processes": options.processes, "directory": options.directory}
    return [{"container": container, **common} for container in options.container]


def run(case: dict) -> dict:
    with tempfile.TemporaryDirectory(dir=case["directory"]) as directory:
        os.environ["XDG_CACHE_HOME"] = os.path.join(directory, "cache")
        data = Path(directory, "data")
        data.mkdir()
        settings = {"dataset_dir": str(data), **WRITERS[case["container"]](data, case["images"])}
        first = in_processes(1, settings)[0]
        nothing = in_processes(case["processes"], None)
        found = in_processes(case["processes"], settings)
        size = sum(path.stat().st_size for path in Path(directory, "cache").rglob("*") if path.is_file())

    def beside(key: str) -> int:
        return sum(one[key] for one in found) - sum(one[key] for one in nothing)

    making = first["peak"] - nothing[0]["peak"]
    return {
        "seconds": round(max(one["seconds"] for one in found), 2), "seconds_to_make": round(first["seconds"], 1),
        "peak_to_make_gb": round(first["peak"] / 1e9, 3), "cached_gb": round(size / 1e9, 3),
        "peak_gb": round(max(one["peak"] for one in found) / 1e9, 3),
        "pss_gb": round(beside("Pss") / 1e9, 3), "anonymous_gb": round(beside("Anonymous") / 1e9, 3),
        "process_gb": round(nothing[0]["Pss"] / 1e9, 3),
        "per_image": round(beside("Pss") / case["images"], 1), "per_image_to_make": round(making / case["images"], 1),
    }  # fmt: skip


def in_processes(count: int, settings: dict | None) -> list[dict]:
    """Open the data in so many processes; measure each when all have it open."""
    context = multiprocessing.get_context("spawn")
    barrier, results = context.Barrier(count), context.Queue()
    workers = [context.Process(target=measure, args=(settings, barrier, results)) for _ in range(count)]
    for worker in workers:
        worker.start()
    found: list[dict] = []
    while len(found) < count:
        try:
            found.append(results.get(timeout=1))
        except queue.Empty:
            if any(worker.exitcode for worker in workers):
                barrier.abort()  # the others wait for it
                raise RuntimeError("a process failed") from None
    for worker in workers:
        worker.join()
    return found


def measure(settings: dict | None, barrier, results) -> None:
    from plsc.config import Config
    from plsc.data import GlobalBatchSampler, folder_index, label_list, shared_index
    from plsc.data.opening import open_source
    from plsc.data.sources import label_list as list_source

    shared_index.LEAST_BYTES = shared_index.LEAST_ORDER = 1  # also fewer images as many
    label_list.LARGE = list_source.LEAST_BYTES = folder_index.LEAST_IMAGES = 1
    started, kept = time.perf_counter(), []
    if settings is not None:
        config = Config()
        config.update({"model": {"image_shape": [3, 112, 112]}, "data": settings})
        config.set("classifier.num_classes", None)
        source = open_source(config, seed=1)
        source.check(check_files=False)
        source.record()
        sampler = GlobalBatchSampler(len(source), 64, 0, 1, seed=1)
        sampler.indices(0)
        kept = [source, sampler]
    seconds = time.perf_counter() - started
    barrier.wait(7200)
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()[1:]
    status = Path("/proc/self/status").read_text().splitlines()
    lines += [line for line in status if line.startswith("VmHWM:")]  # ru_maxrss counts the parent's, too
    found = {line.split(":")[0]: 1024 * int(line.split()[1]) for line in lines}
    found.update(seconds=seconds, peak=found["VmHWM"])
    barrier.wait(7200)
    del kept
    results.put(found)
