"""Operations by oneDNN compared with the plain kernels: features, gradients, statistics, and models of all kinds."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import numpy as np
import paddle
import pytest

from plsc.backend import static
from plsc.backend.onednn import use_onednn
from plsc.backend.program_view import operations
from plsc.models import BaseModel, build_model
from tests.models.model_programs import Run, build, image, parameters

SHAPE = (3, 33, 20)  # odd, not square
NARROW = {"base_width": 8, "embedding_size": 6, "image_shape": SHAPE, "dropout": 0.0}
# Both sum the same float32 products in another order, 20 layers deep: measured 1e-5 of the largest at most. A gradient
# that took a wrong layout is off by more than its own size.
TOLERANCE = 1e-4


@pytest.fixture(autouse=True)
def static_mode():
    paddle.enable_static()
    yield
    paddle.disable_static()


class Own(BaseModel):
    """A user's model, given as a function image -> feature."""

    def __init__(self, layers):
        self._layers = layers

    def build_network(self, input, label=None, is_train=True):
        return self._layers(input, is_train)


def gradient_program(model, shape):
    """(main, startup, values): the feature and the gradients of the backbone's parameters for a given one of it."""
    main, startup, feature = build(model, shape, is_train=True)
    with paddle.static.program_guard(main, startup):
        goal = paddle.static.data("goal", [-1, feature.shape[1]], "float32")
        trained = [p for p in main.global_block().all_parameters() if not p.stop_gradient]
        found = paddle.static.gradients([feature], trained, target_gradients=[goal])
        values = {"feature": paddle.assign(feature)}
        values.update({f"gradient of {p.name}": paddle.assign(g) for p, g in zip(trained, found)})
    return main, startup, values


def step(model, shape, onednn: bool, batch: int = 5):
    """Everything that one training step computes: (values by name, number of operations moved)."""
    main, startup, values = gradient_program(model, shape)
    run, picture = Run(startup), image(batch, shape)
    run.randomise(main)
    moved = use_onednn(main) if onednn else 0
    goal = np.random.Generator(np.random.Philox(key=[4, 4])).normal(size=(batch, values["feature"].shape[1]))
    found = dict(zip(values, run(main, list(values.values()), image=picture, goal=goal.astype("float32"))))
    statistics = [name for name in parameters(main) if "running" in name]
    found.update({name: run.get(name) for name in statistics})
    return found, moved


def largest(values: dict, like: str) -> float:
    return max(float(np.abs(value).max()) for name, value in values.items() if like in name)


def compare(actual: dict, expected: dict, tolerance: float = TOLERANCE) -> None:
    """Each tensor to ``tolerance`` of its own largest number, or of what is noise beside the largest of its kind.

    Sums that are 0 but for rounding, such as the gradient of a bias before a batch norm, have no size of their own.
    """
    assert actual.keys() == expected.keys()
    for name, value in expected.items():
        kind = next(part for part in ("feature", "gradient", "running_mean", "running_variance", "") if part in name)
        size = max(float(np.abs(value).max()), 1e-2 * largest(expected, kind))
        np.testing.assert_allclose(actual[name], value, rtol=0, atol=tolerance * size, err_msg=name)


@pytest.mark.parametrize("name", ["ResNet18", "MobileFaceNet"])
def test_a_training_step_of_the_nets(name):
    model = build_model(name, **NARROW)
    expected, _ = step(model, SHAPE, onednn=False)
    actual, moved = step(model, SHAPE, onednn=True)
    convolutions, prelus = (21, 9) if name == "ResNet18" else (50, 33)
    assert moved == 2 * (convolutions + prelus)  # each with its gradient
    compare(actual, expected)


def conv(x, out: int, kernel: int = 3, **options):
    return paddle.nn.Conv2D(x.shape[1], out, kernel, bias_attr=options.pop("bias", False), **options)(x)


def prelu(x, number: int = 0):
    return paddle.nn.PReLU(number or x.shape[1])(x)


def pooled(x):
    """[B, C, H, W] -> [B, C], with another weight for each place."""
    weights = paddle.linspace(0.5, 1.5, x.shape[2] * x.shape[3]).reshape([1, 1, x.shape[2], x.shape[3]])
    return paddle.multiply(x, weights).mean([2, 3])


def two_convolutions(x, is_train):
    return pooled(prelu(conv(prelu(conv(x, 16)), 32, padding=1)))


def products(x, is_train):
    """Results of oneDNN that Paddle could overwrite in place: each has another reader behind the first one."""
    y = conv(x, 16, padding=1)
    y = paddle.add(paddle.nn.functional.relu(y), paddle.multiply(y, y))
    z = prelu(y)
    z = paddle.add(paddle.multiply(z, z), paddle.tanh(z))
    return pooled(paddle.add(conv(z, 16, 1), z))


def kinds_of_convolution(x, is_train):
    y = conv(x, 16, padding="SAME", bias=None)
    y = conv(y, 32, groups=2, padding=1)
    y = prelu(conv(y, 32, groups=32, padding=1, stride=2))
    y = conv(y, 24, dilation=2, padding=2)
    y = conv(y, 24, padding=[0, 1, 1, 0])
    return pooled(paddle.add(prelu(y), conv(y, 24, 1, bias=None)))


def kinds_left_alone(x, is_train):
    y = conv(x, 16)
    y = paddle.nn.PReLU(1)(y)  # one slope for all channels
    y = paddle.nn.Conv2DTranspose(16, 8, 3)(y)
    y = paddle.nn.PReLU(y.shape[1])(pooled(y))  # [B, C]
    return y


def frozen(x, is_train):
    """The gradient of a frozen convolution goes to its image only, that of the first one to its filter only."""
    first = paddle.nn.functional.relu(conv(x, 16))
    attr = paddle.ParamAttr(trainable=False)
    return pooled(prelu(paddle.nn.Conv2D(16, 16, 3, weight_attr=attr, bias_attr=False)(first)))


def frozen_slopes(x, is_train):
    y = conv(x, 16)
    return pooled(conv(paddle.nn.PReLU(16, weight_attr=paddle.ParamAttr(trainable=False))(y), 16))


def channels_last(x, is_train):
    x = x.transpose([0, 2, 3, 1])
    y = paddle.nn.Conv2D(3, 16, 3, data_format="NHWC")(x)
    y = paddle.nn.PReLU(16, data_format="NHWC")(y)
    return pooled(y.transpose([0, 3, 1, 2]))


NETS = {
    two_convolutions: 8, products: 6, kinds_of_convolution: 16, kinds_left_alone: 2, frozen: 6, channels_last: 0,
    frozen_slopes: 6 if static.is_pir() else 5,  # 2.6: the kernel of the gradient of PReLU wants both of its results
}  # fmt: skip


@pytest.mark.parametrize("layers", NETS, ids=lambda layers: layers.__name__)
def test_nets_of_users(layers):
    expected, _ = step(Own(layers), (3, 14, 11), onednn=False)
    actual, moved = step(Own(layers), (3, 14, 11), onednn=True)
    assert moved == NETS[layers]
    compare(actual, expected)


def strided(stride: int):
    return Own(lambda x, is_train: pooled(prelu(conv(x, 16, stride=stride, padding=1))))


def test_programs_of_one_process_do_not_share_what_onednn_keeps():
    """Same names, same images, other strides; oneDNN's cache is keyed by names and shapes."""
    shape, alive = (3, 14, 11), []
    for stride in (1, 2):
        main, startup, feature = build(strided(stride), shape, is_train=True)
        run = Run(startup)
        run.randomise(main)
        assert use_onednn(main) == 2
        alive.append((stride, run, main, feature))
    for stride, run, main, feature in alive * 2:
        expected, _ = step(strided(stride), shape, onednn=False)
        (actual,) = run(main, [feature], image=image(5, shape))
        compare({"feature": actual}, {"feature": expected["feature"]})


def test_weights_that_change_are_seen():
    """An evaluation program runs again with other weights: nothing of the first ones may stay."""
    model = build_model("ResNet10", **NARROW)
    main, startup, feature = build(model, SHAPE, is_train=False)
    plain, _, plain_feature = build(model, SHAPE, is_train=False)
    run, picture = Run(startup), image(5, SHAPE)
    assert use_onednn(main) > 0
    for seed in (1, 2):
        for name, dimensions in parameters(main).items():
            draw = np.random.Generator(np.random.Philox(key=[seed, len(name)]))
            run.set(name, draw.uniform(0.5, 1.5, dimensions) * (-1) ** len(name) / np.prod(dimensions[1:] or 1) ** 0.5)
            if "variance" in name:
                run.set(name, draw.uniform(0.5, 1.5, dimensions))
        (actual,) = run(main, [feature], image=picture)
        (expected,) = run(plain, [plain_feature], image=picture)
        compare({"feature": actual}, {"feature": expected})


def test_operations_in_place_stay_the_programs_own():
    """One conversion after each operation that was moved, and no other operation is changed."""
    model = build_model("ResNet10", **NARROW)
    kinds = []
    for onednn in (False, True):
        main, startup, _ = gradient_program(model, SHAPE)
        Run(startup)
        moved = use_onednn(main) if onednn else 0
        kinds.append([op.kind for op in operations(main)])
    assert moved and [kind for kind in kinds[1] if kind != "share_data"] == kinds[0]


SWITCHED_ON = """
import zlib, paddle
from plsc.backend.cpu import prepare_cpu
prepare_cpu(1)
names = ["FLAGS_use_mkldnn"] + (["FLAGS_use_onednn"] if paddle.__version__ >= "3" else [])
assert not any(paddle.get_flags(names).values())
"""


def test_paddles_own_choice_is_off():
    env = {**os.environ, "FLAGS_use_mkldnn": "1", "FLAGS_use_onednn": "1"}
    done = subprocess.run([sys.executable, "-c", SWITCHED_ON], capture_output=True, text=True, env=env)
    assert done.returncode == 0, done.stderr[-2000:]


TRAIN = """
import json, sys
from plsc import Entry
import plsc.engine.training.loop as loop
moved, move = [], loop.use_onednn
loop.use_onednn = lambda program: moved.append(move(program))
losses = []
for switch in (True, False):
    entry = Entry(config={
        "data": {"dataset": "synthetic", "train_image_num": 32, "num_workers": 0},
        "model": {"name": "ResNet10", "base_width": 8, "image_shape": [3, 20, 20], "embedding_size": 16},
        "classifier": {"num_classes": 20}, "train_batch_size": 8, "train_steps": 4, "with_test": False, "seed": 1,
        "num_threads": 1, "use_onednn": switch, "model_save_dir": f"{sys.argv[1]}/{switch}", "device": "cpu",
    })
    losses.append(entry.train().loss)
print(json.dumps([moved, losses]))
"""


def test_training_obeys_the_switch(tmp_path):
    done = subprocess.run([sys.executable, "-c", TRAIN, str(tmp_path)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    moved, (fast, plain) = json.loads(done.stdout.splitlines()[-1])
    assert moved == [36]  # 13 convolutions and 5 PReLU with their gradients, and nothing in the second run
    assert fast == pytest.approx(plain, rel=1e-3)  # rounding of 1e-7 grows in four steps, to 1e-5 of the loss at most


AFTER_NHWC = """
import sys
from plsc import Entry
losses = []
for run in ("alone", "nhwc", "after"):
    entry = Entry(config={
        "data": {"dataset": "synthetic", "train_image_num": 32, "num_workers": 0},
        "model": {"name": "ResNet10", "base_width": 4, "image_shape": [3, 16, 16], "embedding_size": 16},
        "classifier": {"num_classes": 20}, "train_batch_size": 8, "train_steps": 20, "with_test": False, "seed": 1,
        "num_threads": 1, "model_save_dir": f"{sys.argv[1]}/{run}", "device": "cpu",
        "mixed_precision": {"enabled": run == "nhwc", "dtype": "float16", "init_loss_scaling": 1024.0},
    })
    losses.append(entry.train().loss)
print(losses[0] == losses[2])
"""


@pytest.mark.once
def test_a_layout_of_the_run_before_is_forgotten(tmp_path):
    """Mixed precision is NHWC, and each branch around its update makes Paddle keep that layout for the next program."""
    done = subprocess.run([sys.executable, "-c", AFTER_NHWC, str(tmp_path)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.splitlines()[-1] == "True"
