"""The parts in which tools/test.sh runs the tests:  python -m tests.parts PART ...  prints their files, longest first.

plain    what needs no Paddle, by an interpreter that finds none (tests/without_paddle.py), with one Paddle only
once     what needs Paddle, but not this or that version of it: with Paddle 3.3.1 only, three files at once. Single
         tests of the rest are marked so (pytest.mark.once)
rest     all others, three files at once, with each Paddle
alone    what measures the machine, or fills it: one process, nothing beside it, with each Paddle
gpu      tests/gpu, with the wheel for GPUs
torch    tests/torch, with Paddle 3.3.1 and torch beside it
fast, fast-plain   what `tools/test.sh --fast` runs of the rest and of the plain ones
A file that is named nowhere is one of the rest.
"""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PARTS, FAST_PARTS = ("plain", "once", "rest", "alone", "gpu", "torch"), ("fast", "fast-plain")


def _in_rooms(names: dict[str, str]) -> frozenset[str]:
    """{room: names} -> tests/room/test_name.py of each."""
    return frozenset(f"tests/{room}/test_{name}.py" for room in names for name in names[room].split())


PLAIN = _in_rooms({
    "checkpoint": "class_names link memory places read retention run_lock save",
    "cleaning": "findings",
    "cli": "list main make_bin reshard",
    "config": "arcface_torch config extensions limits rules yaml",
    "data": "align augmentation_pixels augmentations balanced built_in_augmentations check_data class_names"
            " contact_sheet folder_index folders hostile_images index_memory jpeg label_map listed lists lmdb loader"
            " make_list old_formats ordering packing parquet ppm record recordio resize sampler several shared_index"
            " sources tar transforms user_data",
    "engine": "meter",
    "evaluation": "bin identification identity_sets ijb megaface metrics page plot retrieval roc spread verification",
    "face": "entry",
    "files": "array_file atomic private_directory safe_open safe_pickle",
    "hosts": "addresses cuts hosts",
    "losses": "registration",
    "optim": "own_schedule schedule",
    "parallel": "control ending environment file_service frames interfaces launch_options nodelay ports shards",
    "project": "atomic_writes breaks checkpoint_docs evaluation_docs house_rules imports install_hints packaging parts"
               " plugins time_limit without_paddle",
    "remote": "copies hadoop s3 transfer",
    "rows": "missed_adam optimizer",
    "serving": "classification images untrusted",
    "tools": "make_glyphs",
    "weights": "damaged formula onnx onnx_nets safetensors torch_file torch_names",
})

# What neither builds a program of its own kind nor reads what Paddle says or writes: commands, settings, files,
# metrics, agreement of ranks, which run the same lines of ours with any Paddle. That runs train, save, resume, stop and
# verify on a version is for the rest to show, and what ranks say of an error inside Paddle too.
ONCE = _in_rooms({
    "backend": "compiler private",  # of Paddle 2.6 no other version will come
    "cli": "clean identify_ijb published_records report verify",
    "classifiers": "gpu_program_pir",  # programs of Paddle 3.x; tests/gpu reads those of 2.6
    "data": "readers stuck_data",
    "dist": "consistency containers extensions finetuning frozen_runs initial optimizers own_losses_resumed own_metric "
    "readers remote run_dirs saver start unverified verification_sets",
    "engine": "balanced_run best best_class class_weights consistency distill evaluate grace interop left_open "
    "loss_is_finite memory_check old_classes one_run own_source plan renumbered_data resizing result "
    "sets_check stored_settings sub_centres verification_check",
    "optim": "average",
    "evaluation": "memory page_in_browser pair_sets",
    "hosts": "faults start",
    "losses": "page",
    "models": "one_channel published",
    "parallel": "launch_variables launcher stalls terminal",
    "project": "collection docs",
    "tools": "bench bench_capacity bench_life bench_train",
    "weights": "equality import other_nets",
})

# Memory of small cases; huge pages, as far as the machine has them free; processes with two threads.
ALONE = _in_rooms({
    "backend": "cpu",
    "engine": "memory_plan_measured memory_returned",
})

# Begun first, so that none is left over when all else is done.
LONGEST = tuple(f"tests/{name}.py" for name in (
    "dist/test_training_step", "dist/test_entry_runs", "hosts/test_training", "engine/test_export", "project/test_docs",
    "dist/test_save_points", "dist/test_using", "dist/test_gpu_training", "dist/test_resume", "dist/test_bad_input",
    "dist/test_consistency", "dist/test_verification_sets", "dist/test_stop", "dist/test_launchers",
    "dist/test_other_ranks", "dist/test_gradient_buckets", "dist/test_classifier", "backend/test_compiler",
    "tools/test_bench", "tools/test_bench_life", "project/test_collection", "dist/test_remote", "dist/test_limits",
    "dist/test_run_dirs", "dist/test_unverified", "dist/test_late", "tools/test_make_glyphs", "data/test_loader",
    "remote/test_s3",
))  # fmt: skip

# The numbers and the promises that a change breaks most easily. Left out are kills and resumed runs, wrong input on
# real ranks, whole runs of Entry, drawn pictures, S3, the documentation's programs, ONNX and GPU programs, and of these
# files what is marked slow: more than two ranks.
FAST = _in_rooms({
    "classifiers": "arguments sampling sampling_with_kernel",
    "face": "entry_parts",
    "optim": "loss_scaling",
    "rows": "blocks kernels momentum storage window",
    "dist": "classifier training_step",
})
NOT_FAST = _in_rooms({
    "evaluation": "plot",
    "hosts": "cuts",
    "remote": "s3",
    "tools": "make_glyphs",
})


def files(*parts: str) -> list[str]:
    """The test files of these parts, as paths from the root of the checkout."""
    found = [path.relative_to(ROOT).as_posix() for path in sorted((ROOT / "tests").rglob("test_*.py"))]
    found = [path for path in found if set(parts) & set(parts_of(path))]
    return [*(path for path in LONGEST if path in found), *(path for path in found if path not in LONGEST)]


def parts_of(path: str) -> list[str]:
    for part in ("gpu", "torch"):
        if path.startswith(f"tests/{part}/"):
            return [part]
    if path in PLAIN:
        return ["plain"] if path in NOT_FAST else ["plain", "fast-plain"]
    for part, names in (("once", ONCE), ("alone", ALONE)):
        if path in names:
            return [part]
    return ["rest", "fast"] if path in FAST else ["rest"]


def main(wanted: list[str]) -> None:
    unknown = set(wanted) - {*PARTS, *FAST_PARTS}
    if unknown or not wanted:
        sys.exit(f"error: {' '.join(sorted(unknown))!r} is not a part; allowed: {', '.join((*PARTS, *FAST_PARTS))}")
    print("\n".join(files(*wanted)))


if __name__ == "__main__":
    main(sys.argv[1:])
