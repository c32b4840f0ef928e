"""plsc align: transforms and pixels are those of independent references; every image is aligned or told as refused."""

from __future__ import annotations

import importlib.metadata
import json
import os
import signal
import sys
import types

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from plsc.data.alignment import job
from plsc.data.alignment.detector import YuFace
from plsc.data.alignment.images import find_images, output_names
from plsc.data.alignment.job import Style, align_images
from plsc.data.alignment.landmarks import read_landmarks
from plsc.data.alignment.similarity import (
    UnusablePoints,
    align,
    reference_points,
    require_usable,
    similarity,
    spread,
    warp,
)
from plsc.errors import DataError
from plsc.files.working_directory import working_directory
from tests import tool_kit
from tests.faces import copy_faces

# What a detector (yuface 2023.5.1) found in faces of the ORL set.
FACES = {
    "s1/1.pgm": (26.12, 52.12, 60.88, 48.62, 44.88, 71.38, 31.62, 86.62, 62.12, 83.62),
    "s1/2.pgm": (34.12, 43.88, 74.12, 40.12, 63.12, 67.12, 41.38, 88.12, 74.62, 84.88),
    "s1/3.pgm": (23.62, 50.38, 60.62, 46.38, 42.88, 71.38, 30.62, 88.38, 62.62, 84.88),
    "s1/4.pgm": (16.88, 42.38, 54.12, 43.12, 28.12, 66.12, 19.12, 81.88, 50.38, 82.62),
    "s1/5.pgm": (37.38, 43.62, 73.12, 39.38, 63.38, 63.62, 44.38, 83.38, 74.12, 80.12),
    "s2/1.pgm": (29.88, 52.62, 61.12, 47.12, 48.88, 68.12, 38.38, 83.62, 65.12, 78.88),
    "s2/2.pgm": (34.12, 50.88, 63.88, 48.88, 52.12, 68.38, 38.88, 83.88, 63.62, 82.12),
    "s2/3.pgm": (28.88, 52.12, 59.62, 47.88, 46.88, 68.38, 36.12, 85.88, 61.62, 82.12),
    "s2/4.pgm": (34.88, 49.88, 65.12, 47.62, 53.12, 67.38, 39.62, 83.12, 64.88, 81.62),
    "s2/5.pgm": (29.12, 50.12, 60.12, 46.38, 47.12, 66.38, 35.88, 83.38, 62.38, 80.12),
}
# Five points, and what skimage 0.26 (SimilarityTransform.estimate) makes of them for 112 x 112 pixels.
SMALL_FACE = np.array([[50.0, 52.0], [61.5, 50.3], [56.0, 56.0], [52.0, 63.0], [60.0, 62.2]])
BY_SKIMAGE = [[3.3909737137430938, -0.2046591419198895, -121.9250972513812],
              [0.2046591419198895, 3.3909737137430938, -131.80787560255524]]  # fmt: skip
PNG = Style("112x112", "png")
KINDS = ("no landmarks", "several faces", "degenerate points", "mirrored points", "face outside the image",
         "unreadable image")  # fmt: skip


def umeyama(points: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Umeyama 1991, by its SVD, as the paper has it."""
    mean_p, mean_q = points.mean(0), target.mean(0)
    covariance = (target - mean_q).T @ (points - mean_p) / len(points)
    u, d, vt = np.linalg.svd(covariance)
    s = np.diag([1.0, 1.0 if np.linalg.det(u) * np.linalg.det(vt) > 0 else -1.0])
    rotation = u @ s @ vt
    scale = np.trace(np.diag(d) @ s) / np.mean(np.sum((points - mean_p) ** 2, 1))
    return np.hstack([scale * rotation, (mean_q - scale * rotation @ mean_p)[:, None]])


def least_squares(points: np.ndarray, target: np.ndarray) -> np.ndarray:
    """The four numbers of [[a, -b, t], [b, a, u]] by NumPy's solver."""
    rows, values = [], []
    for (x, y), (u, v) in zip(points, target):
        rows += [[x, -y, 1, 0], [y, x, 0, 1]]
        values += [u, v]
    a, b, t, u = np.linalg.lstsq(np.array(rows), np.array(values), rcond=None)[0]
    return np.array([[a, -b, t], [b, a, u]])


@pytest.mark.parametrize("width", [112, 96])
def test_the_transform_is_that_of_umeyama(width):
    draw, target = np.random.default_rng(width), reference_points(width)
    for _ in range(300):
        angle, scale = draw.uniform(-np.pi, np.pi), np.exp(draw.uniform(-3, 3))
        turn = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        exact, shift = target @ turn.T, draw.uniform(-500, 2000, 2)
        points = exact + shift + draw.normal(size=(5, 2)) * scale * draw.uniform(0, 10)
        found = similarity(points, target)
        for expected in (umeyama(points, target), least_squares(points, target)):
            np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-9 * np.abs(expected).max())
        back = similarity(exact + shift, target)
        np.testing.assert_allclose((exact + shift) @ back[:, :2].T + back[:, 2], target, atol=1e-9)


def test_the_transform_is_that_of_skimage():
    expected = np.array(BY_SKIMAGE)
    np.testing.assert_allclose(similarity(SMALL_FACE, reference_points(112)), expected, rtol=1e-12)
    expected[0, 2] -= 8
    np.testing.assert_allclose(similarity(SMALL_FACE, reference_points(96)), expected, rtol=1e-12)


@pytest.fixture(scope="module")
def faces(tmp_path_factory):
    """Two people of the ORL set with five images each, and their landmarks as landmarks.csv beside the folder."""
    root = tmp_path_factory.mktemp("orl")
    copy_faces(root / "faces", 2, range(1, 6))
    write_csv(root / "landmarks.csv", FACES)
    return root


def write_csv(path, rows: dict) -> None:
    path.write_text("".join(f"{name},{','.join(map(str, values))}\n" for name, values in rows.items()))


def pixels_of(path) -> np.ndarray:
    return np.asarray(Image.open(path).convert("RGB"))


@pytest.mark.parametrize("move", [(0, 0, 1), (30, -20, 1), (-20, 40, 1.7), (10, 10, 0.4)])
def test_pixels_are_those_of_scipy(faces, move):
    """Equal but where a value lies within rounding of float64 between two levels. Also where the face is cut off."""
    pixels = pixels_of(faces / "faces" / "s1" / "1.pgm") // np.array([1, 2, 3], np.uint8)  # another value per channel
    points = (np.array(FACES["s1/1.pgm"]).reshape(5, 2) + move[:2]) * move[2]
    matrix = similarity(points, reference_points(112))
    found = warp(pixels, matrix, (112, 112))
    inverse = np.linalg.inv(np.vstack([matrix, [0, 0, 1]]))
    by_rows = inverse[[1, 0]][:, [1, 0, 2]]  # scipy has y before x
    expected = np.stack([
        ndimage.affine_transform(channel.astype(float), by_rows[:, :2], by_rows[:, 2], (112, 112), order=1,
                                 mode="grid-constant")
        for channel in np.moveaxis(pixels, -1, 0)
    ], -1)  # fmt: skip
    assert np.abs(found - expected).max() < 0.5 + 1e-9 and (expected > 0).mean() > 0.1


def test_eyes_come_to_their_place(faces):
    """In the mean of the aligned faces both eyes are darker than the cheeks below; single ones may wear glasses."""
    aligned = [align(pixels_of(faces / "faces" / name), np.array(values).reshape(5, 2), (112, 112))
               for name, values in FACES.items()]  # fmt: skip
    face = np.mean(aligned, 0)
    for x, y in np.rint(reference_points(112)[:2]).astype(int):
        assert face[y - 2 : y + 3, x - 3 : x + 4].mean() < face[y + 18 : y + 23, x - 3 : x + 4].mean() - 10


@pytest.mark.parametrize("points, kind, said", [
    (np.full((5, 2), 7.0), "degenerate points", "one point"),
    (reference_points(112) / 112, "degenerate points", "not in pixels"),
    (reference_points(112) * [1, 0], "degenerate points", "on one line"),
    (reference_points(112) * [1, np.nan], "degenerate points", "not all points are numbers"),
    (reference_points(112) * 1e9, "degenerate points", "not all points are numbers in pixels"),
    (reference_points(112)[[1, 0, 2, 4, 3]], "mirrored points", "left and right"),
    (reference_points(112) + 200, "face outside the image", "outside of 112 x 112 pixels"),
])  # fmt: skip
def test_points_that_cannot_be(points, kind, said):
    with pytest.raises(UnusablePoints, match=said) as caught:
        require_usable(points, 112, 112)
    assert caught.value.kind == kind and "\n" not in str(caught.value)


@pytest.mark.parametrize("degrees", range(0, 360, 30))
def test_a_face_may_be_turned(degrees):
    angle = np.radians(degrees)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    require_usable((reference_points(112) - 56) @ turn.T + 56, 112, 112)


POINTS = np.round(reference_points(112), 2).tolist()
FLAT = [number for pair in POINTS for number in pair]
PERSON = dict(zip(("right_eye", "left_eye", "nose", "mouth_right", "mouth_left"), POINTS))  # as the person has them
VIEWER = dict(zip(("left_eye", "right_eye", "nose", "mouth_left", "mouth_right"), POINTS))
HEAD = "path,x1,y1,x2,y2,x3,y3,x4,y4,x5,y5"
NUMBERS = ",".join(map(str, FLAT))


@pytest.mark.parametrize("text", [
    f"a.jpg,{NUMBERS}\n",
    f"\ufeff\n{HEAD}\na.jpg,{NUMBERS}\n\n",
    f"{HEAD}\na.jpg,{NUMBERS}".replace(",", "\t"),
    f"score,{HEAD}\n0.9,a.jpg,{NUMBERS}\n",
    "path,x1,x2,x3,x4,x5,y1,y2,y3,y4,y5\n./a.jpg," + ",".join(map(str, FLAT[::2] + FLAT[1::2])),  # MTCNN's order
    json.dumps({"path": "a.jpg", "kps": POINTS, "det_score": 0.9}),
    json.dumps({"path": "a.jpg", "landmarks": FLAT}),
    json.dumps({"path": "a.jpg", "keypoints": VIEWER, "box": [1, 2, 3, 4]}),
    json.dumps({"path": "a.jpg", "landmarks": PERSON, "score": 1}),
    json.dumps({"path": "a.jpg", **dict(zip(HEAD.split(",")[1:], FLAT))}) + "\n\n",
])  # fmt: skip
def test_all_formats_give_the_same_points(tmp_path, text):
    (tmp_path / "x").write_text(text)
    found = read_landmarks(str(tmp_path / "x"))
    assert list(found.faces) == ["a.jpg"]
    np.testing.assert_array_equal(found.find("a.jpg", None), [POINTS])
    assert len(found.notes) == text.startswith("score")


@pytest.mark.parametrize("text, said", [
    (f"a.jpg,{NUMBERS}\nb.jpg,1,2\n", r"x':2: has 3 fields, not 11"),
    (f"{HEAD},z\na.jpg,{NUMBERS}\n", r"x':2: has 11 fields, not 12"),
    (f"{HEAD}\n\na.jpg,{NUMBERS}\nb.jpg,{NUMBERS[:-1]}x", r"x':4: not all coordinates are numbers: 38.29"),
    (f"{HEAD[:-3]}\n", r"x':1: the header has 0 columns y5; it needs path, x1"),
    (f",{NUMBERS}", r"x':1: has no path"),
    ("", r"x': has no landmarks; a line is"),
    ("a.jpg,,,,,,,,,,\n", r"x': has no landmarks"),
    ('{"path": "a.jpg"}', r"x':1: needs one of landmarks, kps, keypoints, or x1"),
    ('{"path": "a.jpg", "kps": [[1, 2]]}', r"x':1: has 2 numbers; five points"),
    ('{"path": "a.jpg", "kps": [[1, 2, 3, 4, 5], [1, 2, 3, 4, 5]]}', r"x':1: has 10 numbers; five points"),
    ('{"path": "a.jpg", "kps": 7}', r"x':1: has 1 numbers"),
    ('{"path": "a.jpg", "kps": ["1", 2, 3, 4, 5, 6, 7, 8, 9, 0]}', r"x':1: not all coordinates are numbers"),
    ('{"path": "a.jpg", "landmarks": {"nose": [1, 2]}}', r"x':1: landmarks lacks left_eye; there must be"),
    ('{"path": 7, "kps": []}', r"x':1: has no path"),
    ('{"path": "a.jpg", "kps": []}\n{', r"x':2: not JSON; a line is a JSON object"),
    ('{"path": "a.jpg", "kps": [[NaN, 2]]}', r"x':1: holds NaN"),
    ('{"path": "a.jpg", "kps": []}\n{"path": "' + "a" * 2**20, r"x':2: the line has 1,048,576 characters or more"),
    ("a.jpg" + "," * 2**20, r"x':1: the line has 1,048,576 characters or more"),
])  # fmt: skip
def test_a_bad_landmark_file_is_refused_in_one_line(tmp_path, text, said):
    (tmp_path / "x").write_text(text)
    with pytest.raises(DataError, match=said) as caught:
        read_landmarks(str(tmp_path / "x"))
    assert "\n" not in str(caught.value)


def run(root, output, processes=0, style=PNG, images="faces", log=lambda line: None):
    found = find_images(str(root / images))
    landmarks = read_landmarks(str(root / "landmarks.csv"), found.key)
    return align_images(found, landmarks, style, str(output), processes, log)


def contents(folder) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_the_command(faces, tmp_path):
    words = ["align", faces / "faces", "--landmarks", faces / "landmarks.csv", "--processes", "0"]
    done = tool_kit.plsc(*words, "--output", tmp_path / "out", "--format", "png")
    assert done.returncode == 0 and done.stdout == f"{tmp_path / 'out'}: 10 of 10 images aligned to 112x112 pixels\n"
    assert sorted(os.listdir(tmp_path)) == ["out"]
    assert sorted(contents(tmp_path / "out")) == sorted(name.replace("pgm", "png") for name in FACES)
    for name, values in FACES.items():
        image = Image.open(tmp_path / "out" / name.replace("pgm", "png"))
        assert image.mode == "L"  # as the original
        face = align(pixels_of(faces / "faces" / name), np.array(values).reshape(5, 2), (112, 112))
        np.testing.assert_array_equal(np.asarray(image), face[:, :, 0])
    done = tool_kit.plsc(*words, "--output", tmp_path / "small", "--size", "96x112", "--quiet")
    wide, narrow = (np.asarray(Image.open(tmp_path / name), int) for name in ("out/s1/1.png", "small/s1/1.jpg"))
    assert narrow.shape == (112, 96) and np.abs(wide[:, 8:-8] - narrow).mean() < 2  # JPEG of quality 95


def test_every_kind_that_is_refused_is_told(faces, tmp_path):
    """Six images that cannot be aligned among ten that can."""
    copy_faces(tmp_path / "faces", 2, range(1, 6))
    rows = {**FACES, "s2/6.pgm": [7] * 10, "s2/7.pgm": FACES["s2/1.pgm"][2:4] + FACES["s2/1.pgm"][:2]
            + FACES["s2/1.pgm"][4:], "s2/8.pgm": np.add(FACES["s2/1.pgm"], 300), "s2/9.pgm": FACES["s2/1.pgm"],
            "s2/10.pgm": FACES["s2/1.pgm"], "gone/1.pgm": FACES["s2/1.pgm"]}  # fmt: skip
    for number in (5, 6, 7, 8, 9, 10):
        name = tmp_path / "faces" / "s2" / f"{number}.pgm"
        name.write_bytes((tmp_path / "faces" / "s1" / "1.pgm").read_bytes()[: 900 if number == 9 else None])
    (tmp_path / "faces" / "s1" / "a.pgm").write_bytes((tmp_path / "faces" / "s1" / "1.pgm").read_bytes())
    (tmp_path / "faces" / "s1" / "text.txt").write_text("x")
    write_csv(tmp_path / "landmarks.csv", rows)
    with open(tmp_path / "landmarks.csv", "a") as file:
        file.write(f"s2/10.pgm,{','.join(map(str, np.multiply(FACES['s2/1.pgm'], 0.5)))}\n")
    words = ["align", tmp_path / "faces", "--landmarks", tmp_path / "landmarks.csv", "--processes", "2"]
    done = tool_kit.plsc(*words, "--output", tmp_path / "out")
    assert done.returncode == 1 and done.stderr == ""
    lines = done.stdout.splitlines()
    assert "passed over 1 file(s) that are no images by their names" in lines[0]
    assert lines[1] == "landmarks: 1 images that are not there, such as 'gone/1.pgm'"
    assert lines[2] == f"{tmp_path / 'out'}: 10 of 16 images aligned to 112x112 pixels"
    assert sorted(line.split(",")[1].split(":")[0].strip() for line in lines[3:-1]) == sorted(KINDS)
    assert all(": 1, such as 's" in line for line in lines[3:-1])
    listed = [line.split("\t") for line in (tmp_path / "out.refused.tsv").read_text().splitlines()]
    assert {(path, kind) for path, kind, _ in listed} == set(zip(
        ("s1/a.pgm", "s2/10.pgm", "s2/6.pgm", "s2/7.pgm", "s2/8.pgm", "s2/9.pgm"), KINDS))  # fmt: skip
    assert len(contents(tmp_path / "out")) == 10
    done = tool_kit.plsc(*words, "--output", tmp_path / "largest", "--several-faces", "largest", "--quiet")
    assert "11 of 16 images aligned" in done.stdout
    one, other = (np.asarray(Image.open(tmp_path / "largest" / name)) for name in ("s2/10.jpg", "s2/1.jpg"))
    assert one.shape == other.shape  # of the larger face: the same transform as of s2/1
    expected = align(pixels_of(tmp_path / "faces/s2/10.pgm"), np.array(FACES["s2/1.pgm"]).reshape(5, 2), (112, 112))
    assert np.abs(one.astype(int) - expected[:, :, 0]).mean() < 2


def test_any_number_of_processes_and_a_list(faces, tmp_path, monkeypatch):
    monkeypatch.setattr(job, "BLOCK", 3)
    for processes in (0, 1, 3):
        run(faces, tmp_path / str(processes), processes)
        assert contents(tmp_path / str(processes)) == contents(tmp_path / "0")
    (faces / "faces" / "some.txt").write_text("s2/3.pgm\t1\n\ns1/1.pgm\t0\n")
    done = run(faces, tmp_path / "list", images="faces/some.txt")
    (faces / "faces" / "some.txt").unlink()
    assert done.images == done.aligned == 2
    assert contents(tmp_path / "list").items() < contents(tmp_path / "0").items()


@pytest.mark.parametrize("stop", [1, 2, 4, 5])
def test_an_interrupted_alignment_goes_on(faces, tmp_path, monkeypatch, stop):
    """Killed while a block is worked on, twice; then the same bytes as without a break, each refusal told once."""
    monkeypatch.setattr(job, "BLOCK", 2)
    monkeypatch.setattr(job, "LOG_SECONDS", 0)
    write_csv(tmp_path / "landmarks.csv", {name: FACES[name] for name in FACES if name != "s1/2.pgm"})
    (tmp_path / "faces").symlink_to(faces / "faces")
    run(tmp_path, tmp_path / "straight")
    real, calls = job.Job.block, []

    class Killed(BaseException):
        pass

    def once(self, first):
        calls.append(first)
        if len(calls) == stop:
            (tmp_path / "out.unfinished" / "refused.tsv").open("a").write("half a li")
            raise Killed
        return real(self, first)

    lines = []
    with monkeypatch.context() as patch:
        patch.setattr(job.Job, "block", once)
        for _ in range(2):
            calls.clear()
            try:
                run(tmp_path, tmp_path / "out", log=lines.append)
            except Killed:
                assert (tmp_path / "out.unfinished").is_dir() and not (tmp_path / "out").exists()
    if not (tmp_path / "out").exists():
        run(tmp_path, tmp_path / "out", log=lines.append)
    assert contents(tmp_path / "out") == contents(tmp_path / "straight")
    assert (tmp_path / "out.refused.tsv").read_bytes() == (tmp_path / "straight.refused.tsv").read_bytes()
    assert stop == 1 or lines.count(f"goes on behind {2 * (stop - 1)} of 10 images") == 1, lines
    assert any("of 10 images (" in line and "a second, 0:00:0" in line for line in lines)
    assert not (tmp_path / "out.unfinished").exists()


def test_nothing_that_is_there_is_replaced(faces, tmp_path, monkeypatch):
    (tmp_path / "out").mkdir()
    with pytest.raises(DataError, match="out': is there already; give another place"):
        run(faces, tmp_path / "out")
    (tmp_path / "mine.unfinished").mkdir()
    (tmp_path / "mine.unfinished" / "precious").write_text("x")
    with pytest.raises(DataError, match="mine.unfinished': is there, and no alignment that could be continued"):
        run(faces, tmp_path / "mine")
    assert (tmp_path / "mine.unfinished" / "precious").read_text() == "x"
    with monkeypatch.context() as patch:
        patch.setattr(job, "put_directory", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            run(faces, tmp_path / "half")
    for style in (Style("96x112", "png"), Style("112x112", "jpg")):
        with pytest.raises(DataError, match="half.unfinished': holds other images or points half aligned; remove it"):
            run(faces, tmp_path / "half", style=style)
    assert run(faces, tmp_path / "half").aligned == 10


@pytest.mark.parametrize("output", ["faces/aligned", "faces/a/../b"])
def test_no_output_among_the_images(faces, output):
    """It would be a class of the folder from then on."""
    with pytest.raises(DataError, match="is in the folder of the images, .*; give a place outside"):
        run(faces, faces / output)
    assert not list(faces.glob("faces/aligned*")) and not list(faces.glob("faces/b*"))


def test_one_process_at_a_time(faces, tmp_path):
    with working_directory(str(tmp_path / "out.unfinished"), "another"):
        with pytest.raises(DataError, match="^--output '.*out': another process is writing '.*out.unfinished' now"):
            run(faces, tmp_path / "out")
        assert not list((tmp_path / "out.unfinished").iterdir())
    assert run(faces, tmp_path / "out").aligned == 10


@pytest.mark.parametrize("lines, said", [
    ("/etc/x.jpg\n", "list.txt':1: '/etc/x.jpg' is not below the directory of the list"),
    ("a.jpg\nb/../../x.jpg\n", "list.txt':2: .* is not below the directory of the list"),
    ("a.jpg\n./a.jpg\n", "list.txt':2: './a.jpg' is in line 1 already"),
    ("\n", "no images; give a folder of images, or a list"),
])  # fmt: skip
def test_lists_that_cannot_be(tmp_path, lines, said):
    (tmp_path / "list.txt").write_text(lines)
    with pytest.raises(DataError, match=said):
        find_images(str(tmp_path / "list.txt"))


def test_names_and_paths(tmp_path):
    assert output_names(["a/1.jpeg", "a/b.c", "1.PNG"], "jpg") == ["a/1.jpg", "a/b.c.jpg", "1.jpg"]
    with pytest.raises(DataError, match="'a/1.png' and 'a/1.jpg' would both become 'a/1.jpg': rename one"):
        output_names(["a/1.jpg", "a/1.png"], "jpg")
    (tmp_path / "faces" / "faces").mkdir(parents=True)
    for name in ("1.jpg", "faces/1.jpg"):
        (tmp_path / "faces" / name).touch()
    found = find_images(str(tmp_path / "faces"))
    assert found.paths == ["1.jpg", "faces/1.jpg"]
    assert found.key("./1.jpg") == found.key(str(tmp_path / "faces" / "1.jpg")) == "1.jpg"
    short = type(found)("faces", found.paths)
    assert short.key("faces/1.jpg") == "faces/1.jpg"  # there is such an image
    assert short.key("faces/2.jpg") == "2.jpg"
    with pytest.raises(DataError, match="images: '.*gone' cannot be read|gone': cannot be read"):
        find_images(str(tmp_path / "gone"))


def test_landmarks_of_other_images_only(faces, tmp_path):
    (tmp_path / "x.csv").write_text(f"elsewhere/1.jpg,{NUMBERS}\n")
    done = tool_kit.plsc("align", faces / "faces", "--landmarks", tmp_path / "x.csv", "--output", tmp_path / "out")
    assert done.returncode == 1 and done.stderr.count("\n") == 1
    assert "no image has landmarks: their file names 'elsewhere/1.jpg', the images are 's1/1.pgm'" in done.stderr
    assert os.listdir(tmp_path) == ["x.csv"]


def test_a_process_that_ends_is_told(faces, tmp_path, monkeypatch):
    monkeypatch.setattr(job.Job, "_one", lambda self, index: os.kill(os.getpid(), signal.SIGKILL))
    with pytest.raises(DataError, match="alignment of images 0 and after: a process that decodes ended"):
        run(faces, tmp_path / "out", 2)


class FakeYuFace(types.ModuleType):
    """Gives the faces that it was told, in the form of the package. faces: points as fractions of width and height."""

    def detect(self, image):
        assert image.flags.c_contiguous and image.dtype == np.uint8 and max(image.shape) <= 960
        assert image[0, 0].tolist() == [3, 2, 1]  # blue, green, red
        self.sizes.append(image.shape[:2])
        faces = self.faces(len(self.sizes)) if callable(self.faces) else self.faces
        rows = [np.rint(face * [image.shape[1], image.shape[0]] - 0.5).reshape(-1) for face in faces]
        points = np.array(rows, np.int16).reshape(-1, 10)
        return points[:, 0], points[:, :4], points


@pytest.fixture
def fake_yuface(monkeypatch):
    module = FakeYuFace("yuface")
    module.sizes = []
    monkeypatch.setitem(sys.modules, "yuface", module)
    monkeypatch.setattr("importlib.metadata.version", lambda name: "1" if name == "yuface" else pytest.fail(name))
    return module


SMALL, LARGE = (reference_points(112) * size / 112 + place for size, place in ((0.2, 0.1), (0.4, 0.5)))


@pytest.mark.parametrize("width, height, scaled", [
    (160, 120, (480, 640)), (1600, 1200, (480, 640)), (60, 100, (400, 240)), (1, 900, (640, 1)),
])  # fmt: skip
def test_points_of_a_detector_are_those_of_the_image(fake_yuface, width, height, scaled):
    """To half a pixel of the size in which faces are looked for, as its coordinates are integers; the largest first."""
    fake_yuface.faces = [SMALL, LARGE]
    found = YuFace().find("x", np.full((height, width, 3), (1, 2, 3), np.uint8))
    assert fake_yuface.sizes == [scaled]
    for points, expected in zip(found, (LARGE, SMALL)):
        error = np.abs(points - (expected * [width, height] - 0.5))
        assert (error <= 0.5 * np.array([width, height]) / scaled[::-1] + 1e-9).all()
    fake_yuface.faces = []
    assert YuFace().find("x", np.full((height, width, 3), (1, 2, 3), np.uint8)) == []


def test_alignment_by_a_detector(fake_yuface, faces, tmp_path):
    """One face, none, two: by one process, in the order of the names."""
    (tmp_path / "photos").mkdir()
    for name in "abc":
        pixels = pixels_of(faces / "faces" / "s1" / "1.pgm").repeat(2, 0).repeat(2, 1)
        pixels[:10, :10] = (1, 2, 3)
        Image.fromarray(pixels).save(tmp_path / "photos" / f"{name}.png")
    face = (np.array(FACES["s1/1.pgm"]).reshape(5, 2) + 0.5) / [92, 112]
    fake_yuface.faces = lambda call: [[face], [], [face * 0.4, face]][(call - 1) % 3]
    words = ["align", tmp_path / "photos", "--detector", "yuface", "--processes", "0", "--format", "png", "--output"]
    done = tool_kit.plsc(*words, tmp_path / "out")
    assert done.returncode == 1 and list(contents(tmp_path / "out")) == ["a.png"], done.stderr
    assert [line[:24] for line in done.stdout.splitlines()[1:3]] == [
        "refused, no landmarks: 1",
        "refused, several faces: ",
    ]
    done = tool_kit.plsc(*words, tmp_path / "largest", "--several-faces", "largest")
    found = contents(tmp_path / "largest")
    assert done.returncode == 1 and list(sorted(found)) == ["a.png", "c.png"] and found["a.png"] == found["c.png"]
    aligned = np.asarray(Image.open(tmp_path / "out" / "a.png").convert("L"), int)
    expected = align(pixels_of(faces / "faces" / "s1" / "1.pgm"), np.array(FACES["s1/1.pgm"]).reshape(5, 2), (112, 112))
    assert np.abs(aligned - expected[:, :, 0])[30:100, 30:80].mean() < 6  # half a pixel of the detector


def test_a_detector_that_is_not_there(tmp_path, monkeypatch):
    def version(name):
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr("importlib.metadata.version", version)
    (tmp_path / "a.png").touch()
    done = tool_kit.plsc("align", tmp_path, "--detector", "yuface", "--output", tmp_path / "out")
    assert done.returncode == 1 and done.stderr.count("\n") == 1
    assert "needs the package yuface, for Python 3.9 to 3.11: `pip install yuface==2023.5.1`" in done.stderr


def test_spread_is_the_size_of_a_face():
    assert spread(3 * reference_points(112) + 9) == pytest.approx(3 * spread(reference_points(96)), rel=1e-12)
