"""The process behind test_resume.py: a run that is killed at instants drawn from a seed and resumed until it is over.

python -m tests.dist.kills DIR: reads DIR/orders.json, writes DIR/report.json.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import threading
from pathlib import Path

from tests.dist import forked
from tests.dist.tiny_run import make_entry

PHASES = ("training", "training", "save", "save", "verification")


def draw_instants(seed: int, count: int) -> list[dict]:
    """Where the run is killed: which call of what, how much later, one rank or all."""
    rng = random.Random(seed)
    calls = {"training": 9, "save": 24, "verification": 10}
    instants = []
    for number in range(count):
        phase = PHASES[number % len(PHASES)]
        instants.append({
            "phase": phase, "call": rng.randint(1, calls[phase]), "rank": rng.randint(0, 1), "all": rng.random() < 0.4,
            "later": rng.choice([0.0, rng.uniform(0.0, 0.02)]),
        })  # fmt: skip
    return instants


def arm(instant: dict, rank: int) -> None:
    """Kill this rank, or all, at the instant."""
    if rank != instant["rank"]:
        return
    count = 0

    def die() -> None:
        os.killpg(0, signal.SIGKILL) if instant["all"] else os.kill(os.getpid(), signal.SIGKILL)

    def watched(function):
        def call(*args, **kwargs):
            nonlocal count
            count += 1
            if count == instant["call"]:
                if instant["later"]:
                    threading.Timer(instant["later"], die).start()
                else:
                    die()
            return function(*args, **kwargs)

        return call

    if instant["phase"] == "save":
        for name in ("fsync", "replace", "unlink", "rmdir", "mkdir"):
            setattr(os, name, watched(getattr(os, name)))
    else:
        from plsc.engine.evaluation.evaluate import Embedder
        from plsc.engine.program.session import Session

        kind, name = (Session, "step") if instant["phase"] == "training" else (Embedder, "_feature")
        setattr(kind, name, watched(getattr(kind, name)))


def train_killed(cwd: Path, order: dict) -> dict:
    """Runs of one configuration, each killed at the next instants and resumed until it is over, until ``kills`` kills
    have been made; ``runs`` names their directories."""
    left, fired, runs, attempts = list(order["instants"]), [], [], 0
    while not runs or len(fired) < order["kills"]:
        runs.append(f"{order['name']}.{len(runs)}" if order["kills"] else order["name"])
        codes = [1]
        while any(codes):
            instant = left.pop(0) if len(fired) < order["kills"] else None
            codes = forked.run(2, cwd, lambda rank: attempt(rank, instant, cwd / runs[-1], order["entry"]))  # noqa: B023
            attempts += 1
            if -signal.SIGKILL in codes and instant is not None:
                fired.append(instant)
            elif any(codes):
                raise SystemExit(f"{runs[-1]}: exit codes {codes} without a kill")
    return {"fired": fired, "attempts": attempts, "runs": runs}


def attempt(rank: int, instant: dict | None, run_dir: Path, entry: dict) -> None:
    if instant is not None:
        arm(instant, rank)
    make_entry(run_dir, **entry).train()


def main() -> None:
    import plsc.engine.actions  # noqa: F401  loads Paddle once, for all forks

    cwd = Path(sys.argv[1])
    orders = json.loads((cwd / "orders.json").read_text())
    (cwd / "report.json").write_text(json.dumps({order["name"]: train_killed(cwd, order) for order in orders}))


if __name__ == "__main__":
    main()
