"""Steps of the classifier alone on one rank, for numbers of classes and sample ratios."""

from __future__ import annotations

import argparse
import resource
import time

import numpy as np

HELP = "steps of the classifier alone on one rank, for numbers of classes and sample ratios"
EMBEDDING = 512


def add_options(command: argparse.ArgumentParser) -> None:
    command.add_argument("--classes", type=int, nargs="+", default=[10_000, 100_000])
    command.add_argument("--ratios", type=float, nargs="+", default=[1.0, 0.1])
    command.add_argument("--batch", type=int, default=64, help="images of a step")
    command.add_argument("--steps", type=int, default=5, help="steps timed, after two that are not")


def cases(options: argparse.Namespace) -> list[dict]:
    return [
        {"classes": classes, "ratio": ratio, "batch": options.batch, "steps": options.steps}
        for classes in options.classes
        for ratio in options.ratios
    ]


def run(case: dict) -> dict:
    """Median seconds of a step with momentum and weight decay; peak memory of the process."""
    import zlib  # noqa: F401  before paddle, see plsc.paddle_version

    import paddle

    from plsc import compat
    from plsc.classifiers import ClassifierSpec, Shard, classify
    from plsc.classifiers.row_blocks import BLOCK_ROWS
    from plsc.engine.build import make_rows
    from plsc.engine.cpu import prepare_cpu
    from plsc.optim.row_momentum import RowHistory
    from plsc.optim.rows import Momentum
    from plsc.parallel.environment import Environment
    from plsc.parts import Parts

    paddle.enable_static()
    prepare_cpu(case["threads"])
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
        output = classify(feature, label, spec, shard, env, rows, step, block_rows=BLOCK_ROWS)
        rows.update(output.row_gradients, Momentum(rate, 0.9, 5e-4))
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
    return {
        "seconds": round(float(np.median(seconds[2:])), 4),
        "peak_gb": round(peak / 1e9, 3),
        "peak_over_weight_and_momentum": round(peak / state, 2),
    }
