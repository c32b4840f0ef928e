"""The whole training step on this machine: images per second of all ranks, and what of the time is not the net.

    wait    share of the loop that waits for data (synthetic images from one worker process of each rank)
    python  share of the step outside of Paddle's executor
    cpu     seconds of processor time of the cheapest step, all threads: less moved by other work on the machine
    head    share of that which the classifier takes: its step alone, on a net of one layer

The kernels are "onednn" (the default, see docs/performance.md), "plain" (use_onednn: false) or, with --torch, "torch":
the same net in PyTorch on the same machine in the same rounds, forward, backward and momentum without a classifier.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import time

from benches._processes import run_ranks, run_torch

HELP = "the whole step: nets with a large classifier, one and two ranks, images per second and shares"
BEST = ("images_per_second", "max")
FACES = {"image_shape": [3, 112, 112], "embedding_size": 512, "dropout": 0.0}
NETS = {
    "ResNet50-16": (16, {"name": "ResNet50", **FACES}),
    "ResNet50-32": (32, {"name": "ResNet50", **FACES}),
    "MobileFaceNet-64": (64, {"name": "MobileFaceNet", **FACES}),
    "quickstart": (32, {"name": "ResNet10", "base_width": 8, "image_shape": [3, 64, 64], "embedding_size": 128}),
}
KERNELS = ("onednn", "plain")


def add_options(command: argparse.ArgumentParser) -> None:
    command.add_argument("--nets", nargs="+", choices=NETS, default=list(NETS))
    command.add_argument("--batch", type=int, help="images of a rank, for all nets; by default the number in the name")
    command.add_argument("--accumulate", type=int, nargs="+", default=[1], help="micro-batches of the images of a rank")
    command.add_argument("--classes", type=int, default=93_431)
    command.add_argument("--ratio", type=float, default=0.1)
    command.add_argument("--ranks", type=int, nargs="+", default=[1, 2])
    command.add_argument("--kernels", nargs="+", choices=KERNELS, default=["onednn"])
    command.add_argument("--steps", type=int, default=3, help="steps timed, after two that are not; the fastest counts")
    command.add_argument("--torch", metavar="PYTHON", help="a Python with PyTorch, to run the same nets by it as well")


def cases(options: argparse.Namespace) -> list[dict]:
    found = []
    for net in options.nets:
        shared = {"net": net, "batch": options.batch or NETS[net][0], "steps": options.steps}
        own = {"classes": options.classes, "ratio": options.ratio}
        if any(shared["batch"] % parts for parts in options.accumulate):
            raise SystemExit(f"--accumulate {options.accumulate}: each must divide the batch, {shared['batch']}")
        for ranks in options.ranks:
            for kernels in options.kernels:
                given = {**shared, "ranks": ranks, "kernels": kernels, **own}
                found += [{**given, "accumulate": parts} for parts in options.accumulate]
        if options.torch:
            found.append({**shared, "ranks": 1, "kernels": "torch", "with": options.torch})
    return found


def run(case: dict) -> dict:
    """Start the ranks and put their figures together. With ``rank`` in the case this process is one of them."""
    if case["kernels"] == "torch":
        result = run_torch("_torch_nets.py", case["with"], {**case, "model": NETS[case["net"]][1]})
        return {"images_per_second": round(case["batch"] / result["seconds"], 2), **result}
    if "rank" in case:
        return run_rank(case)
    results = run_ranks("train", case)
    worst = {name: max(result[name] for result in results) for name in results[0]}
    return {"images_per_second": round(case["batch"] * case["ranks"] / worst["seconds"], 2), **worst}


def run_rank(case: dict) -> dict:
    """The fastest step of this rank and its shares."""
    import zlib  # noqa: F401  before paddle, see plsc.backend.paddle_version

    import paddle

    from plsc.backend.cpu import prepare_cpu
    from plsc.config.user_objects import UserObjects
    from plsc.parallel.environment import Environment
    from plsc.parallel.group import connected_group

    paddle.enable_static()
    prepare_cpu(case["threads"])
    env = Environment.from_launch()
    group = connected_group(env)
    step = steps(case, UserObjects(), env, group)
    peak = 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # before the second program
    head = steps(case, UserObjects(model=one_layer(NETS[case["net"]][1]["embedding_size"])), env, group)
    return {
        "seconds": round(step["seconds"], 4),
        "cpu": round(step["cpu"], 4),
        "wait": round(step["wait"] / step["seconds"], 4),
        "python": round(step["python"] / step["seconds"], 4),
        "head": round(head["cpu"] / step["cpu"], 4),
        "peak_gb": round(peak / 1e9, 2),
    }


def steps(case: dict, parts, env, group) -> dict[str, float]:
    """Seconds of the fastest round of the loop, processor time of the cheapest; waiting and Python, their medians."""
    from plsc.backend.onednn import use_onednn
    from plsc.config import Config
    from plsc.data import Loader
    from plsc.engine.evaluation.data import make_training_data
    from plsc.engine.program.build import build_train
    from plsc.engine.program.session import Session
    from plsc.engine.training.steps import Progress, TrainingSteps

    count = case["steps"] + 2
    config = Config.from_dict({
        "model": {**NETS[case["net"]][1]}, "train_steps": count,
        "train_batch_size": case["batch"] // case["accumulate"], "accumulate": case["accumulate"],
        "classifier": {"num_classes": case["classes"], "sample_ratio": case["ratio"]},
        "data": {"dataset": "synthetic"}, "seed": 1,
    })  # fmt: skip
    program = build_train(config, parts, env, seed=1)
    session = Session(program, env, seed=1)
    data = make_training_data(config, parts, 1)
    sampler = TrainingSteps.of(config, env.world_size, len(data), Progress()).sampler(case["batch"], env, 1)
    rounds, waits, python, cpu = [], [], [], []
    with Loader(data, sampler, 1, 0, count) as loader:  # forks before the executor has threads
        session.start(group)
        if case["kernels"] == "onednn":
            use_onednn(program.main)
        inside = timed(session)
        for number in range(count):
            started, cpu_began = time.perf_counter(), time.process_time()
            _, images, labels = next(loader)
            waits.append(time.perf_counter() - started)
            session.step(number, {"image": images, "label": labels}, 0.01)
            rounds.append(time.perf_counter() - started)
            cpu.append(time.process_time() - cpu_began)
            python.append(rounds[-1] - waits[-1] - inside.pop())
    return {
        "seconds": min(rounds[2:]),
        "cpu": min(cpu[2:]),
        "wait": statistics.median(waits[2:]),
        "python": statistics.median(python[2:]),
    }


def timed(session) -> list[float]:
    """A list to which each run of the session's executor adds its seconds from now on."""
    seconds, run_program = [], session.executor.run

    def run_timed(*args, **kwargs):
        started = time.perf_counter()
        values = run_program(*args, **kwargs)
        seconds.append(time.perf_counter() - started)
        return values

    session.executor.run = run_timed
    return seconds


def one_layer(size: int):
    """A net that costs next to nothing: the classifier's step alone."""
    import paddle

    from plsc.models import BaseModel

    class OneLayer(BaseModel):
        def build_network(self, input, label=None, is_train=True):
            return paddle.nn.Linear(8, size)(paddle.flatten(input, 1)[:, :8])

    return OneLayer()
