"""The rules over several keys, as they hold when a run starts."""

from __future__ import annotations

import random

import pytest

from plsc.config import Config
from plsc.config.rules import splits
from plsc.config.user_objects import UserObjects
from plsc.errors import ConfigError
from plsc.parallel import shards


def refusal(config: Config, world_size: int = 1, device: str | None = None) -> str:
    with pytest.raises(ConfigError) as caught:
        config.check(world_size, device)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_neither_epochs_nor_steps():
    config = Config.from_dict({"train_steps": None})
    assert refusal(config) == "train_epochs=None, train_steps=None: set exactly one of the two"


def test_epochs_and_steps_never_are_there_together():
    """Why the rule looks for neither alone: whatever is set, in whatever order, the one clears the other."""
    draw, config = random.Random(0), Config()
    for _ in range(300):
        key, value = draw.choice(["train_epochs", "train_steps"]), draw.choice([None, 1, 7])
        way = draw.choice([
            lambda: config.set(key, value), lambda: config.override([f"{key}={'null' if value is None else value}"]),  # noqa: B023
            lambda: config.update({key: value}, "a test"),  # noqa: B023
        ])  # fmt: skip
        way()
        assert config.train_epochs is None or config.train_steps is None
        config = config.copy()


def test_world_size():
    config = Config.from_dict({"world_size": 4})
    config.check(4)
    assert refusal(config, 2).startswith("world_size=4: the run was launched with 2 ranks")


def shard_sizes(num_classes: int, world_size: int) -> list[int]:
    """PLSC's rule written as dealing out: each rank takes ceil(C / N) while there are any."""
    share, left, sizes = -(-num_classes // world_size), num_classes, []
    for _ in range(world_size):
        sizes.append(min(share, left))
        left -= sizes[-1]
    return sizes


def test_splits_is_every_rank_has_a_class():
    for num_classes in range(2, 60):
        for world_size in range(1, 20):
            assert splits(num_classes, world_size) == (min(shard_sizes(num_classes, world_size)) > 0)


def test_splits_agrees_with_the_shards():
    """The rule stands in plsc.parallel.shards, which imports may not reach from config; both must say the same."""
    for num_classes in range(2, 60):
        for world_size in range(1, 20):
            if splits(num_classes, world_size):
                assert shards.num_local(num_classes, world_size - 1, world_size) > 0
            else:
                with pytest.raises(ConfigError):
                    shards.num_local(num_classes, 0, world_size)


@pytest.mark.parametrize(("num_classes", "world_size", "largest"), [(9, 4, 3), (49, 8, 7), (3, 8, 3), (2, 3, 2)])
def test_too_few_classes_names_the_largest_number_of_ranks(num_classes, world_size, largest):
    config = Config.from_dict({"classifier": {"num_classes": num_classes}})
    message = refusal(config, world_size)
    assert message.startswith(f"classifier.num_classes={num_classes}: {world_size} ranks")
    assert f"launch {largest}, or set classifier.model_parallel: false" in message
    config.check(largest)
    config.set("classifier.model_parallel", False)
    config.check(world_size)


def test_mixed_precision_is_not_begun_on_a_cpu_by_chance():
    config = Config.from_dict({"mixed_precision": {"enabled": True}})
    config.check(1, "gpu")
    assert refusal(config, 1, "cpu").startswith("mixed_precision.enabled=True: is for GPUs, and device='auto' found")
    config.set("device", "cpu")
    config.check(1, "cpu")


def test_paddles_kernels_are_for_gpus():
    config = Config.from_dict({"classifier": {"kernels": "paddle"}})
    assert refusal(config, 1, "cpu").startswith("classifier.kernels='paddle': Paddle's kernels exist for GPUs only")
    config.check(1, "gpu")
    config.set("device", "cpu")
    assert refusal(config).endswith("set auto or plsc")
    for kernels in ("auto", "plsc"):
        config.set("classifier.kernels", kernels)
        config.check(1, "cpu")


def test_device_that_is_not_there():
    assert refusal(Config.from_dict({"device": "gpu"}), 1, "cpu").startswith("device='gpu': this run computes on cpu")


def test_an_op_in_both_lists():
    lists = {"custom_white_list": ["exp", "mul"], "custom_black_list": ["exp"]}
    with pytest.raises(ConfigError, match="exp is in custom_black_list as well"):
        Config.from_dict({"mixed_precision": lists})


def test_image_shape_against_the_other_keys():
    config = Config.from_dict({"model": {"image_shape": [1, 32, 32]}})
    config.check(1)
    inputs = [{"name": "image", "shape": [-1, 3, 64, 64], "dtype": "float32"}]
    config.set("model.input_info", [*inputs, {"name": "label", "shape": [-1], "dtype": "int64"}])
    assert "model.input_info has [3, 64, 64] for image; set both to the same" in refusal(config)
    config.set("model.image_shape", [3, 64, 64])
    config.check(1)


NAMED = {"fs_name": "hdfs://a:9000", "fs_ugi": "me,secret"}

# what is set, and what the refusal at the start begins with
REMOTE = [
    ({"fs_dir_for_save": "/save"}, "remote.fs_dir_for_save='/save': set remote.fs_name"),
    ({"fs_checkpoint_dir": "/load"}, "remote.fs_checkpoint_dir='/load': set remote.fs_name"),
    (
        {**NAMED, "fs_dir_for_save": "/save", "save_url": "s3://bucket"},
        "remote.fs_dir_for_save='/save', remote.save_url='s3://bucket': set only one",
    ),
]


@pytest.mark.parametrize(("remote", "start"), REMOTE)
def test_places_that_contradict_each_other(remote, start):
    message = refusal(Config.from_dict({"remote": remote}))
    assert message.startswith(start) and "secret" not in message


def test_two_checkpoints_to_start_from():
    config = Config.from_dict({"checkpoint_dir": "s3://b/x", "remote": {**NAMED, "fs_checkpoint_dir": "/load"}})
    assert "two places to start from" in refusal(config)
    config.set("checkpoint_dir", "here")  # where PLSC 0.x copied to
    config.check(1)


# keys that have no effect, in which setting
IDLE = [
    ("lr_schedule.boundaries=[5]", {"lr_schedule": {"kind": "cosine", "boundaries": [5]}}),
    ("lr_schedule.unit='epoch'", {"lr_schedule": {"kind": "polynomial", "unit": "epoch"}}),
    ("lr_schedule.decay_factor=0.5", {"lr_schedule": {"kind": "cosine", "decay_factor": 0.5}}),
    ("lr_schedule.power=2.0", {"lr_schedule": {"kind": "cosine", "power": 2}}),
    ("lr_schedule.end_lr=0.001", {"lr_schedule": {"end_lr": 0.001}}),
    ("test_period=5", {"with_test": False, "test_period": 5}),
    ("mixed_precision.init_loss_scaling=1.0", {"mixed_precision": {"init_loss_scaling": 1}}),
    (
        "mixed_precision.incr_ratio=3.0",
        {"mixed_precision": {"enabled": True, "use_dynamic_loss_scaling": False, "incr_ratio": 3}},
    ),
    ("class_optimizer.sparse='lazy'", {"class_optimizer": {"sparse": "lazy"}}),
    ("mixed_precision.incr_ratio=3.0", {"mixed_precision": {"enabled": True, "dtype": "bfloat16", "incr_ratio": 3}}),
    (
        "mixed_precision.use_dynamic_loss_scaling=False",
        {"mixed_precision": {"enabled": True, "dtype": "bfloat16", "use_dynamic_loss_scaling": False}},
    ),
    (
        "mixed_precision.init_loss_scaling=8.0",
        {"mixed_precision": {"enabled": True, "dtype": "bfloat16", "init_loss_scaling": 8}},
    ),
    ("mixed_precision.dtype='bfloat16'", {"mixed_precision": {"dtype": "bfloat16"}}),
    ("classifier.scale=30.0", {"classifier": {"loss_type": "softmax", "scale": 30}}),
    ("data.label_file='x'", {"data": {"dataset": "synthetic", "label_file": "x"}}),
    ("data.random_flip=False", {"data": {"dataset": "synthetic", "random_flip": False}}),
    ("data.val_targets=['x']", {"with_test": False, "data": {"val_targets": "x"}}),
    ("test_batch_size=7", {"with_test": False, "test_batch_size": 7}),
    ("remote.fs_name='hdfs://a'", {"remote": {"fs_name": "hdfs://a"}}),
    ("remote.fs_ugi=<hidden>", {"remote": {"fs_ugi": "me,secret", "save_url": "s3://b"}}),
]


@pytest.mark.parametrize(("key", "settings"), IDLE)
def test_a_change_without_effect_is_named(key, settings):
    lines = Config.from_dict(settings).without_effect()
    assert len(lines) == 1 and lines[0].startswith(f"{key}: has no effect with ")


def test_a_change_with_effect_is_not_named():
    half = {"enabled": True, "incr_ratio": 3, "init_loss_scaling": 8}
    schedule = {"kind": "polynomial", "power": 2, "end_lr": 1e-4}
    assert Config.from_dict({"mixed_precision": half, "lr_schedule": schedule, "test_period": 5}).without_effect() == []


@pytest.mark.parametrize("values, message", [
    ({"model": {"freeze": ["all", "stem"]}}, "model.freeze=['all', 'stem']: all is the whole backbone; remove"),
    ({"model": {"freeze": "head"}}, "model.freeze='head': head, the class centres, is always trained"),
    ({"model": {"freeze": ["stem", "stem"]}}, "a stage is named twice"),
    ({"lr_factors": {"stem": 0}}, "the factor of stem is 0; to keep a stage as it is, name it in model.freeze"),
    ({"lr_factors": {"head": 0.0}}, "the factor of head is 0, but the class centres are always trained"),
    ({"lr_factors": {"stem": -1}}, "the factor of stem is -1; it must be a number in (0, 1e+06]"),
    ({"lr_factors": {"stem": "much"}}, "the factor of stem is 'much'; it must be a number"),
    ({"lr_factors": {"stem": True}}, "it must be a number"),
    ({"lr_factors": {"all": 0.1}}, "all is not a stage; change lr instead"),
    ({"lr_factors": [1]}, "must be a mapping"),
])  # fmt: skip
def test_stages_and_factors(values, message):
    with pytest.raises(ConfigError) as error:
        Config.from_dict(values)
    assert message in str(error.value)


@pytest.mark.parametrize("freeze, factors", [(["stem"], {"stem": 2}), (["all"], {"stem": 2, "head": 3})])
def test_a_frozen_stage_has_no_learning_rate(freeze, factors):
    config = Config.from_dict({"model": {"freeze": freeze}, "lr_factors": factors})
    assert "stem is frozen by model.freeze" in refusal(config)
    Config.from_dict({"model": {"freeze": freeze}, "lr_factors": {"head": 3}}).check(1, None)


def test_optimizers_that_cannot_update_class_centres():
    config = Config.from_dict({"optimizer": {"name": "lars"}})
    with pytest.raises(ConfigError, match="optimizer.name='lars': reads the whole parameter, and class centres are up"):
        UserObjects().check(config)
    config.set("class_optimizer.name", "lamb")
    with pytest.raises(ConfigError, match="class_optimizer.name='lamb': reads the whole parameter.* set class_optim"):
        UserObjects().check(config)
    config.set("class_optimizer.name", "adamw")
    config.set("class_optimizer.options", {"beta4": 1})
    with pytest.raises(ConfigError, match="class_optimizer.options={'beta4': 1}: optimizer 'adamw': there is no"):
        UserObjects().check(config)
    config.set("class_optimizer.options", {"beta1": 0.5})
    UserObjects().check(config)


def test_momentum_is_said_to_be_idle_where_neither_optimizer_takes_it():
    def lines(**names):
        sections = {name: {"name": value} for name, value in names.items()}
        return Config.from_dict({"momentum": 0.5, **sections}).without_effect()

    (line,) = lines(optimizer="adamw")
    assert line == "momentum=0.5: has no effect with optimizer.name: adamw"
    assert lines(optimizer="adamw", class_optimizer="momentum") == lines(class_optimizer="adamw") == []
    (line,) = Config.from_dict({"class_optimizer": {"options": {"beta1": 0.5}}}).without_effect()
    assert line == "class_optimizer.options={'beta1': 0.5}: has no effect with class_optimizer.name: null"


def test_what_trains_the_backbone_is_said_to_be_idle_where_all_of_it_is_frozen():
    idle = {"ema.decay": 0.9, "distill.model": "exported", "lr_layer_decay": 0.5, "model.recompute": True}
    lines = Config.from_dict({"model.freeze": ["all"], **idle}).without_effect()
    assert [line.split("=")[0] for line in lines] == list(idle)
    assert all(line.endswith(": has no effect with model.freeze: [all]") for line in lines)
    assert Config.from_dict({"model.freeze": ["stem"], **idle}).without_effect() == []



@pytest.mark.parametrize("changes, text", [
    ({"init_from": "classes", "init_checkpoint": "b"}, "init_from='classes': brings centres as well"),
    ({"new_classes": "mean", "init_from": "backbone", "init_checkpoint": "b"}, "new_classes='mean': every class has"),
    ({"lr_factors": {"head": 0.5}}, "lr_factors={'head': 0.5}: head, the class centres, is not trained"),
    ({"model": {"freeze": ["all"]}}, "model.freeze=['all']: leaves nothing to train"),
])  # fmt: skip
def test_centres_that_stay_have_no_other_beginning_and_no_rate(changes, text):
    Config.from_dict(changes).check(1)
    said = refusal(Config.from_dict({**changes, "distill": {"centres": "a"}}))
    assert said.startswith(f"distill.centres='a', {text}")


def test_what_centres_that_stay_leave_idle():
    changes = {"distill": {"centres": "a"}, "class_optimizer": {"name": "adamw"}, "label_map": "map.txt"}
    config = Config.from_dict(changes)
    config.check(1)
    assert "class_optimizer.name='adamw': has no effect with distill.centres" in config.without_effect()
    assert not any("label_map" in line for line in config.without_effect())
