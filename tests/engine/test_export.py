"""Exported models against the evaluation program, and what an export does to the disk."""

from __future__ import annotations

import hashlib
import json
import os
import resource
from importlib import metadata
from pathlib import Path

import numpy as np
import pytest

from plsc import Entry, Predictor
from plsc.engine.export import export, onnx
from plsc.engine.inference import agreement, output_dir
from plsc.errors import CheckpointError, ConfigError, ExportError
from plsc.serving import read_description
from tests import using_kit as kit

KINDS = ["paddle", "onnx"]


def entry(run: str, save: Path, changes: dict | None = None, **keys) -> Entry:
    return Entry(config=kit.settings(model_save_dir=str(save), checkpoint_dir=run, export=keys, **(changes or {})))


def images() -> np.ndarray:
    return np.concatenate([kit.net_input(kit.pixels(seed)) for seed in range(5)])


def tree(directory) -> dict[str, str]:
    """Every file below with its hash."""
    files = [path for path in Path(directory).rglob("*") if path.is_file()]
    return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.mark.parametrize(
    "kind, flip, normalise",
    [("paddle", True, True), ("paddle", True, False), ("paddle", False, True),
     ("onnx", True, True)],
)  # fmt: skip
def test_embeddings_and_scores_are_those_of_the_trained_net(trained_run, tmp_path, kind, flip, normalise):
    directory = entry(
        trained_run, tmp_path, format=kind, fuse_flip=flip, l2_normalise=normalise, with_classifier=True
    ).convert_for_prediction()
    predictor = Predictor(directory, kind)
    found = predictor.run(images())
    feature = kit.evaluation_program(trained_run, images()).astype(np.float64)
    if flip:
        feature = (feature + kit.evaluation_program(trained_run, images()[:, :, :, ::-1].copy())) / 2
    kit.assert_close(found[0], kit.unit(feature) if normalise else feature)
    scores = 64.0 * kit.unit(feature) @ kit.unit(kit.stored_centres(trained_run)).T
    kit.assert_close(found[1], scores)
    for batch in (1, 2):  # the batch is free, and pictures do not see each other
        kit.assert_close(predictor.run(images()[:batch])[0], found[0][:batch])


def test_both_formats_agree_with_each_other(trained_run, tmp_path):
    directory = entry(trained_run, tmp_path, format="both").convert_for_prediction()
    description = read_description(directory)
    paddle_, onnx_ = (Predictor(directory, kind).run(images())[0] for kind in ("paddle", "onnx"))
    kit.assert_close(paddle_, onnx_)
    assert 0 < description.agreement["between"] < 1e-4 and set(description.models) == {"paddle", "onnx"}


@pytest.mark.parametrize("kind", KINDS)
def test_a_net_in_nhwc_comes_out_as_nchw_with_the_same_numbers(trained_run, tmp_path, kind):
    nhwc = {"model": {"data_format": "NHWC"}}  # of the same weights: their layout does not depend on it
    directory = entry(trained_run, tmp_path, nhwc, format=kind).convert_for_prediction()
    expected = kit.evaluation_program(trained_run, images(), **nhwc)
    kit.assert_close(Predictor(directory, kind).run(images())[0], expected)


@pytest.mark.once  # its operations are those of the other nets
def test_mobilefacenet(tmp_path):
    net = {"model": {"name": "MobileFaceNet"}}
    run = kit.train(tmp_path / "run", train_steps=1, **net)
    directory = entry(run, tmp_path / "out", net, format="both").convert_for_prediction()
    expected = kit.evaluation_program(run, images(), **net)
    for kind in KINDS:
        kit.assert_close(Predictor(directory, kind).run(images())[0], expected)


def test_softmax_scores_are_logits(tmp_path):
    changes = {"classifier": {"num_classes": kit.CLASSES, "loss_type": "softmax"}}
    run = kit.train(tmp_path / "run", train_steps=1, **changes)
    directory = entry(run, tmp_path / "out", changes, with_classifier=True, fuse_flip=True).convert_for_prediction()
    feature = kit.evaluation_program(run, images(), **changes).astype(np.float64)
    feature = (feature + kit.evaluation_program(run, images()[:, :, :, ::-1].copy(), **changes)) / 2
    rows = kit.stored_centres(run)
    expected = feature @ rows[:, : kit.SIZE].T + rows[:, kit.SIZE]
    kit.assert_close(Predictor(directory).run(images())[1], expected)
    with pytest.raises(CheckpointError, match=r"its classes have \[20, 17\].*loss_type='arcface' needs \[20, 16\]"):
        entry(run, tmp_path / "other", with_classifier=True).convert_for_prediction()


def test_the_description_says_what_another_program_needs(trained_run, exported):
    data = json.loads(Path(exported, "plsc.json").read_text())
    assert data["image_shape"] == kit.SHAPE and data["embedding_size"] == kit.SIZE and data["num_classes"] is None
    assert (data["pixel_mean"], data["pixel_std"], data["channels"], data["layout"]) == (127.5, 127.5, "RGB", "NCHW")
    assert data["input_name"] == "image" and data["outputs"] == ["embedding"] and data["step"] == 4
    assert not data["l2_normalised"] and not data["flip_fused"]
    for name, facts in data["files"].items():
        content = Path(exported, name).read_bytes()
        assert facts == {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    assert set(os.listdir(exported)) == {"plsc.json", *data["files"]}
    assert data["agreement"]["images"] == "8 random images" and data["agreement"]["paddle"] < 1e-4


def test_real_pictures_are_compared_where_given(trained_run, tmp_path):
    kit.make_folder(tmp_path / "pictures", 10)
    directory = entry(trained_run, tmp_path / "out", images=str(tmp_path / "pictures")).convert_for_prediction()
    assert read_description(directory).agreement["images"] == "8 images"


@pytest.mark.parametrize("dataset", ["list", "folder", "auto"])
def test_images_of_the_training_data_are_compared_otherwise(dataset, trained_run, tmp_path):
    """Whatever source reads them: the source is asked, not the name of the data set."""
    paths = kit.make_folder(tmp_path / "data", 3)
    if dataset == "list":
        lines = "".join(f"{os.path.relpath(path, tmp_path / 'data')}\t0\n" for path in paths)
        (tmp_path / "data" / "label.txt").write_text(lines)
    data = {"data": {"dataset": dataset, "dataset_dir": str(tmp_path / "data")}}
    directory = entry(trained_run, tmp_path / "out", data).convert_for_prediction()
    assert read_description(directory).agreement["images"] == "3 images"


def test_the_checkpoints_are_only_read(tmp_path):
    """Also where the export goes into the directory of the run, twice, and the second replaces the first."""
    run = kit.train(tmp_path / "run", train_steps=1)
    before = tree(Path(run, "checkpoints"))
    first = entry(run, run).convert_for_prediction()
    second = entry(run, run, l2_normalise=True).convert_for_prediction()
    assert first == second == str(Path(run, "inference")) and read_description(second).l2_normalised
    assert tree(Path(run, "checkpoints")) == before != {}
    assert sorted(os.listdir(run)) == ["checkpoints", "inference", "logs", "scalars.jsonl"]


def test_what_is_not_an_export_is_not_overwritten(trained_run, tmp_path):
    kept = tmp_path / "inference" / "thesis.txt"
    kept.parent.mkdir()
    kept.write_text("years")
    with pytest.raises(ConfigError, match="inference: exists and holds no plsc.json"):
        entry(trained_run, tmp_path).convert_for_prediction()
    assert kept.read_text() == "years" and os.listdir(kept.parent) == ["thesis.txt"]


@pytest.mark.parametrize(
    "name, wrong",
    [
        ("flip", lambda x, axis: x),  # the picture itself in place of its mirror image
        ("mean", lambda x, axis: x[0]),  # the mirror image's feature forgotten
    ],
)
def test_a_wrong_net_is_never_seen(trained_run, tmp_path, monkeypatch, name, wrong):
    """The comparison refuses it, and the export of before stays."""
    directory = entry(trained_run, tmp_path).convert_for_prediction()
    before = tree(directory)
    monkeypatch.setattr(export.paddle, name, wrong)
    with pytest.raises(ExportError, match="the exported model (differs from the trained model by|gives)"):
        entry(trained_run, tmp_path, fuse_flip=True).convert_for_prediction()
    assert tree(directory) == before


def test_nan_is_a_difference():
    bad = [np.full((2, 3), np.nan, np.float32)]
    with pytest.raises(ExportError, match="nan of an embedding"):
        agreement.distance("onnx", "paddle", bad, [np.ones((2, 3))])


def test_killed_between_the_two_renames_nothing_is_lost(tmp_path, monkeypatch):
    final = str(tmp_path / "inference")
    for text in ("old", "new"):
        Path(output_dir.create_unfinished(final), "plsc.json").write_text(text)
        if text == "old":
            output_dir.publish(final)
    real = os.replace

    def killed(source, target):
        if target == final:
            raise KeyboardInterrupt
        real(source, target)

    monkeypatch.setattr(os, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        output_dir.publish(final)
    monkeypatch.undo()
    assert Path(final + ".replaced", "plsc.json").read_text() == "old" and not os.path.exists(final)
    output_dir.check_free(final, "plsc.json")  # the first thing that the next export does
    assert Path(final, "plsc.json").read_text() == "old"
    output_dir.publish(final)
    assert Path(final, "plsc.json").read_text() == "new" and os.listdir(tmp_path) == ["inference"]


@pytest.mark.parametrize("installed, message", [
    (None, "needs paddle2onnx, which is not installed; install it with `pip install paddle2onnx=="),
    ("0.9.0", "paddle2onnx 0.9.0 does not read this Paddle's programs; install it with `pip install paddle2onnx=="),
])  # fmt: skip
def test_without_the_right_paddle2onnx_one_line_before_anything(trained_run, tmp_path, monkeypatch, installed, message):
    def version(package):
        if installed is None:
            raise metadata.PackageNotFoundError(package)
        return installed

    monkeypatch.setattr(onnx, "version", version)
    with pytest.raises(ExportError, match=message) as caught:
        entry(trained_run, tmp_path / "out", format="onnx").convert_for_prediction()
    assert "\n" not in str(caught.value) and not (tmp_path / "out").exists()


def test_a_net_that_paddle2onnx_cannot_convert_is_one_line(exported, tmp_path):
    """It is another program, so an abort in it ends nothing here."""
    program = tmp_path / next(name for name in os.listdir(exported) if name.endswith(("json", "pdmodel")))
    program.write_bytes(b"no program")
    with pytest.raises(
        ExportError, match="paddle2onnx cannot convert this model: .*set export.format: paddle"
    ) as caught:
        onnx.convert(str(program), str(Path(exported, "backbone.pdiparams")), str(tmp_path / "x.onnx"))
    assert "\n" not in str(caught.value)


def test_a_full_disk_is_no_fault_of_paddle2onnx(exported, tmp_path):
    """A file may have 100 kB here, the model has three times that."""
    program = next(name for name in ("backbone.json", "backbone.pdmodel") if Path(exported, name).is_file())
    program, weights = (str(Path(exported, name)) for name in (program, "backbone.pdiparams"))
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
    try:
        with pytest.raises(ExportError, match="x.onnx: cannot be written: File too large$"):
            onnx.convert(program, weights, str(tmp_path / "x.onnx"))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert not (tmp_path / "x.onnx").exists()


def test_another_net_than_trained_is_one_line(trained_run, tmp_path):
    with pytest.raises(CheckpointError, match="embedding_size is 16 in the checkpoint and 8 in this run"):
        entry(trained_run, tmp_path, {"model": {"embedding_size": 8}}).convert_for_prediction()
    with pytest.raises(CheckpointError, match="set the section `model` as it was trained"):
        entry(trained_run, tmp_path, {"model": {"base_width": 4}}).convert_for_prediction()
    with pytest.raises(ConfigError, match="checkpoint_dir is empty"):
        entry("", tmp_path).convert_for_prediction()
