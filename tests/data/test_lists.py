"""Label lists and the data sets that read them."""

from __future__ import annotations

import os
import re

import numpy as np
import pytest
from PIL import Image

from plsc.data import ImageListDataset, SyntheticDataset, check, check_label_list, label_list
from plsc.data.label_list import read_label_list
from plsc.errors import ConfigError, DataError


def _write(root, text: str | bytes, pictures: dict[str, tuple[int, int]] | None = None) -> None:
    (root / "label.txt").write_bytes(text if isinstance(text, bytes) else text.encode())
    for number, (name, size) in enumerate((pictures or {}).items()):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(number).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
        Image.fromarray(pixels).save(path)


@pytest.mark.parametrize(
    "line, path, label",
    [
        ("a.png\t3", "a.png", 3),
        ("a.png 3", "a.png", 3),
        ("a.png   3  ", "a.png", 3),
        ("my dir/a b.png\t3", "my dir/a b.png", 3),
        ("my dir/a b.png 3", "my dir/a b.png", 3),
        ("a 7\t3", "a 7", 3),  # the tab decides, not the space
        ("a\tb.png\t3", "a\tb.png", 3),  # the last tab
        ("a.png\t 3 ", "a.png", 3),
        ("a.png \t3\r", "a.png", 3),
        ("  a.png 003", "a.png", 3),
        ("a.png +3", "a.png", 3),
        ("字/图.png 3", "字/图.png", 3),
    ],
)
@pytest.mark.parametrize("around", ["{}", "{}\n", "\n\n{}\n \n", "x.png 1\n{}\ny.png\t2", "\ufeff{}\n"])
def test_lines(tmp_path, line: str, path: str, label: int, around: str) -> None:
    _write(tmp_path, around.format(line))
    labels = check_label_list(tmp_path, "label.txt", 9, check_files=False)
    found = {labels.path(i).decode(): (labels.labels[i], labels.line_number(i)) for i in range(len(labels))}
    assert found[path] == (label, around.split("{}")[0].count("\n") + 1)
    assert len(found) == around.count(".png") + 1


@pytest.mark.parametrize(
    "line, text",
    [
        ("a.png", "'a.png' has no label"),
        ("7", "'7' has no label"),
        ("a.png\tcat", "not an integer"),
        ("a.png 1.0", "not an integer"),
        ("a.png\tc 1", "not an integer"),  # the tab decides: the label is 'c 1'
        ("a.png -1", "not in 0..9"),
        ("a.png 10", "not in 0..9"),
        ("a.png 99999999999999999999999", "not in 0..9"),
        ("a.png 4294967296", "not in 0..9"),
        ("gone.png 1", "image 'gone.png' is missing"),
        ("dir 1", "image 'dir' is missing"),
        ("dir/../dir/ 1", "is missing"),
        ("none/gone.png 1", "is missing"),
        ("a\0.png 1", "is missing"),
    ],
)
def test_each_bad_line_is_named(tmp_path, line: str, text: str) -> None:
    _write(tmp_path, f"a.png 0\n\n{line}\na.png\t9\n", {"a.png": (4, 4), "dir/a.png": (4, 4)})
    with pytest.raises(DataError, match=re.escape(text)) as caught:
        check_label_list(tmp_path, "label.txt", 10)
    assert "1 problem(s)" in str(caught.value)
    assert "label.txt:3: " in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("large", [1, 1 << 26])
@pytest.mark.parametrize("chunk", [1, 7, 64, 1 << 22])
def test_a_list_is_the_same_however_it_is_cut_up(tmp_path, monkeypatch, chunk: int, large: int) -> None:
    """Against a plain loop over the lines; the pieces end in the middle of lines, of blank ones and of a BOM. The text
    is in memory, or stays in the file."""
    monkeypatch.setattr(label_list, "_CHUNK", chunk)
    monkeypatch.setattr(label_list, "LARGE", large)
    monkeypatch.setattr(check, "_CHUNK_LINES", 3)
    rng, lines = np.random.default_rng(chunk), []
    for number in range(40):
        lines.append(f"{'d' * rng.integers(1, 30)}/p{number}.jpg\t{number}" + "\r" * (number % 3))
        lines += [""] * (number % 4)
    _write(tmp_path, "\ufeff" + "\n".join(lines))
    labels = check_label_list(tmp_path, "label.txt", 40, check_files=False)
    expected = [(i + 1, *line.split()) for i, line in enumerate(lines) if line]
    assert [(labels.line_number(i), labels.path(i).decode(), str(labels.labels[i])) for i in range(40)] == expected
    assert labels.paths(slice(5, 9)) == [labels.path(i) for i in range(5, 9)]
    with pytest.raises(DataError, match="40 whose image is missing"):
        check_label_list(tmp_path, "label.txt", 40)


def test_a_large_list_that_changes_while_it_is_used(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(label_list, "LARGE", 1)
    _write(tmp_path, "a.png\t0\nb.png\t1\n")
    labels = check_label_list(tmp_path, "label.txt", 2, check_files=False)
    os.replace(tmp_path / "label.txt", tmp_path / "old.txt")
    _write(tmp_path, "c.png\t0\n")
    assert labels.paths(slice(0, 2)) == [b"a.png", b"b.png"], "a new file of the name is another one"
    with open(tmp_path / "old.txt", "a") as file:
        file.write("c.png\t1\n")
    with pytest.raises(DataError, match=r"^label list '.*label.txt': has changed since it was indexed; nobody"):
        labels.path(0)
    labels = check_label_list(tmp_path, "old.txt", 2, check_files=False)
    os.truncate(tmp_path / "old.txt", 3)
    with pytest.raises(DataError, match="old.txt': has changed since it was indexed"):
        labels.paths(slice(0, 3))


@pytest.mark.parametrize("batch", [1, 2, 1 << 20])
def test_missing_images_are_found_in_any_order_of_directories(tmp_path, monkeypatch, batch: int) -> None:
    monkeypatch.setattr(check, "_CHUNK_LINES", 3)
    monkeypatch.setattr(check, "_BATCH", batch)
    names = [f"{'abc'[i % 3]}/{i}.png" for i in range(12)] + ["top.png", "a", "/a/b.png", "a//0.png", "./b/1.png"]
    names += names[:2]  # twice
    _write(tmp_path, "".join(f"{name} 0\n" for name in names), {f"{'abc'[i % 3]}/{i}.png": (1, 1) for i in range(12)})
    labels = read_label_list(str(tmp_path / "label.txt"), 1)
    expected = sorted(map(hash, (b"top.png", b"a", b"/a/b.png")))
    assert check._missing(os.fsencode(tmp_path), labels)[0].tolist() == expected
    for gone in (7, 2, 0):
        (tmp_path / names[gone]).unlink()
    with pytest.raises(DataError) as caught:
        check_label_list(tmp_path, "label.txt", 1)
    found = re.findall(r"label.txt:(\d+)", str(caught.value))
    assert found == ["1", "3", "8", "13", "14", "15", "16", "18"]


def test_all_problems_are_counted_and_ten_named(tmp_path) -> None:
    lines = ["a.png 0", "gone.png 77", "a.png", *(f"n{i}.png {i}" for i in range(20))]
    _write(tmp_path, "\n".join(lines), {"a.png": (4, 4)})
    with pytest.raises(DataError) as caught:
        check_label_list(tmp_path, "label.txt", 20)
    message = str(caught.value)
    assert "23 problem(s), lines 1 without a label, 1 with a label outside 0..19" in message
    assert "21 whose image is missing" in message
    assert re.findall(r"label.txt:(\d+)", message) == ["2", "2", "3", "4", "5", "6", "7", "8", "9", "10"]
    assert message.endswith("; and 13 more")


def test_a_good_list_passes_with_links_and_absolute_paths(tmp_path) -> None:
    _write(tmp_path, "", {"one/a.png": (4, 4)})
    os.symlink(tmp_path / "one" / "a.png", tmp_path / "link.png")
    (tmp_path / "label.txt").write_text(f"link.png 0\none/a.png 1\n{tmp_path}/one/a.png\t1\n./one/a.png 0")
    assert list(check_label_list(tmp_path, "label.txt", 2).labels) == [0, 1, 1, 0]


@pytest.mark.parametrize("text", [b"", b"\n \n\t\n", b"\xef\xbb\xbf\n"])
def test_empty_and_missing_lists(tmp_path, text: bytes) -> None:
    with pytest.raises(DataError, match="not found"):
        check_label_list(tmp_path, "label.txt", 2)
    _write(tmp_path, text)
    with pytest.raises(DataError, match="is empty"):
        check_label_list(tmp_path, "label.txt", 2)
    with pytest.raises(DataError, match="cannot be read: Is a directory"):
        check_label_list(tmp_path, "", 2)


def test_images_are_normalised_and_flipped(tmp_path) -> None:
    names = [f"p {i}.png" for i in range(12)]
    _write(tmp_path, "".join(f"{n}\t{i}\n" for i, n in enumerate(names)), {n: (4, 6) for n in names})
    plain = ImageListDataset(tmp_path, "label.txt", 12, (3, 6, 4), seed=1, random_flip=False, pixel_std=128.0)
    flipping = ImageListDataset(tmp_path, "label.txt", 12, (3, 6, 4), seed=1, random_flip=True, pixel_std=128.0)
    patterns = []
    for epoch in range(2):
        pattern = []
        for index in range(12):
            pixels = np.asarray(Image.open(tmp_path / names[index])).astype(np.float64)
            expected = (pixels.transpose(2, 0, 1) - 127.5) / 128.0
            image, label = plain.get(index, epoch)
            assert (image.dtype, label.dtype, label) == (np.float32, np.int64, index)
            np.testing.assert_allclose(image, expected, rtol=0, atol=6e-8)  # half a float32 step below 1
            other = flipping.get(index, epoch)[0]
            pattern.append(not np.array_equal(other, image))
            np.testing.assert_array_equal(other[:, :, ::-1] if pattern[-1] else other, image)
        patterns.append(pattern)
    assert patterns[0] != patterns[1] and 0 < sum(patterns[0]) < 12


def test_bad_images_are_named(tmp_path) -> None:
    _write(tmp_path, "ok.png 0\nwide.png 0\ncut.png 1\ntext.png 1\ngone.png 1", {"ok.png": (4, 6), "wide.png": (6, 4)})
    (tmp_path / "cut.png").write_bytes((tmp_path / "ok.png").read_bytes()[:90])
    (tmp_path / "text.png").write_text("no picture")
    data = ImageListDataset(tmp_path, "label.txt", 2, (3, 6, 4), seed=1)
    data.get(0, 0)
    texts = [
        "label.txt:2: image 'wide.png': is 6 x 4 pixels",
        "label.txt:3: image 'cut.png': cannot be decoded",
        "label.txt:4: image 'text.png': not an image",
        "label.txt:5: image 'gone.png' cannot be read: No such",
    ]
    for index, text in enumerate(texts, start=1):
        with pytest.raises(DataError, match=re.escape(text)):
            data.get(index, 0)


def test_a_list_with_bad_labels_or_a_strange_shape_is_refused(tmp_path) -> None:
    _write(tmp_path, "a.png 5")
    with pytest.raises(DataError, match="not in 0..4"):
        ImageListDataset(tmp_path, "label.txt", 5, (3, 6, 4), seed=1)
    with pytest.raises(ConfigError, match=r"image_shape=\[2, 6, 4\]: images are read with 3 channels .RGB. or 1"):
        ImageListDataset(tmp_path, "label.txt", 6, (2, 6, 4), seed=1)


def test_grey_images_for_a_net_of_one_channel(tmp_path) -> None:
    """Grey stays what it is; colours are weighed as in ITU-R BT.601, 299, 587 and 114 thousandths."""
    grey = np.arange(24, dtype=np.uint8).reshape(6, 4) * 10
    colour = np.random.default_rng(0).integers(0, 256, (6, 4, 3), dtype=np.uint8)
    Image.fromarray(grey).save(tmp_path / "grey.png")
    Image.fromarray(colour).save(tmp_path / "colour.png")
    (tmp_path / "label.txt").write_text("grey.png\t0\ncolour.png\t1\n")
    data = ImageListDataset(tmp_path, "label.txt", 2, (1, 6, 4), seed=1, random_flip=False)
    np.testing.assert_array_equal(data.get(0, 0)[0], ((grey.astype(np.float32) - 127.5) / 127.5)[None])
    weighed = colour.astype(np.float64) @ [0.299, 0.587, 0.114]
    found = data.get(1, 0)[0][0].astype(np.float64) * 127.5 + 127.5
    assert np.abs(found - weighed).max() <= 0.51  # rounded to whole grey values


def test_synthetic_images_repeat_and_can_be_learned() -> None:
    data = SyntheticDataset(200, 20, (3, 20, 12), seed=3)
    again = SyntheticDataset(200, 20, (3, 20, 12), seed=3)
    samples = [data.get(i, 0) for i in range(200)]
    for i in (0, 7, 199):
        np.testing.assert_array_equal(again.get(i, 5)[0], samples[i][0])
    assert samples[0][0].dtype == np.float32 and samples[0][1].dtype == np.int64
    assert max(np.abs(image).max() for image, _ in samples) <= 1.0
    assert not np.array_equal(samples[0][0], samples[20][0])  # one class, another noise
    assert not np.array_equal(SyntheticDataset(200, 20, (3, 20, 12), seed=4).get(0, 0)[0], samples[0][0])
    means = np.stack([np.mean([x for x, y in samples[:100] if y == c], axis=0) for c in range(20)])
    nearest = [np.argmin(((means - image) ** 2).sum(axis=(1, 2, 3))) for image, _ in samples[100:]]
    assert nearest == [label for _, label in samples[100:]]
    with pytest.raises(DataError, match="at least 1"):
        SyntheticDataset(0, 5, (3, 8, 8), seed=0)
