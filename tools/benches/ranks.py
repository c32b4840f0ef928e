"""Steps of a small net with a large classifier on 1, 2 and 4 Gloo ranks of this machine.

strong: the same work, global batch and classes, on more ranks. weak: the work of a rank stays, so that global batch and
classes grow with the ranks. The threads are shared out among the ranks, at least one each; ranks beyond the cores take
turns, and the figures then say what the communication costs, not what more machines would bring.

``sent`` are the bytes that a rank puts into each kind of collective in a step, counted from its program.

--simulate 8 1000: instead, how long so many ranks take to meet, to agree on their settings and to exchange what a save
needs. Rank 0 is a real one; the others are one process that speaks only their protocol.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections import Counter

from benches._processes import run_ranks

HELP = "steps on 1, 2 and 4 ranks, weak and strong scaling, bytes sent"
SCALINGS = ("strong", "weak")


def add_options(command: argparse.ArgumentParser) -> None:
    command.add_argument("--ranks", type=int, nargs="+", default=[1, 2, 4])
    command.add_argument("--scaling", nargs="+", choices=SCALINGS, default=list(SCALINGS))
    command.add_argument("--classes", type=int, default=100_000, help="of all ranks (strong), of each rank (weak)")
    command.add_argument("--batch", type=int, default=64, help="images of all ranks (strong), of each rank (weak)")
    command.add_argument("--ratio", type=float, default=0.1)
    command.add_argument("--steps", type=int, default=5, help="steps timed, after two that are not")
    command.add_argument("--simulate", type=int, nargs="+", metavar="N", help="ranks that only meet, agree and save")


def cases(options: argparse.Namespace) -> list[dict]:
    if options.simulate:
        return [{"simulated": ranks} for ranks in options.simulate]
    found = []
    for scaling in options.scaling:
        for ranks in options.ranks:
            times = ranks if scaling == "weak" else 1
            found.append({
                "scaling": scaling, "ranks": ranks, "classes": options.classes * times,
                "batch": options.batch * times // ranks, "ratio": options.ratio, "steps": options.steps,
            })  # fmt: skip
    return found


def run(case: dict) -> dict:
    """Start the ranks; the slowest counts. With ``rank`` in the case this process is one of them."""
    if "simulated" in case:
        from benches._light_ranks import simulate

        found = simulate(case["simulated"])
        seconds = found["agree_seconds"]  # the best round
        return {**found, "seconds": seconds}
    if "rank" in case:
        return run_rank(case)
    results = run_ranks("ranks", case)
    seconds = max(result["seconds"] for result in results)
    images = case["batch"] * case["ranks"] / seconds
    slowest = {**results[0], "seconds": seconds, "peak_gb": max(result["peak_gb"] for result in results)}
    return {**slowest, "images_per_second": round(images, 1)}


def run_rank(case: dict) -> dict:
    """Median seconds of a step of this rank."""
    import resource
    import zlib  # noqa: F401  before paddle, see plsc.backend.paddle_version

    import numpy as np
    import paddle

    from plsc.backend.cpu import prepare_cpu
    from plsc.backend.program_view import collective_bytes, operations
    from plsc.config import Config
    from plsc.config.user_objects import UserObjects
    from plsc.engine.program.build import build_train
    from plsc.engine.program.session import Session
    from plsc.parallel.environment import Environment
    from plsc.parallel.group import connected_group

    config = Config.from_dict({
        "model": {"name": "ResNet10", "base_width": 8, "image_shape": [3, 32, 32], "embedding_size": 512},
        "classifier": {"num_classes": case["classes"], "sample_ratio": case["ratio"]},
        "train_batch_size": case["batch"],
    })  # fmt: skip
    paddle.enable_static()
    prepare_cpu(case["threads"])
    env = Environment.from_launch()
    program = build_train(config, UserObjects(), env, seed=1)
    session = Session(program, env, seed=1)
    session.start(connected_group(env))
    rng, seconds = np.random.default_rng(env.rank), []
    for step in range(case["steps"] + 2):
        inputs = {
            "image": rng.standard_normal((case["batch"], 3, 32, 32)).astype("float32"),
            "label": rng.integers(0, case["classes"], case["batch"]),
        }
        started = time.perf_counter()
        session.step(step, inputs, 0.1)
        seconds.append(time.perf_counter() - started)
    found = collective_bytes(operations(program.main), program.shard.num_sample)
    sent = Counter()
    for kind, size in found:
        sent[kind] += size
    peak = 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {"seconds": round(statistics.median(seconds[2:]), 4), "collectives": len(found), "sent": dict(sent),
            "sent_bytes": sum(sent.values()),
            "peak_gb": round(peak / 1e9, 3)}  # fmt: skip
