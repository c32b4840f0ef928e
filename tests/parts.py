"""The parts in which tools/test.sh runs the tests:  python -m tests.parts PART  prints the files of one, longest first.

plain    what needs no Paddle, by an interpreter that finds none (tests/without_paddle.py), with one Paddle only
alone    what measures the machine, or fills it: one process, nothing beside it
rest     all others, two files at once
gpu      tests/gpu, with the wheel for GPUs
fast, fast-plain   what `tools/test.sh --fast` runs of the rest and of the plain ones
A file that is named nowhere is one of the rest.
"""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PARTS, FAST_PARTS = ("plain", "rest", "alone", "gpu"), ("fast", "fast-plain")


def _in_rooms(names: dict[str, str]) -> frozenset[str]:
    """{room: names} -> tests/room/test_name.py of each."""
    return frozenset(f"tests/{room}/test_{name}.py" for room in names for name in names[room].split())


PLAIN = _in_rooms({
    "checkpoint": "link memory read retention run_lock save",
    "cli": "list main reshard",
    "config": "config extensions limits rules yaml",
    "data": "augmentations hooks hostile_pictures label_map lists loader record sampler sources transforms",
    "engine": "meter",
    "evaluation": "bin identification ijb megaface metrics page report retrieval roc spread verification",
    "face": "entry",
    "files": "atomic safe_open safe_pickle",
    "losses": "registration",
    "optim": "own_schedule schedule",
    "parallel": "environment news_strangers nodelay shards",
    "project": "atomic_writes checkpoint_docs evaluation_docs imports install_hints packaging parts plugins"
               " without_paddle",
    "remote": "copies hadoop s3 transfer",
    "serving": "foreign pictures",
    "tools": "make_bin make_glyphs",
})

# Times and memory of small cases; huge pages, as far as the machine has them free; processes of more than a gigabyte,
# with two threads; a browser.
ALONE = _in_rooms({
    "backend": "cpu",
    "engine": "memory_plan_measured memory_returned",
    "evaluation": "page_in_browser",
    "tools": "bench bench_capacity bench_life bench_train",
})

# Begun first, so that none is left over when all else is done.
LONGEST = tuple(f"tests/{name}.py" for name in (
    "dist/test_training_step", "dist/test_entry_runs", "dist/test_gpu_training", "dist/test_classifier",
    "dist/test_resume", "dist/test_bad_input", "dist/test_gradient_buckets", "dist/test_limits",
    "tools/test_make_glyphs", "data/test_loader", "remote/test_s3",
))  # fmt: skip

# The numbers and the promises that a change breaks most easily. Left out are kills and resumed runs, wrong input on
# real ranks, whole runs of Entry, drawn pictures, S3, the documentation's programs, ONNX and GPU programs, and of these
# files what is marked slow: more than two ranks.
FAST = _in_rooms({
    "classifiers": "arguments sampling sampling_by_kernel",
    "face": "entry_parts",
    "optim": "loss_scaling",
    "parallel": "group",
    "rows": "blocks kernels momentum storage window",
    "dist": "classifier training_step",
})
NOT_FAST = _in_rooms({
    "evaluation": "report",
    "remote": "s3",
    "tools": "make_glyphs",
})


def files(part: str) -> list[str]:
    """The test files of a part, as paths from the root of the checkout."""
    found = [path.relative_to(ROOT).as_posix() for path in sorted((ROOT / "tests").rglob("test_*.py"))]
    found = [path for path in found if part in parts_of(path)]
    return [*(path for path in LONGEST if path in found), *(path for path in found if path not in LONGEST)]


def parts_of(path: str) -> list[str]:
    if path.startswith("tests/gpu/"):
        return ["gpu"]
    if path in PLAIN:
        return ["plain"] if path in NOT_FAST else ["plain", "fast-plain"]
    if path in ALONE:
        return ["alone"]
    return ["rest", "fast"] if path in FAST else ["rest"]


if __name__ == "__main__":
    found = files(sys.argv[1]) if len(sys.argv) == 2 else []
    if not found:
        sys.exit(f"error: {' '.join(sys.argv[1:])!r} is not a part; allowed: {', '.join((*PARTS, *FAST_PARTS))}")
    print("\n".join(found))
