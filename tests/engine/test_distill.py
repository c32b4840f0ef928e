"""A run with a teacher: its features follow, it goes on to the bit, and what does not fit is refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest

from plsc import Entry
from plsc.backend import static
from plsc.engine.memory.estimate import TEACHER
from plsc.engine.program.session import Session
from plsc.errors import ConfigError, ExportError
from tests import using_kit


@pytest.fixture(scope="module")
def teacher(tmp_path_factory) -> str:
    """An exported model."""
    home = tmp_path_factory.mktemp("teacher")
    run = using_kit.train(home / "run")
    return Entry(config=using_kit.settings(checkpoint_dir=run, model_save_dir=str(home))).convert_for_prediction()


def cosines(run: Path) -> list[float]:
    """The mean cosine with the teacher at each step."""
    lines = map(json.loads, (run / "scalars.jsonl").read_text().splitlines())
    return [line["teacher"] for line in lines if "teacher" in line]


def test_features_follow_the_teacher_and_a_run_goes_on_to_the_bit(teacher, tmp_path, capfd):
    own = {"distill": {"model": teacher, "weight": 30.0}, "seed": 7, "log_period": 1, "lr": 0.02}
    using_kit.train(tmp_path / "whole", train_steps=24, **own)
    said = capfd.readouterr().out
    assert said.count(f"distill: {teacher} (paddle) embeds each batch in the training process, which adds") == 1
    followed = cosines(tmp_path / "whole")
    assert len(followed) == 24 and np.mean(followed[-4:]) > followed[0] + 0.3
    using_kit.train(tmp_path / "part", train_steps=5, **own)
    using_kit.train(tmp_path / "part", train_steps=24, resume="auto", **own)
    ends = [
        sorted((tmp_path / run / "checkpoints" / "step_00000024").glob("*.safetensors")) for run in ("whole", "part")
    ]
    assert ends[0] and [file.read_bytes() for file in ends[0]] == [file.read_bytes() for file in ends[1]]
    assert cosines(tmp_path / "part") == followed


def test_the_embeddings_are_those_of_the_images_of_the_step(teacher, tmp_path, monkeypatch):
    """As the evaluation program computes them with the teacher's weights, read by the safetensors package."""
    given = []
    step = Session.step

    def look(self, number, inputs, *rest):
        given.append({name: value.copy() for name, value in inputs.items()})
        return step(self, number, inputs, *rest)

    monkeypatch.setattr(Session, "step", look)
    using_kit.train(tmp_path / "run", train_steps=2, distill={"model": teacher})
    run = str(Path(teacher).parent / "run")
    for inputs in given:
        using_kit.assert_close(inputs["teacher"], using_kit.evaluation_program(run, inputs["image"]))
    assert len(given) == 2 and not np.array_equal(given[0]["image"], given[1]["image"])


@pytest.fixture(scope="module")
def graph(teacher) -> str:
    """The same model as an ONNX file, with nothing beside it."""
    home = Path(teacher).parent
    run, where = str(home / "run"), str(home / "onnx")
    changes = {"checkpoint_dir": run, "model_save_dir": where, "export": {"format": "onnx"}}
    found = next(Path(Entry(config=using_kit.settings(**changes)).convert_for_prediction()).glob("*.onnx"))
    return str(found.rename(home / "teacher.onnx"))


@pytest.mark.parametrize("batch", ["any", 1])
def test_an_onnx_file_of_another_project_teaches_the_same(teacher, graph, tmp_path, capfd, batch):
    """The mean cosine of each step is that with the exported model: float32, of 8 images with 1e-6 each."""
    model = onnx.load(graph)
    if batch == 1:
        model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1
    (tmp_path / "net.onnx").write_bytes(model.SerializeToString())
    own = {"train_steps": 3, "log_period": 1, "seed": 7}
    using_kit.train(tmp_path / "one", distill={"model": str(tmp_path / "net.onnx"), "weight": 30.0}, **own)
    said = capfd.readouterr().out
    assert said.count("(onnx) embeds each batch") == 1
    assert "the file does not say how images enter it, they are RGB, (x - 127.5) / 127.5" in said
    using_kit.train(tmp_path / "two", distill={"model": teacher, "weight": 30.0}, **own)
    np.testing.assert_allclose(cosines(tmp_path / "one"), cosines(tmp_path / "two"), rtol=0, atol=1e-4)
    assert len(cosines(tmp_path / "one")) == 3


@pytest.mark.parametrize("change, settings, error, text", [
    (None, {"model": {"embedding_size": 8}}, ConfigError, r"outputs are \[\[1, 16\]\] for one image, none is \[1, 8\]"),
    (None, {"model": {"image_shape": [3, 32, 32]}}, ConfigError, r"takes images \[3, 32, 48\], this run has model.im"),
    (3, {}, ConfigError, "takes 3 images at a time; export it for one, or for any number"),
    (b"no graph", {}, ExportError, "onnx cannot open it: "), (b"", {}, ExportError, "onnx cannot open it: "),
])  # fmt: skip
def test_an_onnx_file_that_cannot_teach_is_refused(graph, tmp_path, change, settings, error, text):
    path, model = tmp_path / "net.onnx", onnx.load(graph)
    if isinstance(change, int):
        model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = change
    path.write_bytes(change if isinstance(change, bytes) else model.SerializeToString())
    given = using_kit.settings(model_save_dir=str(tmp_path / "run"), distill={"model": str(path)}, **settings)
    with pytest.raises(error, match=text) as caught:
        Entry(config=given).train()
    assert "\n" not in str(caught.value) and not (tmp_path / "run" / "checkpoints").exists()


def test_an_onnx_file_that_is_not_there(tmp_path):
    given = using_kit.settings(model_save_dir=str(tmp_path / "run"), distill={"model": str(tmp_path / "x.onnx")})
    with pytest.raises(ExportError, match="^distill.model='.*x.onnx': No such file or directory"):
        Entry(config=given).train()


@pytest.mark.parametrize("changes, text", [
    ({"model": {"embedding_size": 8}}, "has model.embedding_size=16, this run 8; they must be equal"),
    ({"model": {"image_shape": [3, 32, 32]}}, r"has model.image_shape=\[3, 32, 48\], this run \[3, 32, 32\]"),
    ({"data": {"pixel_std": 128.0}}, "has data.pixel_std=127.5, this run 128.0"),
])  # fmt: skip
def test_a_teacher_of_other_images_or_sizes_is_refused(teacher, tmp_path, changes, text):
    settings = using_kit.settings(model_save_dir=str(tmp_path / "run"), distill={"model": teacher}, **changes)
    with pytest.raises(ConfigError, match=f"^distill.model='.*': {text}"):
        Entry(config=settings).train()
    assert not (tmp_path / "run" / "checkpoints").exists()


def test_no_teacher_and_one_without_effect(tmp_path):
    with pytest.raises(ExportError, match=r"^distill.model='.*nothing': .*plsc.json.*that `plsc export` wrote"):
        Entry(
            config=using_kit.settings(model_save_dir=str(tmp_path), distill={"model": str(tmp_path / "nothing")})
        ).train()


def test_the_plan_counts_the_teacher(teacher, graph):
    """Of a program: the weights as they are stored, and for each image at least the argument and the result of the
    largest operation, or, with Paddle 2.6, all results. Of an ONNX file: the rule of docs/train.md."""

    def row(path, batch):
        config = using_kit.settings(distill={"model": path}, train_batch_size=batch, device="cpu")
        return Entry(config=config).plan(1, 8.0).bytes.get(TEACHER, 0)

    weights = next(Path(teacher).glob("*.pdiparams")).stat().st_size
    one, eight = row(teacher, 1), row(teacher, 8)
    each_image = (eight - one) / 7
    assert 0 <= one - weights - each_image < 1000  # and constants of the program, such as shapes
    stem = 4 * 8 * using_kit.SHAPE[1] * using_kit.SHAPE[2]  # the first result, 8 channels of the image's size
    assert 2 * stem <= each_image <= (4 if static.is_pir() else 20) * stem
    rule = 4 * 3 * 64 * using_kit.SHAPE[1] * using_kit.SHAPE[2]
    assert row(graph, 8) == 2 * Path(graph).stat().st_size + 8 * rule
    assert row("", 8) == 0
    with pytest.raises(ExportError, match=r"x\.onnx: No such file"):
        row("x.onnx", 8)
