"""A name from the settings: what its class or function is given, and what wrong options and signatures say."""

from __future__ import annotations

import pytest

from plsc.config import Config
from plsc.config.extensions import MODEL, check_optimizers
from plsc.config.user_objects import UserObjects
from plsc.errors import ConfigError
from plsc.models import BaseModel, build_model, register_model
from plsc.registry import MODELS
from tests.registries import forget_afterwards


@pytest.fixture(autouse=True)
def as_before(monkeypatch):
    """What a test registers is forgotten after it."""
    MODELS.names()
    forget_afterwards(monkeypatch, MODELS)


def net(name="Net"):
    """A registered net that keeps what it was made with."""

    @register_model(name)
    class Net(BaseModel):
        def __init__(self, embedding_size, depth: int = 2, slope: float | None = 0.25, kind: str = "a", dropout=0.1):
            self.made_with = {"embedding_size": embedding_size, "depth": depth, "slope": slope, "dropout": dropout}

    return Net


def settings(**model) -> Config:
    return Config.from_dict({"model": {"name": "Net", "embedding_size": 7, **model}})


def made(config: Config) -> BaseModel:
    return build_model(**{"name": config.model.name, **MODEL.arguments(config.settings, data_format=config.layout)})


def refusal(config: Config) -> str:
    with pytest.raises(ConfigError) as caught:
        UserObjects().check(config)
    assert "\n" not in str(caught.value)
    with pytest.raises(ConfigError):
        MODEL.arguments(config.settings)
    return str(caught.value)


def test_a_net_gets_what_it_declares():
    net()
    assert made(settings()).made_with == {"embedding_size": 7, "depth": 2, "slope": 0.25, "dropout": 0.1}
    config = settings(dropout=0.3, options={"depth": 5, "slope": None})
    UserObjects().check(config)
    assert made(config).made_with == {"embedding_size": 7, "depth": 5, "slope": None, "dropout": 0.3}


def test_a_net_of_any_keywords_gets_all():
    @register_model("Net")
    class Old(BaseModel):
        def __init__(self, name="Old", embedding_size=64, **unused):
            self.made_with = {"name": name, "embedding_size": embedding_size, **unused}

    config = settings(base_width=8, options={"anything": [1, {"a": 2}]})
    section = {"name": "Net", "embedding_size": 7, "image_shape": [3, 112, 112], "data_format": "NCHW", "dropout": None}
    assert made(config).made_with == {**section, "base_width": 8, "anything": [1, {"a": 2}]}
    assert config.without_effect() == []


def test_a_function_may_make_the_net():
    kind = net("Other")

    @register_model("Net")
    def make(depth: int):
        return kind(embedding_size=1, depth=depth)

    assert made(settings(options={"depth": 9})).made_with["depth"] == 9


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"depht": 3}, "model 'Net': there is no option depht; its options: depth (int, default 2), slope"),
        ({"depth": 2.5}, "depth=2.5 must be int; its options: depth"),
        ({"depth": True}, "depth=True must be int"),
        ({"slope": "steep"}, "slope='steep' must be float | None"),
        ({"kind": 1}, "kind=1 must be str"),
        ({"dropout": 0.2}, "dropout is a setting of its own: model.dropout"),
    ],
)
def test_wrong_options(options, text):
    net()
    message = refusal(settings(options=options))
    assert message.startswith("model.options={") and text in message


@pytest.mark.parametrize("epsilons", [3, [1e-30, "small"], "ab", {"first": 1e-30, "second": 1e-3}])
def test_a_list_of_numbers_as_an_option(epsilons):
    chosen = {"optimizer": {"name": "adafactor", "options": {"epsilons": epsilons}}}
    chosen["class_optimizer"] = {"name": "momentum"}
    with pytest.raises(ConfigError, match=r"optimizer.options=.*epsilons=.* must be Sequence\[float\]; its options: "):
        check_optimizers(Config.from_dict(chosen).settings)
    chosen["optimizer"]["options"] = {"epsilons": [1, 1e-3]}
    check_optimizers(Config.from_dict(chosen).settings)


def test_an_option_that_is_needed():
    @register_model("Net")
    class Net(BaseModel):
        def __init__(self, depth, *, slope=1.0):
            pass

    assert "the option depth is missing; its options: depth, slope (default 1.0)" in refusal(settings())


def test_a_built_in_model_names_its_options():
    assert "model 'ResNet10': there is no option depth; its options: bn_epsilon" in refusal(
        settings(name="ResNet10", options={"depth": 1})
    )


def test_what_the_constructor_raises_is_one_line():
    @register_model("Net")
    class Net(BaseModel):
        def __init__(self, depth: int = 1):
            raise ValueError("depth of\n two")

    message = r"^model 'Net': its constructor raised ValueError: depth of two \(test_extensions.py:\d+\)$"
    with pytest.raises(ConfigError, match=message):
        made(settings())


def test_settings_that_the_net_does_not_take_are_named():
    net()
    lines = settings(base_width=8, data_format="NHWC", dropout=0.2, image_shape=[3, 8, 8]).without_effect()
    assert lines == [
        "model.data_format='NHWC': has no effect with model.name: Net",
        "model.base_width=8: has no effect with model.name: Net",
    ]
    lines = UserObjects(model=object()).without_effect(Config.from_dict({"model": {"options": {"depth": 3}}}))
    assert lines == ["model.options={'depth': 3}: has no effect with a model of your own (set_model)"]


@pytest.mark.parametrize("way", ["set", "override", "yaml", "dict"])
def test_options_come_in_every_way_and_are_kept(way, tmp_path):
    config, wanted = Config(), {"depth": 3, "slope": 1e-3, "names": ["a", None, {"b": True}]}
    if way == "set":
        config.set("model.options", wanted)
    elif way == "override":
        config.override(["model.options={depth: 3, slope: 1e-3, names: [a, null, {b: true}]}"])
    elif way == "yaml":
        text = "model:\n  options:\n    depth: 3\n    slope: 1e-3\n    names: [a, ~, {b: yes}]\n"
        (tmp_path / "x.yaml").write_text(text)
        config = Config.from_yaml(tmp_path / "x.yaml")
    else:
        config = Config.from_dict({"model": {"options": wanted}})
    assert config.model.options == config.to_dict()["model"]["options"] == wanted
    assert Config.from_dict(config.to_dict()) == config
    wanted["depth"] = 4
    assert config.get("model.options")["depth"] == 3  # a copy


@pytest.mark.parametrize(
    "value", [None, [1], "depth", {1: 2}, {"a b": 1}, {"a": float("nan")}, {"a": object()}, {"a": 2**64}, {"a": {1: 2}}]
)
def test_what_is_no_mapping_of_plain_values(value):
    with pytest.raises(ConfigError, match="^model.options=.*: must be a mapping of names to values"):
        Config().set("model.options", value)


def test_options_that_hold_themselves():
    value: dict = {}
    value["a"] = value
    with pytest.raises(ConfigError, match="nested too deeply"):
        Config().set("model.options", value)


def test_an_option_is_no_key():
    with pytest.raises(ConfigError, match=r"^-o: model.options.depth=3: write model.options={depth: ...}, a mapping$"):
        Config().override(["model.options.depth=3"])


def only_by_place(depth, /):
    return None


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (Config, "model 'x': Config is not a subclass of plsc.models.BaseModel"),
        (int, "model 'x': has no signature that Python knows"),
        (3, "model 'x': is int, neither a class nor a function"),
        (only_by_place, r"model 'x': takes \(depth\); it must take its options by name"),
        (type("N", (BaseModel,), {"build_network": lambda self, x: x}), r"model 'x': build_network takes \(x\); allo"),
    ],
)
def test_what_is_no_model_is_refused_where_it_is_registered(value, text):
    with pytest.raises(ConfigError, match=text):
        register_model("x")(value)
    assert "x" not in MODELS
