"""Speed and memory of PLSC's parts, each case in a process of its own: bench.py head|save [options].

head: steps of the classifier alone on one rank, for numbers of classes and sample ratios.
save: how long training stands still for a checkpoint, written beside it and written while it waits.

Prints the machine and the versions, a JSON line per case and a table. The cases of a round follow one another, and the
rounds are repeated, so that a slow minute of the machine does not hit one case alone; the best round counts.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

EMBEDDING = 512


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    for name in ("head", "save"):
        command = commands.add_parser(name)
        command.add_argument("--classes", type=int, nargs="+", default=[10_000, 100_000])
        command.add_argument("--ratios", type=float, nargs="+", default=[1.0, 0.1])
        command.add_argument("--batch", type=int, default=64, help="images of a step")
        command.add_argument("--steps", type=int, default=5, help="steps timed, after two that are not")
        command.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
        command.add_argument("--rounds", type=int, default=2)
        command.add_argument("--case", help=argparse.SUPPRESS)  # one case, given as JSON, in this process
    options = parser.parse_args()
    if options.case:
        print(json.dumps(CASES[options.command](json.loads(options.case))))
        return
    print(json.dumps(machine()))
    best = run_rounds(options)
    for result in best:
        print(json.dumps(result))
    print_table(best)


def machine() -> dict:
    """Where the figures come from."""
    import paddle

    model = "unknown"
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.split(":", 1)[1].strip()
    return {
        "machine": platform.machine(),
        "cpu": model,
        "cores": len(os.sched_getaffinity(0)),
        "load": round(os.getloadavg()[0], 2),
        "python": platform.python_version(),
        "paddle": paddle.__version__,
        "numpy": np.__version__,
    }


def run_rounds(options: argparse.Namespace) -> list[dict]:
    """The fastest result of each case."""
    shared = {"batch": options.batch, "steps": options.steps, "threads": options.threads}
    kinds = [{}] if options.command == "head" else [{"save_async": True}, {"save_async": False}]
    cases = [
        {"classes": classes, "ratio": ratio, **shared, **kind}
        for classes in options.classes
        for ratio in options.ratios
        for kind in kinds
    ]
    best: dict[int, dict] = {}
    for _ in range(options.rounds):
        for number, case in enumerate(cases):
            result = run_case(options.command, case)
            if number not in best or result["seconds"] < best[number]["seconds"]:
                best[number] = result
    return [best[number] for number in range(len(cases))]


def run_case(command: str, case: dict) -> dict:
    arguments = [sys.executable, __file__, command, "--case", json.dumps(case)]
    environment = {**os.environ, "OMP_NUM_THREADS": str(case["threads"]), "GLOG_minloglevel": "2"}
    done = subprocess.run(arguments, capture_output=True, text=True, env=environment)
    if done.returncode:
        sys.exit(f"case {case} failed:\n{done.stderr[-2000:]}")
    return {"command": command, **case, **json.loads(done.stdout.splitlines()[-1])}


def head(case: dict) -> dict:
    """Median seconds of a step of the classifier alone, with momentum and weight decay; peak memory of the process."""
    import zlib  # noqa: F401  before paddle, see plsc.paddle_version

    import paddle

    from plsc import compat
    from plsc.classifiers import ClassifierSpec, Shard, classify
    from plsc.engine.build import make_rows
    from plsc.engine.memory import keep_big_blocks
    from plsc.optim.row_momentum import RowHistory
    from plsc.optim.rows import Momentum
    from plsc.parallel.environment import Environment
    from plsc.parts import Parts

    paddle.enable_static()
    compat.set_threads(case["threads"])
    compat.run_in_order()
    keep_big_blocks()
    spec = ClassifierSpec(case["classes"], EMBEDDING, sample_ratio=case["ratio"])
    env = Environment()
    shard = Shard.of(spec, env)
    main_program, startup = paddle.static.Program(), paddle.static.Program()
    with compat.building(main_program, startup):
        feature = paddle.static.data("feature", [case["batch"], EMBEDDING], "float32")
        label = paddle.static.data("label", [case["batch"]], "int64")
        rate = paddle.static.data("rate", [1], "float32")
        rows = make_rows(Parts(), spec, shard, env)
        step = compat.create_state("step", [1], "int64")
        compat.increment_(step)
        output = classify(feature, label, spec, shard, env, rows.fetch, step)
        rows.update(output.index, output.rows, output.drows, Momentum(rate, 0.9, 5e-4))
    executor = paddle.static.Executor(paddle.CPUPlace())
    executor.run(startup)
    history, rng, seconds = RowHistory(0.9, 5e-4), np.random.default_rng(0), []
    for _ in range(case["steps"] + 2):
        feed = {
            "feature": rng.standard_normal((case["batch"], EMBEDDING)).astype("float32"),
            "label": rng.integers(0, case["classes"], case["batch"]),
            "rate": np.array([0.1], np.float32),
        }
        if rows.feeds:
            feed |= {"row_table": history.table(), "window_step": np.array([history.steps], np.int64)}
        began = time.perf_counter()
        executor.run(main_program, feed=feed, fetch_list=[output.loss, output.dfeature])
        history.advance(0.1)
        seconds.append(time.perf_counter() - began)
    state = 2 * 4 * EMBEDDING * case["classes"]
    peak = 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {"seconds": round(float(np.median(seconds[2:])), 4), "peak_gb": round(peak / 1e9, 3),
            "peak_over_weight_and_momentum": round(peak / state, 2)}  # fmt: skip


def save(case: dict) -> dict:
    """Seconds that training stands still for a checkpoint, and the size of the checkpoint."""
    import re

    from plsc import Entry

    with tempfile.TemporaryDirectory() as directory:
        entry = Entry(config={
            "data": {"dataset": "synthetic", "train_image_num": 4 * case["batch"], "num_workers": 0},
            "model": {"name": "ResNet10", "base_width": 4, "image_shape": [3, 16, 16], "embedding_size": EMBEDDING},
            "classifier": {"num_classes": case["classes"], "sample_ratio": case["ratio"]},
            "train_batch_size": case["batch"], "train_steps": case["steps"] + 1, "save_period": case["steps"],
            "save_async": case["save_async"], "with_test": False, "seed": 0, "num_threads": case["threads"],
            "model_save_dir": directory,
        })  # fmt: skip
        checkpoint = entry.train().checkpoint
        log = Path(directory, "logs", "rank_00000.log").read_text()
        line = r"stood still for ([0-9.]+) s" if case["save_async"] else r"Save model to .*, ([0-9.]+) s"
        pauses = [float(text) for text in re.findall(line, log)]
        size = sum(file.stat().st_size for file in Path(checkpoint).iterdir())
    return {"seconds": min(pauses), "checkpoint_mb": round(size / 1e6, 1)}


CASES = {"head": head, "save": save}


def print_table(results: list[dict]) -> None:
    skip = ("command", "batch", "steps", "threads")
    names = [name for name in results[0] if name not in skip]
    rows = [names] + [[str(result[name]) for name in names] for result in results]
    widths = [max(len(row[column]) for row in rows) for column in range(len(names))]
    for row in rows:
        print("  ".join(text.rjust(width) for text, width in zip(row, widths)))


if __name__ == "__main__":
    main()
