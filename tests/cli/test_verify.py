"""plsc verify: the table, the JSON and the page are of one verification, and bad places are refused at once."""

from __future__ import annotations

import base64
import io
import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from plsc import Entry
from plsc.cli.main import main
from plsc.data import normalise
from plsc.engine.evaluation.outputs import pixels
from plsc.errors import DataError
from plsc.evaluation.bin_file import load_bin
from plsc.evaluation.verification import Verification
from tests.engine.test_predict import write_bin


def run(trained_run: str, directory: Path, **files) -> dict[str, Verification]:
    arguments = ["verify", "--checkpoint", trained_run, "--output", directory / "out"]
    arguments += ["-o", f"data.dataset_dir={directory}", "-o", "data.val_targets=[own]"]
    for option, path in files.items():
        arguments += [f"--{option}", path]
    results = {}
    with pytest.MonkeyPatch.context() as patched:
        test = Entry.test
        patched.setattr(Entry, "test", lambda *words: results.update(test(*words)) or results)
        assert main(list(map(str, arguments))) == 0
    return results


def test_all_three_tell_the_same(trained_run, tmp_path, capsys):
    write_bin(tmp_path / "own.bin")
    result = run(trained_run, tmp_path, json=tmp_path / "a.json", html=tmp_path / "a.html")["own"]
    text = (tmp_path / "a.json").read_text()
    told = json.loads(text)
    assert text == json.dumps(told, indent=2, ensure_ascii=False) + "\n"  # indented, as all commands write it
    assert told["step"] == 4 and told["net"].endswith("step_00000004") and list(told["sets"]) == ["own"]
    own = told["sets"]["own"]
    for name in ("accuracy", "accuracy_std", "threshold", "auc", "eer", "xnorm", "num_same", "num_different"):
        assert own[name] == getattr(result, name), name
    assert own["tar_at_far"] == {f"{far:g}": tar for far, tar in result.tar_at_far.items()}
    np.testing.assert_allclose(own["roc"]["tpr"], result.tpr, atol=1e-6)  # written with six digits
    page, table = (tmp_path / "a.html").read_text(), capsys.readouterr().out
    for text in (f"{100 * result.accuracy:.2f} % +- {100 * result.accuracy_std:.2f}", f"{result.auc:.5f}"):
        assert text in page and text in table


def test_the_pictures_on_the_page_are_those_of_the_file(trained_run, tmp_path):
    write_bin(tmp_path / "own.bin")
    run(trained_run, tmp_path, html=tmp_path / "a.html")
    shown = re.findall(r'alt="image (\d+)" src="data:image/jpeg;base64,([^"]+)"', (tmp_path / "a.html").read_text())
    assert shown, "a net of four steps is never wrong?"
    images = load_bin(tmp_path / "own.bin").images
    for index, jpeg in shown:
        again = io.BytesIO()
        Image.fromarray(images[int(index)]).save(again, "JPEG", quality=85)
        with Image.open(io.BytesIO(base64.b64decode(jpeg))) as picture, Image.open(again) as expected:
            assert np.array_equal(np.asarray(picture), np.asarray(expected))


@pytest.mark.parametrize("std", [127.5, 128.0])
def test_pixels_is_the_inverse_of_normalise(std):
    image = np.arange(256, dtype=np.uint8).repeat(3).reshape(16, 16, 3)[:, :9].copy()
    assert np.array_equal(pixels(normalise(image, std), std), image)
    assert np.array_equal(pixels(normalise(image[:, :, :1], std), std), image)  # one channel: grey


@pytest.fixture
def no_work(monkeypatch):
    monkeypatch.setattr("plsc.engine.inference.trained_model.open_model", lambda run: pytest.fail("the net was opened"))


@pytest.mark.parametrize("option", ["json", "html"])
def test_a_place_that_cannot_be_written_is_refused_before_the_work(trained_run, tmp_path, no_work, option):
    write_bin(tmp_path / "own.bin")
    with pytest.raises(
        DataError, match=rf"--{option} .*nowhere/x: the directory .*nowhere does not exist; create it first"
    ):
        run(trained_run, tmp_path, **{option: tmp_path / "nowhere" / "x"})


def test_a_directory_is_no_file(trained_run, tmp_path, no_work):
    write_bin(tmp_path / "own.bin")
    with pytest.raises(DataError, match="is a directory; give the name of a file"):
        run(trained_run, tmp_path, html=tmp_path)
