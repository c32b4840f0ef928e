"""Entry takes the settings of the model from the checkpoint where the user set none, and says so; as commands do."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from plsc import Entry, checkpoint
from plsc.cli.trained import stored_config
from plsc.config import Config
from plsc.config.user_objects import UserObjects
from plsc.engine.inference.settings import with_stored_settings
from plsc.errors import CheckpointError, ConfigError
from plsc.models import BaseModel
from tests import using_kit as kit
from tests.engine.test_predict import write_bin
from tests.registries import forget_afterwards


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
        assert with_stored_settings(config, UserObjects()) == (config, "")
    config = Config.from_dict({"checkpoint_dir": trained_run, "data": {"num_workers": 3}})
    used, line = with_stored_settings(config, UserObjects())
    assert (used.model.name, used.data.num_workers, used.data.dataset) == ("ResNet10", 3, "synthetic") and line
    assert config.model.name == "ResNet50"  # that of the user is not changed
    assert with_stored_settings(config, UserObjects(model=BaseModel())) == (config, "")


def test_what_is_not_there_is_refused_as_before(tmp_path):
    with pytest.raises(CheckpointError, match="no such directory"):
        entry_of(str(tmp_path / "none"), tmp_path / "out").predict()


def test_settings_of_another_version_are_said_and_not_taken(trained_run, monkeypatch):
    import dataclasses

    manifest = checkpoint.read_manifest(checkpoint.resolve(trained_run))
    stored = {**manifest.config, "model": {**manifest.config["model"], "base_width": -1}}
    monkeypatch.setattr(checkpoint, "read_manifest", lambda path: dataclasses.replace(manifest, config=stored))
    config = Config.from_dict({"checkpoint_dir": trained_run})
    used, line = with_stored_settings(config, UserObjects())
    assert used == config and line.startswith("the settings in the checkpoint are not taken") and "base_width" in line


def stored(trained_run, monkeypatch, **changes) -> Config:
    """A configuration whose checkpoint says something else."""
    import dataclasses

    manifest = checkpoint.read_manifest(checkpoint.resolve(trained_run))
    said = {**manifest.config, **{key: {**manifest.config[key], **value} if isinstance(value, dict) else value
                                  for key, value in changes.items()}}  # fmt: skip
    monkeypatch.setattr(checkpoint, "read_manifest", lambda path: dataclasses.replace(manifest, config=said))
    return Config.from_dict({"checkpoint_dir": trained_run})


def test_a_model_of_a_plugin_is_asked_for_and_not_imported(trained_run, monkeypatch, tmp_path):
    (tmp_path / "evil.py").write_text("raise SystemExit('a checkpoint ran this')\n")
    config = stored(trained_run, monkeypatch, model={"name": "Theirs"}, plugins=[str(tmp_path / "evil.py")])
    for ask in (lambda: with_stored_settings(config, UserObjects()), lambda: stored_config(trained_run)):
        with pytest.raises(ConfigError, match="its model 'Theirs' is not known here; .*plugins: .*set `plugins`"):
            ask()


def test_a_data_source_and_augmentations_that_are_not_known_are_left_out(trained_run, monkeypatch):
    """They are for training; an exported net and features need none."""
    data = {"dataset": "theirs", "options": {"file": "x"}, "augmentations": ["flip", "theirs"], "pixel_std": 128.0}
    config = stored(trained_run, monkeypatch, data=data)
    for found in (with_stored_settings(config, UserObjects())[0], stored_config(trained_run)):
        assert (found.model.name, found.data.pixel_std) == ("ResNet10", 128.0)
        assert (found.data.dataset, found.data.options, found.data.augmentations) == ("auto", {}, None)
    for wrong in (7, [["flip"]], {"a": 1}):
        config = stored(trained_run, monkeypatch, data={"dataset": wrong, "augmentations": wrong})
        assert with_stored_settings(config, UserObjects())[0].model.name == "ResNet10"


def test_commands_import_plugins_before_they_ask_the_checkpoint(trained_run, monkeypatch, tmp_path):
    import argparse

    from plsc.cli.options import model_config
    from plsc.registry import MODELS

    forget_afterwards(monkeypatch, MODELS)
    text = "from plsc.models import BaseModel, register_model\nregister_model('Theirs')(type('T', (BaseModel,), {}))\n"
    (tmp_path / "nets.py").write_text(text)
    stored(trained_run, monkeypatch, model={"name": "Theirs"}, plugins=["nets.py"])
    override = [f"plugins=[{tmp_path}/nets.py]", "device=cpu"]
    options = argparse.Namespace(config=None, checkpoint=trained_run, output="x", override=override, refuse=None)
    found = model_config(options)
    assert (found.model.name, found.device, found.plugins) == ("Theirs", "cpu", [f"{tmp_path}/nets.py"])


def test_the_sets_of_another_directory_are_those_that_are_there(trained_run, monkeypatch, tmp_path):
    config = stored(trained_run, monkeypatch, data={"dataset_dir": "/theirs", "val_targets": ["cfp_fp"]})
    found = with_stored_settings(config, UserObjects())[0]
    assert (found.data.dataset_dir, found.data.val_targets) == ("/theirs", ["cfp_fp"])
    config.set("data.dataset_dir", str(tmp_path))
    found = with_stored_settings(config, UserObjects())[0]
    assert (found.data.dataset_dir, found.data.val_targets) == (str(tmp_path), None)
