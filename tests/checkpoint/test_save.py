"""A save ends with the whole new checkpoint or with none, on every rank, wherever it fails."""

from __future__ import annotations

import errno
import os
import resource

import numpy as np
import pytest

from plsc.checkpoint import (
    ArrayShard,
    OneRank,
    RankTensors,
    TensorSpec,
    latest,
    read_manifest,
    read_replicated,
    read_rows,
    save,
    verify_files,
)
from plsc.errors import CheckpointError
from plsc.files.hashes import HashedFile
from plsc.parallel.shards import class_range
from tests.checkpoint.checkpoint_kit import (
    EMBEDDING_SIZE,
    class_arrays,
    gather_rows,
    meta_for,
    on_ranks,
    replicated_arrays,
    same_arrays,
    save_as,
)  # fmt: skip

NUM_CLASSES = 7


def check_holds(path, salt):
    """The checkpoint is whole, and its values are those saved with `salt`."""
    manifest = read_manifest(path)
    verify_files(path, manifest)
    same_arrays(read_replicated(path, manifest), replicated_arrays(salt))
    found = gather_rows(read_rows(path, manifest, 0, NUM_CLASSES), manifest.shard_tensors, NUM_CLASSES)
    same_arrays(found, class_arrays(NUM_CLASSES, salt))


def names(run_dir):
    return sorted(os.listdir(os.path.join(run_dir, "checkpoints")))


class FailOnCall:
    """Let a function work until its n-th call, then raise (or do what `fate` does), once."""

    def __init__(self, monkeypatch, n, fate):
        self.left, self.fate, self.calls = n, fate, []
        for owner, name in (
            (os, "replace"), (os, "fsync"), (os, "mkdir"), (os, "unlink"), (os, "rmdir"), (HashedFile, "write"),
        ):  # fmt: skip
            monkeypatch.setattr(owner, name, self.wrap(name, getattr(owner, name)))

    def wrap(self, name, real):
        def call(*args, **kwargs):
            self.calls.append(name)
            self.left -= 1
            if self.left == 0:
                self.fate()
            return real(*args, **kwargs)

        return call


def raise_full():
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def raise_denied():
    raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))


def count_calls(tmp_path, step):
    """How many calls a save makes, and which of them makes it visible."""
    with pytest.MonkeyPatch.context() as patch:
        save_as(tmp_path, 1, NUM_CLASSES, 1)
        counter = FailOnCall(patch, 0, raise_full)
        save_as(tmp_path, step, NUM_CLASSES, 1)
    assert {"replace", "fsync", "mkdir", "unlink", "write"} <= set(counter.calls)
    calls = counter.calls
    return len(calls), len(calls) - calls[::-1].index("replace")


@pytest.mark.parametrize("step", [1, 2], ids=["again", "next"])
def test_an_error_at_every_stage_leaves_the_last_good_one(tmp_path, step):
    calls, visible = count_calls(tmp_path / "count", step)
    for n in range(1, calls + 1):
        run_dir = tmp_path / str(n)
        save_as(run_dir, 1, NUM_CLASSES, 1, salt=10)
        failed, fate = False, (raise_full, raise_denied)[n % 2]
        with pytest.MonkeyPatch.context() as patch:
            FailOnCall(patch, n, fate)
            try:
                save_as(run_dir, step, NUM_CLASSES, 1, salt=20)
            except CheckpointError as error:
                failed = True
                reason = os.strerror(errno.ENOSPC if fate is raise_full else errno.EACCES)
                assert reason in str(error) and "\n" not in str(error), error
        # Call 1 is a mkdir of what is there already. The last that can fail is the flush after the rename;
        # failing to delete the replaced one is a warning.
        assert failed == (1 < n <= visible + 1)
        check_holds(latest(str(run_dir)), 20 if n > visible or not failed else 10)
        assert not [name for name in names(run_dir) if name.startswith(".tmp")], n
        save_as(run_dir, 3, NUM_CLASSES, 1, salt=30)
        check_holds(latest(str(run_dir)), 30)
        assert not [name for name in names(run_dir) if name.startswith(".")], n


@pytest.mark.parametrize("step", [1, 2], ids=["again", "next"])
def test_a_kill_at_every_stage_leaves_the_last_good_one(tmp_path, step):
    calls, visible = count_calls(tmp_path / "count", step)
    seen = set()
    for n in range(1, calls + 1):
        run_dir = tmp_path / str(n)
        save_as(run_dir, 1, NUM_CLASSES, 1, salt=10)
        child = os.fork()
        if child == 0:  # dies like a killed process: nothing is cleaned up, nothing flushed
            try:
                FailOnCall(pytest.MonkeyPatch(), n, lambda: os._exit(9))
                save_as(run_dir, step, NUM_CLASSES, 1, salt=20)
            finally:
                os._exit(1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9
        newest, salt = latest(str(run_dir)), 20 if n > visible else 10
        seen.add((salt, os.path.basename(newest)))
        check_holds(newest, salt)
        save_as(run_dir, 3, NUM_CLASSES, 1, salt=30)
        assert not [name for name in names(run_dir) if name.startswith(".")], n
        older = os.path.join(run_dir, "checkpoints", "step_00000001")
        check_holds(older, 20 if step == 1 and salt == 20 else 10)
    # Both outcomes came up; when a step is replaced there is an instant at which only the moved one is there.
    moved = {(10, ".replaced_step_00000001")} if step == 1 else set()
    assert seen == {(10, "step_00000001"), (20, f"step_{step:08d}")} | moved


def test_everything_is_on_disk_before_the_rename_and_the_rename_before_the_end(tmp_path, monkeypatch):
    events, real_fsync, real_replace = [], os.fsync, os.replace

    def fsync(handle):
        events.append(os.path.basename(os.readlink(f"/proc/self/fd/{handle}")))
        real_fsync(handle)

    def replace(source, target):
        events.append("rename")
        real_replace(source, target)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "replace", replace)
    path = save_as(tmp_path, 1, NUM_CLASSES, 2)
    before, after = events[: events.index("rename")], events[events.index("rename") + 1 :]
    assert set(os.listdir(path)) <= set(before)
    # the directory after its files, its parent after the rename
    assert before[-1] == ".tmp_step_00000001" and after == ["checkpoints"]


@pytest.mark.parametrize("bad_rank", [0, 1, 2])
def test_a_failure_of_one_rank_is_raised_on_all(tmp_path, bad_rank):
    save_as(tmp_path, 1, NUM_CLASSES, 3, salt=10)

    class Broken(ArrayShard):
        def blocks(self):
            yield from list(super().blocks())[:2]
            raise OSError(errno.ENOSPC, "No space left on device")

    def work(group):
        first, last = class_range(NUM_CLASSES, group.rank, 3)
        kind = Broken if group.rank == bad_rank else ArrayShard
        shard = kind({name: array[first:last] for name, array in class_arrays(NUM_CLASSES).items()}, 1)
        return save(str(tmp_path), 2, RankTensors({}, shard), meta_for(NUM_CLASSES), group)

    for error in on_ranks(3, work):
        assert isinstance(error, CheckpointError), error
        assert f"rank {bad_rank}: No space left on device: " in str(error) and f"shard_0000{bad_rank}" in str(error)
    assert names(tmp_path) == ["step_00000001"]
    check_holds(latest(str(tmp_path)), 10)
    save_as(tmp_path, 2, NUM_CLASSES, 3, salt=20)
    check_holds(latest(str(tmp_path)), 20)


def test_a_file_size_limit_of_the_system(tmp_path):
    """A real refusal by the kernel (EFBIG), in the middle of a shard."""
    save_as(tmp_path, 1, NUM_CLASSES, 1, salt=10)
    big = {"fc.w": np.zeros((100_000, EMBEDDING_SIZE), np.float32)}
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (500_000, hard))
    try:
        with pytest.raises(CheckpointError, match="File too large: .*shard_00000_of_00001"):
            save(str(tmp_path), 2, RankTensors({}, ArrayShard(big, 1000)), meta_for(100_000), OneRank())
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert names(tmp_path) == ["step_00000001"]


def test_a_directory_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    for error in on_ranks(2, lambda g: save(str(tmp_path / "file"), 1, RankTensors({}, None), meta_for(4), g)):
        assert isinstance(error, CheckpointError) and "rank 0: Not a directory" in str(error)


def test_what_is_in_the_way_and_not_ours_stays(tmp_path):
    for name in ("step_00000001", ".tmp_step_00000002"):
        (tmp_path / "checkpoints" / name).mkdir(parents=True)
        (tmp_path / "checkpoints" / name / "thesis.tex").write_text("years")
    for step in (1, 2):
        with pytest.raises(CheckpointError, match="not a checkpoint of PLSC"):
            save_as(tmp_path, step, NUM_CLASSES, 1)
    save_as(tmp_path, 3, NUM_CLASSES, 1)
    assert names(tmp_path) == [".tmp_step_00000002", "step_00000001", "step_00000003"]
    assert len(list(tmp_path.rglob("thesis.tex"))) == 2


def test_saving_a_step_again_replaces_it_with_another_number_of_ranks(tmp_path):
    save_as(tmp_path, 1, NUM_CLASSES, 4, salt=10)
    path = save_as(tmp_path, 1, NUM_CLASSES, 2, salt=20)
    check_holds(path, 20)
    assert names(tmp_path) == ["step_00000001"] and len(os.listdir(path)) == 5


def one(tmp_path, step=1, replicated=None, shard=None, **changes):
    tensors = RankTensors({} if replicated is None else replicated, shard)
    return save(str(tmp_path), step, tensors, meta_for(4, **changes), OneRank())


@pytest.mark.parametrize("arguments, words", [
    ({"step": -1}, "step must be"),
    ({"step": 1.0}, "step must be"),
    ({"more": 1}, "meta must have the keys"),
    ({"config": {"lr": float("nan")}}, r"meta.config.lr: nan .* not plain JSON"),
    ({"config": {1: 2}}, "meta.config: the key 1"),
    ({"extra": {"a": [np.float32(1)]}}, r"meta.extra.a\[0\]: .*float32"),
    ({"epoch": "2"}, "epoch must be an integer"),
    ({"replicated": {"x": np.array(["text"])}}, "tensor x: type <U4 cannot be stored"),
    ({"replicated": {"x": np.zeros(1)}, "shard": ArrayShard({"x": np.zeros(4)})}, "two tensors of one name"),
    ({"shard": ArrayShard({"w": np.zeros((5, 3))})}, "class_ranges"),
    ({"shard": ArrayShard({"w": np.zeros((4, 2))})}, "w has shape .* embedding_size 3"),
    ({"shard": ArrayShard({"w": np.zeros((4, 3)), "v": np.zeros(3)})}, "of different lengths"),
    ({"shard": ArrayShard({})}, "class_ranges"),
])  # fmt: skip
def test_what_a_reader_would_refuse_is_not_written(tmp_path, arguments, words):
    with pytest.raises(CheckpointError, match=words) as error:
        one(tmp_path, **arguments)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "checkpoints").exists()  # refused before anything is touched


def test_ranks_that_disagree(tmp_path):
    def at_step(group):
        return save(str(tmp_path), group.rank, RankTensors({}, None), meta_for(4), group)

    def last_only(group):
        shard = ArrayShard({"w": np.zeros((4, 3))}) if group.rank == 1 else None
        return save(str(tmp_path), 1, RankTensors({}, shard), meta_for(4), group)

    def other_tensors(group):
        shard = ArrayShard({"wv"[group.rank]: np.zeros((2, 3))})
        return save(str(tmp_path), 1, RankTensors({}, shard), meta_for(4), group)

    def by_another_rule(group):
        shard = ArrayShard({"w": np.zeros((1 + 2 * group.rank, 3))})
        return save(str(tmp_path), 1, RankTensors({}, shard), meta_for(4), group)

    for work, words in (
        (at_step, "different steps: [0, 1]"), (last_only, "must be the first ones"),
        (other_tensors, "rank 1 gives other class tensors"), (by_another_rule, "class_ranges"),
    ):  # fmt: skip
        for error in on_ranks(2, work):
            assert isinstance(error, CheckpointError) and words in str(error), error


class Blocks:
    """A source of one tensor [4, 3] whose blocks are given."""

    def __init__(self, *blocks):
        self._blocks = blocks

    def tensors(self):
        return [TensorSpec("w", "F32", (4, 3))]

    def blocks(self):
        return iter(self._blocks)


ROWS = np.zeros((2, 3), np.float32)


@pytest.mark.parametrize("blocks, words", [
    ([("w", 0, ROWS)], "24 bytes came, its shape needs 48"),
    ([("w", 0, ROWS), ("w", 2, ROWS), ("w", 4, ROWS)], "72 bytes came"),
    ([("w", 2, ROWS), ("w", 0, ROWS)], "the block at row 2 does not follow"),
    ([("w", 0, ROWS), ("w", 0, ROWS)], "the block at row 0 does not follow"),
    ([("v", 0, ROWS)], "0 bytes came"),
    ([("w", 0, ROWS), ("w", 2, ROWS), ("v", 0, ROWS)], "tensor v is not declared"),
    ([("w", 0, ROWS.astype(np.float64))], r"F64 \[2, 3\] does not fit into F32"),
    ([("w", 0, ROWS[:, :2])], r"F32 \[2, 2\] does not fit"),
    ([], "0 bytes came"),
])  # fmt: skip
def test_blocks_that_do_not_make_the_tensor(tmp_path, blocks, words):
    with pytest.raises(CheckpointError, match=words):
        one(tmp_path, shard=Blocks(*blocks))
    assert names(tmp_path) == []


def test_layouts_in_memory_do_not_matter(tmp_path):
    array = np.arange(12, dtype=np.float32).reshape(4, 3)
    odd = {"f": np.asfortranarray(array), "step": np.repeat(array, 2, axis=1)[:, ::2], "big": array.astype(">f4")}
    path = one(tmp_path, replicated=odd, shard=ArrayShard({f"c.{name}": value for name, value in odd.items()}, 3))
    manifest = read_manifest(path)
    same_arrays(read_replicated(path, manifest), dict.fromkeys(odd, array))
    found = gather_rows(read_rows(path, manifest, 0, 4), manifest.shard_tensors, 4)
    same_arrays(found, {f"c.{name}": array for name in odd})
