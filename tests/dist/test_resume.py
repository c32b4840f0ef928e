"""Killed at any instant and resumed, a run ends as if nobody had touched it: weights and every loss, to the bit."""

from __future__ import annotations

import json

import pytest

from plsc.backend import static
from plsc.checkpoint import OneRank, open_checkpoint
from tests.dist import ranks
from tests.dist.kills import draw_instants
from tests.dist.tiny_run import manifest, told

STEPS = 24  # three and a half epochs; checkpoints at 5, 7, 10, 13, 14 (of a step that ends an epoch) ... 24
KILLS = 20 if static.is_pir() else 10  # the fewer with Paddle 2.6: what is killed and resumed is the same
METRIC = "test_dataset.auc"
# what keeps states of its own between steps, all together; rows catch up on the steps that did not sample them
TOGETHER = {
    "accumulate": 2, "train_batch_size": 2, "classifier.sample_ratio": 0.8, "classifier.hard_negative_share": 0.6,
    "optimizer.name": "adamw", "lr": 0.02, "ema.decay": 0.9, "save_async": True, "best_metric": METRIC,
}  # fmt: skip
# between two checkpoints; the counts begin anew with each resumption, and the last is for a kill that came too late
MIDDLES = [{"phase": "training", "call": call, "rank": 1, "all": call == 9, "later": 0.0} for call in (9, 6, 6)]
RUNS = ("momentum, samples, saved beside training", "Adam with a scheduler", "micro-batches, hard negatives, AdamW")
RATES_OF_ADAM = (0.0, 0.2)  # none; one that moves the areas so much that the best one is neither the first nor the last


def run_process(module: str, cwd) -> dict:
    """What the ``main()`` of the module of that name, given ``cwd``, writes to report.json.

    It is a fork of the server, so it finds Paddle loaded, and nothing run in the process."""
    codes = ranks.call("tests.dist.worker:run_main", (module, str(cwd)), 1, cwd)
    logs = [path.read_text(errors="replace")[-3000:] for path in sorted(cwd.glob("*.log"))]
    assert codes == [0], "\n".join(logs)
    return json.loads((cwd / "report.json").read_text())


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """(directory, what happened) of runs with the engine's momentum, with a user's Adam, and with what keeps states of
    its own, straight and killed."""
    cwd = tmp_path_factory.mktemp("kills")
    instants = draw_instants(seed=20, count=5 * KILLS)
    orders = []
    for number in range(2):
        entry = {"adam": RATES_OF_ADAM[number], "options": {"save_async": not number, "best_metric": METRIC}}
        # a run may be over before all of its instants have come: those left over go unused, so there are more
        orders.append({"name": f"straight{number}", "entry": entry, "instants": [], "kills": 0})
        own = instants[number::2]
        orders.append({"name": f"killed{number}", "entry": entry, "instants": own, "kills": KILLS // 2})
    orders.append({"name": "straight2", "entry": {"options": TOGETHER}, "instants": [], "kills": 0})
    orders.append({"name": "killed2", "entry": {"options": TOGETHER}, "instants": MIDDLES, "kills": 2})
    (cwd / "orders.json").write_text(json.dumps(orders))
    return cwd, run_process("tests.dist.kills", cwd)


def test_the_instants_were_what_they_should_be(runs):
    _, report = runs
    fired = [instant for name in ("killed0", "killed1") for instant in report[name]["fired"]]
    assert len(fired) == KILLS
    assert {instant["phase"] for instant in fired} == {"training", "save", "verification"}
    assert {instant["all"] for instant in fired} == {True, False}
    assert report["straight0"]["attempts"] == report["straight1"]["attempts"] == 1


@pytest.mark.parametrize("number", range(3), ids=RUNS)
def test_the_end_is_the_same_to_the_bit(runs, number):
    cwd, report = runs
    for name in report[f"killed{number}"]["runs"]:
        assert manifest(cwd / name, STEPS)["files"] == manifest(cwd / f"straight{number}", STEPS)["files"], name


@pytest.mark.parametrize("number", range(3), ids=RUNS)
def test_every_loss_and_accuracy_is_the_same_to_the_bit(runs, number):
    cwd, report = runs
    straight = told(cwd / f"straight{number}")
    assert {step for step, kind, _ in straight if kind == "train"} == set(range(1, STEPS + 1))
    assert all(len(values) == 1 for values in straight.values())
    for name in report[f"killed{number}"]["runs"]:
        killed = told(cwd / name)
        assert killed.keys() == straight.keys()
        for key, values in killed.items():  # a step that was made again tells its loss again
            assert set(values) == set(straight[key]), (name, key)
    assert any(len(values) > 1 for name in report[f"killed{number}"]["runs"] for values in told(cwd / name).values())


@pytest.mark.parametrize("number", [0, 1])
def test_the_best_checkpoint_is_one_complete_checkpoint_and_the_same_one(runs, number):
    cwd, report = runs
    areas = {step: values[0] for (step, _, name), values in told(cwd / f"straight{number}").items() if name == "auc"}
    best = max(areas, key=lambda step: (areas[step], -step))  # the first of equal ones
    assert len(set(areas.values())) > 2 and best != min(areas)  # the test would say nothing otherwise
    for name in [f"straight{number}", *report[f"killed{number}"]["runs"]]:
        found = open_checkpoint(str(cwd / name / "best"), OneRank())[1]  # checks every hash
        assert [path.name for path in (cwd / name / "best" / "checkpoints").iterdir()] == [f"step_{best:08d}"], name
        assert found.extra == {"best": {"metric": METRIC, "value": areas[best], "step": best}}
        assert found.num_shards == 2
        assert manifest(cwd / name, STEPS)["extra"] == found.extra
        assert found.files == open_checkpoint(str(cwd / f"straight{number}" / "best"), OneRank())[1].files
