"""Files of torch.save without torch: what is in them arrives, and what should not be in them does nothing."""

from __future__ import annotations

import os
import pickle
import resource
import struct
import zipfile
from collections import Counter, OrderedDict, defaultdict

import numpy as np
import pytest

from plsc.errors import CheckpointError, DataError
from plsc.files.torch_file import TorchFile
from plsc.files.torch_writer import write_state_dict
from plsc.weights.source import read_source
from tests.weights import torch_kit as kit

NUMBERS = np.arange(24, dtype="<f4").reshape(4, 6)
ORDERED = b"ccollections\nOrderedDict\n)R"


def read(path, name: str) -> np.ndarray:
    with TorchFile(str(path)) as file:
        return file.value[name].read()


def refused(path, message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        with TorchFile(str(path)) as file:
            for value in file.value.values() if isinstance(file.value, dict) else []:
                value.read()
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 400


def test_tensors_of_every_kind(tmp_path):
    values = OrderedDict(
        (kind, (NUMBERS > 3).astype(kind) if kind == "|b1" else NUMBERS.astype(kind)) for kind in kit.KINDS
    )
    path = kit.save(tmp_path / "x.pt", values, folder="model")
    for kind, value in values.items():
        found = read(path, kind)
        assert found.dtype == value.dtype and np.array_equal(found, value)


def test_views_share_a_storage(tmp_path):
    storage = kit.Storage("0", NUMBERS)
    views = {
        "whole": (kit.View(storage), NUMBERS), "turned": (kit.View(storage, (6, 4), (1, 6)), NUMBERS.T),
        "part": (kit.View(storage, (2, 3), (6, 2), 6), NUMBERS[1:3, ::2]),
        "one": (kit.View(storage, (), (), 23), NUMBERS[3, 5]),
        "none": (kit.View(storage, (0, 3), (3, 1)), NUMBERS[:0, :3]),
    }  # fmt: skip
    path = kit.save(tmp_path / "x.pt", {name: view for name, (view, _) in views.items()})
    for name, (_, expected) in views.items():
        assert np.array_equal(read(path, name), expected), name


def test_tensors_of_a_model_that_share_one_storage(tmp_path):
    """Each is a copy in memory: a model of a thousand tensors would take a thousand times the size of its file."""
    storage = kit.Storage("0", np.zeros(30_000, np.float32))
    shapes = kit.arcface_shapes(18, 4, 6, 2)
    path = kit.save(tmp_path / "model.pt", {name: kit.View(storage, (30_000,), (1,)) for name in shapes})
    with pytest.raises(CheckpointError, match="model.pt: refused: its tensors share storages, and have") as caught:
        read_source(str(path))
    assert "\n" not in str(caught.value)


def test_bfloat16(tmp_path):
    class BFloat16(kit.Pickler):
        def persistent_id(self, obj):
            pid = super().persistent_id(obj)
            return pid and (pid[0], kit.Global("torch", "BFloat16Storage"), *pid[2:])

    import io

    file = io.BytesIO()
    BFloat16(file).dump({"x": np.array([0x3F80, 0xC040], "<i4").astype("<f2")})
    data = struct.pack("<2H", 0x3F80, 0xC040)  # the upper halves of 1.0 and -3.0 in float32
    assert read(kit.save_parts(tmp_path / "x.pt", file.getvalue(), {"0": data}), "x").tolist() == [1.0, -3.0]


def test_what_is_saved_beside_tensors(tmp_path):
    factory = defaultdict(dict, {1: {"step": 3}})
    given = {
        "epoch": 3,
        "lr": 0.1,
        "names": ["a", None, True],
        "state": factory,
        "milestones": Counter({5: 1}),
        "x": NUMBERS,
    }
    with TorchFile(str(kit.save(tmp_path / "x.pt", given))) as file:
        found = file.value
    assert found.pop("x").shape == (4, 6) and found == {k: v for k, v in given.items() if k != "x"}


def test_written_files_are_read(tmp_path):
    arrays = {"a.weight": NUMBERS.T, "counter": np.array(7, np.int64), "none": np.zeros((0, 2), np.float32)}
    write_state_dict(tmp_path / "x.pt", arrays)
    for name, array in arrays.items():
        assert np.array_equal(read(tmp_path / "x.pt", name), array)
    first = (tmp_path / "x.pt").read_bytes()
    write_state_dict(tmp_path / "x.pt", arrays)
    assert (tmp_path / "x.pt").read_bytes() == first
    assert os.listdir(tmp_path) == ["x.pt"]


class Runs:
    def __reduce__(self):
        return os.mkdir, ("/tmp/plsc_torch_file_was_run",)


def tensor(
    shape: bytes, strides: bytes, numbers: int = 24, name: bytes = b"_rebuild_tensor_v2", key: bytes = b"0"
) -> bytes:
    """The pickle of {"x": a tensor}; shape and strides are opcodes."""
    storage = (
        b"(X\x07\0\0\0storagectorch\nFloatStorage\nX\x01\0\0\0" + key + b"X\x03\0\0\0cpuJ" + struct.pack("<i", numbers)
    )
    return (b"\x80\x02}X\x01\0\0\0xctorch._utils\n" + name + b"\n(" + storage + b"tQK\0" + shape + strides + b"\x89"
            + ORDERED + b"tRs.")  # fmt: skip


@pytest.mark.parametrize("pickled, message", [
    (pickle.dumps({"x": Runs()}, 2), r"refused: it tries to load \w+.mkdir"),
    (b"cos\nsystem\n(X\x04\0\0\0exittR.", "refused: it tries to load os.system"),
    (b"cbuiltins\neval\n(X\x03\0\0\x001+1tR.", "refused: it tries to evaluate"),
    (b"ctorch\nload\n(X\x01\0\0\0xtR.", "refused: it tries to load torch.load"),
    (b"ctorch.storage\n_load_from_bytes\n(C\x01xtR.", "refused: it tries to load torch.storage._load_from_bytes"),
    (b"cpytorch_lightning.callbacks\nTimer\n)R.", "refused: it tries to create objects"),
    (b"cnets\nIResNet\n)\x81.", r"refused: it tries to load nets.IResNet, .*state_dict"),
    (b"\x80\x02X\x01\0\0\0aQ.", "is not a storage"),
    (tensor(b"K\x05K\x05\x86", b"K\x05K\x01\x86"), r"refused: a tensor of shape \[5, 5\]"),
    (tensor(b"J\xff\xff\xff\x7f\x85", b"K\0\x85"), "extends beyond its storage"),  # an expanded one of 2^31 numbers
    (tensor(b"K\x02K\x03\x86", b"K\x06\x85"), r"strides \[6\]"),
    (tensor(b"K\x02\x85", b"J\xff\xff\xff\xff\x85"), "not a list of integers"),
    (tensor(b"K\x02\x85", b"K\x17\x85"), None),  # 0 and 23: just inside
    (tensor(b"K\x02\x85", b"K\x18\x85"), "extends beyond its storage"),
    (tensor(b"K\x02\x85", b"K\x01\x85", numbers=2**30), r"has 96 bytes instead of 4294967296"),
    (tensor(b"K\x02\x85", b"K\x01\x85", key=b"1"), "storage '1' are missing"),
    (tensor(b"K\x02\x85", b"K\x01\x85", name=b"_rebuild_qtensor"), "refused: it tries to load torch._utils"),
    (tensor(b"(" + b"K\x01" * 17 + b"t", b"(" + b"K\x01" * 17 + b"t"), "not a list of integers"),
    (b"\x80\x02]r\xff\xff\xff\x7f.", None),  # a place in the memo far away takes no memory
    (b"\x80\x02" + b"(" * 100_000 + b"t" * 100_000 + b".", None),  # nested deeply
    (b"\x80\x02X\xff\xff\xff\x7fabc.", "cannot be read"), (b"", "cannot be read"), (b"\x80\x02}", "cannot be read"),
    (b"\x80\x02}(" + b"".join(struct.pack("<ci", b"J", i) + b"N" for i in range(100_001)) + b"u.", "than 100000 keys"),
    (b"\x80\x02\x8e" + struct.pack("<Q", 2**40) + b".", "cannot be read"),
])  # fmt: skip
def test_pickles_run_nothing_and_take_no_memory(tmp_path, pickled, message):
    path = kit.save_parts(tmp_path / "x.pt", pickled, {"0": NUMBERS.tobytes()})
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    if message is None:
        TorchFile(str(path)).__exit__()
    else:
        refused(path, message)
    assert not os.path.exists("/tmp/plsc_torch_file_was_run")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000  # KB; lists of 100,000 take some


def good_file(tmp_path):
    return kit.save(tmp_path / "x.pt", {"x": NUMBERS, "y": NUMBERS + 1})


def changed(path, at: int, data: bytes) -> None:
    content = bytearray(path.read_bytes())
    content[at : at + len(data)] = data
    path.write_bytes(content)


def central(path, name: str) -> int:
    """Where the directory's header of an entry begins."""
    return path.read_bytes().rfind(f"archive/{name}".encode()) - 46


@pytest.mark.parametrize("entry, field, form, value, message", [
    ("data/1", 20, "<LL", (10**9, 10**9), "overlaps another one, or extends"),  # sizes: beyond the file
    ("version", 20, "<LL", (200, 200), "or extends beyond the file"),  # the last one, into the directory
    ("data/0", 20, "<LL", (200, 200), "overlaps another one"),  # into the next entry
    ("data/1", 42, "<L", (0,), "another entry is where"),  # the same bytes twice
    ("data/1", 42, "<L", (10,), "does not begin where"), ("data/1", 20, "<L", (1,), "has 1 bytes, and 96 out"),
    ("data/0", 10, "<H", (8,), "compressed or encrypted"), ("data/0", 8, "<H", (1,), "compressed or encrypted"),
    ("data/0", 0, "<L", (0,), "its directory is not one"), ("data/0", 16, "<L", (0,), "checksum of its storage"),
    ("data/0", 28, "<H", (60000,), "its directory is not one"),
    ("data/0", 24, "<L", (0xFFFFFFFF,), "zip64 size is missing"),
])  # fmt: skip
def test_directories_that_lie(tmp_path, entry, field, form, value, message):
    path = good_file(tmp_path)
    changed(path, central(path, entry) + field, struct.pack(form, *value))
    refused(path, message)


@pytest.mark.parametrize("field, form, value, message", [
    (10, "<H", (60000,), "ends too early|cannot be in it"), (12, "<L", (2**31,), "cannot be in it"),
    (16, "<L", (2**31,), "cannot be in it"), (16, "<L", (0xFFFFFFFF,), "zip64 directory is missing"),
    (0, "<L", (0,), "directory at the end is missing"),
])  # fmt: skip
def test_an_end_that_lies(tmp_path, field, form, value, message):
    path = good_file(tmp_path)
    changed(path, path.read_bytes().rfind(b"PK\5\6") + field, struct.pack(form, *value))
    refused(path, message)


def test_damage_is_noticed_wherever_it_is(tmp_path):
    path = good_file(tmp_path)
    content = path.read_bytes()
    for end in range(0, len(content), 37):
        path.write_bytes(content[:end])
        refused(path, "damaged|not a file of torch.save")
    place = content.find(NUMBERS.tobytes())
    path.write_bytes(content)
    changed(path, place + 5, b"\x01")
    refused(path, "checksum of its storage '0' does not match")


def test_other_files(tmp_path):
    (tmp_path / "old.pt").write_bytes(b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.\x80\x02M\xe9\x03.")  # of torch 1.5
    refused(tmp_path / "old.pt", "before 1.6, or by .*; load it with torch and save it again")
    (tmp_path / "text").write_text("no weights")
    refused(tmp_path / "text", "not a file of torch.save: its first bytes differ")
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        archive.writestr("a.txt", b"x")
    refused(tmp_path / "x.zip", "it has 0 data.pkl instead of one")
    with zipfile.ZipFile(tmp_path / "big.pt", "w") as archive:
        archive.writestr("a/data.pkl", b"N.")
        archive.writestr("a/byteorder", b"big")
    refused(tmp_path / "big.pt", "another byte order")
    with pytest.raises(OSError):
        TorchFile(str(tmp_path))
    with open(tmp_path / "huge.pt", "wb") as file:  # a pickle of 65 MiB, a hole in the file
        with zipfile.ZipFile(file, "w") as archive, archive.open("a/data.pkl", "w") as entry:
            for _ in range(65):
                entry.write(bytes(2**20))
    refused(tmp_path / "huge.pt", r"data.pkl has 68,157,440 bytes; at most 67,108,864 are allowed")


def test_zip64(tmp_path):
    """As files above 4 GiB have it: sizes and places in 64 bits."""
    path = tmp_path / "x.pt"
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in (("data.pkl", tensor(b"K\x02\x85", b"K\x01\x85")), ("data/0", NUMBERS.tobytes())):
            with archive.open(f"a/{name}", "w", force_zip64=True) as entry:
                entry.write(data)
    content = path.read_bytes()
    end = content.rfind(b"PK\5\6")
    _, _, _, _, count, size, offset, _ = struct.unpack_from("<4s4H2LH", content, end)
    record = struct.pack("<4sQ2H2L4Q", b"PK\6\6", 44, 45, 45, 0, 0, count, count, size, offset)
    locator = struct.pack("<4sLQL", b"PK\6\7", 0, end, 1)
    last = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 0xFFFF, 0xFFFF, 0xFFFFFFFF, 0xFFFFFFFF, 0)
    path.write_bytes(content[:end] + record + locator + last)
    assert read(path, "x").tolist() == [0.0, 1.0]
    changed(path, end + 48, struct.pack("<Q", 2**60))
    refused(path, "cannot be in it")
