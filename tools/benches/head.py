"""Steps of the classifier alone on one rank: time, its parts, bytes moved and peak memory."""

from __future__ import annotations

import argparse
import resource
import time
from dataclasses import replace

import numpy as np

from benches._processes import run_torch

HELP = "steps of the classifier alone on one rank, for numbers of classes and sample ratios"
EMBEDDING = 512
DECAY = 5e-4
PARTS = ("sample", "gather", "forward", "backward", "update")


def add_options(command: argparse.ArgumentParser) -> None:
    command.add_argument("--classes", type=int, nargs="+", default=[10_000, 100_000])
    command.add_argument("--ratios", type=float, nargs="+", default=[1.0, 0.1])
    command.add_argument("--sampled", type=int, help="sample this many rows, instead of --ratios")
    types = ["float32", "float16", "bfloat16"]
    command.add_argument("--storage", nargs="+", default=types[:1], choices=types, help="of weight and momentum")
    command.add_argument("--compiled", nargs="+", default=["yes"], choices=["yes", "no"], help="sampled rows by PLSC's "
                         "operations in C++, or by Paddle's")  # fmt: skip
    command.add_argument("--hard", nargs="+", type=float, default=[0.0], metavar="SHARE", help="of hard negatives")
    command.add_argument("--optimizer", nargs="+", default=["momentum"], choices=["momentum", "adamw"])
    command.add_argument("--batch", type=int, default=64, help="images of a step")
    command.add_argument("--steps", type=int, default=5, help="steps timed, after two that are not")
    command.add_argument("--parts", action="store_true", help="split the time")
    command.add_argument("--torch", metavar="PYTHON", help="a Python with PyTorch, to run the same by it as well")


def cases(options: argparse.Namespace) -> list[dict]:
    kinds = [
        {"kernels": "plsc", "storage": storage, "compiled": compiled == "yes", "hard": hard, "optimizer": optimizer}
        for storage in options.storage
        for compiled in options.compiled
        for hard in options.hard
        for optimizer in options.optimizer
    ]
    if options.torch:
        kinds += [{"kernels": kernels, "with": options.torch} for kernels in ("torch", "torch tuned")]
    shared = {"batch": options.batch, "steps": options.steps, "parts": options.parts}
    return [
        {"classes": classes, "ratio": ratio, **shared, **kind}
        for classes in options.classes
        for ratio in ([options.sampled / classes] if options.sampled else options.ratios)
        for kind in kinds
    ]


def run(case: dict) -> dict:
    """Median seconds of a step with weight decay; peak memory of the process; GB that a step with momentum reads and
    writes of rows and cosines (counted, not measured).

    With ``parts`` the seconds of each part: programs that end after it run in turns with the others, on the same
    variables, and the time of the one before is taken off. ``gather`` brings sampled rows up to date as well;
    ``update`` is what moving the rows adds to the backward loop. ``compiled``: which operations it was.
    """
    if "with" in case:
        return beside(case)
    import zlib  # noqa: F401  before paddle, see plsc.backend.paddle_version

    import paddle

    from plsc.backend.cpu import prepare_cpu, use_huge_pages

    paddle.enable_static()
    prepare_cpu(case["threads"])
    bench = HeadBench(case)
    use_huge_pages(4 * EMBEDDING * case["classes"] * (1 + len(bench.optimizer.slots)))
    seconds = bench.time({"update": bench.program("update")}, case["steps"])["update"]
    result = {"seconds": round(seconds, 4), "compiled": bench.compiled, **memory(case, bench.shard.num_sample)}
    if case["parts"]:
        until = bench.time({part: bench.program(part) for part in PARTS}, case["steps"])
        before = 0.0
        for part in PARTS:
            result[part], before = round(max(0.0, until[part] - before), 4), until[part]
    return result


def beside(case: dict) -> dict:
    """The same by PyTorch: as people run it, or tuned: fused SGD, and glibc keeps big blocks."""
    tuned = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": str(2**40)}
    environment = tuned if case["kernels"] == "torch tuned" else {}
    return run_torch("_torch_head.py", case["with"], {**case, "embedding": EMBEDDING}, environment)


def memory(case: dict, num_sample: int) -> dict:
    peak = 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    half = case.get("storage", "float32") != "float32"
    row, sampled = (2 if half else 4) * EMBEDDING, case["ratio"] < 1.0
    # reads and writes of rows: forward 1 (sampled: weight and momentum), backward with update 4; of cosines 2
    times = 6 if sampled else 5
    moved = num_sample * (row * times + 2 * 4 * case["batch"])
    state = 2 * row * case["classes"]
    return {"peak_gb": round(peak / 1e9, 3), "peak_over_weight_and_momentum": round(peak / state, 2),
            "gb_moved": round(moved / 1e9, 3)}  # fmt: skip


class HeadBench:
    """The variables of one shard, and programs that do a step of it or the first parts of one."""

    def __init__(self, case: dict):
        from plsc.classifiers import ClassifierSpec, Shard
        from plsc.parallel.environment import Environment
        from plsc.rows.history import RowHistory
        from plsc.rows.optimizers.adamw import AdamW
        from plsc.rows.optimizers.momentum import Momentum

        self.case, self.env = case, Environment()
        self.spec = ClassifierSpec(
            case["classes"], EMBEDDING, sample_ratio=case["ratio"], storage=case["storage"], compiled=case["compiled"],
            hard_negative_share=case["hard"],
        )  # fmt: skip
        self.shard = Shard.of(self.spec, self.env)
        self.optimizer = AdamW() if case["optimizer"] == "adamw" else Momentum(0.9)
        # moments of a run that has been going for long
        self.numbers = tuple(np.float32(value).item() for value in self.optimizer.numbers(1000))
        self.history, self.rng = RowHistory(self.optimizer, DECAY), np.random.default_rng(0)
        self.executor = self.feeds = self.compiled = None

    def program(self, part: str) -> tuple:
        """(program, fetches) of a step that ends after ``part``."""
        import paddle

        from plsc.backend import ops, static
        from plsc.config.user_objects import UserObjects
        from plsc.engine.program.build import RowRate, make_rows
        from plsc.engine.program.scopes import make_executor

        main, startup = paddle.static.Program(), paddle.static.Program()
        with static.building(main, startup):
            feature = paddle.static.data("feature", [self.case["batch"], EMBEDDING], "float32")
            label = paddle.static.data("label", [self.case["batch"]], "int64")
            rate = paddle.static.data("rate", [1], "float32")
            rows = make_rows(UserObjects(), self.spec, self.shard, self.env, self.optimizer, RowRate(DECAY))
            step = static.create_state("step", [1], "int64")
            ops.increment_(step)
            fetches = self._until(part, feature, label, rows, step, rate)
        if self.executor is None:
            self.executor = make_executor(self.env)
            self.executor.run(startup)
        self.feeds, self.compiled = set(rows.feeds), rows.spec.compiled
        return main, fetches

    def _until(self, part: str, feature, label, rows, step, rate) -> list:
        import paddle

        from plsc.classifiers import StepContext, classify
        from plsc.classifiers.hard_negatives import HardNegatives
        from plsc.classifiers.loss_terms import LossTerms
        from plsc.classifiers.plain_head import PlainHead
        from plsc.classifiers.step import sample
        from plsc.rows.blocks import BLOCK_ROWS, RowBlocks
        from plsc.rows.optimizer import Update

        hard = HardNegatives.create(self.spec, self.shard, self.env)
        context = StepContext(self.spec, self.shard, self.env, step, block_rows=BLOCK_ROWS, hard=hard)
        if part in ("backward", "update"):
            numbers = tuple(paddle.full([1], value, "float32") for value in self.numbers)
            move = rows.mover(Update(self.optimizer, rate, DECAY, numbers)) if part == "update" else None
            output = classify(feature, label, rows, replace(context, move=move))
            return [output.loss, output.dfeature]
        _, index, position = sample(label, label, context)
        if part == "sample":
            return [position] if index is None else [index[:1], position]
        blocks = RowBlocks(index, self.shard.num_sample, BLOCK_ROWS)
        if part == "gather":
            return blocks.for_each_piece(lambda piece, total: [total + rows.fetch(piece)[0, :1]], [rate * 0.0])
        target, sums, _ = PlainHead(feature, blocks, rows, position, LossTerms(self.spec, self.env)).forward()
        return [*sums, target]

    def time(self, programs: dict[str, tuple], steps: int) -> dict[str, float]:
        """Median seconds of each program, run in turns; two runs of each are not counted."""
        seconds = {name: [] for name in programs}
        for _ in range(steps + 2):
            for name, (program, fetches) in programs.items():
                feed = self._feed()
                started = time.perf_counter()
                self.executor.run(program, feed=feed, fetch_list=fetches)
                seconds[name].append(time.perf_counter() - started)
                self.history.advance(0.1, numbers=self.numbers)
        return {name: float(np.median(values[2:])) for name, values in seconds.items()}

    def _feed(self) -> dict:
        feed = {
            "feature": self.rng.standard_normal((self.case["batch"], EMBEDDING)).astype("float32"),
            "label": self.rng.integers(0, self.case["classes"], self.case["batch"]),
            "rate": np.array([0.1], np.float32),
        }
        if self.feeds:
            feed["row_table"] = self.history.table()
            feed["window_step"] = np.array([self.history.steps], np.int64)
        return feed
