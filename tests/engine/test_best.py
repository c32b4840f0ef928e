"""Which verification is the best one, and what is said of a metric that does not exist."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from plsc.checkpoint import SHARED, OneRank
from plsc.config import Config
from plsc.engine.evaluation.best import Best, check_best_metric, parse_best_metric
from plsc.errors import ConfigError
from plsc.evaluation.metric import Embedded, make_metrics, supported_numbers


def run_of(metric, **keys):
    usual = {"best_metric": metric, "model_save_dir": "/run", "data": {"val_targets": ["lfw"]}}
    config = Config.from_dict({**usual, **keys})
    user_objects = SimpleNamespace(test_dataset=None)
    log = SimpleNamespace(info=lambda text: None)
    return SimpleNamespace(config=config, user_objects=user_objects, group=OneRank(), places=SHARED, log=log)


def results(**numbers):
    return {"lfw": numbers}


@pytest.mark.parametrize("metric, figure, values, better", [
    ("lfw.accuracy", "accuracy", [0.5, 0.5, 0.7, 0.6, 0.8], [True, False, True, False, True]),
    ("lfw.eer", "eer", [0.5, 0.5, 0.7, 0.4, 0.8], [True, False, False, True, False]),
    ("lfw.tar@1e-3", "tar@0.001", [0.1, 0.2, 0.2], [True, True, False]),
    ("lfw.tar@1e-03", "tar@0.001", [0.1, 0.2, 0.2], [True, True, False]),
    ("lfw.recall@1", "recall@1", [0.1, 0.2, 0.2], [True, True, False]),
    ("lfw.map@r", "map@r", [0.1, 0.2, 0.2], [True, True, False]),
])  # fmt: skip
def test_the_first_of_the_best(metric, figure, values, better):
    best = Best(run_of(metric, metrics=["verification", "retrieval"]), None)
    assert [best.improved(step, results(**{figure: value})) for step, value in enumerate(values)] == better
    last = max(step for step, good in enumerate(better) if good)
    assert best.extra["best"]["step"] == last


def test_the_record_goes_on_in_a_run_that_is_resumed_and_nowhere_else():
    record = {"best": {"metric": "lfw.accuracy", "value": 0.9, "step": 3}}
    inside = ("/run/checkpoints/step_00000003", SimpleNamespace(extra=record))
    outside = ("/run2/checkpoints/step_00000003", SimpleNamespace(extra=record))
    assert not Best(run_of("lfw.accuracy"), inside).improved(4, results(accuracy=0.8))
    assert Best(run_of("lfw.auc"), inside).improved(4, results(auc=0.8))
    assert Best(run_of("lfw.accuracy"), outside).improved(4, results(accuracy=0.8))


@pytest.mark.parametrize("metric, keys", [
    ("lfw", {}), ("lfw.beauty", {}), ("cfp_fp.accuracy", {}), ("lfw.tar@0", {}), ("lfw.tar@..", {}),
    ("lfw.accuracy", {"with_test": False}), ("lfw.threshold", {}), ("lfw.recall@1", {}), ("lfw.tar@0.3", {}),
    ("lfw.accuracy", {"metrics": ["retrieval"]}), ("lfw.recall@7", {"metrics": ["retrieval"]}),
])  # fmt: skip
def test_a_metric_that_cannot_be_is_refused_before_training(metric, keys):
    with pytest.raises(ConfigError, match="best_metric="):
        Best(run_of(metric, **keys), None)


def test_a_rate_that_the_pairs_do_not_support_is_refused():
    best = Best(run_of("lfw.tar@1e-6"), None)
    with pytest.raises(ConfigError, match="lfw is too small for it; it supports tar@0.1$"):
        best.improved(1, {"lfw": {"accuracy": 0.9, "tar@0.1": 0.5, "tar@1e-06": None}})


def test_the_record_of_the_step_itself_lies_in_best(tmp_path, monkeypatch):
    """A step is saved first and judged then: its own record is in best/ only, and counts where it is no later."""
    from plsc.engine.evaluation import best

    path, kept = str(tmp_path / "checkpoints" / "step_00000003"), {"metric": "lfw.accuracy", "value": 0.9}
    for step, sure in ((3, True), (2, False), (4, False)):  # of best/; the run goes on from step 3
        extra = {"best": {**kept, "step": step}}
        monkeypatch.setattr(best.checkpoint, "newest", lambda run_dir, group, places: run_dir)
        monkeypatch.setattr(
            best.checkpoint, "read_manifest", lambda path, s=step, e=extra: SimpleNamespace(step=s, extra=e)
        )
        found = Best(run_of("lfw.accuracy", model_save_dir=str(tmp_path)), (path, SimpleNamespace(extra={})))
        assert found.resume(3) is not sure  # not sure: judge it once more
        assert found.improved(4, results(accuracy=0.8)) is (step == 4)
    monkeypatch.setattr(best.checkpoint, "newest", lambda run_dir, group, places: None)
    assert Best(run_of("lfw.accuracy", model_save_dir=str(tmp_path)), (path, SimpleNamespace(extra={}))).resume(3)
    assert not Best(run_of("lfw.accuracy", model_save_dir=str(tmp_path)), None).resume(0)


def test_a_set_that_could_not_be_verified_is_no_better():
    assert not Best(run_of("lfw.accuracy"), None).improved(1, {})


@pytest.mark.parametrize("metric, good", [("lfw.tar@1e-1", True), ("lfw.tar@1e-2", False), ("lfw.auc", True)])
def test_what_the_pairs_can_give_is_known_before_training(metric, good):
    """Of 99 different pairs one in a hundred is not even one."""
    config = run_of(metric).config
    (verification,) = make_metrics(config)
    given = supported_numbers(verification, Embedded("lfw", np.zeros((0, 0)), issame=np.zeros(99, bool)))
    check = lambda: check_best_metric(config, parse_best_metric(config, run_of(metric).user_objects), given)  # noqa: E731
    if good:
        check()
    else:
        with pytest.raises(ConfigError, match="lfw is too small for it; it supports tar@0.1$"):
            check()


def test_of_sets_whose_names_hold_dots_the_longest_counts():
    keys = {"data": {"val_targets": ["a", "a.txt", "faces/"]}, "metrics": ["retrieval", "verification"]}
    for metric, name, number in (("a.txt.recall@1", "a.txt", "recall@1"), ("a.eer", "a", "eer"),
                                 ("faces/.tar@1e-4", "faces/", "tar@0.0001")):  # fmt: skip
        run = run_of(metric, **keys)
        goal = parse_best_metric(run.config, run.user_objects)
        assert (goal.name, goal.number, goal.smaller) == (name, number, number == "eer")
