"""Short runs of one rank with what a user hands over: optimizers, attributes, names of weights, test data."""

from __future__ import annotations

import glob
import itertools

import numpy as np
import paddle
import pytest
from safetensors.numpy import load_file

from plsc import Entry
from plsc.errors import ConfigError, DataError, VerificationError
from plsc.models import BaseModel

CLASSES, BATCH = 11, 6


class Linear(BaseModel):
    """feature = image.flatten @ weight + bias; ``name`` of the weight, ``factor`` of the feature."""

    def __init__(self, name=None, factor=1.0):
        self.name, self.factor = name, factor

    def build_network(self, input, label, is_train=True):
        attr = paddle.ParamAttr(name=self.name)
        return paddle.nn.Linear(48, 8, weight_attr=attr)(paddle.flatten(input, 1)) * self.factor


@pytest.fixture
def entry(tmp_path):
    """Entries that each save to a directory of their own. lr 0.5, momentum 0.9, decay 5e-4."""
    numbers = itertools.count()

    def make(model=None, **changes):
        made = Entry(
            config={
                "seed": 3,
                "device": "cpu",
                "num_threads": 1,
                "model_save_dir": str(tmp_path / str(next(numbers))),
                "data": {"dataset": "synthetic", "train_image_num": 24, "num_workers": 0},
                "model": {"image_shape": [3, 4, 4], "embedding_size": 8},
                "classifier": {"num_classes": CLASSES, "scale": 8.0},
                "with_test": False,
                "train_batch_size": BATCH,
                "lr": 0.5,
                "lr_reference_batch": BATCH,
                "train_steps": 6,
                "log_period": 1,
                **changes,
            }
        )
        made.set_model(model or Linear())
        return made

    return make


def momentum(rate):
    return paddle.optimizer.Momentum(rate, 0.9, weight_decay=paddle.regularizer.L2Decay(5e-4))


def weights(result):
    """The backbone's weight and bias and those of the classes."""
    (replicated,) = glob.glob(f"{result.checkpoint}/replicated*")
    (shard,) = glob.glob(f"{result.checkpoint}/*shard*")
    tensors = {name: value for name, value in load_file(replicated).items() if name.endswith((".w_0", ".b_0"))}
    tensors = {name: value for name, value in tensors.items() if not name.startswith("velocity.")}
    return {**tensors, "classes": load_file(shard)["weight"]}


def assert_same(one, two):
    assert one.keys() == two.keys() and len(one) == 3
    for name, value in one.items():
        # the same formula by another kernel, 6 steps of float32
        np.testing.assert_allclose(two[name], value, rtol=0, atol=3e-6 * np.abs(value).max(), err_msg=name)


def logged_rates(made):
    with open(made.config["model_save_dir"] + "/logs/rank_00000.log", encoding="utf-8") as file:
        return [float(line.split(", lr ")[1].split(",")[0]) for line in file if ", lr " in line]


@pytest.mark.parametrize("sample_ratio", [1.0, 0.5])
def test_a_users_scheduler_sets_the_rate_of_each_step_and_the_log_tells_it(entry, sample_ratio):
    built_in = entry()
    built_in.set_step_boundaries((2, 4))
    own = entry()
    own.set_optimizer(momentum(paddle.optimizer.lr.PiecewiseDecay([2, 4], [0.5, 0.05, 0.005])))
    for made in (built_in, own):
        made.set_sample_ratio(sample_ratio)
    assert_same(weights(built_in.train()), weights(own.train()))
    assert logged_rates(own) == logged_rates(built_in) == pytest.approx([0.5, 0.5, 0.05, 0.05, 0.005, 0.005])


def test_the_log_tells_the_constant_rate_of_a_users_optimizer(entry):
    own = entry(train_steps=2)
    own.set_optimizer(momentum(0.25))
    own.train()
    assert logged_rates(own) == [0.25, 0.25]


def test_the_log_tells_a_rate_that_is_made_from_the_last_one(entry):
    own = entry(train_steps=4)
    own.set_optimizer(momentum(paddle.optimizer.lr.CosineAnnealingDecay(0.5, 4)))
    own.train()
    # Loshchilov and Hutter 2017, eq. 5: 0.5 * (1 + cos(pi * t / 4)) / 2
    assert logged_rates(own) == pytest.approx(
        0.25 * (1 + np.cos(np.pi * np.arange(4) / 4)), abs=5e-7
    )  # six digits in the log


def test_a_scheduler_within_a_scheduler_goes_on_where_it_stood(entry):
    def optimizer():
        lr = paddle.optimizer.lr
        return momentum(lr.LinearWarmup(lr.CosineAnnealingDecay(0.5, 8), 2, 0.0, 0.5))

    whole, first, second = entry(), entry(train_steps=3), entry()
    for made in (whole, first, second):
        made.set_optimizer(optimizer())
    at_once = whole.train()
    second.set_checkpoint_dir(first.train().checkpoint)
    assert_same(weights(at_once), weights(second.train()))
    assert logged_rates(whole) == logged_rates(first) + logged_rates(second)


def test_an_optimizer_serves_every_run_it_is_set_for(entry):
    optimizer = paddle.optimizer.Adam(paddle.optimizer.lr.MultiStepDecay(0.01, [2]))
    results = []
    for _ in range(2):
        made = entry()
        made.set_optimizer(optimizer)
        results.append(made.train())
    assert results[0].loss == results[1].loss
    assert_same(weights(results[0]), weights(results[1]))


def test_a_scheduler_that_waits_for_a_metric_is_refused(entry):
    made = entry()
    made.set_optimizer(momentum(paddle.optimizer.lr.ReduceOnPlateau(0.1)))
    with pytest.raises(ConfigError, match="ReduceOnPlateau"):
        made.train()


@pytest.mark.parametrize("attr", [{"learning_rate": 0.0}, {"learning_rate": 2.0}, {"regularizer": 0.3}])
def test_attributes_of_the_classes_count_with_any_optimizer(entry, attr):
    if "regularizer" in attr:
        attr = {"regularizer": paddle.regularizer.L2Decay(attr["regularizer"])}
    built_in, own, plain = entry(), entry(), entry()
    own.set_optimizer(momentum(0.5))
    for made in (built_in, own):
        made.set_distfc_attr(paddle.ParamAttr(**attr))
    moved = weights(built_in.train())
    assert_same(moved, weights(own.train()))
    assert not np.allclose(moved["classes"], weights(plain.train())["classes"], rtol=1e-2)


@pytest.mark.parametrize(
    "which, attr, word",
    [
        ("param_attr", {"trainable": False}, "trainable=False"),
        ("param_attr", {"need_clip": False}, "need_clip=False"),
        ("bias_attr", {"learning_rate": 0.5}, "learning_rate"),
        ("bias_attr", {"regularizer": paddle.regularizer.L2Decay(0.1)}, "regularizer"),
    ],
)
def test_attributes_that_would_do_nothing_are_refused(entry, which, attr, word):
    made = entry()
    made.set_loss_type("softmax")
    made.set_distfc_attr(**{which: paddle.ParamAttr(**attr)})
    with pytest.raises(ConfigError, match=rf"set_distfc_attr\({which}=...\): {word}"):
        made.train()


@pytest.mark.parametrize("name", ["fc.w", "last_fc.w"])
def test_a_net_may_name_its_weights_like_a_classifier(entry, name):
    made = entry(Linear(name))
    made.set_model_parallel(False)
    result = made.train()
    made.test_dataset = pairs(20)
    made.set_checkpoint_dir(result.checkpoint)
    assert 0.0 <= made.test()["test_dataset"].accuracy <= 1.0


def test_a_net_that_answers_zero_to_everything_has_recognised_nothing(entry):
    made = entry(Linear(factor=0.0), train_steps=1)
    made.set_calc_acc(True)
    made.train()
    with open(made.config["model_save_dir"] + "/logs/rank_00000.log", encoding="utf-8") as file:
        assert "acc1 0.00000, acc5 0.00000" in file.read()


def test_an_optimizer_of_ones_own_with_a_net_without_weights(entry):
    class Nothing(BaseModel):
        def build_network(self, input, label, is_train=True):
            return paddle.flatten(input, 1)[:, :8]

    made = entry(Nothing(), train_steps=2)
    made.set_optimizer(momentum(0.5))
    assert np.isfinite(made.train().loss)


def pairs(count, **wrong):
    """``count`` samples, every second pair of one label; ``wrong``: what sample 3 is instead."""
    rng = np.random.default_rng(0)
    images = rng.standard_normal((count, 3, 4, 4)).astype("float32")
    samples = [(image, i // 2 if i % 4 < 2 else i) for i, image in enumerate(images)]
    if wrong:
        samples[3] = wrong["sample"]
    return samples


class Raising(list):
    def __getitem__(self, index):
        raise KeyError("lost")


IMAGE = np.zeros((3, 4, 4), np.float32)


@pytest.mark.parametrize(
    "data, words",
    [
        (pairs(19), "test_dataset: has 19 samples"),
        (pairs(18), "test_dataset: has 18 samples.*at least 20"),
    ],
)
def test_test_data_of_a_wrong_size_are_refused_before_training(entry, data, words, tmp_path):
    made = entry(with_test=True)
    made.test_dataset = data
    with pytest.raises(DataError, match=words):
        made.train()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "data, words",
    [
        (Raising(pairs(20)), r"test_dataset\[0\] raised KeyError: 'lost'"),
        (pairs(20, sample=(IMAGE,)), r"test_dataset\[3\] must be a pair"),
        (pairs(20, sample=(IMAGE, "a")), r"test_dataset\[3\]: label"),
        (pairs(20, sample=(IMAGE[:, :2], 1)), r"test_dataset\[3\]: image has shape \[3, 2, 4\]"),
        (pairs(20, sample=(IMAGE.astype("uint8"), 1)), r"test_dataset\[3\]: image is uint8"),
        (pairs(20, sample=(IMAGE * np.nan, 1)), r"test_dataset\[3\]: image has values that are not finite"),
    ],
)
def test_a_wrong_sample_of_the_test_data_is_named(entry, data, words):
    made = entry(with_test=True, train_steps=1)
    made.test_dataset = data
    with pytest.raises((DataError, VerificationError), match=words):  # before the first step, or after a save
        made.train()
