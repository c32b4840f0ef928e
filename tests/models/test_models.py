"""The built-in nets against NumPy, their layouts, sizes and names; train and evaluation programs in one scope."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import paddle
import pytest

from plsc.errors import ConfigError
from plsc.models import BaseModel, build_model, list_models, register_model, require_same_parameters
from plsc.models.layers import LayerBuilder
from tests.models.model_programs import Run, build, image, parameters
from tests.reference.backbones import NumpyNet, conv

SHAPE = (3, 33, 20)  # odd, not square: the last map is 3x2
WIDE = {"WideMobileFaceNet": (2, (0, 5, 7, 3)), "LargeMobileFaceNet": (4, (2, 9, 13, 5))}
NARROW = {"base_width": 4, "embedding_size": 6, "image_shape": SHAPE, "dropout": 0.0}


@pytest.fixture(autouse=True)
def static_mode():
    paddle.enable_static()
    yield
    paddle.disable_static()


def narrow(name: str, **options):
    return build_model(name, **{**NARROW, **options})


def reference(name: str, weights, picture, training: bool):
    net = NumpyNet(weights, training)
    if name in WIDE:
        return net.wide_mobilefacenet(picture, *WIDE[name])
    return net.mobilefacenet(picture) if name == "MobileFaceNet" else net.resnet(picture, int(name.partition("Net")[2]))


def close(actual, expected, tolerance):
    """Relative to the largest value: a feature is used as a direction."""
    np.testing.assert_allclose(actual, expected, rtol=0, atol=tolerance * np.abs(expected).max())


def test_numpy_convolution_against_plain_loops():
    draw = np.random.Generator(np.random.Philox(key=[1, 1]))
    x, w = draw.normal(size=(2, 4, 5, 6)), draw.normal(size=(6, 2, 3, 3))
    y = conv(x, w, stride=2, padding=1, groups=2)
    padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)))
    for b, o, i, j in np.ndindex(*y.shape):
        channels = slice(2 * (o // 3), 2 * (o // 3) + 2)
        assert y[b, o, i, j] == pytest.approx(
            np.sum(padded[b, channels, 2 * i : 2 * i + 3, 2 * j : 2 * j + 3] * w[o]), abs=1e-12
        )


@pytest.mark.parametrize("is_train", [False, True])
@pytest.mark.parametrize("name", ["ResNet18", "ResNet34", "MobileFaceNet", *WIDE, "SEResNet18"])
def test_feature_is_the_papers(name, is_train):
    main, startup, feature = build(narrow(name), SHAPE, is_train)
    run, picture = Run(startup), image(5, SHAPE)
    run.randomise(main)
    expected = reference(name, run.weights(main), picture, is_train)
    (actual,) = run(main, [feature], image=picture)
    assert actual.dtype == np.float32 and actual.shape == (5, 6)
    # 20 to 50 layers of float32 rounding; BN over the 5 features of a batch magnifies it in training.
    close(actual, expected, 2e-4 if is_train else 2e-5)


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
def test_options_of_other_peoples_nets(layout):
    """AdaFace's shortcut, another epsilon, pixels / 255 with zeros around them. Variances from 1e-5 on show epsilon."""
    options = {"bn_epsilon": 1e-5, "projection": "channels", "input_scale": 0.5, "input_shift": 0.5}
    main, startup, feature = build(narrow("ResNet18", data_format=layout, **options), SHAPE, False)
    run, picture = Run(startup), image(5, SHAPE)
    run.randomise(main)
    run.set("backbone.stage1.unit0.bn1.running_variance", np.array([1e-5, 1e-4, 1, 2], np.float32))
    assert "backbone.stage1.unit0.shortcut.conv.weight" not in parameters(main)
    assert "backbone.stage2.unit0.shortcut.conv.weight" in parameters(main)
    net = NumpyNet(run.weights(main), False, epsilon=1e-5, projected=False)
    (actual,) = run(main, [feature], image=picture)
    close(actual, net.resnet(picture * 0.5 + 0.5, 18), 2e-5)  # float32 rounding of 20 layers
    assert np.abs(net.resnet(picture, 18) - actual).max() > 1e-3 * np.abs(actual).max()


@pytest.mark.parametrize("is_train", [False, True])
@pytest.mark.parametrize("name", ["ResNet18", "MobileFaceNet", "SEResNet18", "WideMobileFaceNet"])
def test_layouts_give_one_feature_from_one_set_of_weights(name, is_train):
    main, startup, feature = build(narrow(name, data_format="NCHW"), SHAPE, is_train)
    other, _, other_feature = build(narrow(name, data_format="NHWC"), SHAPE, is_train)
    require_same_parameters(main, other)
    run, picture = Run(startup), image(5, SHAPE)
    run.randomise(main)
    (expected,) = run(main, [feature], image=picture)
    (actual,) = run(other, [other_feature], image=picture)
    # Both sum the same float32 products in another order; BN over 5 features magnifies that in training.
    close(actual, expected, 1e-4 if is_train else 1e-5)


@pytest.mark.parametrize("name", ["ResNet18", "MobileFaceNet"])
def test_evaluation_reads_what_training_wrote(name):
    model = narrow(name)
    train, startup, feature = build(model, SHAPE, True, optimizer=paddle.optimizer.Momentum(0.01))
    evaluation, _, eval_feature = build(model, SHAPE, False)
    require_same_parameters(train, evaluation)
    run, picture = Run(startup), image(5, SHAPE)
    stem = conv(picture.astype(np.float64), run.get("backbone.stem.conv.weight").astype(np.float64),
                stride=1 if name == "ResNet18" else 2, padding=1)  # fmt: skip
    before = run.weights(evaluation)
    run(train, [feature], image=picture)
    after = run.weights(evaluation)
    # Momentum 0.9 from the initial mean 0; float32 sums of 27 products.
    np.testing.assert_allclose(after["stem.bn.running_mean"], 0.1 * stem.mean((0, 2, 3)), atol=1e-6)
    trained = [key for key in before if "running" not in key and not np.array_equal(before[key], after[key])]
    assert len(trained) > 0.9 * sum("running" not in key for key in before)

    (actual,) = run(evaluation, [eval_feature], image=picture)
    close(actual, reference(name, after, picture, False), 2e-5)  # float32 rounding of 20 to 50 layers
    assert all(np.array_equal(after[key], value) for key, value in run.weights(evaluation).items())


def test_names_are_stable_and_explicit():
    model = narrow("ResNet18")
    first, second = (parameters(build(model, SHAPE, is_train)[0]) for is_train in (True, False))
    assert first == second
    expected = {"backbone.stem.conv.weight", "backbone.stage1.unit0.bn1.running_mean", "backbone.head.fc.bias",
                "backbone.stage4.unit1.prelu.weight", "backbone.stage2.unit0.shortcut.conv.weight"}  # fmt: skip
    assert expected <= set(first)
    assert all(name.startswith("backbone.") and not name[-1].isdigit() for name in first)


def test_initial_weights():
    """He's fan-out rule; 512 * 512 * 9 draws give the deviation to 0.05 %, six of those are allowed."""
    model = build_model("ResNet18", image_shape=(3, 1, 1), embedding_size=512)
    main, startup, _ = build(model, (3, 1, 1), True)
    weights = Run(startup).weights(main)
    conv2, fc = weights["stage4.unit1.conv2.weight"], weights["head.fc.weight"]
    assert conv2.std() == pytest.approx(np.sqrt(2 / (512 * 9)), rel=3e-3)
    assert fc.std() == pytest.approx(np.sqrt(2 / 512), rel=9e-3)
    assert (weights["stem.prelu.weight"] == 0.25).all()


def test_dropout_trains_only():
    main, startup = paddle.static.Program(), paddle.static.Program()
    with paddle.static.program_guard(main, startup):
        ones = paddle.ones([20000])
        dropped, kept = (LayerBuilder("NCHW", is_train).dropout(ones, 0.4) for is_train in (True, False))
    dropped, kept = Run(startup)(main, [dropped, kept])
    assert (kept == 1).all()
    np.testing.assert_allclose(np.unique(dropped), [0, 1 / 0.6], rtol=1e-6)
    assert (dropped == 0).mean() == pytest.approx(0.4, abs=0.02)  # six standard deviations of 20,000 draws
    assert build_model("ResNet50").dropout == 0.4 and build_model("MobileFaceNet").dropout == 0.0


@pytest.mark.parametrize("name", ["ResNet18", "MobileFaceNet"])
def test_dropout_is_in_the_net_and_repeats_with_the_seed(name):
    main, startup, feature = build(narrow(name, dropout=0.5), SHAPE, True)
    run, picture = Run(startup), image(5, SHAPE)

    def steps():
        paddle.seed(11)
        return [run(main, [feature], image=picture)[0] for _ in range(2)]

    first, second = steps()
    assert np.abs(first - second).max() > 1e-3
    np.testing.assert_array_equal([first, second], steps())


@pytest.mark.parametrize("size", [(1, 1), (16, 16), (17, 15), (64, 64)])
@pytest.mark.parametrize("name", ["ResNet18", "MobileFaceNet"])
def test_any_size_works(name, size):
    model = narrow(name, image_shape=[1, *size])
    main, startup, feature = build(model, (1, *size), False)
    run = Run(startup)
    (actual,) = run(main, [feature], image=image(2, (1, *size)))
    assert actual.shape == (2, 6) and np.isfinite(actual).all()
    last = np.ceil(np.array(size) / 16)
    if name == "ResNet18":
        assert run.get("backbone.head.fc.weight").shape == (32 * last.prod(), 6)
    else:
        assert run.get("backbone.global_depthwise.conv.weight").shape == (32, 1, *last)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"name": "ResNet5"}, ["model.name", "'ResNet5'", "ResNet152", "did you mean ResNet50"]),
        ({"image_shape": (3, 0, 112)}, ["model.image_shape", "[3, 0, 112]", "1x1"]),
        ({"image_shape": (112, 112)}, ["model.image_shape", "[channels, height, width]"]),
        ({"image_shape": (3, 112.0, 112)}, ["model.image_shape", "whole"]),
        ({"embedding_size": 0}, ["model.embedding_size", "0"]),
        ({"base_width": True}, ["model 'ResNet50'", "base_width=True must be int"]),
        ({"data_format": "CHWN"}, ["model.data_format", "'CHWN'", "NCHW, NHWC"]),
        ({"dropout": 1.0}, ["model.dropout", "1.0"]),
        ({"dropout": "0.4"}, ["model 'ResNet50'", "dropout='0.4' must be float"]),
        ({"depth": 50}, ["ResNet50", "depth"]),
    ],
)
def test_a_wrong_option_is_one_clear_line(options, words):
    with pytest.raises(ConfigError) as caught:
        build_model(**{"name": "ResNet50", **options})
    assert "\n" not in str(caught.value)
    for word in words:
        assert word in str(caught.value)


def test_a_image_of_another_size_is_refused():
    with pytest.raises(ConfigError, match=r"model.image_shape: \[3, 33, 20\], but the input image is \[3, 32, 20\]"):
        build(narrow("ResNet18"), (3, 32, 20), False)


def test_registry():
    names = {"ResNet10", "ResNet18", "ResNet34", "ResNet50", "ResNet100", "ResNet101", "ResNet152", "ResNet200",
             "MobileFaceNet", "SEResNet50", "WideMobileFaceNet", "LargeMobileFaceNet", "ViT-T", "ViT-L"}  # fmt: skip
    assert names <= set(list_models())

    @register_model("of this test")
    class Mine(BaseModel):
        def __init__(self, name, embedding_size):
            self.embedding_size = embedding_size

    assert build_model("of this test", embedding_size=3).embedding_size == 3
    with pytest.raises(ConfigError, match="taken"):
        register_model("of this test")(Mine)
    register_model("not a model")(lambda name: 5)
    with pytest.raises(ConfigError, match="returned int"):
        build_model("not a model")


def test_importing_needs_no_paddle():
    code = "import sys; sys.modules['paddle'] = None; import plsc.models as m; m.build_model('ResNet50'); print('ok')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout == "ok\n", done.stderr
