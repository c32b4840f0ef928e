"""The best classes of scores, and the names of classes beside an exported model, which may be a stranger's."""

from __future__ import annotations

import hashlib
import json

import numpy as np
import pytest

from plsc.errors import ConfigError, ExportError
from plsc.files.class_names import CLASS_NAMES
from plsc.serving.classification import top_classes
from plsc.serving.description import Description, read_class_names, read_description


def test_the_best_classes_are_those_of_a_plain_loop():
    scores = np.random.default_rng(0).integers(0, 5, (50, 9)).astype(np.float32)  # many are equal
    names = [f"n{label}" for label in range(7)]  # the last two classes have none
    for k in (1, 2, 9, 20):
        found = top_classes(scores, k, names)
        for row, one in enumerate(scores):
            best = sorted(range(9), key=lambda label: (-one[label], label))[:k]
            assert found.label[row].tolist() == best and found.score[row].tolist() == [one[label] for label in best]
            assert found.names[row] == [names[label] if label < 7 else "" for label in best]
        assert found.label.dtype == np.int64 and found.score.dtype == np.float32
        assert top_classes(scores, k, None).names is None
    assert top_classes(np.zeros((0, 4), np.float32), 2, None).label.shape == (0, 2)
    with pytest.raises(ConfigError, match="k=0: must be at least 1"):
        top_classes(scores, 0, None)


def exported(path, names: bytes | None, classes: int | None = 3, **entry) -> Description:
    """The description of an export with this file of names."""
    files = {"backbone.onnx": {"bytes": 1, "sha256": "0" * 64}}
    if names is not None:
        (path / CLASS_NAMES).write_bytes(names)
        files[CLASS_NAMES] = {"bytes": len(names), "sha256": hashlib.sha256(names).hexdigest(), **entry}
    outputs = ["embedding"] if classes is None else ["embedding", "scores"]
    about = Description("0", "0", 1, "c", "x", [3, 8, 8], 127.5, 127.5, 3, classes, False, False, outputs,
                        {"onnx": ["backbone.onnx"]}, files, {})  # fmt: skip
    (path / "plsc.json").write_bytes(about.to_bytes())
    return read_description(str(path))


def test_names_are_read_where_there_are_classes(tmp_path):
    names = json.dumps(["a", "é"]).encode()
    assert read_class_names(str(tmp_path), exported(tmp_path, names)) == ["a", "é"]
    assert read_class_names(str(tmp_path), exported(tmp_path, names, None)) is None
    assert read_class_names(str(tmp_path), exported(tmp_path, None)) is None


@pytest.mark.parametrize(
    ("names", "entry", "text"),
    [
        (b'["a"]', {"sha256": "0" * 64}, "is not the file that was written"),
        (b'["a"]', {"bytes": 4}, "is not the file that was written"),
        (b'["a", "b", "c", "d"]', {}, "4 names for 3 classes"),
        (b'["a", 1]', {}, "must be a list of strings"),
        (b"cos\nsystem\n", {}, "not JSON"),
    ],
)
def test_a_strangers_names_are_one_line(tmp_path, names, entry, text):
    with pytest.raises(ExportError) as caught:
        read_class_names(str(tmp_path), exported(tmp_path, names, **entry))
    assert str(caught.value).startswith(f"{tmp_path}/{CLASS_NAMES}: {text}")
    assert str(caught.value).endswith("; export the model again")


def test_names_that_are_gone(tmp_path):
    about = exported(tmp_path, b'["a"]')
    (tmp_path / CLASS_NAMES).unlink()
    with pytest.raises(ExportError, match="No such file or directory; export the model again"):
        read_class_names(str(tmp_path), about)
