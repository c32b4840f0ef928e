"""What is saved is read back, on any number of ranks, and what is damaged is refused with its name."""

from __future__ import annotations

import json
import os
import shutil

import numpy as np
import pytest
from safetensors.numpy import load_file

from plsc.checkpoint import (
    ArrayShard,
    Expected,
    OneRank,
    RankTensors,
    ReadOptions,
    ReshardSource,
    TensorSpec,
    check_fits,
    open_checkpoint,
    read_manifest,
    read_replicated,
    read_rows,
    save,
    verify_files,
)
from plsc.checkpoint.manifest import manifest_sum
from plsc.errors import CheckpointError, ConfigError
from plsc.parallel.shards import class_range
from tests.checkpoint.checkpoint_kit import (
    class_arrays,
    gather_rows,
    meta_for,
    on_ranks,
    replicated_arrays,
    same_arrays,
    save_as,
)


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    """A checkpoint of 11 classes on 3 ranks: 4, 4 and 3."""
    return save_as(tmp_path_factory.mktemp("run"), 12000, 11, 3)


@pytest.fixture
def copy(stored, tmp_path):
    path = tmp_path / "step_00012000"
    shutil.copytree(stored, path)
    return str(path)


def test_files_are_safetensors_to_its_own_package(stored):
    same_arrays(load_file(os.path.join(stored, "replicated.safetensors")), replicated_arrays())
    for rank, (first, last) in enumerate([(0, 4), (4, 8), (8, 11)]):
        found = load_file(os.path.join(stored, f"shard_{rank:05d}_of_00003.safetensors"))
        same_arrays(found, {name: array[first:last] for name, array in class_arrays(11).items()})


def test_values_begin_at_a_multiple_of_eight_bytes(stored):
    for name in read_manifest(stored).files:
        with open(os.path.join(stored, name), "rb") as file:
            length = int.from_bytes(file.read(8), "little")
            assert length % 8 == 0 and json.loads(file.read(length))


def test_manifest_keeps_everything(stored):
    manifest = read_manifest(stored)
    meta = meta_for(11)
    for key, value in meta.items():
        assert getattr(manifest, key) == value, key
    assert (manifest.step, manifest.world_size) == (12000, 3)
    assert manifest.class_ranges == ((0, 4), (4, 8), (8, 11))
    assert TensorSpec("fc.w", "F32", (11, 3)) in manifest.shard_tensors
    assert sorted(os.listdir(stored)) == sorted([*manifest.files, "manifest.json", "manifest.sha256"])
    verify_files(stored, manifest)


def test_replicated_tensors_come_back(stored):
    same_arrays(read_replicated(stored, read_manifest(stored)), replicated_arrays())


@pytest.mark.parametrize("num_classes", [8, 29, 57])
def test_every_number_of_ranks_reads_every_other(tmp_path, num_classes):
    whole = class_arrays(num_classes)
    worlds = [n for n in range(1, 9) if -(-num_classes // n) * (n - 1) < num_classes]
    assert worlds == {8: [1, 2, 3, 4, 8], 29: [1, 2, 3, 4, 5, 6, 8], 57: list(range(1, 9))}[num_classes]
    for old in worlds:
        path = save_as(tmp_path / f"from_{old}", 1, num_classes, old)
        manifest = read_manifest(path)
        for new in worlds:
            for rank in range(new):
                first, last = class_range(num_classes, rank, new)
                blocks = read_rows(path, manifest, first, last, ReadOptions(block_rows=3))
                found = gather_rows(blocks, manifest.shard_tensors, last - first)
                same_arrays(found, {name: array[first:last] for name, array in whole.items()})


@pytest.mark.parametrize("old, new", [(3, 2), (2, 3), (4, 1)])
def test_a_checkpoint_resharded_on_disk_equals_one_saved_so(tmp_path, old, new):
    path = save_as(tmp_path / "old", 5, 13, old)
    expected = save_as(tmp_path / "expected", 5, 13, new)
    manifest = read_manifest(path)

    def work(group):
        first, last = class_range(13, group.rank, new)
        source = ReshardSource(path, manifest, first, last, block_rows=2)
        main = group.rank == 0
        arrays, meta = (read_replicated(path, manifest), meta_for(13)) if main else (None, {})
        return save(str(tmp_path / "new"), 5, RankTensors(arrays, source), meta, group)

    made = on_ranks(new, work)[0]
    # the whole manifest: hashes of all files too
    assert read_manifest(made).files.keys() == read_manifest(expected).files.keys()
    for index in range(new):
        name = f"shard_{index:05d}_of_{new:05d}.safetensors"
        assert read_manifest(made).files[name] == read_manifest(expected).files[name]


@pytest.mark.parametrize("first, last", [(0, 0), (4, 4), (3, 9), (0, 11), (10, 11)])
def test_any_range_of_classes(stored, first, last):
    manifest = read_manifest(stored)
    found = gather_rows(
        read_rows(stored, manifest, first, last, ReadOptions(block_rows=2)), manifest.shard_tensors, last - first
    )
    same_arrays(found, {name: array[first:last] for name, array in class_arrays(11).items()})


@pytest.mark.parametrize("first, last", [(-1, 3), (3, 12), (5, 4)])
def test_ranges_outside_are_refused(stored, first, last):
    with pytest.raises(ConfigError):
        read_rows(stored, read_manifest(stored), first, last)


def test_only_the_shards_asked_for_are_opened(copy):
    manifest = read_manifest(copy)
    os.unlink(os.path.join(copy, "shard_00000_of_00003.safetensors"))
    os.unlink(os.path.join(copy, "shard_00002_of_00003.safetensors"))
    assert sum(len(block) for name, _, block in read_rows(copy, manifest, 4, 8) if name == "fc.w") == 4


def test_a_classifier_that_is_the_same_on_all_ranks_is_one_shard(tmp_path):
    def work(group):
        main = group.rank == 0
        shard = ArrayShard(class_arrays(5)) if main else None
        return save(str(tmp_path), 1, RankTensors({} if main else None, shard), meta_for(5) if main else {}, group)

    path = on_ranks(4, work)[3]  # 5 classes could not be split over 4 ranks
    manifest = read_manifest(path)
    assert (manifest.world_size, manifest.class_ranges) == (4, ((0, 5),))
    same_arrays(gather_rows(read_rows(path, manifest, 1, 5), manifest.shard_tensors, 4), {
        name: array[1:] for name, array in class_arrays(5).items()
    })  # fmt: skip


def test_a_checkpoint_without_classes(tmp_path):
    path = save(str(tmp_path), 1, RankTensors(replicated_arrays(), None), meta_for(5), OneRank())
    manifest = read_manifest(path)
    same_arrays(read_replicated(path, manifest), replicated_arrays())
    with pytest.raises(CheckpointError, match="no class shards"):
        read_rows(path, manifest, 0, 5)


def truncate(path, name):
    with open(os.path.join(path, name), "r+b") as file:
        file.truncate(os.path.getsize(file.name) - 1)


def flip(path, name, offset=-1):
    """Change one bit of one byte, the last one by default."""
    with open(os.path.join(path, name), "r+b") as file:
        file.seek(offset, os.SEEK_END if offset < 0 else os.SEEK_SET)
        byte = file.read(1)[0]
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([byte ^ 1]))


def swap(path, name):
    other = "shard_00001_of_00003.safetensors"  # of the same size as shard 0
    os.rename(os.path.join(path, name), os.path.join(path, "aside"))
    os.rename(os.path.join(path, other), os.path.join(path, name))
    os.rename(os.path.join(path, "aside"), os.path.join(path, other))


def delete(path, name):
    os.unlink(os.path.join(path, name))


def lengthen(path, name):
    with open(os.path.join(path, name), "ab") as file:
        file.write(b"\0")


SHARD, REPLICATED = "shard_00000_of_00003.safetensors", "replicated.safetensors"


@pytest.mark.parametrize("harm, name", [
    (truncate, SHARD), (flip, SHARD), (swap, SHARD), (delete, SHARD), (lengthen, SHARD),
    (truncate, REPLICATED), (flip, REPLICATED), (delete, REPLICATED), (lengthen, REPLICATED),
    (truncate, "manifest.json"), (flip, "manifest.json"), (delete, "manifest.json"),
    (truncate, "manifest.sha256"), (flip, "manifest.sha256"), (delete, "manifest.sha256"),
])  # fmt: skip
@pytest.mark.parametrize("world_size", [1, 2])
def test_every_harm_is_named_on_every_rank(copy, harm, name, world_size):
    harm(copy, name)
    results = on_ranks(world_size, lambda group: open_checkpoint(copy, group, Expected(11, 3)))
    for error in results:
        assert isinstance(error, CheckpointError), error
        named = [name, "shard_00001_of_00003.safetensors"] if harm is swap else [name]
        assert any(one in str(error) for one in named) and "\n" not in str(error)


@pytest.mark.parametrize("harm", [truncate, swap, delete, lengthen])
def test_rows_are_refused_without_hashing_too(copy, harm):
    manifest = read_manifest(copy)
    harm(copy, SHARD)
    with pytest.raises(CheckpointError, match=SHARD):
        list(read_rows(copy, manifest, 0, 4))


def test_a_flipped_bit_in_a_header_is_seen_without_hashing(copy):
    manifest = read_manifest(copy)
    flip(copy, SHARD, offset=30)
    with pytest.raises(CheckpointError, match=f"{SHARD}.*header"):
        list(read_rows(copy, manifest, 0, 4))


def test_replicated_tensors_are_hashed_on_reading(copy):
    manifest = read_manifest(copy)
    flip(copy, REPLICATED)
    with pytest.raises(CheckpointError, match=f"{REPLICATED}: SHA-256"):
        read_replicated(copy, manifest)


def test_sizes_alone_can_be_checked(copy):
    manifest = read_manifest(copy)
    flip(copy, SHARD)
    verify_files(copy, manifest, hashes=False)
    verify_files(copy, manifest, [REPLICATED])
    with pytest.raises(CheckpointError, match=f"{SHARD}: SHA-256"):
        verify_files(copy, manifest)
    truncate(copy, SHARD)
    with pytest.raises(CheckpointError, match=f"{SHARD}: .* bytes, expected .*truncated"):
        verify_files(copy, manifest, hashes=False)


def edit_manifest(path, change):
    """Change the JSON and make its hash right again: what a wrong program, not a broken disk, would leave."""
    name = os.path.join(path, "manifest.json")
    with open(name, encoding="utf-8") as file:
        data = json.load(file)
    change(data)
    raw = json.dumps(data).encode()
    for target, content in ((name, raw), (os.path.join(path, "manifest.sha256"), manifest_sum(raw))):
        with open(target, "wb") as file:
            file.write(content)


@pytest.mark.parametrize("change, word", [
    (lambda d: d.update(format="other"), "not the manifest"),
    (lambda d: d.update(version=2), "version 2 is unknown"),
    (lambda d: d.pop("version"), "version None is unknown"),
    (lambda d: d.pop("step"), "missing field step"),
    (lambda d: d.update(more=1), "unknown field more"),
    (lambda d: d.update(step="7"), "step"),
    (lambda d: d.update(step=True), "step"),
    (lambda d: d.update(step=-1), "step"),
    (lambda d: d.update(epoch=1.5), "epoch"),
    (lambda d: d.update(world_size=2), "class_ranges"),
    (lambda d: d.update(num_classes=0), "num_classes"),
    (lambda d: d.update(num_classes=12), "class_ranges"),
    (lambda d: d.update(embedding_size=4), "fc.w has shape.*embedding_size 4"),
    (lambda d: d.update(config=[]), "config"),
    (lambda d: d.update(paddle_version=3), "paddle_version"),
    (lambda d: d.update(class_ranges=[[0, 5], [5, 8], [8, 11]]), "class_ranges"),
    (lambda d: d.update(class_ranges=None), "class_ranges"),
    (lambda d: d.update(shard_tensors={}), "shard_tensors"),
    (lambda d: d["shard_tensors"][0].update(dtype="F8"), "unknown type"),
    (lambda d: d["shard_tensors"][0].update(shape=[11, -3]), "not a shape"),
    (lambda d: d["shard_tensors"][0].update(name="fc.b"), "two tensors of one name"),
    (lambda d: d["replicated_tensors"][0].pop("name"), "a tensor is"),
    (lambda d: d["files"].update({"../../etc/passwd": {"bytes": 1, "sha256": "0" * 64}}), "unknown file"),
    (lambda d: d["files"].pop(SHARD), "missing file"),
    (lambda d: d["files"][SHARD].update(sha256="x"), "files: shard_00000"),
    (lambda d: d["files"][SHARD].update(bytes="1"), "files: shard_00000"),
    (lambda d: d.update(files=[]), "files"),
    (lambda d: d.update(num_classes=2**31), r"num_classes must be an integer in \[1, 2147483647\]"),
    (lambda d: d.update(embedding_size=10**9), "embedding_size must be"),
    (lambda d: d.update(world_size=10**9), "world_size must be"),
    (lambda d: d.update(step=2**70), "step must be"),
    (lambda d: d.update(step=2**200), "damaged, holds a whole number of 201 bits"),
    (lambda d: d.update(epoch=2**70), "epoch must be"),
    (lambda d: d.update(plsc_version="1" * 10**6), "plsc_version must be"),
    (lambda d: d["position"].update(sample=float("nan")), "damaged, holds NaN"),
    (lambda d: d["config"].update(lr=float("inf")), "damaged, holds Infinity"),
    (lambda d: d["extra"].update(note="\ud800"), "damaged, holds half a character"),
    (lambda d: d["extra"].update({"\ud800": 1}), "damaged, holds half a character"),
    (lambda d: d["extra"].update(note=nested(51)), "damaged, nested too deeply"),
    (lambda d: d["shard_tensors"][0].update(dtype=["F32"]), "unknown type"),
    (lambda d: d["shard_tensors"][0].update(dtype={}), "unknown type"),
    (lambda d: d["replicated_tensors"][0].update(name="a\nb"), "is not a tensor name"),
    (lambda d: d["replicated_tensors"][0].update(name="a" * 501), "is not a tensor name"),
    (lambda d: d["replicated_tensors"][0].update(shape=[2**30, 2**30]), "is not a shape"),
    (lambda d: d["replicated_tensors"][0].update(shape=[0, 2**60]), "is not a shape"),
    (lambda d: d["replicated_tensors"][0].update(shape=[1] * 17), "is not a shape"),
    (lambda d: d["replicated_tensors"][0].update(shape=[True]), "is not a shape"),
    (lambda d: d["files"][SHARD].update(sha256="\n" * 64), "files: shard_00000"),
    (lambda d: d["files"][SHARD].update(bytes=-1), "files: shard_00000"),
    (lambda d: d.update({"a\nb" * 1000: 1}), r"unknown field a\\nb"),
])  # fmt: skip
def test_a_manifest_that_cannot_be_right(copy, change, word):
    edit_manifest(copy, change)
    with pytest.raises(CheckpointError, match=word) as error:
        read_manifest(copy)
    assert "manifest.json" in str(error.value) and "\n" not in str(error.value) and len(str(error.value)) < 600


def nested(depth):
    return [nested(depth - 1)] if depth else []


def test_a_number_of_thousands_of_digits(copy):
    with open(os.path.join(copy, "manifest.json"), "wb") as file:
        file.write(b'{"step": ' + b"9" * 5000 + b"}")
    with pytest.raises(CheckpointError, match="manifest.json: damaged, (not JSON|holds a whole number)"):
        read_manifest(copy)


@pytest.mark.parametrize("raw", [b"", b"[]", b"\xff\xfe", b"{", b"[" * 100_000])
def test_a_manifest_that_is_not_json(copy, raw):
    with open(os.path.join(copy, "manifest.json"), "wb") as file:
        file.write(raw)
    with pytest.raises(CheckpointError, match="manifest.json"):
        read_manifest(copy)


def test_a_manifest_that_disagrees_with_its_files(copy):
    def shift(data):
        data["shard_tensors"].reverse()

    edit_manifest(copy, shift)
    with pytest.raises(CheckpointError, match=f"{SHARD}: its header"):
        list(read_rows(copy, read_manifest(copy), 0, 4))


def test_mismatches_name_both_values(stored):
    manifest = read_manifest(stored)
    replicated, shard = list(manifest.replicated_tensors), manifest.shard_specs(2)
    check_fits(stored, manifest, Expected(11, 3, replicated, shard))
    wider = [TensorSpec("fc.w", "F32", (4, 5)), *[spec for spec in shard if spec.name != "fc.w"]]
    typed = [TensorSpec("conv.w", "F16", (2, 3, 4)), *[spec for spec in replicated if spec.name != "conv.w"]]
    for arguments, words in (
        ({"num_classes": 12}, "num_classes is 11 in the checkpoint and 12 in this run"),
        ({"embedding_size": 512}, "embedding_size is 3 in the checkpoint and 512 in this run"),
        ({"replicated": replicated[1:]}, f"does not know, such as {replicated[0].name}"),
        ({"replicated": [*replicated, TensorSpec("new", "F32", ())]}, "lacks, such as new"),
        ({"replicated": typed}, r"conv.w is F32 \[2, 3, 4\] in the checkpoint and F16 \[2, 3, 4\]"),
        ({"shard": wider}, r"fc.w is F32 \[11, 3\] in the checkpoint and F32 \[11, 5\]"),
        ({"shard": shard[:1]}, "2 class tensors that the checkpoint holds"),
    ):
        with pytest.raises(CheckpointError, match=words):
            check_fits(stored, manifest, Expected(**arguments))


def test_a_mismatch_on_one_rank_is_an_error_on_all(stored):
    for error in on_ranks(2, lambda group: open_checkpoint(stored, group, Expected(11 + group.rank))):
        assert isinstance(error, CheckpointError) and "rank 1: " in str(error) and "12 in this run" in str(error)


def test_each_file_is_hashed_once_by_all_ranks_together(stored, monkeypatch):
    from plsc.checkpoint import read

    hashed, real = [], read.hash_file
    monkeypatch.setattr(read, "hash_file", lambda path: hashed.append(os.path.basename(path)) or real(path))
    results = on_ranks(3, lambda group: open_checkpoint(os.path.dirname(os.path.dirname(stored)), group)[0])
    assert results == [stored] * 3
    assert sorted(hashed) == sorted(read_manifest(stored).files)


def test_types_that_cannot_be_stored():
    with pytest.raises(CheckpointError, match="tensor t: type complex64"):
        TensorSpec.of("t", np.zeros(2, np.complex64))
