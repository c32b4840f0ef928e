"""plsc check-data: what is planted is found, counted and shown, and nothing else; by any number of processes."""

from __future__ import annotations

import io
import json
import os
import re
import signal

import numpy as np
import pytest
from PIL import Image, ImageEnhance
from scipy import fft

from plsc.config import Config
from plsc.data import Augmentations, Preparation, Source, SourceDataset
from plsc.data.checking import duplicates, scan
from plsc.data.checking.look import content_digest, perceptual_hash
from plsc.data.checking.page import check_page
from plsc.data.checking.report import check
from plsc.data.fork_pool import progress_line
from plsc.data.opening import open_dataset
from plsc.errors import DataError
from tests import tool_kit
from tests.data.container_kit import plain, write_records
from tests.data.test_contact_sheet import require_nothing_outside

SIDE = 48
PER_CLASS, CLASSES = 6, 5


def picture(seed: int, side: int = SIDE) -> Image.Image:
    """Waves of all lengths, the stronger the longer, as in photographs; another one for each seed."""
    spectrum = np.fft.fft2(np.random.default_rng(seed).normal(size=(3, side, side)))
    length = np.hypot(np.fft.fftfreq(side)[:, None], np.fft.fftfreq(side)) + 1 / side
    waves = np.fft.ifft2(spectrum / length**1.5).real
    waves = waves[:1] + 0.2 * waves  # much the same in all channels
    return Image.fromarray(np.rint((waves - waves.min()) / np.ptp(waves) * 255).astype(np.uint8).transpose(1, 2, 0))


def encoded(image: Image.Image, kind: str = "PNG", **options) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def planted() -> dict[str, bytes]:
    """Good images of five classes in `classNNN/`, and one of each fault in a class of its own."""
    files = {f"c{label}/{number}.png": encoded(picture(100 * label + number))
             for label in range(CLASSES) for number in range(PER_CLASS)}  # fmt: skip
    files["c5/damaged.png"] = files["c0/0.png"][:600]
    files["c5/text.jpg"] = b"<b>no image</b>"
    files["c5/large.png"] = encoded(picture(1000, SIDE + 1))
    files["c5/copy.png"] = files["c1/2.png"]
    files["c2/copy.png"] = files["c2/0.png"]
    files["c3/near.jpg"] = encoded(picture(301), "JPEG", quality=85)
    files["c6/only.png"] = encoded(picture(1001))
    return files


@pytest.fixture(scope="module")
def faulty(tmp_path_factory):
    """A list of the planted images; class 7 has none, and one file is missing."""
    root = tmp_path_factory.mktemp("faulty")
    lines = []
    for name, content in planted().items():
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_bytes(content)
        lines.append(f"{name}\t{name[1]}\n")
    lines.append("c4/gone.png\t4\n")
    (root / "label.txt").write_text("".join(lines))
    (root / "x.yaml").write_text(
        f"model: {{image_shape: [3, {SIDE}, {SIDE}]}}\nclassifier: {{num_classes: 8}}\ndata: {{dataset_dir: {root}}}\n"
    )
    return root


def expect_the_planted(plain_report: dict, names: dict[str, int]) -> None:
    assert plain_report["images"] == len(names) and plain_report["classes"] == 8 and plain_report["stops_training"]
    assert plain_report["unusable"] == {"unreadable": 1, "damaged": 2, "wrong size": 1}
    listed = {one["index"]: one["kind"] for one in plain_report["unusable_listed"]}
    assert listed == {names["c5/damaged.png"]: "damaged", names["c5/text.jpg"]: "damaged",
                      names["c5/large.png"]: "wrong size", names["c4/gone.png"]: "unreadable"}  # fmt: skip
    for one in plain_report["unusable_listed"]:
        assert next(name for name, index in names.items() if index == one["index"]) in one["text"]
    copies = plain_report["duplicates"]
    assert (copies["groups"], copies["extra_images"], copies["groups_with_several_labels"]) == (2, 2, 1)
    groups = [[one["index"] for one in group] for group in copies["listed"]]
    assert groups == [[names["c1/2.png"], names["c5/copy.png"]], [names["c2/0.png"], names["c2/copy.png"]]]
    near = plain_report["near_duplicates"]
    assert (near["pairs"], near["pairs_with_two_labels"], near["all_compared"]) == (1, 0, True)
    assert near["listed"][0]["indices"] == [names["c3/1.png"], names["c3/near.jpg"]]
    assert [one["label"] for one in plain_report["classes_without_images"]["listed"]] == [7]
    assert [one["label"] for one in plain_report["classes_with_one_image"]["listed"]] == [6]


def test_what_is_planted_is_found(faulty):
    names = {line.split("\t")[0]: index for index, line in enumerate((faulty / "label.txt").read_text().splitlines())}
    page, figures = faulty / "a.html", faulty / "a.json"
    words = ["-c", faulty / "x.yaml", "--html", page, "--processes", "2"]
    done = tool_kit.plsc("check-data", *words, "--json", figures)
    assert done.returncode == 1 and "Traceback" not in done.stderr
    expect_the_planted(json.loads(figures.read_text()), names)
    table = {line[:22].strip(): line[22:].split()[0] for line in done.stdout.splitlines() if line[:1] != "t"}
    assert {name: table[name] for name in ("images", "classes", "unreadable", "damaged", "wrong size", "same bytes",
                                           "near duplicates", "classes without images", "classes with one image")} == {
        "images": "38", "classes": "8", "unreadable": "1", "damaged": "2", "wrong size": "1", "same bytes": "2",
        "near duplicates": "1", "classes without images": "1", "classes with one image": "1"}  # fmt: skip
    assert done.stdout.endswith("training would stop\n")
    found = require_nothing_outside(page.read_text())
    shown = found.pictures()
    assert len(shown) == 1 + 2 * 2 + 2  # of a wrong size; two pairs of copies; a near pair
    np.testing.assert_array_equal(shown[1], np.asarray(picture(102)))
    assert "c5/text.jpg" in found.words


def test_any_number_of_processes_finds_the_same(faulty, monkeypatch):
    monkeypatch.setattr(scan, "BLOCK", 3)
    reports = []
    for processes in (0, 1, 3):
        data = open_dataset(Config.from_yaml(faulty / "x.yaml"), print, check_files=False)
        reports.append(check(data, processes).plain())
    assert reports[0] == reports[1] == reports[2]


def test_another_size_does_not_stop_a_run_that_resizes(tmp_path):
    for label in range(2):
        (tmp_path / "in" / f"c{label}").mkdir(parents=True)
        for number in range(2):
            picture(10 * label + number, SIDE + number).save(tmp_path / "in" / f"c{label}" / f"{number}.jpg")
    words = ["-o", f"data.dataset_dir={tmp_path / 'in'}", "-o", f"model.image_shape=[3,{SIDE},{SIDE}]"]
    done = tool_kit.plsc("check-data", *words, "-o", "data.resize=pad", "--processes", "0", "--json")
    told = json.loads(done.stdout)
    assert done.returncode == 0 and told["unusable"]["wrong size"] == 2 and not told["stops_training"]
    assert told["unusable_listed"][0]["text"].endswith("and is resized (data.resize: pad)")
    assert tool_kit.plsc("check-data", *words, "--processes", "0").returncode == 1


def test_good_data_are_good(tmp_path):
    files = [content for name, content in planted().items() if name[:2] in ("c0", "c1")]
    write_records(tmp_path / "in", plain(files, [number % 4 for number in range(len(files))]))
    words = ["-o", f"data.dataset_dir={tmp_path / 'in'}", "-o", f"model.image_shape=[3,{SIDE},{SIDE}]"]
    done = tool_kit.plsc("check-data", *words, "--processes", "0", "--json", "-")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["images"] == 12 and found["classes"] == 4 and not found["stops_training"]
    assert not any([*found["unusable"].values(), found["duplicates"]["groups"], found["near_duplicates"]["pairs"]])
    assert found["classes_without_images"]["count"] == found["classes_with_one_image"]["count"] == 0


def test_ready_input_is_checked_too():
    settings = ("data.dataset=synthetic", "data.train_image_num=70", "classifier.num_classes=69")
    options = [word for one in (*settings, "model.image_shape=[3,8,8]") for word in ("-o", one)]
    done = tool_kit.plsc("check-data", *options, "--processes", "0")
    assert done.returncode == 0 and "classes with one image  68" in done.stdout


class Sized(Source):
    """Small images of which ``read`` may do something else."""

    num_classes = 2

    def __init__(self, count: int, act=lambda index: None) -> None:
        self._count, self._act = count, act
        self._image = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)

    def __len__(self) -> int:
        return self._count

    def read(self, index):
        self._act(index)
        image = self._image.copy()
        image[:2, :2, 0] = np.frombuffer(np.int32(index).tobytes(), np.uint8).reshape(2, 2)
        return image, index % 2

    def record(self, count=None):
        return {}


def dataset(source: Source, shape=(3, 8, 8)) -> SourceDataset:
    return SourceDataset(source, 2, Preparation(shape, Augmentations([], 0)), "sized")


def test_a_process_that_dies_is_an_error_and_no_hang():
    data = dataset(Sized(300, lambda index: os.kill(os.getpid(), signal.SIGKILL) if index == 130 else None))
    with pytest.raises(DataError, match=r"^check of images \d+ and after: a process that decodes ended"):
        check(data, 2)


def test_what_a_source_raises_is_a_problem_of_the_image():
    def fail(index):
        if index == 3:
            raise KeyError("x")

    report = check(dataset(Sized(5, fail)), 0)
    assert [(one.index, one.kind) for one in report.problems] == [(3, "unreadable")]
    assert "KeyError" in report.problems[0].text


def test_lists_are_bounded_and_counts_are_not(monkeypatch):
    """29 bytes an image are kept, and so many problems, however many there are."""
    monkeypatch.setattr(scan, "MOST_LISTED", 7)
    monkeypatch.setattr(duplicates, "MOST_LISTED", 3)
    report = check(dataset(Sized(200), shape=(3, 9, 8)), 0)
    assert report.counts == {"wrong size": 200} and len(report.problems) == 7
    assert len(report.near.pairs) == 3 < report.near.num_pairs  # they differ in a corner only
    kept = scan.Scan.of(1000)
    assert sum(one.nbytes for one in (kept.labels, kept.digests, kept.perceptual, kept.has)) == 29_000
    assert len(check_page(report)) < 200_000


def test_progress_tells_rate_and_time_left(monkeypatch):
    assert progress_line(1000, 10_000, 2.0) == "1,000 of 10,000 images (10.0 %), 500 a second, 0:00:18 left"
    assert progress_line(1, 7201, 1.0).endswith("2:00:00 left")
    monkeypatch.setattr(scan, "LOG_SECONDS", 0)
    monkeypatch.setattr(scan, "BLOCK", 50)
    lines = []
    check(dataset(Sized(120)), 0, lines.append)
    assert [line.split(" of ")[0] for line in lines] == ["50", "100", "120"]


def test_a_perceptual_hash_is_that_of_its_definition():
    """By SciPy's cosine transform: signs of the 128 lowest frequencies of 32 x 32 means, the mean itself left out."""
    image = np.asarray(picture(5, 64))
    grey = np.asarray(Image.fromarray(image).convert("L"), float).reshape(32, 2, 32, 2).mean(axis=(1, 3))
    waves = fft.dctn(np.floor(grey + 0.5))
    places = sorted((row + column, row, column) for row in range(32) for column in range(32) if row + column)[:128]
    expected = [waves[row, column] > 0 for _, row, column in places]
    found = np.unpackbits(perceptual_hash(image).view(np.uint8))
    clear = [abs(waves[row, column]) > 1e-3 * np.abs(waves).max() for _, row, column in places]
    assert sum(clear) > 60 and all(found[number] == expected[number] for number in range(128) if clear[number])
    assert not perceptual_hash(np.full((40, 40, 3), 77, np.uint8)).any()


def test_near_copies_are_near_and_others_are_not():
    """Of 40 images: JPEG and light change 3 bits at most in nearly all; two images differ in dozens."""
    originals = [picture(number, 112) for number in range(40)]
    hashes = np.stack([perceptual_hash(np.asarray(one)) for one in originals])

    def bits(others: list[Image.Image]) -> np.ndarray:
        found = np.stack([perceptual_hash(np.asarray(one)) for one in others])
        return np.unpackbits((found ^ hashes).view(np.uint8), axis=1).sum(axis=1)

    jpeg = [Image.open(io.BytesIO(encoded(one, "JPEG", quality=80))) for one in originals]
    assert (bits(jpeg) <= duplicates.NEAR_BITS).mean() >= 0.9
    darker = [ImageEnhance.Brightness(one).enhance(0.9) for one in originals]
    assert (bits(darker) <= duplicates.NEAR_BITS).mean() >= 0.9
    assert bits(originals[1:] + originals[:1]).min() > 30


def test_all_pairs_of_few_bits_are_found():
    """Held against the comparison of each with each."""
    rng = np.random.default_rng(3)
    hashes = rng.integers(0, 2**64, (400, 2), dtype=np.uint64)
    for number in range(200, 400):  # of one before it, up to 6 bits are turned
        bits = np.unpackbits(hashes[number - 150 : number - 149].view(np.uint8))
        bits[rng.choice(128, rng.integers(7), replace=False)] ^= 1
        hashes[number] = np.packbits(bits).view(np.uint64)
    labels, known = rng.integers(0, 3, 400), rng.random(400) < 0.9
    words = np.unpackbits(hashes.view(np.uint8).reshape(400, 16), axis=1).astype(int)
    distance = (words[:, None] != words[None]).sum(axis=2)
    expected = sorted((a, b, int(distance[a, b])) for a in range(400) for b in range(a + 1, 400)
                      if distance[a, b] <= 3 and known[a] and known[b])  # fmt: skip
    found = duplicates.look_alike(hashes, labels, known)
    assert found.pairs == expected and len(expected) > 50 and found.complete
    assert found.num_pairs == len(expected) and found.across == sum(labels[a] != labels[b] for a, b, _ in expected)


def test_too_many_that_look_alike_are_said():
    found = duplicates.look_alike(np.zeros((90, 2), np.uint64), np.zeros(90, int), np.ones(90, bool))
    assert not found.complete and found.num_pairs == sum(90 - distance for distance in range(1, 65))


@pytest.mark.parametrize("count", [0, 1, 2])
def test_no_images_are_no_copies(count):
    hashes, digests = np.zeros((2, 2), np.uint64), np.arange(2, dtype=np.uint64)
    known = np.arange(2) < count
    assert duplicates.same_bytes(digests, np.zeros(2, int), known).num_groups == 0
    assert duplicates.look_alike(hashes, np.zeros(2, int), known).num_pairs == (1 if count == 2 else 0)


def test_digests_are_of_content_and_shape():
    array = np.arange(24, dtype=np.uint8)
    same = {content_digest(array.tobytes()), content_digest(bytearray(array)), content_digest(array)}
    assert len(same) == 1
    shapes = {content_digest(array.reshape(shape)) for shape in ((2, 4, 3), (4, 2, 3), (8, 3), (3, 8))}
    assert len(shapes | same) == 5
    assert content_digest(np.zeros((2, 2), np.uint8)) != content_digest(np.zeros((2, 1), np.uint16))


def test_classes_are_counted_unless_they_are_given(faulty):
    def classes(*words) -> int:
        words = [word for one in words for word in ("-o", one)]
        done = tool_kit.plsc("check-data", "-o", f"data.dataset_dir={faulty}", *words, "--processes", "0", "--json")
        return json.loads(done.stdout)["classes"]

    assert classes() == classes("classifier.num_classes=null") == 7
    assert classes("classifier.num_classes=30") == 30


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["--processes", "-1"], "--processes -1: must be from 0 to 1024"),
        (["--html", "/nowhere/a.html"], "--html /nowhere/a.html: the directory /nowhere does not exist"),
        (["--json", "/nowhere/a.json"], "--json /nowhere/a.json: the directory /nowhere does not exist"),
        (["-o", "data.train_image_num=3"], "data.train_image_num=3: "),
        (["-o", "data.label_file=other.txt"], "other.txt"),
    ],
)
def test_wrong_options_are_one_line(faulty, words, text):
    done = tool_kit.plsc("check-data", "-c", faulty / "x.yaml", *words)
    assert done.returncode != 0 and text in done.stderr and "Traceback" not in done.stderr
    assert not re.search(r"images +\d", done.stdout)
