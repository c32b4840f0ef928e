"""Loss scaling as the training program does it, with the casts left out so that it runs on the CPU.

What is divided, what is skipped and how the factor moves does not depend on the casts: without them a scaled run is
the plain run, and a step with an infinite input must leave everything that is trained as it was.
"""

from __future__ import annotations

import contextlib
from types import SimpleNamespace

import numpy as np
import paddle
import pytest

from plsc import checkpoint
from plsc.backend import private
from plsc.config import Config
from plsc.config.user_objects import UserObjects
from plsc.engine.program.build import build_train
from plsc.engine.program.session import Session
from plsc.engine.training import checkpointing
from plsc.errors import CheckpointError
from plsc.parallel.environment import Environment
from plsc.parallel.group import Group
from tests.checkpoint.checkpoint_kit import meta_for
from tests.dist.training_cases import Linear, tensor
from tests.kernels.library import casts_left_out

paddle.enable_static()
BATCH, CLASSES = 6, 40


class Run:
    """Some steps of one rank; ``bad`` numbers those whose first image is infinite."""

    def __init__(self, half, sample_ratio=1.0, clip=None, optimizer=None, others=(), reading=None, **options):
        config = Config.from_dict(
            {
                "classifier": {"num_classes": CLASSES, "scale": 16.0, "sample_ratio": sample_ratio},
                "model": {"image_shape": [3, 2, 3]},
                "train_batch_size": BATCH,
                "grad_clip_norm": clip,
                "mixed_precision": {"enabled": half, "init_loss_scaling": 1024.0, **options},
                **dict(others),
            }
        )
        env = Environment()
        with casts_left_out() if half else contextlib.nullcontext():
            self.program = build_train(config, UserObjects(model=Linear(8), optimizer=optimizer), env, seed=7)
        self.config = config
        self.session = Session(self.program, env, 7, reading)
        self.session.start(Group(env))
        self.number = 0

    def step(self, bad=False):
        rng = np.random.default_rng(self.number)
        image = rng.standard_normal((BATCH, 3, 2, 3)).astype("float32")
        if bad:
            image[0, 0, 0, 0] = np.inf
        label = rng.integers(0, CLASSES, BATCH)
        self.number += 1
        return self.session.step(self.number, {"image": image, "label": label}, 0.1)

    def trained(self):
        self.session.bring_rows_up_to_date()
        state = self.session.replicated()
        counted = {name for name in state if name.startswith("loss_scaling") or name == "classifier.step"}
        values = {name: value for name, value in state.items() if name not in counted}
        assert len(values) >= 2 * len(self.program.parameters)  # weights and velocities
        return {**values, **{name: tensor(self.session, name) for name in self.program.tables}}

    @property
    def scale(self):
        return float(self.session.replicated()["loss_scaling.scale"][0])


def test_without_the_operation_that_examines_all(monkeypatch):
    """A Paddle 3.x that does not have it; 2.6 always does."""
    find = private.find
    monkeypatch.setattr(private, "find", lambda name: None if "check_finite" in name else find(name))
    plain, scaled = (Run(half) for half in (False, True))
    plain.step(), scaled.step()
    assert_same(scaled.trained(), plain.trained(), 1e-5)
    assert scaled.step(bad=True)["skipped"] == 1.0


def assert_same(got, expected, rtol):
    for name, value in expected.items():
        np.testing.assert_allclose(got[name], value, rtol=0, atol=rtol * np.abs(value).max(), err_msg=name)


@pytest.mark.parametrize("clip", [None, 0.05])
@pytest.mark.parametrize("sample_ratio", [1.0, 0.3])
def test_a_scaled_run_is_the_plain_run(sample_ratio, clip):
    plain, scaled = (Run(half, sample_ratio, clip) for half in (False, True))
    for _ in range(5):
        a, b = plain.step(), scaled.step()
        assert a["loss"] == pytest.approx(b["loss"], rel=1e-5) and b["skipped"] == 0.0
    # 1024 is a power of two: only the order of float32 roundings differs
    assert_same(scaled.trained(), plain.trained(), 1e-5)


OTHERS = {
    "momentum": {},
    "adamw, averages": {"optimizer": {"name": "adamw"}, "ema": {"decay": 0.5}},
    "16 bits": {"classifier": {"num_classes": CLASSES, "scale": 16.0, "storage": "bfloat16", "sample_ratio": 0.3}},
    "hard negatives": {"classifier": {"num_classes": CLASSES, "sample_ratio": 0.3, "hard_negative_share": 0.5}},
    "a loss with states": {"classifier": {"num_classes": CLASSES, "loss_type": "curricularface", "sample_ratio": 0.3}},
    "pairs": {"classifier": {"num_classes": CLASSES, "loss_type": "sphereface2", "sample_ratio": 0.3}},
}


@pytest.mark.parametrize("others, sample_ratio", [("momentum", 1.0), *((name, 0.3) for name in OTHERS)])
def test_a_step_that_is_not_finite_changes_nothing(others, sample_ratio):
    run = Run(True, sample_ratio, others=OTHERS[others])
    for _ in range(3):
        run.step()
    before = run.trained()
    assert run.step(bad=True)["skipped"] == 1.0
    for name, value in run.trained().items():  # to the bit: the update is not run
        np.testing.assert_array_equal(value, before[name], err_msg=name)
    assert run.step()["skipped"] == 0.0
    after = run.trained()
    assert not [name for name, value in before.items() if np.array_equal(after[name], value)], "not moved"


@pytest.mark.parametrize("others", ["momentum", "adamw, averages"])
def test_steps_go_on_as_if_a_skipped_one_had_not_been(others):
    """Rows that missed steps, corrections of the bias, and the momentum know nothing of it. Not to the bit: the draw of
    classes depends on the number of the step, so no class is left out here, and averages count all steps."""
    runs = [Run(True, others=OTHERS[others]) for _ in "ab"]
    for run, bad in zip(runs, (False, True)):
        for step in range(4):
            if bad and step == 2:
                run.step(bad=True)
                run.number -= 1  # the images of the next step are those of the other run
            run.step()
    expected = {name: value for name, value in runs[0].trained().items() if not name.startswith("ema.")}
    assert_same(runs[1].trained(), expected, 0.0)


def test_the_factor_grows_and_shrinks():
    options = {"incr_every_n_steps": 3, "decr_every_n_nan_or_inf": 2, "incr_ratio": 4.0, "decr_ratio": 0.25}
    run = Run(True, **options)
    seen = []
    for bad in (False, False, True, False, False, False, True, True, True, True):
        run.step(bad)
        seen.append(run.scale)
    # a bad step starts the count of good ones anew, and a good step that of bad ones
    assert seen == [1024.0] * 5 + [4096.0] * 2 + [1024.0] * 2 + [256.0]
    run = Run(True, use_dynamic_loss_scaling=False, **options)
    for bad in (False, False, False, True, True):
        run.step(bad)
    assert run.scale == 1024.0


@pytest.mark.parametrize("sample_ratio", [1.0, 0.3])
def test_a_users_optimizer_never_sees_what_is_not_finite(sample_ratio):
    run = Run(True, sample_ratio, optimizer=paddle.optimizer.SGD(0.1))

    def moving():
        state = {value.name: run.session.replicated()[value.name] for value in run.program.parameters}
        return {**state, "weight": tensor(run.session, "weight")}

    run.step()
    before = moving()
    assert run.step(bad=True)["skipped"] == 1.0
    for name, value in moving().items():
        np.testing.assert_array_equal(value, before[name])
    assert run.step()["skipped"] == 0.0 and not np.array_equal(moving()["weight"], before["weight"])


CURRICULAR = {"classifier": {"num_classes": CLASSES, "scale": 16.0, "loss_type": "curricularface"}}
SCALE = "loss_scaling.bad, loss_scaling.good, loss_scaling.scale"


@pytest.mark.parametrize(
    "before, after, said",
    [
        ((False,), (True,), f"has no {SCALE}: begun as in a new run"),
        ((True,), (False,), f"has {SCALE}, which this run has no use for: left out"),
        ((True,), (True,), None),
        ((False,), (False, CURRICULAR), "has no classifier.loss.t: begun as in a new run"),
        ((False, CURRICULAR), (False,), "has classifier.loss.t, which this run has no use for: left out"),
    ],
)
def test_a_run_goes_on_in_another_precision_or_with_another_loss(tmp_path, before, after, said):
    """All that both have is as it was."""
    first, second = (Run(half, others=dict(*others)) for half, *others in (before, after))
    for _ in range(2):
        first.step(), first.step(bad=before[0])
    initial, lines = second.session.replicated(), []
    go_on(first, second, tmp_path, lines)
    stored, found = first.session.replicated(), second.session.replicated()
    assert len(stored.keys() & found.keys()) >= 5 and (said is None) == (stored.keys() == found.keys())
    for name, value in found.items():
        np.testing.assert_array_equal(value, stored.get(name, initial[name]), err_msg=name)
    for name in second.program.rows.tables:
        np.testing.assert_array_equal(tensor(second.session, name), tensor(first.session, name))
    own = [line.split("/step_00000004 ")[1] for line in lines if "loss_scaling." in line or "classifier.loss." in line]
    assert own == ([said] if said else [])


def test_what_else_is_missing_is_still_refused(tmp_path):
    adamw = {"optimizer": {"name": "adamw"}}
    with pytest.raises(CheckpointError, match="replicated tensors that the run needs and the checkpoint lacks"):
        go_on(Run(True, others=adamw), Run(False), tmp_path, [])


def go_on(first, second, where, lines) -> None:
    """Save one run, and continue with another."""
    meta = meta_for(CLASSES, embedding_size=8, config=first.config.to_dict(), random_states={"seed": 7}, lr_state={})
    tensors = checkpoint.RankTensors(first.session.replicated(), first.session)
    path = checkpoint.save(str(where), 4, tensors, meta, checkpoint.OneRank())
    log = SimpleNamespace(info=lines.append)
    run = SimpleNamespace(config=second.config, group=checkpoint.OneRank(), log=log, user_objects=UserObjects(), seed=7)
    checkpointing.load(run, second.session, path, checkpoint.read_manifest(path))
