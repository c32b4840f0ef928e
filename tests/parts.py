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

PLAIN = frozenset(f"tests/unit/test_{name}.py" for name in (
    "checkpoint_docs", "checkpoint_link", "checkpoint_memory", "checkpoint_read", "checkpoint_retention",
    "checkpoint_save", "config", "config_limits", "config_rules", "config_yaml", "data_hooks",
    "data_hostile_pictures", "data_lists", "data_loader", "data_record", "data_sampler", "data_transforms", "entry",
    "environment", "evaluation_bin", "evaluation_docs", "evaluation_identification", "evaluation_ijb",
    "evaluation_megaface", "evaluation_page", "evaluation_report", "evaluation_roc",
    "evaluation_spread", "evaluation_verification", "imports", "label_map", "make_bin", "make_glyphs", "meter",
    "news_strangers", "nodelay", "packaging", "parts", "remote_copies", "remote_hadoop", "remote_s3",
    "remote_transfer", "reshard_tool", "run_lock", "safe_open", "safe_pickle", "schedule", "serving_foreign",
    "serving_pictures", "shards", "without_paddle",
))  # fmt: skip

ALONE = frozenset(f"tests/unit/test_{name}.py" for name in (
    "bench", "bench_capacity", "bench_life", "bench_train",  # times and memory of small cases
    "cpu",  # huge pages, as far as the machine has them free
    "memory_plan_measured", "memory_returned",  # processes of more than a gigabyte, with two threads
    "page_in_browser",
))  # fmt: skip

# Begun first, so that none is left over when all else is done.
LONGEST = tuple(f"tests/{name}.py" for name in (
    "dist/test_training_step", "dist/test_entry_runs", "dist/test_gpu_training", "dist/test_classifier",
    "dist/test_resume", "dist/test_bad_input", "dist/test_gradient_buckets", "dist/test_limits",
    "unit/test_make_glyphs", "unit/test_data_loader", "unit/test_remote_s3",
))  # fmt: skip

# The numbers and the promises that a change breaks most easily. Left out are kills and resumed runs, wrong input on
# real ranks, whole runs of Entry, drawn pictures, S3, the documentation's programs, ONNX and GPU programs, and of these
# files what is marked slow: more than two ranks.
FAST = frozenset((
    *(f"tests/dist/test_{name}.py" for name in ("training_step", "classifier")),
    *(f"tests/unit/test_{name}.py" for name in (
        "classifier_arguments", "entry_parts", "group", "loss_scaling", "row_blocks", "row_kernels", "row_momentum",
        "row_storage", "row_window", "sampling", "sampling_by_kernel",
    )),
))  # fmt: skip
NOT_FAST = frozenset(f"tests/unit/test_{name}.py" for name in ("evaluation_report", "make_glyphs", "remote_s3"))


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
