"""Entry takes the settings of the model from the checkpoint where the user set none, and says so; as commands do."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("paddle")

from plsc import Entry, checkpoint  # noqa: E402
from plsc.config import Config  # noqa: E402
from plsc.config.parts import Parts  # noqa: E402
from plsc.engine.inference.settings import with_stored  # noqa: E402
from plsc.errors import CheckpointError  # noqa: E402
from plsc.models import BaseModel  # noqa: E402
from tests import using_kit as kit  # noqa: E402
from tests.engine.test_predict import write_bin  # noqa: E402


def entry_of(run: str, where: Path) -> Entry:
    made = Entry()
    made.set_checkpoint_dir(run)
    made.set_model_save_dir(str(where))
    return made


def log_of(where: Path) -> list[str]:
    return (where / "logs" / "rank_00000.log").read_text().splitlines()


def test_export_predict_and_test_without_a_setting_of_the_model(trained_run, tmp_path):
    exported = entry_of(trained_run, tmp_path / "out").convert_for_prediction()
    about = json.loads(Path(exported, "plsc.json").read_text())
    assert str(kit.SHAPE)[1:-1] in str(about) and str(kit.SIZE) in str(about)
    line = next(line for line in log_of(tmp_path / "out") if "taken from" in line)
    assert checkpoint.resolve(trained_run) in line
    for text in ("model.name='ResNet10'", "model.base_width=8", f"model.image_shape={kit.SHAPE}", "num_classes=20"):
        assert text in line
    kit.make_folder(tmp_path / "p", 3)
    entry = entry_of(trained_run, tmp_path / "predicted")
    entry.set("predict.images", str(tmp_path / "p"))
    features = np.array(entry.predict().features)
    known = Entry(config=kit.settings(model_save_dir=str(tmp_path / "known"), checkpoint_dir=trained_run,
                                      predict={"images": str(tmp_path / "p")}))  # fmt: skip
    np.testing.assert_array_equal(features, known.predict().features)
    assert not any("taken from" in line for line in log_of(tmp_path / "known"))
    write_bin(tmp_path / "own.bin")
    entry = entry_of(trained_run, tmp_path / "verified")
    entry.set_dataset_dir(str(tmp_path))
    entry.set_val_targets("own")  # what is set stays
    found = entry.test()["own"]
    assert found.num_same + found.num_different > 0 and "fpr" not in repr(found)


def test_what_the_user_set_of_the_model_stays_as_it_is(trained_run):
    for key, value in [("model.name", "ResNet50"), ("classifier.num_classes", 85742)]:
        config = Config.from_dict({"checkpoint_dir": trained_run, key: value})
        assert with_stored(config, Parts()) == (config, "")
    config = Config.from_dict({"checkpoint_dir": trained_run, "data": {"num_workers": 3}})
    used, line = with_stored(config, Parts())
    assert (used.model.name, used.data.num_workers, used.data.dataset) == ("ResNet10", 3, "synthetic") and line
    assert config.model.name == "ResNet50"  # that of the user is not changed
    assert with_stored(config, Parts(model=BaseModel())) == (config, "")


def test_what_is_not_there_is_refused_as_before(tmp_path):
    with pytest.raises(CheckpointError, match="no such directory"):
        entry_of(str(tmp_path / "none"), tmp_path / "out").predict()


def test_settings_of_another_version_are_said_and_not_taken(trained_run, monkeypatch):
    import dataclasses

    manifest = checkpoint.read_manifest(checkpoint.resolve(trained_run))
    stored = {**manifest.config, "model": {**manifest.config["model"], "base_width": -1}}
    monkeypatch.setattr(checkpoint, "read_manifest", lambda path: dataclasses.replace(manifest, config=stored))
    config = Config.from_dict({"checkpoint_dir": trained_run})
    used, line = with_stored(config, Parts())
    assert used == config and line.startswith("the settings in the checkpoint are not taken") and "base_width" in line
