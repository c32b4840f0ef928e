"""The metrics by name: what they give, what wrong ones say, and that a new one needs nothing but its class."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from plsc.config import Config
from plsc.errors import ConfigError, DataError
from plsc.evaluation import DISTRACTOR, Embedded, Metric, register_metric
from plsc.evaluation.embeddings import normalize
from plsc.evaluation.identification import identify
from plsc.evaluation.metric import PAIRS, compute_metric, dry_run, make_metrics, resolve_number, supported_numbers
from plsc.evaluation.metrics.identification import split_roles
from plsc.evaluation.page import page
from plsc.evaluation.results import SetResult, Verifications
from plsc.evaluation.retrieval import retrieve
from plsc.evaluation.tables import metric_tables
from plsc.evaluation.verification import verify
from plsc.registry import METRICS
from tests.registries import forget_afterwards

NOTHING = np.zeros((0, 0))


@pytest.fixture(autouse=True)
def as_before(monkeypatch):
    """What a test registers is forgotten after it."""
    METRICS.names()
    forget_afterwards(monkeypatch, METRICS)


def a_set(pairs: int = 40) -> Embedded:
    rng = np.random.default_rng(0)
    ids = rng.integers(0, 15, 2 * pairs)
    ids[-6:] = np.arange(90, 96)
    ids[5:9] = DISTRACTOR
    rows = rng.standard_normal((100, 6))[ids] + 0.8 * rng.standard_normal((2 * pairs, 6))
    return Embedded("mine", normalize(rows), ids, ids[::2] == ids[1::2], xnorm=2.5)


def made(name: str, **options) -> Metric:
    return make_metrics(Config.from_dict({"metrics": [name], "metric_options": {name: options} if options else {}}))[0]


def test_verification_through_the_metric():
    data, metric = a_set(), made("verification")
    found = compute_metric(metric, data)
    expected = verify(data.embeddings, data.issame, xnorm=2.5)
    assert found.result.accuracy == expected.accuracy and found.values["eer"] == expected.eer
    assert found.values["tar@0.1"] == expected.tar_at_far[0.1] and found.values["tar@1e-06"] is None
    assert found.record["roc"]["tpr"][-1] == 1.0 and found.record["tar_at_far"]["0.1"] == expected.tar_at_far[0.1]
    assert found.text.startswith(f"Accuracy-Flip: {expected.accuracy:.5f}+-{expected.accuracy_std:.5f}, XNorm: 2.50000")
    other = compute_metric(make_metrics(Config.from_dict({"protocol": "insightface"}))[0], data)
    assert other.result.accuracy == verify(data.embeddings, data.issame, protocol="insightface").accuracy


def test_retrieval_through_the_metric():
    data, metric = a_set(), made("retrieval", ks=[1, 3])
    found, expected = compute_metric(metric, data).values, retrieve(data.embeddings, data.identities, ks=[1, 3])
    assert list(found) == ["recall@1", "recall@3", "precision@1", "r_precision", "map@r", "num_queries", "num_gallery"]
    assert found["recall@3"] == expected.recall[3] and found["map@r"] == expected.map_at_r
    assert 0 < found["map@r"] < found["recall@1"] == found["precision@1"] < 1
    assert (found["num_queries"], found["num_gallery"]) == (expected.num_queries, 80) and found["num_queries"] < 70


def test_identification_through_the_metric():
    """The first image of each identity is known; those that have one only are strangers."""
    data, metric = a_set(), made("identification")
    first, probes = [], []
    for place, identity in enumerate(data.identities):
        if identity == DISTRACTOR:
            continue
        others = [at for at, other in enumerate(data.identities) if other == identity]
        if len(others) > 1 and place == others[0]:
            first.append(place)
        else:
            probes.append(place)
    known, mated, strangers = split_roles(data.identities)
    alone = [place for place in probes if np.sum(data.identities == data.identities[place]) == 1]
    assert known.tolist() == first and sorted([*mated, *strangers]) == probes and strangers.tolist() == alone
    units, ids = data.embeddings, data.identities
    expected = identify(units[first], ids[first], units[probes], ids[probes], units[ids == DISTRACTOR])
    found = compute_metric(metric, data).values
    assert {rank: found[f"rank@{rank}"] for rank in (1, 5, 10)} == expected.rank_rate
    assert found["tpir@0.1"] is None and (found["num_mated"], found["num_unmated"]) == (len(mated), len(alone))
    assert found["rank@1"] < found["rank@5"]


@pytest.mark.parametrize("name, ids, given", [
    ("retrieval", [0, 1, 2, -1, -1], 0), ("retrieval", [0, 0, 1], 8),
    ("identification", [0, 1, 2, -1, -1], 0), ("identification", [0, 0, 1], 5),
    ("identification", [0, 0, *range(1, 11)], 6),
])  # fmt: skip
def test_what_identities_can_give_is_known_without_embeddings(name, ids, given):
    data = Embedded("x", NOTHING, identities=np.array(ids))
    names = supported_numbers(made(name), data)
    assert len(names) == given
    units = np.eye(len(ids))
    values = compute_metric(made(name), Embedded("x", units, identities=np.array(ids))).values
    if names:
        assert [number for number, value in values.items() if value is not None] == names
    else:
        assert all(not value or number.startswith("num_") for number, value in values.items())


def test_a_metric_of_ones_own_is_in_log_table_page_and_json():
    @register_metric("spread", source="nobody")
    class Spread(Metric):
        """Mean squared distance from the mean."""

        better = {"spread": "smaller", "pictures": None, "none": "larger"}

        def __init__(self, scale: float = 1.0):
            self.scale = scale

        def compute(self, data):
            away = data.embeddings - data.embeddings.mean(axis=0)
            return {"spread": self.scale * np.square(away).sum(axis=1).mean(), "pictures": np.int64(80), "none": None}

    data = a_set()
    one = SetResult("mine", {"spread": compute_metric(made("spread", scale=2), data)})
    value = 2 * float(np.mean([np.sum((row - data.embeddings.mean(axis=0)) ** 2) for row in data.embeddings]))
    assert one.values == {"spread": pytest.approx(value, rel=1e-12), "pictures": 80, "none": None}  # sums in two orders
    assert list(one.lines()) == [f"[mine] spread: spread: {value:.5f}, pictures: 80"]
    assert one.record == one.values and one.verification is None
    assert metric_tables({"mine": one}) == ["spread  spread   pictures  none", f"mine    {value:.5f}  80        -"]
    text = page([], "run", {"mine": {"spread": one.values}})
    for part in ("<h2>mine</h2>", "<h3>spread</h3>", f"<dd>{value:.5f}</dd>", '<dd class="none">not supported</dd>'):
        assert part in text
    found = Verifications({"mine": one})
    assert dict(found) == {} and found.metrics == {"mine": one.values}
    dry_run(made("spread"), Embedded("x", NOTHING, identities=data.identities), 7)


def register(name="mine", **body):
    usual = {"better": {"x": "larger"}, "compute": lambda self, data: {"x": 1}}
    register_metric(name)(type("Mine", (Metric,), {**usual, **body}))


@pytest.mark.parametrize("body, message", [
    ({"name": "retrieval"}, "'retrieval': the name is taken by plsc.evaluation.metrics.retrieval.RetrievalMetric"),
    ({"name": "my metric"}, "metric 'my metric': its name must be letters"),
    ({"compute": Metric.compute}, r"metric 'mine': Mine has no method compute\(self, data\)"),
    ({"compute": lambda self, a, b: {}}, r"Mine.compute\(self, a, b\); compute\(self, data\) is needed"),
    ({"gives": lambda self: ()}, r"Mine.gives\(self\); gives\(self, data\) is needed"),
    ({"needs": "faces"}, "Mine.needs='faces'; allowed: pairs, identities"),
])  # fmt: skip
def test_a_class_that_cannot_be_used_is_refused_when_it_is_registered(body, message):
    with pytest.raises(ConfigError, match=message) as caught:
        register(**body)
    assert "\n" not in str(caught.value)


def test_what_is_no_metric_is_refused():
    for value in (int, lambda data: {}, "x"):
        with pytest.raises(ConfigError, match="a subclass of plsc.evaluation.Metric is needed"):
            register_metric("mine")(value)


@pytest.mark.parametrize("body, message", [
    ({"better": {}}, r"Mine.better=\{\}; a mapping"),
    ({"better": ["x"]}, r"better=\['x'\]"),
    ({"better": {"x y": "larger"}}, "'x y' cannot be the name of a number"),
    ({"better": {"roc": "larger"}}, "'roc' cannot be the name"),
    ({"better": {"x": "up"}}, r"better\['x'\]='up'; allowed: 'larger', 'smaller', None"),
    ({"better": {"recall@1": "larger"}}, "recall@1 is a number of retrieval and of mine; rename one"),
    ({"__init__": lambda self: 1 / 0}, r"making a Mine raised ZeroDivisionError: division by zero \(test_metrics.py"),
    ({"__init__": lambda self, size: None}, "the option size is missing"),
])  # fmt: skip
def test_a_class_that_cannot_be_made_is_refused_before_training(body, message):
    register(**body)
    with pytest.raises(ConfigError, match=message) as caught:
        make_metrics(Config.from_dict({"metrics": ["retrieval", "mine"]}))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("settings, message", [
    ({"metrics": ["retreival"]}, "metrics=.*: retreival is not a metric; did you mean retrieval"),
    ({"metrics": []}, "not empty"),
    ({"metrics": ["retrieval", "retrieval"]}, "retrieval is named twice"),
    ({"metric_options": {"retrieval": {"ks": [1]}}}, r"retrieval is not among metrics=\['verification'\]"),
    ({"metrics": "retrieval", "metric_options": {"retrieval": {"kss": [1]}}}, "there is no option kss; its options: k"),
    ({"metrics": "retrieval", "metric_options": {"retrieval": {"ks": [0]}}}, "ks=.*integers of at least 1"),
    ({"metrics": "retrieval", "metric_options": {"retrieval": 3}}, "retrieval: 3; a mapping of its options is needed"),
    ({"metrics": "identification", "metric_options": {"identification": {"fpirs": [2]}}}, "0 < FPIR < 1"),
    ({"metric_options": {"verification": {"protocol": "exact"}}}, "protocol is a setting of its own"),
])  # fmt: skip
def test_settings_that_cannot_be_are_refused(settings, message):
    with pytest.raises(ConfigError, match=message):
        make_metrics(Config.from_dict(settings))


@pytest.mark.parametrize("returned, message", [
    (lambda: 1 / 0, r"metric mine: compute raised ZeroDivisionError: division by zero \(test_metrics.py:\d+\)"),
    (lambda: {"x": float("nan")}, "metric mine: x is nan; a finite number is needed"),
    (lambda: {"x": np.float32("inf")}, "x is inf"),
    (lambda: {"x": "0.5"}, "x is a str; a number is needed, or None"),
    (lambda: {"x": np.ones(1)}, "x is a ndarray"),
    (lambda: {"x": True}, "x is a bool"),
    (lambda: {"x": 1, "y": 2}, "has 'y', which is not in `better`; its numbers are x"),
    (lambda: {}, "lacks 'x'"),
    (lambda: None, "returned a NoneType; a mapping"),
])  # fmt: skip
def test_what_a_metric_returns_is_checked(returned, message):
    register(compute=lambda self, data: returned())
    with pytest.raises(DataError, match=message) as caught:
        dry_run(made("mine"), Embedded("x", NOTHING, identities=np.arange(4)), 3)
    assert "\n" not in str(caught.value)


def test_metrics_of_pairs_are_given_pairs():
    seen = []

    def compute(self, data: Embedded) -> dict[str, float]:
        seen.append((data.embeddings.shape, data.issame.tolist()))
        return {"x": np.array(0.5)}

    register(needs=PAIRS, compute=compute)
    dry_run(made("mine"), Embedded("x", NOTHING, issame=np.array([True, False])), 3)
    assert seen == [((4, 3), [True, False])]


@pytest.mark.parametrize("body, message", [
    ({"gives": lambda self, data: ["y"]}, "gives returned .*; expected names of `better`"),
    ({"gives": lambda self, data: "x"}, "gives returned 'x'"),
    ({"gives": lambda self, data: data.faces}, "gives raised AttributeError"),
])  # fmt: skip
def test_what_gives_returns_is_checked(body, message):
    register(**body)
    with pytest.raises(DataError, match=message):
        supported_numbers(made("mine"), Embedded("x", NOTHING, identities=np.arange(3)))


def test_a_record_that_json_cannot_hold_is_refused():
    register(record=lambda self, result: {"x": np.ones(3)})
    with pytest.raises(DataError, match="metric mine: record is no plain data for JSON"):
        compute_metric(made("mine"), a_set())


@pytest.mark.parametrize("name, known, found", [
    ("tar@1e-3", ["tar@0.001"], "tar@0.001"), ("map@r", ["map@r"], "map@r"), ("tar@x", ["tar@0.1"], None),
    ("tar@0.1", ["far@0.1"], None), ("recall@1.0", ["recall@1", "recall@10"], "recall@1"), ("tar@", ["tar@0.1"], None),
])  # fmt: skip
def test_numbers_are_found_by_their_names(name, known: Sequence[str], found):
    assert resolve_number(name, known) == found
