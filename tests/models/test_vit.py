"""Vision transformers: the feature against NumPy, what is dropped in training, sizes against the published ones."""

from __future__ import annotations

import numpy as np
import paddle
import pytest

from plsc.errors import ConfigError
from plsc.models import build_model, require_same_parameters, tokens
from tests.models.model_programs import Run, build, image, parameters
from tests.reference.vit import vit

SHAPE = (3, 20, 26)  # 2 x 3 patches of 8, and something left over
SMALL = {"name": "ViT-T", "base_width": 4, "embedding_size": 6, "image_shape": SHAPE, "patch_size": 8, "num_heads": 4,
         "depth": 3}  # fmt: skip


@pytest.fixture(autouse=True)
def static_mode():
    paddle.enable_static()
    yield
    paddle.disable_static()


def small(**options):
    return build_model(**{**SMALL, "drop_path": 0.0, "mask_ratio": 0.0, **options})


def randomise(run, program):
    """Numbers that let each part be seen."""
    for index, (name, shape) in enumerate(sorted(parameters(program).items())):
        draw = np.random.Generator(np.random.Philox(key=[5, index]))
        positive = name.endswith("variance") or (name.endswith("weight") and len(shape) == 1)
        low, high = (0.5, 1.5) if positive else (-0.6, 0.6)
        run.set(name, draw.uniform(low, high, shape))


@pytest.mark.parametrize("is_train", [False, True])
def test_feature_is_the_papers(is_train):
    main, startup, feature = build(small(), SHAPE, is_train)
    run, picture = Run(startup), image(5, SHAPE)
    randomise(run, main)
    expected = vit(run.weights(main), picture, 8, 4, is_train)
    (actual,) = run(main, [feature], image=picture)
    # float32 rounding; BN over the 5 features of a batch magnifies it in training
    np.testing.assert_allclose(actual, expected, rtol=0, atol=(2e-4 if is_train else 2e-5) * np.abs(expected).max())


def test_evaluation_drops_nothing():
    model = small(drop_path=0.5, mask_ratio=0.5)
    train, startup, feature = build(model, SHAPE, True, optimizer=paddle.optimizer.Momentum(0.01))
    evaluation, _, eval_feature = build(model, SHAPE, False)
    require_same_parameters(train, evaluation)
    run, picture = Run(startup), image(5, SHAPE)
    randomise(run, evaluation)
    before = run.weights(evaluation)
    first, second = (run(evaluation, [eval_feature], image=picture)[0] for _ in range(2))
    np.testing.assert_array_equal(first, second)
    expected = vit(before, picture, 8, 4, False)
    np.testing.assert_allclose(first, expected, rtol=0, atol=2e-5 * np.abs(expected).max())
    paddle.seed(3)
    first, second = (run(train, [feature], image=picture)[0] for _ in range(2))
    assert np.abs(first - second).max() > 1e-2
    after = run.weights(evaluation)
    same = {name for name in before if np.array_equal(before[name], after[name])}
    assert same <= {"head.bn.bias"}  # the last batch norm takes it out again; the mask's token is trained


def test_weights_do_not_depend_on_what_is_dropped():
    plain, masked = (build(small(mask_ratio=ratio), SHAPE, True)[0] for ratio in (0.0, 0.5))
    require_same_parameters(plain, masked)


def test_masked_tokens():
    x, token = np.arange(2 * 7 * 3, dtype=np.float32).reshape(2, 7, 3), np.full((1, 1, 3), -5, np.float32)
    main, startup = paddle.static.Program(), paddle.static.Program()
    with paddle.static.program_guard(main, startup):
        tensor, fill = (paddle.static.data(name, list(value.shape), "float32") for name, value in
                        (("x", x), ("token", token)))  # fmt: skip
        fill.stop_gradient = False
        places = tokens.random_places(tensor, 7, 4)
        kept = tokens.select(tensor, places)
        whole = tokens.put_back(kept, places, fill)
        (gradient,) = paddle.static.gradients([paddle.sum(whole)], [fill])
    run, seen = Run(startup), np.zeros(7)
    paddle.seed(1)
    for _ in range(50):
        places_, kept_, whole_, gradient_ = run(main, [places, kept, whole, gradient], x=x, token=token)
        chosen = places_.argmax(2)
        assert places_.sum() == 8 and all(len(set(row)) == 4 for row in chosen)
        np.testing.assert_array_equal(kept_, np.take_along_axis(x, chosen[:, :, None], 1))
        for sample, row in enumerate(chosen):
            hidden = sorted(set(range(7)) - set(row))
            np.testing.assert_array_equal(whole_[sample, row], x[sample, row])
            assert (whole_[sample, hidden] == -5).all()
            seen[row] += 1
        np.testing.assert_array_equal(gradient_, np.full((1, 1, 3), 6))  # 3 tokens of each of 2 samples
    assert np.abs(seen / 100 - 4 / 7).max() < 0.2  # four standard deviations of 100 draws


def test_dropped_paths(monkeypatch):
    main, startup = paddle.static.Program(), paddle.static.Program()
    with paddle.static.program_guard(main, startup):
        y = tokens.drop_path(paddle.full([4000, 2, 3], 3.0), 0.25)
    (y,) = Run(startup)(main, [y])
    samples = y.reshape(4000, 6)
    assert (samples == samples[:, :1]).all()
    np.testing.assert_allclose(np.unique(samples), [0, 4], rtol=1e-6)
    assert (samples == 0).mean() == pytest.approx(0.25, abs=0.04)  # six standard deviations of 4,000 draws

    rates = []
    monkeypatch.setattr(tokens, "drop_path", lambda y, rate: rates.append(rate) or y)
    build(small(drop_path=0.2), SHAPE, True)
    assert rates == pytest.approx([0, 0, 0.1, 0.1, 0.2, 0.2])
    rates.clear()
    build(small(drop_path=0.2), SHAPE, False)
    assert rates == [0] * 6


@pytest.mark.parametrize("options, words", [
    ({"patch_size": 21}, "model.options.patch_size: 21 is larger than an image"),
    ({"patch_size": 0}, "model.options.patch_size: 0 is not allowed"),
    ({"num_heads": 3}, "model.options.num_heads: 3 does not divide the 16 features"),
    ({"num_heads": 0}, "model.options.num_heads: 0 is not allowed"), ({"depth": 0}, "model.options.depth: 0"),
    ({"mask_ratio": 1.0}, "model.options.mask_ratio: 1.0 is out of range"),
    ({"drop_path": -0.1}, "model.options.drop_path: -0.1 is out of range"),
    ({"dropout": 0.1}, "no option dropout"), ({"data_format": "NHWC"}, "no option data_format"),
])  # fmt: skip
def test_a_wrong_option_is_one_clear_line(options, words):
    with pytest.raises(ConfigError, match=words) as caught:
        small(**options)
    assert "\n" not in str(caught.value)


def test_heads_are_part_of_the_function():
    assert small().function_options()["num_heads"] == 4
