"""What a run costs besides its steps: start, save, load, verification, export, prediction.

The cases of a round build on each other. start: from the start of the process to the end of the first step, with a
checkpoint at the end, written while training waits. load: the same run goes on from it. verify: images judged by the
program that training uses, and by test(); each image is computed twice, the second time as its mirror image. export:
convert_for_prediction with its comparison. predict: `Predictor.run` on batches, by Paddle Inference and, where ONNX
Runtime and paddle2onnx are installed, by that. cpu_ms counts all threads: the figure for a machine that is not free.
"""

from __future__ import annotations

import argparse
import atexit
import importlib
import shutil
import tempfile
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import numpy as np

HELP = "start to first step, save, load, verification, export, prediction"
LEAST_SECONDS = 2.0  # of prediction, at least three batches


def add_options(command: argparse.ArgumentParser) -> None:
    command.add_argument("--model", default="ResNet50")
    command.add_argument("--width", type=int, default=64, help="model.base_width of a ResNet")
    command.add_argument("--size", type=int, default=112, help="width and height of the images")
    command.add_argument("--classes", type=int, default=100_000)
    command.add_argument("--batch", type=int, default=16, help="images of a training step")
    command.add_argument("--images", type=int, default=64, help="images to verify")
    command.add_argument("--batches", type=int, nargs="+", default=[1, 32], help="images of a prediction")
    command.add_argument("--directory", help="keep what is made there, and use it next time with some of the --parts")
    command.add_argument("--parts", nargs="+", default=["start", "load", "verify", "export", "predict"])


def cases(options: argparse.Namespace) -> list[dict]:
    directory = options.directory or tempfile.mkdtemp(prefix="plsc_bench_")
    if not options.directory:
        atexit.register(shutil.rmtree, directory, ignore_errors=True)
    onnx = find_spec("onnxruntime") is not None and find_spec("paddle2onnx") is not None
    shared = {"model": options.model, "width": options.width, "size": options.size, "classes": options.classes,
              "train_batch": options.batch, "directory": directory, "onnx": onnx}  # fmt: skip
    kinds = {
        "start": [{}],
        "load": [{}],
        "verify": [{"by": by, "images": options.images} for by in ("training", "test")],
        "export": [{}],
        "predict": [
            {"runtime": runtime, "batch": batch}
            for batch in options.batches
            for runtime in (["paddle", "onnx"] if onnx else ["paddle"])
        ],
    }
    return [{"part": part, **kind, **shared} for part in options.parts for kind in kinds[part]]


def run(case: dict) -> dict:
    return {"start": start, "load": load, "verify": verify, "export": export, "predict": predict}[case["part"]](case)


class Stopwatch:
    """Seconds spent in functions, by a name of ours, while they run under their own names."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self.cpu: dict[str, float] = {}

    def watch(self, name: str, module: str, function: str, after: Callable | None = None) -> None:
        """``function`` may be "Class.method"; ``after()`` is called when it has returned."""
        owner = importlib.import_module(module)
        *path, last = function.split(".")
        for part in path:
            owner = getattr(owner, part)
        usual = getattr(owner, last)

        def timed(*arguments, **keys):
            started, cpu = time.perf_counter(), time.process_time()
            try:
                return usual(*arguments, **keys)
            finally:
                self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - started
                self.cpu[name] = self.cpu.get(name, 0.0) + time.process_time() - cpu
                if after is not None:
                    after()

        setattr(owner, last, timed)

    def rounded(self) -> dict[str, float]:
        return {name: round(seconds, 3) for name, seconds in self.seconds.items()}


def settings(case: dict, **changes) -> dict:
    net = {"name": case["model"], "image_shape": [3, case["size"], case["size"]]}
    if case["model"].startswith("ResNet"):
        net["base_width"] = case["width"]
    return {
        "model": net, "classifier": {"num_classes": case["classes"], "sample_ratio": 0.1},
        "data": {"dataset": "synthetic", "train_image_num": 4 * case["train_batch"], "num_workers": 1},
        "train_batch_size": case["train_batch"], "train_steps": 1, "with_test": False, "seed": 1, "save_async": False,
        "resume": "auto",
        "num_threads": case["threads"], "model_save_dir": f"{case['directory']}/run", **changes,
    }  # fmt: skip


def start(case: dict) -> dict:
    shutil.rmtree(f"{case['directory']}/run", ignore_errors=True)
    started, watch, first = time.perf_counter() - age(), Stopwatch(), []
    from plsc import Entry
    from plsc.backend.paddle_version import require_paddle

    require_paddle()
    loaded = time.perf_counter()
    watch.watch("build", "plsc.engine.training.loop", "build_train")
    watch.watch("initial_weights", "plsc.engine.training.loop", "Session.start")
    watch.watch("centres", "plsc.engine.training.loop", "load_initial_weights")
    watch.watch(
        "first_step", "plsc.engine.training.loop", "Session.step", after=lambda: first.append(time.perf_counter())
    )
    watch.watch("save", "plsc.engine.training.loop", "Saver.save")
    result = Entry(config=settings(case)).train()
    size = bytes_of(result.checkpoint)
    saving = watch.seconds.pop("save")
    parts = {"imports": round(loaded - started, 2), **watch.rounded()}
    return {"seconds": round(first[0] - started, 2), "of_these": parts,
            "save_seconds": round(saving, 3), "checkpoint_gb": round(size / 1e9, 3),
            "save_seconds_per_gb": round(1e9 * saving / size, 2)}  # fmt: skip


def load(case: dict) -> dict:
    from plsc import Entry

    watch = Stopwatch()
    watch.watch("check", "plsc.engine.training.checkpointing", "open_start_checkpoint")
    watch.watch("read", "plsc.engine.training.checkpointing", "load")
    size = bytes_of(Entry(config=settings(case)).train().checkpoint)
    seconds = sum(watch.seconds.values())
    return {"seconds": round(seconds, 3), "of_these": watch.rounded(), "checkpoint_gb": round(size / 1e9, 3),
            "load_seconds_per_gb": round(1e9 * seconds / size, 2)}  # fmt: skip


class Pairs:
    """A `test_dataset` of random images."""

    def __init__(self, images: int, size: int):
        self._images, self._size = images, size

    def __len__(self) -> int:
        return self._images

    def __getitem__(self, index: int) -> tuple[np.ndarray, int]:
        rng = np.random.default_rng(index)
        return rng.uniform(-1, 1, (3, self._size, self._size)).astype(np.float32), index % 4 // 2 * index


def verify(case: dict) -> dict:
    from plsc import Entry

    watch = Stopwatch()
    watch.watch("embed", "plsc.engine.evaluation.evaluate", "Embedder.embed")
    started = time.perf_counter()
    entry = Entry(config=settings(case, with_test=True, test_batch_size=min(32, case["images"])))
    entry.test_dataset = Pairs(case["images"], case["size"])
    if case["by"] == "test":
        entry.set("checkpoint_dir", f"{case['directory']}/run")
        entry.test()
    else:
        entry.train()  # nothing is left to train: it verifies
    whole, images = time.perf_counter() - started, 2 * case["images"]
    return {"seconds": round(watch.seconds["embed"] / images, 5), "whole_seconds": round(whole, 2),
            "images_per_second": round(images / watch.seconds["embed"], 1),
            "cpu_ms": round(1e3 * watch.cpu["embed"] / images, 1)}  # fmt: skip


def export(case: dict) -> dict:
    from plsc import Entry

    keys = {"checkpoint_dir": f"{case['directory']}/run", "export": {"format": "both" if case["onnx"] else "paddle"}}
    started = time.perf_counter()
    Entry(config=settings(case, **{**keys, "model_save_dir": f"{case['directory']}/exported"})).convert_for_prediction()
    return {"seconds": round(time.perf_counter() - started, 2)}


def predict(case: dict) -> dict:
    from plsc import Predictor

    started = time.perf_counter()
    predictor = Predictor(f"{case['directory']}/exported/inference", case["runtime"], threads=case["threads"])
    opening = time.perf_counter() - started
    shape = (case["batch"], 3, case["size"], case["size"])
    images = np.random.default_rng(0).uniform(-1, 1, shape).astype(np.float32)
    predictor.run(images)
    times, ended = [], time.perf_counter() + LEAST_SECONDS
    while time.perf_counter() < ended or len(times) < 3:
        started, cpu = time.perf_counter(), time.process_time()
        predictor.run(images)
        times.append((time.perf_counter() - started, time.process_time() - cpu))
    best, cpu = (min(column) / case["batch"] for column in zip(*times))
    return {"seconds": round(best, 5), "images_per_second": round(1 / best, 1), "cpu_ms": round(1e3 * cpu, 1),
            "opening_seconds": round(opening, 2)}  # fmt: skip


def bytes_of(directory: str) -> int:
    return sum(file.stat().st_size for file in Path(directory).iterdir())


def age() -> float:
    """Seconds since this process began."""
    ticks = float(Path("/proc/self/stat").read_text().rsplit(")", 1)[1].split()[19])
    since_boot = float(Path("/proc/uptime").read_text().split()[0])
    return since_boot - ticks / 100  # USER_HZ, which is 100 on every Linux
