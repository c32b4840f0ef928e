"""`.bin` files: what insightface's tools of Python 2 and 3 wrote is read, everything else is refused by name."""

from __future__ import annotations

import base64
import os
import pickle
import pickletools
import subprocess
import sys

import numpy as np
import pytest

from plsc.errors import ConfigError, DataError
from plsc.evaluation.bin_file import find_targets, load_bin, save_bin

IMAGES = [b"\xff\xd8jpeg-a\x00\r\n", b"\xff\xd8b", b"\x89PNGc", b"d\xe9"]
ARRAYS = [np.arange(12, dtype=np.uint8).reshape(2, 2, 3) + np.uint8(i) for i in range(4)]
SAME = [True, False]

# Written by CPython 2.7.18 (cPickle) with (IMAGES, SAME), protocols 0, 1, 2.
PYTHON2_BYTES = {
    0: "KChscDEKUydceGZmXHhkOGpwZWctYVx4MDBcclxuJwpwMgphUydceGZmXHhkOGInCnAzCmFTJ1x4ODlQTkdjJwpwNAphUydkXHhlOScKcDUK"
    "YShscDYKSTAxCmFJMDAKYXQu",
    1: "KF1xAShVC//YanBlZy1hAA0KcQJVA//YYnEDVQWJUE5HY3EEVQJk6XEFZV1xBihJMDEKSTAwCmV0Lg==",
    2: "gAJdcQEoVQv/2GpwZWctYQANCnECVQP/2GJxA1UFiVBOR2NxBFUCZOlxBWVdcQYoiIllhi4=",
}
# Written by CPython 2.7.18 with NumPy 1.16.6, protocol 2: (ARRAYS, [np.bool_(True), np.bool_(False)]).
PYTHON2_ARRAYS = (
    "gAJdcQEoY251bXB5LmNvcmUubXVsdGlhcnJheQpfcmVjb25zdHJ1Y3QKcQJjbnVtcHkKbmRhcnJheQpxA0sAhVUBYodScQQoSwFLAksCSwOHY251"
    "bXB5CmR0eXBlCnEFVQJ1MUsASwGHUnEGKEsDVQF8Tk5OSv////9K/////0sAdGKJVQwAAQIDBAUGBwgJCgt0YmgCaANLAIVVAWKHUnEHKEsBSwJL"
    "AksDh2gGiVUMAQIDBAUGBwgJCgsMdGJoAmgDSwCFVQFih1JxCChLAUsCSwJLA4doBolVDAIDBAUGBwgJCgsMDXRiaAJoA0sAhVUBYodScQkoSwFL"
    "AksCSwOHaAaJVQwDBAUGBwgJCgsMDQ50YmVdcQooY251bXB5LmNvcmUubXVsdGlhcnJheQpzY2FsYXIKcQtoBVUCYjFLAEsBh1JxDChLA1UBfE5O"
    "Tkr/////Sv////9LAHRiVQEBhlJxDWgLaAxVAQCGUnEOZYYu"
)


def _written(tmp_path, content):
    path = tmp_path / "set.bin"
    path.write_bytes(content if isinstance(content, bytes) else pickle.dumps(content))
    return path


def _same_pictures(found, expected):
    assert len(found) == len(expected)
    for one, other in zip(found, expected):
        assert isinstance(one, type(other))
        if isinstance(one, np.ndarray):
            assert one.dtype == other.dtype and one.shape == other.shape
        assert np.array_equal(np.asarray(one), np.asarray(other))


@pytest.mark.parametrize("protocol", sorted(PYTHON2_BYTES))
def test_python2_bytes(tmp_path, protocol):
    pairs = load_bin(_written(tmp_path, base64.b64decode(PYTHON2_BYTES[protocol])))
    assert (pairs.name, pairs.images, pairs.issame.tolist()) == ("set", IMAGES, SAME)
    assert pairs.issame.dtype == bool


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_bytearrays_of_every_protocol(tmp_path, protocol):
    """Only protocol 5 has an opcode for them; the pure-Python pickler and Python 2 write text and "latin-1" below 3."""
    content = ([bytearray(image) for image in IMAGES], SAME)
    writers = [pickle.dumps(content, protocol), *([_python_pickle(content, protocol)] if protocol < 3 else [])]
    for data in writers:
        assert load_bin(_written(tmp_path, data)).images == IMAGES
    with pytest.raises(DataError, match="image 1 is a bytes|image 1 is a bytearray"):
        load_bin(_written(tmp_path, pickle.dumps(([b"a", bytearray()], [True]), protocol)))


def _python_pickle(content, protocol):
    """As `bytearray.__reduce__` says, which the C pickler passes by."""

    class Reduced:
        def __init__(self, data):
            self.data = data

        def __reduce__(self):
            return self.data.__reduce_ex__(2)

    return pickle.dumps(([Reduced(image) for image in content[0]], content[1]), protocol)


def test_bytearray_is_called_with_bytes_only(tmp_path):
    for arguments in (b"I9\n", b"Vabc\nVutf-16\n", b"Vabc\n"):
        data = b"(lp0\n(c__builtin__\nbytearray\n(" + arguments + b"tRl(I01\nlt."
        with pytest.raises(DataError, match="tries to call bytearray"):
            load_bin(_written(tmp_path, data))


def test_python2_arrays(tmp_path):
    pairs = load_bin(_written(tmp_path, base64.b64decode(PYTHON2_ARRAYS)))
    _same_pictures(pairs.images, ARRAYS)
    assert pairs.issame.tolist() == SAME


@pytest.mark.parametrize("core", ["numpy.core", "numpy._core"])
@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_python3_every_protocol_and_both_names_of_numpy_core(tmp_path, protocol, core):
    images = [*IMAGES[:2], np.asfortranarray(ARRAYS[0]), ARRAYS[1][..., 0]]
    data = pickle.dumps((images, [np.bool_(True), 0]), protocol)
    other = {"numpy.core": "numpy._core", "numpy._core": "numpy.core"}[core]
    for module in (".multiarray", ".numeric"):
        old, new = (other + module).encode(), (core + module).encode()
        if protocol >= 4:  # text carries its length before it; up to protocol 3 it ends with a newline
            old, new = bytes([len(old)]) + old, bytes([len(new)]) + new
        data = data.replace(old, new)
    assert core.encode() + b"." in data and other.encode() + b"." not in data
    if protocol >= 4:  # a frame's length changed with the name; frames are optional, so drop them
        data = _without_frames(data)
    pairs = load_bin(_written(tmp_path, data))
    _same_pictures(pairs.images, images)
    assert pairs.issame.tolist() == [True, False]


def _without_frames(data):
    frames = [position for op, _, position in pickletools.genops(data) if op.name == "FRAME"]
    for position in reversed(frames):
        data = data[:position] + data[position + 9 :]
    return data


def test_arrays_of_file_bytes_stacks_and_flag_arrays(tmp_path):
    """cv2.imencode gives [n] or [n, 1]; a set may also be one array [2P, H, W, 3] and the flags an integer array."""
    encoded = [np.frombuffer(IMAGES[0], np.uint8), np.frombuffer(IMAGES[1], np.uint8)[:, None], *IMAGES[2:]]
    assert load_bin(_written(tmp_path, (encoded, np.array([1, 0], ">i4")))).images == IMAGES
    pairs = load_bin(_written(tmp_path, [np.stack(ARRAYS), np.array(SAME)]))
    _same_pictures(pairs.images, ARRAYS)
    assert pairs.issame.tolist() == SAME


class _Call:
    def __init__(self, function, *args):
        self.made_by = (function, args)

    def __reduce__(self):
        return self.made_by


@pytest.mark.parametrize(
    ("content", "named"),
    [
        (_Call(os.system, "touch {flag}"), "system"),
        (_Call(eval, "open('{flag}', 'w')"), "eval"),
        (_Call(getattr, b"", "join"), "getattr"),
        (_Call(bytes, 10**12), "bytes"),
        (_Call(bytearray, 10**12), "bytearray"),
        (_Call(np.load, "x.npy"), "load"),
        (_Call(np.ndarray, (10**6, 10**6)), "images"),  # the name is an inert marker: no memory is taken
        (np.array([{"a": 1}]), "dtype 'O8'"),
        (np.zeros(3), "dtype 'f8'"),
    ],
)
@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_anything_else_is_refused_and_not_run(tmp_path, content, named, protocol):
    flag = tmp_path / "ran"
    if isinstance(content, _Call):
        function, args = content.made_by
        content = _Call(function, *(a.replace("{flag}", str(flag)) if isinstance(a, str) else a for a in args))
    path = _written(tmp_path, pickle.dumps((content, SAME), protocol))
    with pytest.raises(DataError) as caught:
        load_bin(path)
    # the directory is named after the test: what was found stands behind the path
    message = str(caught.value).removeprefix(f"verification set {path}: ")
    assert named in message and "\n" not in message
    assert message.startswith("refused: ") or named == "images"
    assert not flag.exists()


@pytest.mark.parametrize(
    "data",
    [
        b"\x80\x02cnumpy\ndtype\n}X\x08\x00\x00\x00__call__K\x01sb.",  # BUILD with a dict of attributes
        b"\x80\x02cnumpy\ndtype\nN}X\x06\x00\x00\x00_buildK\x01s\x86b.",  # ... and with slots
        b"\x80\x02c_codecs\nencode\nX\x01\x00\x00\x00aX\x03\x00\x00\x00rot\x86R.",  # another codec
        b"cos\nsystem\n(S'true'\ntR.",
        b"(S'true'\nios\nsystem\n.",  # the INST opcode
        b"\x80\x04\x8c\x05numpy\x8c\x0ddtype.__class\x93.",  # dotted names
    ],
)
def test_raw_opcodes_are_refused(tmp_path, data):
    with pytest.raises(DataError, match=r"set\.bin: refused: it "):
        load_bin(_written(tmp_path, data))


def test_refusal_leaves_the_reader_as_it_was(tmp_path):
    with pytest.raises(DataError, match=r"set\.bin: refused: it "):
        load_bin(_written(tmp_path, b"\x80\x02cnumpy\ndtype\nN}X\x06\x00\x00\x00_buildK\x01s\x86b."))
    _same_pictures(load_bin(_written(tmp_path, base64.b64decode(PYTHON2_ARRAYS))).images, ARRAYS)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "empty, truncated or no pickle"),
        (b"not a pickle at all", "empty, truncated or no pickle"),
        ([IMAGES, SAME, 0], "list of length 3"),
        ({"images": IMAGES}, "dict of length 1"),
        (IMAGES, "list of length 4, expected a pair"),
        ((b"images", SAME), "images is a bytes"),
        ((IMAGES, 3), "issame is a int"),
        ((IMAGES, np.array(True)), "issame is an array"),
        ((IMAGES, np.ones((2, 1), bool)), r"issame\[0\]"),
        ((IMAGES, [True]), "4 images for 1 pairs"),
        ((IMAGES[:3], SAME), "3 images for 2 pairs"),
        (([], []), "0 images for 0 pairs"),
        ((IMAGES, [True, 2]), r"issame\[1\]"),
        ((IMAGES, [True, None]), r"issame\[1\] is a NoneType"),
        ((IMAGES, [True, 1.0]), r"issame\[1\] is a float"),
        (([*IMAGES[:3], b""], SAME), "image 3 is a bytes of length 0"),
        (([*IMAGES[:2], "text", b"d"], SAME), "image 2 is a str"),
        (([*IMAGES[:3], np.zeros((2, 2, 3), np.int32)], SAME), "image 3 is an array int32"),
        (([*IMAGES[:3], np.zeros((2, 2, 4), np.uint8)], SAME), r"image 3 is an array uint8 \[2, 2, 4\]"),
    ],
)
def test_wrong_content(tmp_path, content, message):
    with pytest.raises(DataError, match=r"set\.bin: .*" + message):
        load_bin(_written(tmp_path, content))


@pytest.mark.parametrize("whole", [base64.b64decode(PYTHON2_ARRAYS), pickle.dumps((IMAGES, SAME), 4)])
def test_truncated_at_every_byte(tmp_path, whole):
    for length in range(len(whole)):
        with pytest.raises(DataError, match=r"set\.bin"):
            load_bin(_written(tmp_path, whole[:length]))


def test_damaged_at_every_byte(tmp_path):
    """A changed byte gives other content or a DataError; no other exception, whatever `pickle` makes of it."""
    whole = base64.b64decode(PYTHON2_ARRAYS)
    refused = 0
    for position in range(len(whole)):
        damaged = bytearray(whole)
        damaged[position] ^= 0x21
        try:
            load_bin(_written(tmp_path, bytes(damaged)))
        except DataError:
            refused += 1
    assert refused > len(whole) // 2


def test_missing_file(tmp_path):
    with pytest.raises(DataError, match="No such file"):
        load_bin(tmp_path / "lfw.bin")
    with pytest.raises(DataError, match="s a directory"):
        load_bin(tmp_path)


@pytest.mark.parametrize("images", [IMAGES, ARRAYS])
def test_round_trip(tmp_path, images):
    path = tmp_path / "mine.v2.bin"
    save_bin(path, images, np.array(SAME))
    assert os.listdir(tmp_path) == ["mine.v2.bin"]
    pairs = load_bin(path)
    _same_pictures(pairs.images, images)
    assert (pairs.name, pairs.issame.tolist()) == ("mine.v2", SAME)
    with open(path, "rb") as file:  # as insightface reads it
        bins, issame = pickle.load(file, encoding="bytes")
    _same_pictures(bins, images)
    assert issame == SAME


def test_failed_save_leaves_the_old_file_and_no_other(tmp_path, monkeypatch):
    path = tmp_path / "set.bin"
    save_bin(path, IMAGES, SAME)
    before = path.read_bytes()
    with pytest.raises(DataError, match="4 images for 1 pairs"):
        save_bin(path, IMAGES, [True])

    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(DataError, match="No space left"):
        save_bin(path, IMAGES[::-1], SAME)
    assert path.read_bytes() == before and os.listdir(tmp_path) == ["set.bin"]
    monkeypatch.undo()
    with pytest.raises(DataError, match="cannot be written"):
        save_bin(tmp_path / "no" / "set.bin", IMAGES, SAME)


def test_find_targets(tmp_path):
    for name in ("lfw", "cfp_fp"):
        save_bin(tmp_path / f"{name}.bin", IMAGES, SAME)
    assert find_targets(tmp_path, ["lfw", "cfp_fp"]) == [tmp_path / "lfw.bin", tmp_path / "cfp_fp.bin"]
    assert find_targets(tmp_path, ["lfw.bin", "cfp_fp"]) == [tmp_path / "lfw.bin", tmp_path / "cfp_fp.bin"]
    assert find_targets(str(tmp_path), []) == []
    with pytest.raises(DataError, match=r"has no agedb\.bin, calfw\.bin; .*: cfp_fp\.bin, lfw\.bin"):
        find_targets(tmp_path, ["agedb", "lfw", "calfw.bin"])
    with pytest.raises(DataError, match="not a directory"):
        find_targets(tmp_path / "no", ["lfw"])
    for names in ("lfw", ["lfw", "lfw"], ["lfw", "lfw.bin"], ["lfw", ""]):
        with pytest.raises(ConfigError, match="val_targets"):
            find_targets(tmp_path, names)


def test_numpy_is_all_that_is_imported():
    rooms = "bin_file embeddings folders identification ijb megaface pairs pair_sets plot roc spread"
    rooms = [*rooms.split(), "verification"]
    program = f"import sys; [__import__('plsc.evaluation.' + room) for room in {rooms}]; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.split()
    assert "numpy" in loaded and not {"paddle", "matplotlib", "PIL"} & set(loaded)
