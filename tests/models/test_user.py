"""Models that users write: both signatures, automatic names, and every mistake as one clear line."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import numpy as np
import paddle
import pytest

from plsc.backend import static
from plsc.errors import ConfigError
from plsc.models import BaseModel, build_feature, build_model, require_same_parameters
from tests.models.model_programs import Run, build, image, parameters

SHAPE = (3, 8, 8)
DOCUMENT = Path(__file__).parents[2] / "docs" / "add_a_backbone.md"


@pytest.fixture(autouse=True)
def static_mode():
    paddle.enable_static()
    yield
    paddle.disable_static()


def small_net(width=5):
    nn = paddle.nn
    return nn.Sequential(
        nn.Conv2D(3, width, 3, 2, 1), nn.BatchNorm2D(width), nn.ReLU(), nn.Flatten(), nn.Dropout(0.5),
        nn.Linear(16 * width, 6),
    )  # fmt: skip


class WithLabel(BaseModel):
    def build_network(self, input, label, is_train=True):
        self.label = label
        net = small_net()
        return (net if is_train else net.eval() or net)(input)


class WithFields(BaseModel):
    def build_network(self, input, is_train=True):
        self.label = getattr(input, "label", None)
        net = small_net()
        return (net if is_train else net.eval() or net)(input.image)


@pytest.mark.parametrize("model", [WithLabel(), WithFields()])
def test_both_forms_share_automatic_names_between_programs(model):
    sgd = paddle.optimizer.SGD(0.1)
    train, startup, feature = build(model, SHAPE, True, label=True, optimizer=sgd)
    assert model.label.name == "label"
    evaluation, _, eval_feature = build(model, SHAPE, False)
    assert model.label is None
    require_same_parameters(train, evaluation)
    assert set(parameters(train)) == set(parameters(evaluation)) and len(parameters(train)) == 8

    run, picture = Run(startup), image(4, SHAPE)
    (before,) = run(evaluation, [eval_feature], image=picture)
    names = sorted(parameters(evaluation))
    kept = [run.get(name) for name in names]
    (again,) = run(evaluation, [eval_feature], image=picture)
    np.testing.assert_array_equal(before, again)  # evaluation changes nothing
    assert all(np.array_equal(old, run.get(name)) for old, name in zip(kept, names, strict=True))
    run(train, [feature], image=picture, label=np.zeros(4, np.int64))
    assert all(not np.array_equal(old, run.get(name)) for old, name in zip(kept, names, strict=True))
    (after,) = run(evaluation, [eval_feature], image=picture)
    assert np.abs(after - before).max() > 1e-3


def test_an_input_that_is_not_called_image():
    main, startup = paddle.static.Program(), paddle.static.Program()
    with paddle.static.program_guard(main, startup):
        photo = paddle.static.data("photo", [-1, *SHAPE], "float32")
        other = paddle.static.data("other", [-1, 1], "float32")
        assert list(build_feature(WithLabel(), {"photo": photo}, False).shape) == [-1, 6]
        with pytest.raises(ConfigError, match="name it `image`"):
            build_feature(WithLabel(), {"photo": photo, "other": other}, False)
        message = r"WithFields: build_network raised AttributeError: .* no input 'image', it has: photo, other \(test"
        with pytest.raises(ConfigError, match=message):
            build_feature(WithFields(), {"photo": photo, "other": other}, False)


def test_an_error_of_the_net_names_its_line_where_programs_are_built():
    with static.building(paddle.static.Program(), paddle.static.Program()):
        photo = paddle.static.data("photo", [-1, *SHAPE], "float32")
        message = r"WithFields: build_network raised AttributeError: .* \(test_user.py:\d+\)"
        with pytest.raises(ConfigError, match=message):
            build_feature(WithFields(), {"photo": photo}, False)


def test_names_do_not_meet_those_of_the_rest_of_the_program():
    """A second counter from zero would give one name to two variables, and one would overwrite the other."""
    main, startup = paddle.static.Program(), paddle.static.Program()
    with paddle.static.program_guard(main, startup):
        with paddle.utils.unique_name.guard():
            picture = paddle.static.data("image", [-1, *SHAPE], "float32")
            mine = paddle.nn.Conv2D(3, 5, 3, 2, 1)(picture)
            feature = build_feature(WithFields(), {"image": picture}, False)
            rest = paddle.nn.Linear(6, 6)(feature)
    names = [value.name for value in main.global_block().all_parameters()]
    assert len(names) == len(set(names)) == 2 + 8 + 2
    run, fed = Run(startup), image(2, SHAPE)
    (alone,) = run(main, [mine], image=fed)
    together = run(main, [mine, feature, rest], image=fed)
    np.testing.assert_array_equal(alone, together[0])
    weight = run.get("conv2d_0.w_0")
    expected = np.einsum("bcij,ocij->bo", fed[:, :, 1:4, 1:4], weight)
    np.testing.assert_allclose(together[0][:, :, 1, 1], expected, atol=1e-5)  # float32 sums of 27 products of about 1


def model(**members):
    """An object of a BaseModel subclass with these members."""
    return type("Mine", (BaseModel,), members)()


def forgets_eval(self, input, is_train=True):
    return small_net()(input.image)


def forgets_dropout(self, input, is_train=True):
    return paddle.nn.functional.dropout(paddle.flatten(input.image, 1), 0.5)


@pytest.mark.parametrize(
    ("mine", "words"),
    [
        (model(), "define build_network in the subclass"),
        (model(build_network=lambda self, x: x), r"takes \(x\); allowed: \(input, label, is_train=True\)"),
        (model(build_network=lambda self, a, b, c, is_train: a), r"takes \(a, b, c, is_train\)"),
        (model(build_network=lambda self, x, is_train: x.image), r"returned \[-1, 3, 8, 8\], expected one variable"),
        (model(build_network=lambda self, x, is_train: None), "returned NoneType"),
        (
            model(build_network=forgets_eval),
            "batch_norm is in training mode although is_train is False; call layer.eval()",
        ),
        (model(build_network=forgets_dropout), "dropout is in training mode although is_train is False"),
    ],
)
def test_mistakes(mine, words):
    with pytest.raises(ConfigError, match=words) as caught:
        build(mine, SHAPE, False)
    assert "\n" not in str(caught.value)


def test_layers_made_before_the_program():
    mine = WithFields()
    mine.fc = paddle.nn.Linear(2, 2)
    with pytest.raises(ConfigError, match="fc is a paddle.nn.Layer created before the program"):
        build(mine, SHAPE, True)


def test_layers_that_exist_in_one_mode_only():
    def build_network(self, input, is_train=True):
        x = paddle.flatten(input.image, 1)
        if is_train:
            paddle.nn.Linear(192, 6)(x)
        return paddle.nn.Linear(192, 6)(x)

    mine = model(build_network=build_network)
    train, evaluation = build(mine, SHAPE, True)[0], build(mine, SHAPE, False)[0]
    for first, second in ((train, evaluation), (evaluation, train)):
        with pytest.raises(ConfigError, match="create the same layers in the same order"):
            require_same_parameters(first, second, "Mine")
    require_same_parameters(train, train)


def test_the_documented_example_works(tmp_path):
    (code,) = re.findall(r"```python\n(.*?)```", DOCUMENT.read_text(), re.DOTALL)
    assert len(code.splitlines()) <= 30
    path = tmp_path / "tiny_net.py"
    path.write_text(code)
    spec = importlib.util.spec_from_file_location("tiny_net", path)
    spec.loader.exec_module(importlib.util.module_from_spec(spec))

    shape = (3, 20, 20)
    tiny = build_model("TinyNet", embedding_size=7, base_width=4, depth=3)
    train, startup, feature = build(tiny, shape, True, label=True, optimizer=paddle.optimizer.SGD(0.1))
    evaluation, _, eval_feature = build(tiny, shape, False)
    require_same_parameters(train, evaluation)
    run, picture = Run(startup), image(4, shape)
    (before,) = run(evaluation, [eval_feature], image=picture)
    run(train, [feature], image=picture, label=np.zeros(4, np.int64))
    (after,) = run(evaluation, [eval_feature], image=picture)
    assert after.shape == (4, 7) and np.abs(after - before).max() > 0
