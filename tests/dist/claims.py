"""The process behind test_run_dirs.py: trainings that meet an earlier run, one at work, or a damaged checkpoint.

python -m tests.dist.claims DIR writes DIR/report.json: exit codes by name; what the ranks said is in the folders.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
from pathlib import Path

from tests.dist import forked
from tests.dist.tiny_run import make_entry

SMALL = {"with_test": False, "train_steps": 6, "save_period": 2, "resume": "never", "classifier.sample_ratio": 1.0}


def attempt(run_dir: Path, log_dir: Path, world_size: int = 1, **changes) -> list[int]:
    """Exit codes of a training of six steps that saves each second one."""
    log_dir.mkdir(parents=True, exist_ok=True)
    options = {**SMALL, **{key.replace("__", "."): value for key, value in changes.items()}}
    return forked.run(world_size, log_dir, lambda rank: trained(run_dir, options))


def trained(run_dir: Path, options: dict) -> None:
    from plsc.errors import PlscError

    try:
        print("saved", make_entry(run_dir, options).train().checkpoint)
    except PlscError as error:
        print(f"{type(error).__name__}: {error}")
        raise SystemExit(3) from None


def with_a_newer_one(run_dir: Path) -> None:
    """Beside the checkpoint of step 2 one of step 40 appears, before the oldest is deleted."""
    from plsc import checkpoint

    save = checkpoint.save

    def save_and_copy(*args):
        path = save(*args)
        shutil.copytree(path, Path(path).with_name("step_00000040"))
        return path

    checkpoint.save = save_and_copy
    trained(run_dir, {**SMALL, "train_steps": 2, "max_last_checkpoint_num": 1})


def damage(run_dir: Path, step: int) -> None:
    """Turn one bit of a checkpoint over, its size and manifest as they were."""
    path = next((run_dir / "checkpoints" / f"step_{step:08d}").glob("shard_00000*"))
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


def beside_a_running_one(cwd: Path) -> dict:
    """A second process that starts while the first one is in its second step, which waits for it."""
    run_dir, go_on = cwd / "busy", cwd / "go on"
    child = os.fork()
    if child == 0:
        from plsc.engine.program.session import Session

        step = Session.step

        def waits(self, number, *args):
            while number == 1 and not go_on.exists():
                time.sleep(0.01)
            return step(self, number, *args)

        Session.step = waits
        os._exit(attempt(run_dir, cwd / "busy first")[0])
    while not (run_dir / "scalars.jsonl").exists() or not (run_dir / "scalars.jsonl").read_text():
        time.sleep(0.02)
    codes = {
        "busy second": attempt(run_dir, cwd / "busy second"),
        "busy resumed": attempt(run_dir, cwd / "busy resumed", resume="auto"),
        "busy beside": attempt(run_dir, cwd / "busy beside", resume="new"),
    }
    go_on.touch()
    return {**codes, "busy first": [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])]}


def main() -> None:
    import plsc.engine.actions  # noqa: F401  loads Paddle once, for all forks

    cwd = Path(sys.argv[1])
    out, report = cwd / "out", {}

    def go(name: str, run_dir: Path = out, world_size: int = 1, **changes) -> None:
        report[name] = attempt(run_dir, cwd / name, world_size, **changes)

    go("first")
    go("again", train_steps=2)
    go("again on two", world_size=2, train_steps=2)
    go("from its newest", checkpoint_dir=str(out), train_steps=8)
    go("from an older one", checkpoint_dir=str(out / "checkpoints" / "step_00000004"))
    go("beside", resume="new", train_steps=2, max_last_checkpoint_num=1)
    go("beside again", resume="new", train_steps=2)
    go("new in a new place", cwd / "fresh", resume="new", train_steps=2)
    report.update(beside_a_running_one(cwd))
    (cwd / "with a newer one").mkdir()
    report["with a newer one"] = forked.run(1, cwd / "with a newer one", lambda rank: with_a_newer_one(cwd / "newer"))
    damage(out, 8)
    go("damaged", world_size=2, resume="auto", train_steps=10)
    for step in (2, 4, 6, 8, 10):
        if (out / "checkpoints" / f"step_{step:08d}").exists():
            damage(out, step)
    go("all damaged", resume="auto", train_steps=10)
    go("all damaged, again", resume="auto", train_steps=10)
    (cwd / "report.json").write_text(json.dumps(report))


if __name__ == "__main__":
    main()
