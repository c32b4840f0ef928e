"""Ten faults, one line each, that the tests must notice:  python -m tests.breaks [NAME ...] [--tree DIRECTORY]

Each is made in a copy of the checkout (or of another tree); then the tests that should notice it are run there.
Prints what failed first, and ends with 1 where a fault goes unnoticed.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Break:
    file: str
    right: str
    wrong: str
    tests: tuple[str, ...]  # arguments of pytest


BREAKS = {
    "loss": Break(
        "plsc/classifiers/softmax.py",
        "global_max = collectives.all_reduce(sums.max, shard_world, collectives.MAX)", "global_max = sums.max",
        ("tests/dist/test_classifier.py", "-k", "2-"),
    ),
    "sampling": Break(
        "plsc/classifiers/sampling.py", "counts = paddle.concat([is_first, *is_taken, drawn < num_local])",
        "counts = paddle.concat([is_first, *is_taken, drawn <= num_local])", ("tests/classifiers/test_sampling.py",),
    ),
    "shards": Break(
        "plsc/parallel/shards.py", "return class_id // width", "return class_id * world_size // num_classes",
        ("tests/parallel/test_shards.py",),
    ),
    "momentum catch-up": Break(
        "plsc/rows/optimizers/momentum.py", "(matrix @ table.reshape(-1, 2, 2))", "(table.reshape(-1, 2, 2) @ matrix)",
        ("tests/rows/test_momentum.py", "tests/rows/test_window.py"),
    ),
    "checkpoint atomicity": Break(
        "plsc/checkpoint/directory.py",
        "replaced = aside_path(final, layout.REPLACED) if os.path.isdir(final) else None",
        "replaced = __import__('shutil').rmtree(final, ignore_errors=True)",
        ("tests/checkpoint/test_save.py",),
    ),
    "a save killed between its phases": Break(
        "plsc/checkpoint/survey.py", "*replaced_dirs(run_dir), *writing_dirs(run_dir)]", "*replaced_dirs(run_dir)]",
        ("tests/checkpoint/test_places.py",),
    ),
    "resume": Break(
        "plsc/engine/training/checkpointing.py",
        "return Progress(manifest.step, samples)", "return Progress(manifest.step, 0)",
        ("tests/dist/test_stop.py",),
    ),
    "label mapping": Break(
        "plsc/data/label_map.py", "labels = sorted(pairs)", "labels = list(pairs)",
        ("tests/data/test_label_map.py",),
    ),
    "verification metric": Break(
        "plsc/evaluation/verification.py", "others = order[(order < start) | (order >= stop)]", "others = order",
        ("tests/evaluation/test_verification.py",),
    ),
    "config rule": Break(
        "plsc/config/losses.py", "missing = [one for one in select_arguments(kind, margins) if margins[one] is None]",
        "missing = []",
        ("tests/config/test_rules.py", "tests/config/test_config.py"),
    ),
    "export": Break(
        "plsc/engine/inference/saved_model.py", "paddle.concat([image, paddle.flip(image, [3])], axis=0)",
        "paddle.concat([image, paddle.flip(image, [2])], axis=0)", ("tests/engine/test_export.py",),
    ),
}  # fmt: skip


def noticed(fault: Break, tree: Path) -> str:
    """The first test that fails with the fault, or an empty text."""
    with tempfile.TemporaryDirectory(prefix="plsc-break-") as directory:
        for name in ("plsc", "tests", "tools", "docs", "configs"):
            shutil.copytree(tree / name, Path(directory) / name, ignore=shutil.ignore_patterns("__pycache__"))
        for name in ("setup.py", "pyproject.toml", "README.md"):
            shutil.copy(tree / name, directory)
        file = Path(directory) / fault.file
        text = file.read_text(encoding="utf-8")
        if text.count(fault.right) != 1:
            sys.exit(f"error: {fault.file} holds {fault.right!r} {text.count(fault.right)} times, not once")
        file.write_text(text.replace(fault.right, fault.wrong), encoding="utf-8")
        command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *fault.tests]
        environment = {**os.environ, "PYTHONPATH": directory}
        done = subprocess.run(command, cwd=directory, env=environment, capture_output=True, text=True)
        return next((line for line in done.stdout.splitlines() if line.startswith(("FAILED", "ERROR"))), "")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", choices=[[], *BREAKS], metavar="NAME")
    parser.add_argument("--tree", type=Path, default=ROOT)
    options = parser.parse_args()
    unnoticed = 0
    for name in options.names or BREAKS:
        found = noticed(BREAKS[name], options.tree)
        unnoticed += not found
        print(f"{name}: {found[:200] or 'NOT NOTICED'}", flush=True)
    sys.exit(unnoticed > 0)


if __name__ == "__main__":
    main()
