"""Predictor: any kind of image, batches, similarity, search, and models that cannot be opened."""

from __future__ import annotations

import io
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from plsc import Predictor
from plsc.errors import ConfigError, DataError, ExportError
from plsc.serving import Gallery, runtimes
from tests import using_kit as kit


@pytest.fixture(scope="module")
def predictor(exported) -> Predictor:
    return Predictor(exported, batch_size=2)


def png(image: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG")
    return buffer.getvalue()


def test_every_kind_of_image_gives_what_the_evaluation_program_gives(trained_run, predictor, tmp_path):
    image = kit.pixels(1)
    file = tmp_path / "picture.png"
    file.write_bytes(png(image))
    kinds = [image, image[None][0], str(file), file, png(image), bytearray(png(image)), Image.open(file),
             np.frombuffer(png(image), np.uint8), image.astype(np.uint16) << 8]  # fmt: skip
    expected = kit.evaluation_program(trained_run, kit.net_input(image))
    for kind in kinds:  # each alone
        found = predictor.embed(kind)
        assert found.shape == (1, kit.SIZE) and found.dtype == np.float32
        kit.assert_close(found, expected)
    kit.assert_close(predictor.embed(kinds), np.repeat(expected, len(kinds), 0))


def test_batches_keep_the_order(trained_run, predictor, monkeypatch):
    sizes, run = [], predictor.run
    monkeypatch.setattr(predictor, "run", lambda images: sizes.append(len(images)) or run(images))
    images = [kit.pixels(seed) for seed in range(5)]  # batches of 2, 2 and 1
    expected = kit.evaluation_program(trained_run, np.concatenate([kit.net_input(image) for image in images]))
    kit.assert_close(predictor.embed(images), expected)
    kit.assert_close(predictor.embed(np.stack(images)), expected)
    kit.assert_close(predictor.embed(image for image in images), expected)
    assert sizes == [2, 2, 1] * 3 and predictor.embed([]).shape == (0, kit.SIZE)
    assert np.linalg.norm(expected[0] - expected[1]) > 0.01 * np.linalg.norm(expected[0])  # or the order would not show


def test_other_sizes(trained_run, exported):
    """Stretched and cropped as Pillow does it; the crop of a wider image is its middle."""
    wide = kit.pixels(3, height=64, width=160)
    stretched = np.asarray(Image.fromarray(wide).resize((48, 32), Image.Resampling.BILINEAR))
    middle = np.asarray(Image.fromarray(wide[:, 32:128]).resize((48, 32), Image.Resampling.BILINEAR))
    for resize, image in (("stretch", stretched), ("crop", middle)):
        expected = kit.evaluation_program(trained_run, kit.net_input(image))
        kit.assert_close(Predictor(exported, resize=resize).embed(wide), expected)
    with pytest.raises(DataError, match="is 160 x 64 pixels .*requires 48 x 32"):
        Predictor(exported, resize="refuse").embed(wide)


def test_similarity_and_search(predictor):
    images = [kit.pixels(seed) for seed in range(4)]
    embeddings = predictor.embed(images)
    cosines = kit.unit(embeddings[:2]) @ kit.unit(embeddings).T
    np.testing.assert_allclose(predictor.similarity(images[:2], images), cosines, atol=1e-5)
    np.testing.assert_allclose(predictor.similarity(embeddings[0], embeddings), cosines[:1], atol=1e-5)
    gallery = Gallery(embeddings, [f"p{i}" for i in range(4)])
    found = predictor.search(gallery, images[:2], k=3)
    order = np.argsort(-cosines, axis=1)[:, :3]
    assert (found.index == order).all() and found.names == [[f"p{i}" for i in row] for row in order]
    np.testing.assert_allclose(found.cosine, np.take_along_axis(cosines, order, 1), atol=1e-5)
    assert predictor.search(embeddings, images[3], k=9).index.shape == (1, 4)


@pytest.mark.parametrize("given, message", [
    (b"no picture", "not an image in one of JPEG"),
    ("/nowhere/x.png", "'/nowhere/x.png': cannot be decoded: No such file"),
    (7, "int is neither an image nor an iterable of images"),
    ([kit.pixels(0), None], "must be bytes, a path, an array or a PIL image, not NoneType"),
    (np.zeros((32, 48, 3), np.float32), "pixels must be uint8 or uint16"),
])  # fmt: skip
def test_what_is_no_image(predictor, given, message):
    with pytest.raises(DataError, match=message):
        predictor.embed(given)


def test_the_decoder_changes_no_pixel(exported, monkeypatch):
    """JPEG as a path and as bytes: Pillow, what is installed, and a decoder of which one can see that it was asked."""
    buffer = io.BytesIO()
    Image.fromarray(kit.pixels(4)).save(buffer, "JPEG", quality=90, subsampling=2)
    encoded = buffer.getvalue()
    by_pillow = Predictor(exported, decoder="pillow").prepare(encoded)
    np.testing.assert_array_equal(Predictor(exported).prepare(encoded), by_pillow)
    asked = []

    def seen(data, is_good):
        asked.append(len(data))
        return None  # leaves it to Pillow

    monkeypatch.setattr("plsc.serving.predictor.open_jpeg_decoder", lambda setting: seen if setting == "auto" else None)
    np.testing.assert_array_equal(Predictor(exported).prepare(encoded), by_pillow)
    assert asked == [len(encoded)]


def test_wrong_arguments(exported, predictor):
    several = {"resize": "squash"}, {"batch_size": 0}, {"threads": -1}, {"runtime": "torch"}, {"device": "tpu"}
    for wrong in (*several, {"decoder": "opencv"}):
        with pytest.raises(ConfigError, match=f"{next(iter(wrong))}="):
            Predictor(exported, **wrong)
    with pytest.raises(ConfigError, match="device='gpu': Paddle sees no GPU"):
        Predictor(exported, device="gpu")
    with pytest.raises(DataError, match="must be float32"):
        predictor.run(np.zeros((1, 3, 48, 32), np.float32))
    with pytest.raises(ExportError, match="was exported without its classes"):
        predictor.scores(kit.pixels(0))
    with pytest.raises(ExportError, match="was not exported for onnx, only for paddle"):
        Predictor(exported, "onnx")


@pytest.mark.parametrize("damage, message", [
    (lambda d: (d / "plsc.json").unlink(), "No such file or directory; give the directory that `plsc export`"),
    (lambda d: (d / "plsc.json").write_text("{"), "damaged, not JSON"),
    (lambda d: (d / "plsc.json").write_text("[]"), "does not describe a model exported by PLSC"),
    (lambda d: edit(d, version=9), "version 9 is unknown"),
    (lambda d: edit(d, image_shape=[3, 0, 1]), "damaged at image_shape"),
    (lambda d: edit(d, files={"../x": {"bytes": 1, "sha256": ""}}), "damaged at files"),
    (lambda d: (d / "backbone.pdiparams").write_bytes(b"x"), "differs from the exported file"),
    (lambda d: edit(d, models={"paddle": list(reversed(models(d)))}), "damaged at models"),
    (lambda d: edit(d, num_classes=5), "damaged at outputs"),
    (lambda d: (d / "backbone.pdiparams").unlink(), "backbone.pdiparams: No such file"),
])  # fmt: skip
def test_a_damaged_model_is_one_line(exported, tmp_path, damage, message):
    copy = Path(shutil.copytree(exported, tmp_path / "copy"))
    damage(copy)
    with pytest.raises(ExportError, match=message) as caught:
        Predictor(copy)
    assert "\n" not in str(caught.value)


def models(directory: Path) -> list[str]:
    return json.loads((directory / "plsc.json").read_text())["models"]["paddle"]


def edit(directory: Path, **changes) -> None:
    file = directory / "plsc.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))


def test_onnx_needs_no_paddle(trained_run, tmp_path):
    """In a process in which Paddle cannot be imported; `auto` finds the runtime that is there."""
    from plsc import Entry

    settings = kit.settings(model_save_dir=str(tmp_path), checkpoint_dir=trained_run, export={"format": "both"})
    directory = Entry(config=settings).convert_for_prediction()
    np.save(tmp_path / "image.npy", kit.pixels(1))
    code = (
        "import sys, numpy\n"
        "import importlib.util as u; find = u.find_spec\n"
        "u.find_spec = lambda name, *rest: None if name == 'paddle' else find(name, *rest)\n"
        "sys.modules['paddle'] = None\n"
        "from plsc import Predictor\n"
        f"p = Predictor({directory!r}); assert p.runtime == 'onnx'\n"
        f"numpy.save({str(tmp_path / 'out.npy')!r}, p.embed(numpy.load({str(tmp_path / 'image.npy')!r})))"
    )
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    expected = kit.evaluation_program(trained_run, kit.net_input(kit.pixels(1)))
    kit.assert_close(np.load(tmp_path / "out.npy"), expected)


def test_a_missing_onnx_runtime_is_one_line(monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(ExportError, match="ONNX Runtime is not installed; install it with `pip install 'onnxruntime>="):
        runtimes.OnnxRuntime("x.onnx", runtimes.RuntimeOptions(1, "cpu"))
