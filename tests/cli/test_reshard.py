"""plsc reshard: split, merged and split again, a checkpoint keeps every value."""

from __future__ import annotations

import json

import numpy as np
import pytest

from plsc import checkpoint
from plsc.checkpoint.lock import RunLock
from plsc.cli.main import main
from plsc.errors import CheckpointError, ConfigError
from tests.checkpoint.checkpoint_kit import class_arrays, replicated_arrays, save_as

CLASSES = 23


@pytest.fixture
def stored(tmp_path):
    return save_as(str(tmp_path / "run"), 40, CLASSES, 3)


@pytest.mark.parametrize("num_shards", [1, 2, 3, 4, 8])
def test_another_number_of_shards_and_back_is_the_same_files(stored, tmp_path, capsys, num_shards):
    main(["reshard", stored, "--ranks", str(num_shards), "--to", str(tmp_path / "other")])
    other = capsys.readouterr().out.strip()
    manifest = checkpoint.read_manifest(other)
    assert manifest.num_shards == manifest.world_size == num_shards
    main(["reshard", str(tmp_path / "other"), "--ranks", "3", "--to", str(tmp_path / "back")])
    back, start = checkpoint.read_manifest(capsys.readouterr().out.strip()), checkpoint.read_manifest(stored)
    assert back == start  # with the SHA-256 of every file, position, random states, learning rate


def test_one_file_holds_everything(stored, tmp_path):
    file = tmp_path / "all.safetensors"
    main(["reshard", stored, "--merge", str(file)])
    raw = file.read_bytes()
    size = int.from_bytes(raw[:8], "little")
    header = json.loads(raw[8 : 8 + size])
    expected = {**replicated_arrays(), **class_arrays(CLASSES)}
    assert set(header) == {"__metadata__", *expected}
    kinds = {"F32": "<f4", "F64": "<f8", "F16": "<f2", "I64": "<i8", "BOOL": "?"}
    for name, array in expected.items():
        first, last = header[name]["data_offsets"]
        found = np.frombuffer(raw[8 + size + first : 8 + size + last], kinds[header[name]["dtype"]])
        np.testing.assert_array_equal(found.reshape(header[name]["shape"]), array)
    with pytest.raises(CheckpointError, match="File exists"):
        main(["reshard", stored, "--merge", str(file)])
    assert file.read_bytes() == raw and [path.name for path in tmp_path.glob("*.part")] == []


def test_a_directory_in_use_is_refused(stored, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    said = f"--to='{other}': process .* trains there .*other --to"
    with RunLock(str(other)), pytest.raises(CheckpointError, match=said):
        main(["reshard", stored, "--ranks", "2", "--to", str(other)])
    assert list(other.iterdir()) == []
    assert main(["reshard", stored, "--ranks", "2", "--to", str(other)]) == 0
    assert [path.name for path in other.iterdir()] == ["checkpoints"]  # the lock is gone with the writer


def test_a_checkpoint_that_is_there_is_not_replaced(stored, tmp_path):
    other = save_as(str(tmp_path / "other"), 40, CLASSES, 2)
    with pytest.raises(CheckpointError, match="other/checkpoints/step_00000040: exists already; remove it, or choose"):
        main(["reshard", stored, "--ranks", "1", "--to", str(tmp_path / "other")])
    assert checkpoint.read_manifest(other).num_shards == 2


def test_what_cannot_be_is_refused(stored, tmp_path):
    with pytest.raises(ConfigError, match="num_classes 23 cannot be split over world_size 22"):
        main(["reshard", stored, "--ranks", "22", "--to", str(tmp_path / "other")])
    with pytest.raises(CheckpointError, match="holds the checkpoint that is read"):
        main(["reshard", stored, "--ranks", "2", "--to", str(tmp_path / "run")])
    path = tmp_path / "run" / "checkpoints" / "step_00000040" / "shard_00001_of_00003.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(CheckpointError, match="shard_00001_of_00003.safetensors: SHA-256 differs"):
        main(["reshard", stored, "--ranks", "2", "--to", str(tmp_path / "other")])
    assert not (tmp_path / "other").exists()
