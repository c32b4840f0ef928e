"""Every setting is compared over the ranks unless the schema says why not, and what differs is said shortly."""

from __future__ import annotations

import dataclasses
import functools

import pytest

from plsc.config import OPTIONS, Config
from plsc.config.user_objects import UserObjects, qualified_name
from plsc.engine.run import consistency
from plsc.errors import ConfigError, LaunchError

# The keys that ranks may have other values of. A new one is compared; to be here it needs a reason in the schema.
MAY_DIFFER = {
    "num_threads", "data.dataset_dir", "data.label_file", "data.num_workers", "data.sources", "distill.model",
    "remote.fs_ugi",
}  # fmt: skip


class Group:
    """Of two ranks, the other of which says what this one says, but for what is changed."""

    rank, world_size = 0, 2

    def __init__(self, **changes):
        self._changes = changes

    def all_gather(self, value):
        return [value, {kind: {**facts, **self._changes.get(kind, {})} for kind, facts in value.items()}]

    def agree(self, check):
        return check()


def changed(key: str) -> Config:
    """A configuration with another value of one key; whether it is a possible one does not matter here."""
    config = Config()
    place, _, name = key.rpartition(".")
    other = {name: ["another", config.get(key)]}
    part = dataclasses.replace(getattr(config.settings, place) if place else config.settings, **other)
    settings = dataclasses.replace(config.settings, **{place: part}) if place else part
    object.__setattr__(config, "settings", settings)
    return config


def test_the_exceptions_are_these():
    assert {key for key, option in OPTIONS.items() if option.per_rank} == MAY_DIFFER
    assert all(option.per_rank for option in OPTIONS.values() if option.secret)  # never sent to another machine


@pytest.mark.parametrize("key", OPTIONS)
def test_every_key_is_compared(key):
    group = Group(settings=consistency.settings(changed(key)))
    if key in MAY_DIFFER:
        consistency.require_same_start(Config(), UserObjects(), group)
        return
    with pytest.raises(ConfigError) as caught:
        consistency.require_same_start(Config(), UserObjects(), group)
    assert str(caught.value).startswith(f"{key} is ") and " on rank 1" in str(caught.value)


def test_a_key_that_only_another_version_has_is_a_difference():
    with pytest.raises(ConfigError, match="new_key is None on rank 0 and 3 on rank 1"):
        consistency.require_same_start(Config(), UserObjects(), Group(settings={"new_key": 3}))


@pytest.mark.parametrize("name", ["the version of PLSC", "the version of Paddle", "the version of NumPy"])
def test_versions_come_first(name):
    group = Group(versions={name: "0.1"}, settings={"lr": 9})
    with pytest.raises(LaunchError, match=f"{name} is '.*' on rank 0 and '0.1' on rank 1: install the same packages"):
        consistency.require_same_start(Config(), UserObjects(), group)


def test_what_rounds_is_told_and_not_refused():
    assert consistency.require_same_start(Config(), UserObjects(), Group()) == []
    (line,) = consistency.require_same_start(Config(), UserObjects(), Group(machine={"the version of Pillow": "1.0"}))
    assert line.startswith("the ranks differ: the version of Pillow is ") and "'1.0' on rank 1" in line
    config, other = Config.from_dict({"data": {"decoder": "pillow"}}), {"the decoder of JPEG images": "simplejpeg"}
    (line,) = consistency.require_same_start(config, UserObjects(), Group(machine=other))
    assert "the decoder of JPEG images is 'Pillow' on rank 0 and 'simplejpeg' on rank 1" in line


def test_several_ranks_and_many_keys_make_one_short_line():
    everyone = [{f"k{i}": 0 for i in range(9)}, {f"k{i}": 0 for i in range(9)}, {f"k{i}": 1 for i in range(9)}]
    assert consistency.differences([*everyone, everyone[2]])[0] == (
        "k0 is 0 on rank 0 and 1 on rank 2 (rank(s) 3 differ too)"
    )
    with pytest.raises(ConfigError) as caught:
        consistency._refuse(ConfigError, everyone, "do this")
    assert str(caught.value).endswith("k4 is 0 on rank 0 and 1 on rank 2; and 4 more: do this")


def test_long_values_are_cut_around_what_differs():
    values = [list(range(100)), [*range(60), 7, *range(61, 100)]]
    (line,) = consistency.differences([{"boundaries": value} for value in values])
    assert len(line) < 200 and "59, 60, 61" in line and "59, 7, 61" in line


def test_an_address_is_shown_without_what_is_secret():
    urls = [f"s3://bucket/dir?signature=secret{rank}" for rank in (0, 1)]
    (line,) = consistency.differences([{"remote.save_url": url} for url in urls])
    assert "secret" not in line


def test_a_rate_of_a_users_own_is_compared():
    import paddle

    name = qualified_name(paddle.ParamAttr(learning_rate=0.5))
    assert name.endswith("ParamAttr, learning rate 0.5")
    with pytest.raises(ConfigError, match="param_attr is .* rate 0.5' on rank 0 and .* rate 1.0' on rank 1"):
        own = UserObjects(param_attr=paddle.ParamAttr(learning_rate=0.5))
        other = UserObjects(param_attr=paddle.ParamAttr())
        consistency.require_same_start(Config(), own, Group(user_objects=other.names()))


def reader(count: int):
    return count


@pytest.mark.parametrize("value, name", [
    (None, None),
    (reader, f"{__name__}.reader"),
    (functools.partial(functools.partial(reader, 2)), f"{__name__}.reader"),
    (Group(), f"{__name__}.Group"),
    (Group().agree, f"{__name__}.Group.agree"),
    ([1, 2], "builtins.list"),
])  # fmt: skip
def test_a_part_is_named_by_its_function_or_class(value, name):
    assert qualified_name(value) == name
