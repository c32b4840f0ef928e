"""Reading training data: JPEG files to batches by number of workers, and the start with a list of millions of lines.

The images are drawn: coloured noise with the spectrum of photographs, JPEG quality 90. workers 0 is one core: it
reads, decodes, flips, normalises and puts into batches. The list has 50 images a class, a directory for each class;
the directories are links to one, so that millions of names cost no disk, but each is listed like one of its own.
With --containers only these are measured, each on a warm and on a cold cache.
"""

from __future__ import annotations

import argparse
import io
import os
import resource
import tempfile
import time
from pathlib import Path

import numpy as np

from benches import _containers

HELP = "JPEG files to batches by number of workers; the start with a long list"
NUM_IMAGES, PER_CLASS = 256, 50


def add_options(command: argparse.ArgumentParser) -> None:
    command.add_argument("--workers", type=int, nargs="*", default=[0, 1, 2])
    command.add_argument("--images", type=int, default=4000, help="images timed")
    command.add_argument("--batch", type=int, default=64)
    command.add_argument("--size", type=int, default=112, help="width and height")
    command.add_argument("--containers", nargs="*", default=[], choices=_containers.CONTAINERS)
    command.add_argument("--caches", nargs="*", default=["warm", "cold"], choices=["warm", "cold"])
    command.add_argument("--passes", type=int, default=3, help="over the images of a container; the best counts")
    command.add_argument("--list-lines", type=int, default=0, help="lines of a list to start with; 0: no such case")


def cases(options: argparse.Namespace) -> list[dict]:
    shared = {"images": options.images, "batch": options.batch, "size": options.size}
    if options.containers:
        return [{"container": container, "cache": cache, "passes": options.passes, **shared}
                for cache in options.caches for container in options.containers]  # fmt: skip
    of_list = [{"list_lines": options.list_lines, "size": 32}] if options.list_lines else []
    return [{"workers": workers, **shared} for workers in options.workers] + of_list


def run(case: dict) -> dict:
    with tempfile.TemporaryDirectory() as directory:
        root = Path(directory)
        if "container" in case:
            return _containers.run(case, root, draw)
        return start_with_list(case, root) if "list_lines" in case else read_batches(case, root)


def read_batches(case: dict, root: Path) -> dict:
    """Wall time of the batches after the first; without workers, also the CPU time of each part."""
    from plsc.data import GlobalBatchSampler, ImageListDataset, Loader

    size = draw(root, NUM_IMAGES, case["size"])
    (root / "label.txt").write_text("".join(f"{number}.jpg\t{number % 10}\n" for number in range(NUM_IMAGES)))
    data = ImageListDataset(root, "label.txt", 10, (3, case["size"], case["size"]), seed=1)
    sampler = GlobalBatchSampler(NUM_IMAGES, case["batch"], 0, 1, seed=1)
    steps = max(2, case["images"] // case["batch"])
    with Loader(data, sampler, case["workers"], 0, steps + 1) as loader:
        next(loader)
        started, cpu = time.perf_counter(), time.process_time()
        for _ in loader:
            pass
        seconds, cpu = time.perf_counter() - started, time.process_time() - cpu
    images = steps * case["batch"]
    values = {"seconds": round(seconds, 3), "images_per_second": round(images / seconds),
               "cpu_us_per_image_here": round(1e6 * cpu / images, 1), "bytes_per_jpeg": size}  # fmt: skip
    return values if case["workers"] else {**values, **parts(root)}


def parts(root: Path) -> dict:
    """CPU time in microseconds per image, for each part of reading."""
    from plsc.data import decode_image, normalise
    from plsc.data.transforms import is_flipped

    files = [root / f"{number}.jpg" for number in range(NUM_IMAGES)]
    encoded = [file.read_bytes() for file in files]
    pixels = [decode_image(one, "an image") for one in encoded]
    return {
        "us_read": microseconds(lambda i: files[i].read_bytes()),
        "us_decode": microseconds(lambda i: decode_image(encoded[i], "an image")),
        "us_draw_flip": microseconds(lambda i: is_flipped(1, 0, i)),
        "us_normalise": microseconds(lambda i: normalise(pixels[i], 127.5, flip=i % 2 == 0)),
    }


def microseconds(work) -> float:
    """CPU time of ``work(i)``, the best of three passes."""
    passes = []
    for _ in range(3):
        started = time.process_time()
        for number in range(NUM_IMAGES):
            work(number)
        passes.append(time.process_time() - started)
    return round(1e6 * min(passes) / NUM_IMAGES, 1)


def draw(root: Path, count: int, size: int) -> int:
    """Write ``count`` JPEG files; returns the mean size in bytes. Amplitudes fall with 1 / frequency, as in photos."""
    from PIL import Image

    rng, sizes = np.random.default_rng(0), []
    fall = np.sqrt(np.fft.fftfreq(size)[:, None] ** 2 + np.fft.rfftfreq(size)[None] ** 2)
    fall[0, 0] = 1.0
    for number in range(count):
        waves = np.fft.irfft2(np.fft.rfft2(rng.standard_normal((3, size, size))) / fall, s=(size, size))
        pixels = np.clip(127 + 45 * waves / waves.std(), 0, 255).astype(np.uint8).transpose(1, 2, 0)
        buffer = io.BytesIO()
        Image.fromarray(np.ascontiguousarray(pixels)).save(buffer, "JPEG", quality=90)
        (root / f"{number}.jpg").write_bytes(buffer.getvalue())
        sizes.append(len(buffer.getvalue()))
    return round(float(np.mean(sizes)))


def start_with_list(case: dict, root: Path) -> dict:
    """Seconds from `Entry.train()` to the end of the first step with a long list, and the peak of the memory.

    The model is very small. base_gb: memory before, with Paddle and PLSC imported. worker_mb: private memory of one of
    the two data workers.
    """
    from plsc import Entry
    from plsc.backend.paddle_version import require_paddle
    from plsc.data import GlobalBatchSampler, ImageListDataset, Loader

    require_paddle()
    lines, size = case["list_lines"], case["size"]
    classes = write_list(root, lines, size)
    base = peak()
    started = time.perf_counter()
    data = ImageListDataset(root, "label.txt", classes, (3, size, size), seed=1)
    reading = time.perf_counter() - started
    with Loader(data, GlobalBatchSampler(lines, 8, 0, 1, seed=1), 2, 0, 40) as loader:
        for _ in range(20):
            next(loader)
        private = max(private_bytes(worker.process.pid) for worker in loader._pool._workers)
    del data, loader
    entry = Entry(config={
        "data": {"dataset_dir": str(root), "num_workers": 2}, "with_test": False, "seed": 1,
        "model": {"name": "ResNet10", "base_width": 4, "image_shape": [3, size, size], "embedding_size": 8},
        "classifier": {"num_classes": classes, "sample_ratio": 0.01}, "train_batch_size": 8, "train_steps": 1,
        "model_save_dir": str(root / "run"),
    })  # fmt: skip
    started, cpu = time.perf_counter(), time.process_time()
    entry.train()
    seconds, cpu = time.perf_counter() - started, time.process_time() - cpu
    return {"seconds": round(seconds, 2), "cpu_seconds": round(cpu, 2), "reading_seconds": round(reading, 2),
            "peak_gb": round(peak() / 1e9, 3), "base_gb": round(base / 1e9, 3), "worker_mb": round(private / 1e6, 1),
            "list_mb": round((root / "label.txt").stat().st_size / 1e6, 1)}  # fmt: skip


def write_list(root: Path, lines: int, size: int) -> int:
    """A list of so many lines, and images for it; returns the number of classes."""
    (root / "some").mkdir()
    draw(root / "some", PER_CLASS, size)
    classes = -(-lines // PER_CLASS)
    with open(root / "label.txt", "w") as file:
        for label in range(classes):
            os.symlink("some", root / f"id_{label:07d}")
            here = range(min(PER_CLASS, lines - label * PER_CLASS))
            file.write("".join(f"id_{label:07d}/{number}.jpg\t{label}\n" for number in here))
    os.sync()  # or the disk is still busy with this when the clock runs
    return classes


def peak() -> int:
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def private_bytes(pid: int) -> int:
    """Memory that a process shares with no other."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return sum(1024 * int(line.split()[1]) for line in lines if line.startswith("Private_"))
