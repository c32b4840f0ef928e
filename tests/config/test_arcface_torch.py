"""Configs of arcface_torch as settings of ours, read without running them."""

from __future__ import annotations

import os
import re

import pytest

from plsc.cli.main import main
from plsc.config import Config
from plsc.config.arcface_torch import convert_arcface_torch
from plsc.errors import ConfigError
from plsc.models import build_model
from tests.project.test_imports import ROOT

HEAD = "from easydict import EasyDict as edict\n\n# a comment\nconfig = edict()\n"
CONFIG = (
    HEAD
    + """config.margin_list = (1.0, 0.0, 0.4)
config.network = "r100"
config.resume = True
config.output = None
config.embedding_size = 512
config.sample_rate = 0.2
config.interclass_filtering_threshold = 0.4
config.fp16 = True
config.momentum = 0.9
config.weight_decay = 5e-4
config.batch_size = 128
config.lr = 0.1 * 4
config.verbose = 1000
config.dali = True
config.rec = "/train_tmp/glint360k"
config.num_classes = 360232
config.num_image = 17091657
config.num_epoch = 20
config.warmup_epoch = 1
config.val_targets = ['lfw', "agedb_30"]
config.mine = "x"
"""
)


def write(tmp_path, text: str, name: str = "my_r100.py") -> str:
    (tmp_path / name).write_text(text)
    return str(tmp_path / name)


def test_every_key_arrives(tmp_path, capsys):
    main(["convert-config", write(tmp_path, CONFIG), "--ranks", "8"])
    text = capsys.readouterr().out
    (tmp_path / "my.yaml").write_text(text)
    config = Config.from_yaml(str(tmp_path / "my.yaml"))
    expected = {
        "model.name": "ResNet100", "model.embedding_size": 512, "model.dropout": 0.0,
        "model.options": {"bn_epsilon": 1e-5}, "classifier.loss_type": "cosface", "classifier.margin3": 0.4,
        "classifier.sample_ratio": 0.2, "classifier.num_classes": 360232, "mixed_precision.enabled": True,
        "classifier.filter_above": 0.4,
        "momentum": 0.9, "weight_decay": 5e-4, "train_batch_size": 128, "lr": 0.4, "lr_reference_batch": 1024,
        "test_period": 1000, "log_period": 10, "data.dataset_dir": "/train_tmp/glint360k", "train_epochs": 20,
        "lr_schedule.kind": "polynomial", "lr_schedule.power": 1.0, "lr_schedule.warmup_epochs": 1.0,
        "data.val_targets": ["lfw", "agedb_30"], "resume": "auto", "seed": 2048, "grad_clip_norm": 5.0,
        "model_save_dir": "work_dirs/my_r100", "data.num_workers": 2,
    }  # fmt: skip
    assert {key: config.get(key) for key in expected} == expected
    assert "# config.dali = True: images are decoded by worker processes" in text
    assert "# config.mine = 'x': not known, not used" in text and "num_image" not in text


# Of base.py, of the 42 other configs, and those that train_v2.py sets (insightface at 7fadd42, July 2026).
KEYS = (
    "batch_size dali dali_aug embedding_size fp16 frequent gradient_acc interclass_filtering_threshold lr margin_list "
    "momentum network notes num_classes num_epoch num_image num_workers optimizer output rec resume sample_rate "
    "save_all_states save_artifacts seed suffix_run_name total_batch_size total_step using_wandb val_targets verbose "
    "wandb_entity wandb_key wandb_log_all wandb_project wandb_resume warmup_epoch warmup_step weight_decay"
).split()


def test_every_key_of_arcface_torch_is_known_and_in_the_docs(tmp_path):
    values = {"num_classes": 9, "num_epoch": 2, "rec": "data", "network": "r50", "batch_size": 8, "optimizer": "sgd"}
    numbers = {"lr": 0.1, "margin_list": (1.0, 0.5, 0.0), "sample_rate": 0.5, "seed": 1, "num_workers": 2}
    given = {**values, **numbers, "embedding_size": 8, "verbose": 9, "frequent": 9, "momentum": 0.9, "weight_decay": 0,
             "gradient_acc": 2}
    lines = [f"config.{key} = {given.get(key)!r}\n" for key in KEYS]
    _, notes = convert_arcface_torch(write(tmp_path, HEAD + "".join(lines)), 8)
    assert not [note for note in notes if "not known" in note]
    page = (ROOT / "docs" / "coming_from.md").read_text(encoding="utf-8").split("## Weights")[0]
    named = {key for row in page.splitlines() if row.startswith("|") for key in re.findall(r"\w+", row.split("|")[1])}
    assert set(KEYS) - named == set()


def test_a_value_may_be_computed_of_keys_above(tmp_path):
    text = HEAD + "config.num_epoch = 40\nconfig.warmup_epoch = config.num_epoch // 10\n"
    settings, _ = convert_arcface_torch(write(tmp_path, CONFIG + text.replace(HEAD, "")), 8)
    assert settings["lr_schedule"]["warmup_epochs"] == 4
    settings, _ = convert_arcface_torch(write(tmp_path, CONFIG + "config.warmup_epoch = -1\n"), 8)
    assert "warmup_epochs" not in settings["lr_schedule"]  # PolynomialLRWarmup with -n steps: lr * (1 - step / total)


def test_parts_of_a_step(tmp_path):
    given = {"config.gradient_acc = 3\n": (3, 3072, 334, 4), "": (1, 1024, 1000, 10)}
    for line, expected in given.items():  # the same rate for each step, of 3 * 8 * 128 images
        settings, notes = convert_arcface_torch(write(tmp_path, CONFIG + line), 8)
        config = Config.from_dict(settings)
        assert (config.accumulate, config.lr_reference_batch, config.test_period, config.log_period) == expected
        assert any("share one sample" in note for note in notes) == bool(line)
        assert config.lr * config.step_batch_size * 8 / config.lr_reference_batch == pytest.approx(0.4)


def test_base_comes_first(tmp_path):
    write(tmp_path, HEAD + "config.lr = 0.3\nconfig.seed = 7\nconfig.network = 'r18'\n", "base.py")
    text = HEAD + "config.network = 'r50'\nconfig.num_classes = 9\nconfig.num_epoch = 2\nconfig.rec = 'synthetic'\n"
    settings, _ = convert_arcface_torch(write(tmp_path, text + "config.num_image = 100\n"), 2)
    assert (settings["lr"], settings["seed"], settings["model"]["name"]) == (0.3, 7, "ResNet50")
    assert settings["classifier"]["loss_type"] == "arcface" and settings["classifier"]["margin2"] == 0.5
    assert settings["data"]["dataset"] == "synthetic" and settings["data"]["train_image_num"] == 100


@pytest.mark.parametrize("network, name, options", [
    ("mbf", "WideMobileFaceNet", {"bn_epsilon": 1e-5}),
    ("vit_t_dp005_mask0", "ViT-T", {"drop_path": 0.05, "mask_ratio": 0.0}),
    ("vit_l_dp005_mask_005", "ViT-L", {"drop_path": 0.05, "mask_ratio": 0.1}),
])  # fmt: skip
def test_other_networks(tmp_path, network, name, options):
    settings, _ = convert_arcface_torch(write(tmp_path, CONFIG + f"config.network = {network!r}\n"), 8)
    assert (settings["model"]["name"], settings["model"]["options"]) == (name, options)
    assert settings["model"].get("recompute", False) == (name == "ViT-L")
    build_model(name, **options)  # each option is one of this model


@pytest.mark.parametrize("line, message", [
    ("import os; os.mkdir('PLACE')", "line 26: only `config.NAME = value` is read, nothing is run"),
    ("config.lr = __import__('os').mkdir('PLACE')", "line 26: the value is no literal"),
    ("config.lr = config.mine", "config.lr|lr="), ("config.lr = config.none", "config.none is not set above"),
    ("config.lr = config.__class__", "config.__class__ is not set above"), ("config.lr = 2 ** 3", "no literal"),
    ("config.lr = 3 // 0", "no literal"), ("config.sample_rate = 0", "write a rate above 0"),
    ("config.lr = 1 / 0", "no literal"), ("config.lr = 'a' * 9**9", "no literal"),
    ("config.lr = 9**9**9", "no literal"), ("config.seed = None or 3", "no literal"),
    ("for i in range(3): pass", "only `config.NAME = value`"),
    ("config.network = 'r2060'", "network='r2060': PLSC has r18"),
    ("config.optimizer = 'rmsprop'", "PLSC has sgd and adamw of these"),
    ("config.margin_list = (1.0, 0.5)", "must be three numbers"),
    ("config.margin_list = (2.0, 0.5, 0.0)", "no loss with these margins"), ("config.lr = -1", "lr=-1"),
    ("config.batch_size = 'a'", "must be a whole number"), ("x ===", "is no Python file"), ("(" * 5000, "is no Python"),
    ("config.num_classes = 1", "classifier.num_classes"), ("config.gradient_acc = 0", "gradient_acc=0 must be a whole"),
    ("config.gradient_acc = 'a'", "gradient_acc='a' must be a whole"), ("config.gradient_acc = 99", "accumulate=99"),
])  # fmt: skip
def test_what_cannot_be_read_is_named_and_nothing_runs(tmp_path, line, message):
    path = write(tmp_path, CONFIG + line.replace("PLACE", str(tmp_path / "ran")) + "\n")
    with pytest.raises(ConfigError, match=message) as caught:
        convert_arcface_torch(path, 8)
    assert "\n" not in str(caught.value) and not os.path.exists(tmp_path / "ran")


def test_what_is_missing_is_named(tmp_path):
    with pytest.raises(ConfigError, match="config.num_classes is missing"):
        convert_arcface_torch(write(tmp_path, HEAD), 8)
    with pytest.raises(ConfigError, match="none.py: No such file"):
        convert_arcface_torch(str(tmp_path / "none.py"), 8)
