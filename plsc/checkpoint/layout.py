"""Names on disk. A run's checkpoints live in `<run_dir>/checkpoints/step_00012000/`."""

from __future__ import annotations

import os
import re
import stat

from plsc.errors import CheckpointError

CHECKPOINTS = "checkpoints"
MANIFEST = "manifest.json"
MANIFEST_SUM = "manifest.sha256"
REPLICATED = "replicated.safetensors"
MARKER = "plsc_save_in_progress"
BEST = "best"  # in the directory of a run: itself the directory of a run, of which it keeps one checkpoint
LOCK = ".plsc_lock"  # in the directory of a run during training
ELSEWHERE = "elsewhere.json"  # in a checkpoint of which other places have some files: {file: where it was written}

# Prefixes of directories that are not checkpoints:
WRITING = ".tmp_"  # a save that has not finished
REPLACED = ".replaced_"  # the older checkpoint of a step that is being saved again
REMOVED = ".removed_"  # a checkpoint that is being deleted
DAMAGED = "damaged_"  # one with a file that does not match the manifest, kept for inspection

_SHARD = re.compile(r"shard_\d{5,}_of_\d{5,}\.safetensors")
_STEP = re.compile(r"step_(\d{8,})")
_ASIDE = re.compile(r"\.(?:tmp|replaced|removed)_step_\d{8,}")


def checkpoints_dir(run_dir: str) -> str:
    return os.path.join(run_dir, CHECKPOINTS)


def step_name(step: int) -> str:
    return f"step_{step:08d}"


def shard_name(index: int, num_shards: int) -> str:
    return f"shard_{index:05d}_of_{num_shards:05d}.safetensors"


def is_shard_name(name: str) -> bool:
    return _SHARD.fullmatch(name) is not None


def file_names(num_shards: int) -> list[str]:
    """Every file of tensors that a checkpoint of `num_shards` shards has, in order."""
    return [REPLICATED] + [shard_name(index, num_shards) for index in range(num_shards)]


def file_identity(step: int, name: str) -> dict[str, str]:
    """The metadata in the header of a file of tensors, which reveals an exchanged file without hashing."""
    return {"plsc_checkpoint": f"step {step} {name}"}


def step_dirs(run_dir: str) -> list[tuple[int, str]]:
    """[(step, path)] of all directories named like a checkpoint, oldest first; contents are not checked."""
    return _find_dirs(run_dir, "")


def replaced_dirs(run_dir: str) -> list[tuple[int, str]]:
    """[(step, path)] of older checkpoints that were being replaced."""
    return _find_dirs(run_dir, REPLACED)


def damaged_dirs(run_dir: str) -> list[tuple[int, str]]:
    """[(step, path)] of the checkpoints that were found damaged."""
    return _find_dirs(run_dir, DAMAGED)


def writing_dirs(run_dir: str) -> list[tuple[int, str]]:
    """[(step, path)] of the saves that were not put in place."""
    return _find_dirs(run_dir, WRITING)


def aside_dirs(root: str) -> list[str]:
    """Paths in the directory of checkpoints `root` that are named like unfinished operations."""
    return [os.path.join(root, name) for name in sorted(_names(root)) if _ASIDE.fullmatch(name)]


def _find_dirs(run_dir: str, prefix: str) -> list[tuple[int, str]]:
    root = checkpoints_dir(run_dir)
    found = []
    for name in _names(root):
        match = _STEP.fullmatch(name[len(prefix) :]) if name.startswith(prefix) else None
        if match and len(name) < 40 and _is_directory(os.path.join(root, name)):
            found.append((int(match.group(1)), os.path.join(root, name)))
    return sorted(found)


def _names(root: str) -> list[str]:
    """The names in a directory; none if it does not exist. Raises CheckpointError for one that cannot be read: treated
    as empty, a new run would overwrite its contents."""
    try:
        return os.listdir(root)
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise CheckpointError(f"{root}: cannot be read: {error.strerror}; make it readable") from None


def _is_directory(path: str) -> bool:
    try:
        return stat.S_ISDIR(os.stat(path).st_mode)
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read: {error.strerror}; make it readable") from None
