"""Every setter of Entry: what it changes, what it refuses, and that none does nothing."""

from __future__ import annotations

import inspect
from types import SimpleNamespace

import pytest

from plsc import Entry
from plsc.config import OLD_NAMES, Config, fields
from plsc.errors import ConfigError, PlscError
from plsc.models import BaseModel
from plsc.setters import Setters

INPUTS = [
    {"name": "image", "shape": [-1, 3, 64, 64], "dtype": "float32"},
    {"name": "label", "shape": [-1], "dtype": "int64"},
]

# setter, its arguments, the keys it must have changed and to what, arguments it must refuse
KEY_SETTERS = [
    ("set", ("data.random_flip", False), {"data.random_flip": False}, ("data.random_flap", False)),
    ("set_seed", (7,), {"seed": 7}, (-1,)),
    ("set_device", ("cpu",), {"device": "cpu"}, ("tpu",)),
    ("set_model_save_dir", ("out",), {"model_save_dir": "out"}, ("",)),
    ("set_checkpoint_dir", ("out/3",), {"checkpoint_dir": "out/3"}, (3,)),
    ("set_max_last_checkpoint_num", (2,), {"max_last_checkpoint_num": 2}, ("two",)),
    ("set_train_batch_size", (64,), {"train_batch_size": 64}, (0,)),
    ("set_test_batch_size", (64,), {"test_batch_size": 64}, (1.5,)),
    ("set_train_epochs", (9,), {"train_epochs": 9, "train_steps": None}, (0,)),
    ("set_train_steps", (9,), {"train_steps": 9, "train_epochs": None}, (0,)),
    ("set_lr", (0.05,), {"lr": 0.05}, (-0.1,)),
    ("set_momentum", (0.8,), {"momentum": 0.8}, (1.0,)),
    ("set_weight_decay", (1e-4,), {"weight_decay": 1e-4}, (-1e-4,)),
    ("set_warmup_epochs", (1,), {"lr_schedule.warmup_epochs": 1.0, "lr_schedule.warmup_steps": None}, (-1,)),
    ("set_step_boundaries", ((5, 9),), {"lr_schedule.boundaries": [5, 9], "lr_schedule.unit": "step"}, ((9, 5),)),
    ("set_lr_decay_factor", (0.5,), {"lr_schedule.decay_factor": 0.5}, (0.0,)),
    ("set_log_period", (10,), {"log_period": 10}, (0,)),
    ("set_test_period", (10,), {"test_period": 10}, (-1,)),
    ("set_with_test", (False,), {"with_test": False}, ("no",)),
    ("set_calc_acc", (True,), {"calc_acc": True}, (1,)),
    ("set_model_name", ("ResNet101",), {"model.name": "ResNet101"}, ("ResNet51",)),
    ("set_emb_size", (256,), {"model.embedding_size": 256}, (0,)),
    ("set_image_shape", ((3, 64, 64),), {"model.image_shape": [3, 64, 64]}, ((64, 64),)),
    ("set_data_format", ("NHWC",), {"model.data_format": "NHWC"}, ("HWC",)),
    ("set_input_info", (INPUTS,), {"model.input_info": INPUTS}, (INPUTS[:1],)),
    ("set_class_num", (1000,), {"classifier.num_classes": 1000}, (0,)),
    ("set_loss_type", ("cosface",), {"classifier.loss_type": "cosface", "classifier.margin2": None}, ("cosfase",)),
    ("set_scale", (30,), {"classifier.scale": 30.0}, (0,)),
    ("set_sample_ratio", (0.1,), {"classifier.sample_ratio": 0.1}, (0,)),
    ("set_model_parallel", (False,), {"classifier.model_parallel": False}, ("yes",)),
    ("set_dataset_dir", ("data",), {"data.dataset_dir": "data"}, (None,)),
    ("set_train_image_num", (99,), {"data.train_image_num": 99}, (0,)),
    ("set_num_workers", (0,), {"data.num_workers": 0}, (-1,)),
    ("set_val_targets", ("lfw,cfp_fp",), {"data.val_targets": ["lfw", "cfp_fp"]}, (5,)),
    (
        "set_mixed_precision",
        (True, 128.0, 1000, 1, 4.0, 0.25, False, {"custom_white_list": ["exp"], "custom_black_list": ["mul"]},
         "bfloat16", "O2"),
        {
            "mixed_precision.enabled": True, "mixed_precision.init_loss_scaling": 128.0,
            "mixed_precision.dtype": "bfloat16", "mixed_precision.level": "O2",
            "mixed_precision.incr_every_n_steps": 1000, "mixed_precision.decr_every_n_nan_or_inf": 1,
            "mixed_precision.incr_ratio": 4.0, "mixed_precision.decr_ratio": 0.25,
            "mixed_precision.use_dynamic_loss_scaling": False, "mixed_precision.custom_white_list": ["exp"],
            "mixed_precision.custom_black_list": ["mul"],
        },
        (True, 0.0),
    ),
    (
        "set_hdfs_info",
        ("hdfs://a", "me,pass", "/save", "/load"),
        {
            "remote.fs_name": "hdfs://a", "remote.fs_ugi": "me,pass", "remote.fs_dir_for_save": "/save",
            "remote.fs_checkpoint_dir": "/load",
        },
        ("hdfs://a", ""),
    ),
]  # fmt: skip

# Setters that keep an object instead of a key have tests of their own below and in test_entry_parts.py.
PART_SETTERS = {"set_model", "set_optimizer", "set_distfc_attr", "set_use_quant"}

NAMES = [row[0] for row in KEY_SETTERS]


def test_the_table_has_every_setter():
    methods = {name for name, _ in inspect.getmembers(Setters, inspect.isfunction) if name.startswith("set")}
    assert methods == {*NAMES, *PART_SETTERS}
    assert {entry.setter for entry in fields() if entry.setter} <= methods


@pytest.mark.parametrize(("setter", "arguments", "changes", "_bad"), KEY_SETTERS, ids=NAMES)
def test_setter_changes_its_keys_and_no_others(setter, arguments, changes, _bad):
    entry = Entry()
    getattr(entry, setter)(*arguments)
    before, after = Config(), entry._config
    for key, value in changes.items():
        assert after.get(key) == value
    moved = {option.key for option in fields() if before.get(option.key) != after.get(option.key)}
    assert moved and moved <= set(changes)


@pytest.mark.parametrize(("setter", "_good", "_changes", "bad"), KEY_SETTERS, ids=NAMES)
def test_setter_refuses_at_once_and_changes_nothing(setter, _good, _changes, bad):
    entry = Entry()
    with pytest.raises(ConfigError) as caught:
        getattr(entry, setter)(*bad)
    assert str(caught.value).startswith(f"{setter}(): ") and "\n" not in str(caught.value)
    assert entry._config == Config()


def test_docs_name_the_setter_that_sets_the_key():
    more = {"set_loss_type": [f"classifier.{name}" for name in ("margin1", "margin3", "loss_options")]}
    for setter, _, changes, _ in KEY_SETTERS:
        named = {option.key for option in fields() if option.setter == setter}
        assert setter == "set" or (named and named <= {*changes, *more.get(setter, ())})


def test_last_length_wins():
    entry = Entry()
    entry.set_train_epochs(4)
    entry.set_train_steps(10)
    assert (entry.train_epochs, entry.train_steps) == (None, 10)
    entry.set_train_epochs(4)
    assert (entry.train_epochs, entry.train_steps) == (4, None)


def test_set_loss_type():
    entry = Entry()
    entry.set_loss_type("mine", 1.0, 0.2, 0.1)
    assert entry._config.margins() == (1.0, 0.2, 0.1)
    entry.set_loss_type("cosface")  # the margins of the loss before must not stay
    assert entry._config.margins() == (1.0, 0.0, 0.35)
    entry.set_loss_type("arcface", margin2=0.3)
    assert entry._config.margins() == (1.0, 0.3, 0.0)
    entry.set_model_parallel(False)
    with pytest.raises(ConfigError, match=r"set_loss_type\(\): .*there is no option slope; it takes none"):
        entry.set_loss_type("arcface", slope=0.3)
    entry.set_loss_type("softmax")
    assert (entry.loss_type, entry.model_parallel, entry._config.margins()) == ("softmax", False, None)
    entry.set_loss_type("dist_arcface")
    assert (entry.loss_type, entry.model_parallel) == ("arcface", True)
    with pytest.raises(ConfigError, match=r"set_loss_type\(\): .*softmax.* has no margins"):
        entry.set_loss_type("softmax", margin1=1.0)


def test_set_mixed_precision_leaves_out_what_is_not_given():
    entry = Entry(config={"mixed_precision": {"incr_ratio": 3.0}})
    entry.set_mixed_precision(True, init_loss_scaling=64.0)
    assert entry.config["mixed_precision"]["incr_ratio"] == 3.0
    assert entry.config["mixed_precision"]["init_loss_scaling"] == 64.0


def test_amp_lists_objects():
    entry = Entry()
    entry.set_mixed_precision(True, amp_lists=SimpleNamespace(white_list={"mul", "exp"}, black_list={"log"}))
    lists = entry.config["mixed_precision"]
    assert (lists["custom_white_list"], lists["custom_black_list"]) == (["exp", "mul"], ["log"])
    with pytest.raises(ConfigError, match="amp_lists: got int"):
        entry.set_mixed_precision(True, amp_lists=3)
    with pytest.raises(ConfigError, match="there is no such key"):
        entry.set_mixed_precision(True, amp_lists={"white": ["exp"]})


def test_set_use_quant():
    Entry().set_use_quant(False)
    with pytest.raises(ConfigError, match="no quantised training"):
        Entry().set_use_quant(True)


@pytest.mark.parametrize(
    ("name", "value", "key", "kept"),
    [
        ("lr", 0.5, "lr", 0.5),
        ("scale", 30, "classifier.scale", 30.0),
        ("margin", 0.4, "classifier.margin2", 0.4),
        ("lr_steps", (4, 5), "lr_schedule.boundaries", [4, 5]),
        ("emb_dim", 128, "model.embedding_size", 128),
        ("train_epochs", 5, "train_steps", None),
        ("model_name", "ResNet18", "model.name", "ResNet18"),
        ("loss_type", "dist_softmax", "classifier.loss_type", "softmax"),
        ("val_targets", "a,b", "data.val_targets", ["a", "b"]),
        ("image_shape", (3, 8, 8), "model.image_shape", [3, 8, 8]),
    ],
)
def test_attribute_of_0_x_goes_through_the_config(name, value, key, kept):
    entry = Entry()
    setattr(entry, name, value)
    assert entry._config.get(key) == kept
    with pytest.raises(ConfigError):
        setattr(entry, name, object())


def test_every_attribute_of_0_x_can_be_read():
    entry = Entry()
    for name, key in OLD_NAMES.items():
        assert getattr(entry, name) == entry._config.get(key)


def test_lr_steps_are_steps_even_if_the_unit_was_epochs():
    entry = Entry(config={"lr_schedule": {"unit": "epoch", "boundaries": [1, 2]}})
    entry.lr_steps = (10, 20)
    assert entry.config["lr_schedule"]["unit"] == "step"


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("learning_rate", "docs/configuration.md"),
        ("sample_rate", "did you mean sample_ratio?"),
        ("momentums", "did you mean set_momentum?"),
        ("weight_decay", "did you mean set_weight_decay?"),
        ("train_readr", "did you mean train_reader?"),
        ("test_reader", "set test_dataset"),
        ("trainer_id", "the launch decides it"),
        ("config", "use Entry(config=...)"),
        ("set_lr", "did you mean set_lr?"),
        ("train", ""),
    ],
)
def test_any_other_attribute_is_refused(name, hint):
    entry = Entry()
    with pytest.raises(AttributeError) as caught:
        setattr(entry, name, 1)
    assert str(caught.value).startswith(f"Entry.{name} cannot be assigned") and hint in str(caught.value)
    assert entry._config == Config()


def test_a_setter_that_does_not_exist():
    with pytest.raises(AttributeError, match="did you mean set_sample_ratio?"):
        Entry().set_sample_rate(0.1)


def test_constructor(tmp_path):
    path = tmp_path / "run.yaml"
    path.write_text("lr: 0.3\n")
    assert Entry(str(path)).lr == Entry(path).lr == Entry(config={"lr": 0.3}).lr == 0.3
    config = Config.from_dict({"lr": 0.3})
    entry = Entry(config=config)
    entry.set_lr(0.7)
    assert (entry.lr, config.lr) == (0.7, 0.3)
    with pytest.raises(ConfigError, match="give one of the two"):
        Entry(str(path), config={})
    for wrong in ({"config_file": {"lr": 1}}, {"config": "run.yaml"}, {"config_file": str(tmp_path / "no.yaml")}):
        with pytest.raises(PlscError):
            Entry(**wrong)


def test_config_is_plain_data_without_the_password():
    entry = Entry()
    entry.set_hdfs_info("hdfs://a", "me,secret")
    assert entry.config == entry._config.to_dict() and "secret" not in str(entry.config)
    assert Config.from_dict(entry.config).get("remote.fs_name") == "hdfs://a"


def test_models_base_class_is_the_one_that_set_model_asks_for():
    class Net(BaseModel):
        pass

    entry, net = Entry(), Net()
    entry.set_model(net)
    assert entry.model is net
