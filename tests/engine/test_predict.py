"""predict() and test(): numbers, order, going on after a stop, and exported models in place of checkpoints."""

from __future__ import annotations

import csv
import json
import os
import pickle
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from plsc import Entry
from plsc.data import ImageReader
from plsc.engine.inference import predict as predict_module
from plsc.engine.inference import trained_model
from plsc.engine.inference.predictions import PredictionFiles
from plsc.errors import ConfigError, DataError
from plsc.files.working_directory import working_directory
from plsc.serving import Gallery
from tests import tool_kit
from tests import using_kit as kit

ROOT = Path(__file__).resolve().parents[2]


def entry(checkpoint: str, save: Path, **changes) -> Entry:
    return Entry(config=kit.settings(model_save_dir=str(save), checkpoint_dir=str(checkpoint), **changes))


def expected(run: str, count: int) -> np.ndarray:
    return kit.evaluation_program(run, np.concatenate([kit.net_input(kit.pixels(seed)) for seed in range(count)]))


@pytest.mark.parametrize("model", ["checkpoint", "exported"])
def test_a_folder_in_order_with_its_paths(trained_run, exported, tmp_path, model):
    paths = kit.make_folder(tmp_path / "p", 7)  # batches of 3, 3 and 1
    source = trained_run if model == "checkpoint" else exported
    result = entry(source, tmp_path / "out", predict={"images": str(tmp_path / "p")}).predict()
    assert result.paths == paths
    kit.assert_close(result.features, expected(trained_run, 7))
    assert (np.load(result.features_file) == result.features).all() and result.features.dtype == np.float32
    with open(result.paths_file, newline="") as file:
        assert list(csv.reader(file)) == [["row", "path"], *([str(i), path] for i, path in enumerate(paths))]
    assert sorted(os.listdir(tmp_path / "out" / "predictions")) == ["features.npy", "pictures.csv", "predictions.json"]
    found = Gallery.load(str(tmp_path / "out" / "predictions")).search(result.features[4:5])
    assert found.names == [[paths[4]]] and found.index.tolist() == [[4]]


class Runtime(trained_model.PaddleRuntime):
    """Paddle Inference, which counts, and fails if told so."""

    opened, ran, failure = 0, 0, ""

    def __init__(self, *arguments):
        super().__init__(*arguments)
        Runtime.opened += 1

    def run(self, images):
        Runtime.ran += 1
        if Runtime.failure == "raises":
            raise RuntimeError("no such operator\n  [operator < x > error]")
        (feature,) = super().run(images)
        return [feature * (1.001 if Runtime.failure == "is wrong" else 1)]


@pytest.mark.parametrize("failure", ["", "raises", "is wrong"])
def test_a_checkpoint_is_run_by_paddle_inference_where_that_agrees(trained_run, tmp_path, monkeypatch, failure):
    kit.make_folder(tmp_path / "p", 7)
    Runtime.opened, Runtime.ran, Runtime.failure = 0, 0, failure
    monkeypatch.setattr(trained_model, "PaddleRuntime", Runtime)
    keys = {"images": str(tmp_path / "p")}
    result = entry(trained_run, tmp_path / "out", predict=keys, export={"l2_normalise": True}).predict()
    kit.assert_close(result.features, expected(trained_run, 7))  # not of length 1: that is of exports only
    assert Runtime.opened == 1 and Runtime.ran == (1 if failure else 4)  # the comparison, then batches of 3, 3 and 1
    log = (tmp_path / "out" / "logs" / "rank_00000.log").read_text()
    assert ("Paddle Inference cannot run this model, so the evaluation program does:" in log) == bool(failure)
    assert failure != "is wrong" or "differs from the evaluation by 1.0e-03" in log


def test_an_exported_model_says_itself_what_it_needs(trained_run, exported, tmp_path):
    """The settings of the run may be those of another net: those of the model count."""
    kit.make_folder(tmp_path / "p", 2)
    settings = {"model": {"image_shape": [3, 64, 64], "embedding_size": 8}, "data": {"pixel_std": 128.0}}
    result = entry(exported, tmp_path / "out", predict={"images": str(tmp_path / "p")}, **settings).predict()
    kit.assert_close(result.features, expected(trained_run, 2))


def test_the_label_list_and_odd_names(trained_run, tmp_path):
    names = ['a b,"c".png', "d\u00e9\u4e2d.png", "e.png"]
    for seed, name in enumerate(names):
        Image.fromarray(kit.pixels(seed)).save(tmp_path / name)
    (tmp_path / "label.txt").write_text("".join(f"{name}\t0\n" for name in reversed(names)), encoding="utf-8")
    result = entry(trained_run, tmp_path / "out", data={"dataset": "list", "dataset_dir": str(tmp_path)}).predict()
    kit.assert_close(result.features, expected(trained_run, 3)[::-1])
    assert Gallery.load(str(tmp_path / "out" / "predictions")).names == [str(tmp_path / name) for name in names[::-1]]


class Counting:
    """Stands in for what reads images: counts, and stops at the image ``stop``."""

    def __init__(self, monkeypatch, stop: str = ""):
        self.seen, self.stop, self._real = [], stop, ImageReader.with_size
        monkeypatch.setattr(ImageReader, "with_size", lambda reader, *given: self(reader, *given))
        monkeypatch.setattr(predict_module, "CHUNK", 3)

    def __call__(self, reader, path, name):
        if self.stop and path.endswith(self.stop):
            raise KeyboardInterrupt
        self.seen.append(path)
        return self._real(reader, path, name)


def test_what_was_done_is_not_done_again(trained_run, tmp_path, monkeypatch):
    paths = kit.make_folder(tmp_path / "p", 10)
    run = entry(trained_run, tmp_path / "out", predict={"images": str(tmp_path / "p")})
    counting = Counting(monkeypatch, stop="007.png")
    with pytest.raises(KeyboardInterrupt):
        run.predict()
    assert not (tmp_path / "out" / "predictions").exists()
    counting.stop, counting.seen = "", []
    result = run.predict()
    assert set(counting.seen) == set(paths[6:])  # two chunks of 3 were on the disk
    kit.assert_close(result.features, expected(trained_run, 10))
    counting.seen = []
    assert (run.predict().features == result.features).all() and counting.seen == []


@pytest.mark.parametrize(
    "change",
    ["a picture that was done", "another picture first", "other weights", "another resize", "damaged features"],
)
def test_what_no_longer_holds_is_done_again(trained_run, exported, tmp_path, monkeypatch, change):
    paths = kit.make_folder(tmp_path / "p", 5)
    counting = Counting(monkeypatch, stop="004.png")
    keys = {"images": str(tmp_path / "p")}
    with pytest.raises(KeyboardInterrupt):
        entry(trained_run, tmp_path / "out", predict=keys).predict()
    counting.stop, counting.seen = "", []
    model, unfinished = trained_run, tmp_path / "out" / "predictions.unfinished"
    if change == "a picture that was done":
        Image.fromarray(kit.pixels(77)).save(paths[1])
    elif change == "another picture first":
        paths.insert(0, str(tmp_path / "p" / "a" / "0.png"))
        Image.fromarray(kit.pixels(78)).save(paths[0])
    elif change == "other weights":
        model = exported
    elif change == "another resize":
        keys["resize"] = "crop"
    else:
        os.truncate(unfinished / "features.npy", 130)
    assert entry(model, tmp_path / "out", predict=keys).predict().paths == paths
    assert set(counting.seen) == set(paths)


def test_a_picture_that_cannot_be_read_stops_it_and_it_goes_on_once_put_right(trained_run, tmp_path, monkeypatch):
    paths = kit.make_folder(tmp_path / "p", 5)
    Path(paths[4]).write_bytes(b"")
    counting = Counting(monkeypatch)
    run = entry(trained_run, tmp_path / "out", predict={"images": str(tmp_path / "p")})
    with pytest.raises(DataError, match="004.png': not an image"):
        run.predict()
    os.remove(paths[4])
    counting.seen = []
    assert run.predict().paths == paths[:4] and set(counting.seen) == {paths[3]}
    np.testing.assert_array_less(0, np.abs(np.load(tmp_path / "out" / "predictions" / "features.npy")).sum(axis=1))


def test_one_process_at_a_time(trained_run, tmp_path):
    """Two at once removed each other's files."""
    kit.make_folder(tmp_path / "p", 1)
    with working_directory(str(tmp_path / "out"), "another"):
        with pytest.raises(DataError, match="^model_save_dir='.*out': another process is writing '.*out' now; wait"):
            entry(trained_run, tmp_path / "out", predict={"images": str(tmp_path / "p")}).predict()
    assert not (tmp_path / "out" / "predictions.unfinished").exists()


def test_files_that_are_not_ours_stay(trained_run, tmp_path):
    kit.make_folder(tmp_path / "p", 1)
    (tmp_path / "out" / "predictions").mkdir(parents=True)
    (tmp_path / "out" / "predictions" / "mine.npy").write_bytes(b"1")
    with pytest.raises(ConfigError, match="holds no predictions.json"):
        entry(trained_run, tmp_path / "out", predict={"images": str(tmp_path / "p")}).predict()
    assert os.listdir(tmp_path / "out" / "predictions") == ["mine.npy"]


def test_a_users_dataset_is_never_continued(tmp_path):
    """Nothing tells whether its pictures are still the same."""
    features = np.ones((2, 4), np.float32)
    for _ in range(2):
        files = PredictionFiles(str(tmp_path / "p"), ["0", "1"], 4, {}, has_files=False)
        assert files.done == 0 and not files.is_complete
        files.append(features)
        files.finish()
    assert (np.load(tmp_path / "p" / "features.npy") == features).all()


def write_bin(path: Path) -> None:
    """12 pairs in the layout of insightface; of each pair of one identity one picture is the other with some noise."""
    images, same = [], []
    for pair in range(12):
        first = kit.pixels(pair)
        second = np.clip(first.astype(int) + kit.pixels(pair + 50) // 8, 0, 255) if pair % 2 else kit.pixels(pair + 100)
        images += [first, second.astype(np.uint8)]
        same.append(bool(pair % 2))
    path.write_bytes(pickle.dumps((images, same)))


def test_an_exported_model_is_judged_like_its_checkpoint(trained_run, exported, tmp_path):
    write_bin(tmp_path / "own.bin")
    data = {"dataset_dir": str(tmp_path), "val_targets": ["own"]}
    kept = shutil.copytree(exported, tmp_path / "model")
    a, b = (entry(source, tmp_path / "out", data=data).test()["own"] for source in (trained_run, kept))
    assert (a.accuracy, a.auc, a.eer, a.tar_at_far) == (b.accuracy, b.auc, b.eer, b.tar_at_far)
    assert abs(a.xnorm - b.xnorm) < 1e-4 * a.xnorm and abs(a.threshold - b.threshold) < 1e-4
    # fused flip: the same features once more, by a net that adds the mirror image itself
    fused = entry(trained_run, tmp_path / "f", export={"fuse_flip": True, "l2_normalise": True})
    c = entry(fused.convert_for_prediction(), tmp_path / "out", data=data).test()["own"]
    assert (a.accuracy, a.auc) == (c.accuracy, c.auc) and abs(c.xnorm - 1) < 1e-5


def tool(name: str, *arguments: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "plsc", name, *arguments]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=100)


def test_the_commands_take_the_settings_from_the_checkpoint(trained_run, tmp_path):
    """Export, predict by the export, verify by the checkpoint: three commands without a YAML file."""
    kit.make_folder(tmp_path / "p", 3)
    write_bin(tmp_path / "own.bin")
    out = str(tmp_path / "out")
    done = tool("export", "--checkpoint", trained_run, "--output", out, "--images", str(tmp_path / "p"))
    assert done.returncode == 0, done.stderr
    done = tool("predict", "--checkpoint", f"{out}/inference", "--output", out, "--images", str(tmp_path / "p"))
    assert done.returncode == 0, done.stderr
    kit.assert_close(np.load(f"{out}/predictions/features.npy"), expected(trained_run, 3))
    sets = ["-o", f"data.dataset_dir={tmp_path}", "-o", "data.val_targets=[own]"]
    done = tool("verify", "--checkpoint", trained_run, "--output", out, *sets)
    assert done.returncode == 0 and "test: [own] Accuracy-Flip:" in done.stdout, done.stderr
    assert json.loads(Path(out, "inference", "plsc.json").read_text())["agreement"]["images"] == "3 images"


def test_the_commands_say_in_one_line_what_is_wrong(tmp_path):
    done = tool_kit.plsc("predict", "--checkpoint", str(tmp_path / "none"), "--output", str(tmp_path / "out"))
    assert done.returncode == 1 and done.stderr.startswith("plsc: error: ") and done.stderr.count("\n") == 1
    assert "no such directory" in done.stderr and not (tmp_path / "out").exists()
    done = tool_kit.plsc("export", "--checkpoint", str(tmp_path))
    assert done.returncode == 2 and "give -c FILE, or both --checkpoint and --output" in done.stderr
