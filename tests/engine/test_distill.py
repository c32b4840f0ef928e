"""A run with a teacher: its features follow, it goes on to the bit, and what does not fit is refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from plsc import Entry
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
    with pytest.raises(ExportError, match="nothing"):
        Entry(
            config=using_kit.settings(model_save_dir=str(tmp_path), distill={"model": str(tmp_path / "nothing")})
        ).train()
