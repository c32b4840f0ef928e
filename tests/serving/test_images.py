"""Lists and folders of images, and galleries: no net needed."""

from __future__ import annotations

import numpy as np
import pytest

from plsc.errors import ConfigError, DataError
from plsc.serving import Gallery, find_images, gallery
from tests import using_kit as kit


def test_a_folder_in_order_of_its_paths(tmp_path):
    paths = kit.make_folder(tmp_path / "p", 6)
    (tmp_path / "p" / "a.JPEG").write_bytes(b"")  # "a.JPEG" > "a/...": folder by folder
    assert find_images(str(tmp_path / "p")) == ([*paths[:3], str(tmp_path / "p" / "a.JPEG"), *paths[3:]], 1)


def test_a_list(tmp_path):
    lines = ["a.png\t3", "b c.png 17", "d.png", "e f.png", "", "/abs/g.png\t1", "h 5.png\t-1", "\ti\xe9.png  "]
    (tmp_path / "l.txt").write_text("\ufeff" + "\r\n".join(lines), encoding="utf-8")
    expected = ["a.png", "b c.png", "d.png", "e f.png", "/abs/g.png", "h 5.png", "i\xe9.png"]
    assert find_images(str(tmp_path / "l.txt")) == ([str(tmp_path / name) for name in expected], 0)


def test_nothing_to_read(tmp_path):
    (tmp_path / "x.txt").write_text("\n\n")
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "y.txt").write_text("y")
    for source, message in (("x.txt", "has no images"), ("d", r"has no images \(1 other"), ("z", "No such file")):
        with pytest.raises(DataError, match=message):
            find_images(str(tmp_path / source))


def test_search_against_a_plain_loop(monkeypatch):
    monkeypatch.setattr(gallery, "BLOCK", 100)  # several blocks
    draw = np.random.Generator(np.random.Philox(key=[1, 2]))
    known, probes = draw.normal(size=(40, 8)).astype(np.float32), draw.normal(size=(9, 8)).astype(np.float32)
    found = Gallery(known * 3).search(probes, 4)
    for row, probe in enumerate(probes):
        cosines = [float(probe @ other) / float(np.linalg.norm(probe) * np.linalg.norm(other)) for other in known]
        best = sorted(range(40), key=lambda i: -cosines[i])[:4]
        assert found.index[row].tolist() == best
        np.testing.assert_allclose(found.cosine[row], [cosines[i] for i in best], atol=1e-6)
    assert found.names is None


def test_equal_and_zero_embeddings():
    known = np.array([[0, 1], [2, 0], [1, 0], [0, 0]], np.float32)
    found = Gallery(known).search(np.array([[5, 0], [0, 0]], np.float32), 4)
    assert found.index.tolist() == [[1, 2, 0, 3], [0, 1, 2, 3]]  # of equal ones the earlier first
    assert found.cosine.tolist() == [[1, 1, 0, 0], [0, 0, 0, 0]]


def test_wrong_galleries(tmp_path):
    good = np.ones((2, 3), np.float32)
    for wrong, message in (((good[:0],), "0 embeddings"), ((good, ["a"]), "2 embeddings and 1 names"),
                           ((good * np.nan,), "not finite"), ((good[0],), "expected floating point")):  # fmt: skip
        with pytest.raises(DataError, match=message):
            Gallery(*wrong)
    with pytest.raises(DataError, match="size 2, but those to compare with have size 3"):
        Gallery(good).search(np.ones((1, 2), np.float32))
    with pytest.raises(ConfigError, match="k=0"):
        Gallery(good).search(good, 0)
    with pytest.raises(DataError, match="give a directory that predict"):
        Gallery.load(str(tmp_path))


@pytest.mark.parametrize(("change", "said"), [
    (lambda data: data.replace(b"(2, 3)", b"(2, 3 "), "damaged header"),
    (lambda data: data.replace(b"<f4", b"|O "), "damaged header|holds"),
    (lambda data: data.replace(b"<f4", b"<f8"), "holds float64"),
    (lambda data: data.replace(b"False", b"True "), "features are float32"),
    (lambda data: data.replace(b"(2, 3)", b"(6, ) "), "features are float32"),
    (lambda data: data[:-4], "features.npy"),
    (lambda data: data.replace(b"(2, 3)", b"(9, 3)"), "features.npy"),
    (lambda data: data.replace(b"\x01\x00", b"\x02\x00", 1), "version 1.0"),
    (lambda data: b"", "features.npy"),
])  # fmt: skip
def test_features_that_are_damaged(tmp_path, change, said):
    np.save(tmp_path / "features.npy", np.zeros((2, 3), np.float32))
    (tmp_path / "pictures.csv").write_text("row,path\n0,a\n1,b\n")
    assert len(Gallery.load(str(tmp_path))) == 2
    (tmp_path / "features.npy").write_bytes(change((tmp_path / "features.npy").read_bytes()))
    with pytest.raises(DataError, match=said) as caught:
        Gallery.load(str(tmp_path))
    assert "\n" not in str(caught.value)
