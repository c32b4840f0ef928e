"""The plan of a run's memory: what is exact against sums made by hand, the search, the command, what is refused.

That it tells what a process then takes is held in test_memory_plan_measured.py.
"""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path

import pytest

from plsc import Entry
from plsc.backend import static
from plsc.backend.program_view import operations
from plsc.classifiers import ClassifierSpec, Shard
from plsc.cli.main import main
from plsc.config.user_objects import UserObjects
from plsc.engine.memory.estimate import STEP, MemoryEstimator
from plsc.engine.memory.plan import most_classes
from plsc.engine.program.build import BuildOptions, build_train
from plsc.errors import ConfigError
from plsc.models import BaseModel
from plsc.parallel.environment import Environment
from plsc.registry import OPTIMIZERS
from plsc.rows import RowOptimizer, Slot, register_optimizer
from tests.registries import forget_afterwards

ROOT = Path(__file__).resolve().parents[2]
CLASSES, EMBEDDING, BATCH, PIXELS = 1003, 16, 8, 3 * 4 * 4


class Linear(BaseModel):
    """One layer: PIXELS x EMBEDDING numbers and a bias."""

    def build_network(self, input, label, is_train=True):
        import paddle

        return paddle.nn.Linear(PIXELS, EMBEDDING)(paddle.flatten(input, 1))


def entry(**options):
    usual = {
        "device": "cpu", "with_test": False, "train_batch_size": BATCH, "model.image_shape": [3, 4, 4],
        "model.embedding_size": EMBEDDING, "classifier.num_classes": CLASSES, "data.dataset": "synthetic",
        "data.num_workers": 0, "train_steps": 1, "num_threads": 1,
    }  # fmt: skip
    made = Entry()
    for key, value in {**usual, **options}.items():
        made.set(key, value)
    made.set_model(Linear())
    return made


def need(ranks=1, adam=False, **options):
    """What a rank needs, without the search for the most classes."""
    import paddle

    paddle.enable_static()
    made = entry(**options)
    if adam:
        made.set_optimizer(paddle.optimizer.Adam(0.01))
    return MemoryEstimator(made._config, made._user_objects, ranks, process=0).of(
        made.config["classifier"]["num_classes"]
    )


@pytest.mark.parametrize("ranks, local", [(1, 1003), (4, 251)])
@pytest.mark.parametrize("ratio", [1.0, 0.1])
def test_variables_are_their_shapes(ranks, local, ratio):
    found = need(ranks, **{"classifier.sample_ratio": ratio})
    weight, layer = 4 * local * EMBEDDING, 4 * (PIXELS * EMBEDDING + EMBEDDING)
    assert found.sizes["class weights"] == weight
    assert found.sizes["class momentum"] == weight + (8 * local if ratio < 1 else 0)  # the step of the last update
    assert found.sizes["backbone"] == layer
    assert layer <= found.sizes["backbone's momentum"] <= layer + 64  # and the counter of the steps
    assert found.snapshot == 2 * weight + found.sizes["backbone"] + found.sizes["backbone's momentum"]
    assert sum(found.detail.values()) == found.sizes[STEP]


def test_several_centres_take_as_many_times():
    one, three = need(), need(**{"classifier.sub_centres": 3})
    for name in ("class weights", "class momentum"):
        assert three.sizes[name] == 3 * one.sizes[name]
    assert three.snapshot - one.snapshot == 2 * 2 * one.sizes["class weights"]
    # of a step: its block of cosines three times, the logits of the classes once
    assert one.sizes[STEP] < three.sizes[STEP] < 4 * one.sizes[STEP]


@pytest.mark.parametrize("compiled", [True, False])
def test_states_of_other_optimizers_are_their_shapes(compiled):
    """The two moments of AdamW's rows, beside one another or not; of Adafactor a row and a column of the layer."""
    found = need(**{
        "classifier.sample_ratio": 0.1, "classifier.compiled": compiled, "optimizer.name": "adafactor",
        "class_optimizer.name": "adamw",
    })  # fmt: skip
    weight = 4 * CLASSES * EMBEDDING
    assert (found.sizes["class weights"], found.sizes["class momentum"]) == (weight, 2 * weight + 8 * CLASSES)
    states = 4 * (PIXELS + EMBEDDING + EMBEDDING)
    assert states <= found.sizes["backbone's momentum"] <= states + 64  # and the counters of the steps


def test_sixteen_bits_are_half():
    weight = need().sizes["class weights"]
    assert need(**{"classifier.storage": "float16"}).sizes["class weights"] == weight // 2
    assert need(**{"classifier.storage": "bfloat16"}).sizes["class weights"] == weight // 2


def test_adam_keeps_two_numbers_for_each_of_a_weight():
    found = need(adam=True)
    assert found.sizes["class momentum"] == pytest.approx(2 * found.sizes["class weights"], abs=16)


def test_every_array_of_an_optimizer_is_counted(monkeypatch):
    OPTIMIZERS.names()
    forget_afterwards(monkeypatch, OPTIMIZERS)

    @register_optimizer("three")
    class Three(RowOptimizer):
        slots = (Slot("one"), Slot("two"), Slot("three"))

        def step(self, weight, slots, gradient, step):
            return weight - step.learning_rate * gradient, tuple(slot + gradient for slot in slots)

    found = need(**{"optimizer.name": "three", "classifier.sample_ratio": 0.1})
    assert found.sizes["class momentum"] == 3 * found.sizes["class weights"] + 8 * CLASSES
    assert found.sizes["backbone's momentum"] == pytest.approx(3 * found.sizes["backbone"], abs=64)
    assert found.snapshot == sum(found.sizes[f"{part}"] for part in (
        "class weights", "class momentum", "backbone", "backbone's momentum")) - 8 * CLASSES  # fmt: skip


def test_more_batch_and_more_classes_take_more_memory():
    step = need().sizes[STEP]
    assert need(train_batch_size=8 * BATCH).sizes[STEP] > 2.5 * step  # the rows are as many as before
    # of all classes there are the cosines, of a block of 2,048 the rest
    assert need(**{"classifier.num_classes": 8 * CLASSES}).sizes[STEP] > 2 * step
    # each of four ranks has a quarter of the classes, for four times the pictures
    assert 0.4 < need(4).sizes[STEP] / step < 2.5


def test_the_verdict():
    plan = entry().plan(1, memory_gb=4)
    assert plan.fits and plan.verdict in str(plan) and "fits in 4.00 GB" in plan.verdict
    again = need(**{"classifier.num_classes": plan.most_classes}).sizes
    total = sum(again.values()) - again["process"] + plan.bytes["process"]
    assert 0.97 * 4e9 < total <= 4e9
    assert plan.total == sum(plan.bytes.values())
    hopeless = entry().plan(1, memory_gb=0.01)
    assert not hopeless.fits and hopeless.most_classes == 0 and "no number of classes fits" in hopeless.verdict


def need_of_gpu(ranks=2, **options):
    made = entry(device="gpu", **options)
    return MemoryEstimator(made._config, made._user_objects, ranks, None, "gpu").of(
        made.config["classifier"]["num_classes"]
    )


@pytest.mark.parametrize("ratio, rows", [(1.0, 1), (0.1, 3)])
def test_a_gpu_keeps_three_numbers_for_each_logit(ratio, rows):
    """What the kernel's moment needs: cosines, those held inside the limit, the softmax; directions of rows [S, E], and
    of a sample the rows and velocities brought up to date; some numbers for each row beside that. Paddle 3 overwrites
    no argument of an unknown number of columns: of a sample there is one array more."""
    features, local = 2 * 64, 100_000
    found = need_of_gpu(**{"classifier.num_classes": 2 * local, "classifier.sample_ratio": ratio,
                           "train_batch_size": 64})  # fmt: skip
    sample = int(ratio * local)
    arrays = 4 if ratio < 1 and static.is_pir() else 3
    least = 4 * sample * (arrays * features + rows * EMBEDDING)
    assert least <= found.sizes[STEP] <= least + 4 * sample * 24 + 64_000  # and features, pictures
    assert found.sizes["drawing the sample"] == (0 if ratio == 1.0 else 48 * local)
    assert found.sizes["convolutions, at most"] == 0 and found.sizes["CUDA, cuDNN and NCCL (assumed)"] > 0


@pytest.mark.parametrize("ratio", [1.0, 0.1])
def test_a_gpu_keeps_each_logit_once_by_plscs_kernels(ratio):
    """[S, G] in float32, and of an eighth of it what a block needs: rows, velocity and their sums [R, E], up to six
    [R, G]; no array of the whole shard, and nothing for class_center_sample."""
    features, local = 2 * 64, 800_000
    found = need_of_gpu(**{"classifier.num_classes": 2 * local, "classifier.sample_ratio": ratio,
                           "train_batch_size": 64, "classifier.kernels": "plsc"})  # fmt: skip
    sample = int(ratio * local)
    logits, block = 4 * sample * features, max(-(-sample // 8), 2**22 // features)
    assert logits <= found.sizes[STEP] <= logits + 4 * block * (6 * features + 5 * EMBEDDING) + 24 * sample + 64_000
    assert found.sizes["drawing the sample"] == 0


@pytest.mark.parametrize("late", ["auto", "never"])
def test_a_gpu_has_the_inputs_of_the_next_step_where_results_are_late(late):
    """Pixels, labels, and of a sample the table of missed steps, four numbers a row."""
    found = need_of_gpu(**{"train_batch_size": 64, "classifier.sample_ratio": 0.5, "late_results": late})
    inputs = 64 * (4 * PIXELS + 8) + 4 * 4 * 4097  # and rate, stop, step
    least, most = (0, 0) if late == "never" else (inputs, inputs + 32)
    assert least <= found.sizes["inputs of the next step"] <= most


MANY = {"classifier.num_classes": 20_000_000, "train_batch_size": 128}  # 2.6e9 logits


def gpu_program(**options):
    import paddle

    paddle.enable_static()
    made = entry(device="gpu", **options.pop("set", {}))
    env = Environment(0, options.pop("ranks", 1), device="gpu")
    return env, build_train(made._config, UserObjects(model=Linear(), **options), env, 0, BuildOptions(dry_run=True))


def test_more_logits_than_the_kernel_counts_are_left_to_plsc():
    """By the sizes, so without allocating any; the last program has one logit fewer than the limit."""
    env, program = gpu_program(set=MANY)
    kinds = {op.kind for op in operations(program.main)}
    assert not kinds & {"margin_cross_entropy", "softmax_with_cross_entropy", "cross_entropy_with_softmax"}
    assert "128 features and 20,000,000 classes per rank are more logits than" in program.spec.without_kernel(env)
    assert all(math.prod(tensor.shape) < 2**31 for op in operations(program.main) for tensor in op.writes)
    env, program = gpu_program(set={"classifier.num_classes": 2**24 - 1, "train_batch_size": 128})
    assert program.spec.uses_kernel(env) and program.spec.without_kernel(env) is None


def test_both_ranks_leave_it_to_plsc_where_one_has_to():
    """Uneven shards: 2^24 classes times 128 features on rank 0 only."""
    spec = ClassifierSpec(2**25 - 1, features=128)
    envs = [Environment(rank, 2, device="gpu") for rank in range(2)]
    assert [Shard.of(spec, env).num_local for env in envs] == [2**24, 2**24 - 1]
    assert [spec.uses_kernel(env) for env in envs] == [False, False]
    # every rank has all classes: a sample grows to the classes of the whole batch, of both ranks
    alike = ClassifierSpec(2**26, sample_ratio=1e-6, model_parallel=False, features=2**15)
    assert alike.uses_kernel(Environment(device="gpu")) and not alike.uses_kernel(envs[0])


def test_what_neither_can_compute_is_refused():
    import paddle

    with pytest.raises(ConfigError, match="20,000,000 classes per rank are, with an optimizer of your own, one array"):
        gpu_program(set=MANY, optimizer=paddle.optimizer.SGD(0.1))
    few = {"classifier.num_classes": 10**6, "classifier.sample_ratio": 0.01, "train_batch_size": 50_000}
    with pytest.raises(ConfigError, match="50,000 features and 10,000 classes .* a batch of more labels than that"):
        gpu_program(set=few)


def test_a_gpu_is_planned_for_without_one():
    plan = entry(device="gpu", **{"mixed_precision.enabled": True}).plan(8, memory_gb=2.0)
    assert plan.fits and "not measured on a GPU" in str(plan) and "process" not in plan.bytes
    unknown = entry(device="gpu").plan(8)
    assert unknown.fits is None and unknown.most_classes is None and "memory_gb" in unknown.verdict


def test_planning_leaves_everything_as_it_was(tmp_path):
    import paddle

    paddle.enable_static()
    made = entry(model_save_dir=str(tmp_path / "out"), device="gpu")
    made.set_optimizer(paddle.optimizer.Adam(0.01))
    before = made.config
    first, second = made.plan(1), made.plan(1)
    assert made.config == before and list(tmp_path.iterdir()) == []
    assert first == second  # an optimizer that had been in a program could not be in another


@pytest.mark.parametrize("arguments", [(0, 4), (True, 4), (1.5, 4), (1, 0), (1, -2), (1, "4"), (1, float("nan"))])
def test_what_is_no_number_of_ranks_or_memory_is_refused(arguments):
    with pytest.raises(ConfigError, match="ranks=|memory_gb="):
        entry().plan(*arguments)


def test_classes_are_counted_in_the_data(tmp_path):
    (tmp_path / "label.txt").write_text("a.jpg\t0\nb.jpg\t40\n")
    counted = {"classifier.num_classes": None, "data.dataset": "list", "data.dataset_dir": str(tmp_path)}
    made = entry(**counted)
    plan = made.plan(2, memory_gb=2.0)
    assert plan.num_classes == 41 and made.config["classifier"]["num_classes"] is None
    given = entry(**{**counted, "classifier.num_classes": 41}).plan(2, memory_gb=2.0)
    assert plan.bytes["class weights"] == given.bytes["class weights"]


@pytest.mark.parametrize("data, said", [
    ({"data.dataset": "auto"}, "no training data found"), ({"data.dataset": "list"}, "label list .* not found"),
])  # fmt: skip
def test_classes_that_cannot_be_counted(tmp_path, data, said):
    made = entry(**{"classifier.num_classes": None, "data.dataset_dir": str(tmp_path), **data})
    with pytest.raises(ConfigError, match=f"classifier.num_classes=None: cannot be counted here: .*{said}.*the number"):
        made.plan(2, memory_gb=2.0)
    made.set("data.dataset", "synthetic")
    made.train_dataset = [1, 2]
    with pytest.raises(ConfigError, match="cannot be counted here: .*training data of your own"):
        made.plan(2, memory_gb=2.0)


@pytest.mark.parametrize("dataset, workers, batches", [
    ("list", 3, 2 + 2 * 3), ("synthetic", 3, 4 * 2 + 4 * 2 * 3), ("list", 0, 2),
    ("synthetic", 0, 4 * 2),
])  # fmt: skip
def test_batches_of_pixels_take_a_quarter(dataset, workers, batches):
    """Two batches of the loop, and two of each worker: bytes a value."""
    found = need(**{"data.dataset": dataset, "data.num_workers": workers})
    assert found.sizes["images"] == BATCH * PIXELS * batches + 40_000_000 * workers


def test_what_cannot_run_cannot_be_planned():
    with pytest.raises(ConfigError, match="leave the last one without any"):
        entry(**{"classifier.num_classes": 9}).plan(4, 4)  # leaves the last rank without a class


@pytest.mark.parametrize("per_class, fixed, known", [(4100, 0.4e9, 100), (4100, 0.4e9, 10**7), (600, 1.9e9, 5000)])
@pytest.mark.parametrize("ranks", [1, 3])
def test_the_search_comes_within_a_hundredth(per_class, fixed, known, ranks):
    asked = []

    def bytes_of(classes):
        asked.append(classes)
        return int(max(fixed + per_class * classes / ranks, fixed + 1e7))  # flat at first, as where the net is larger

    found = most_classes(bytes_of, 2e9, ranks, known)
    assert found % ranks == 0 and bytes_of(found) <= 2e9
    assert bytes_of(int(found * 1.02) + 2 * ranks) > 2e9 * 0.998
    assert len(asked) < 12


def test_the_search_says_when_nothing_fits():
    assert most_classes(lambda classes: 3e9 + classes, 2e9, 2, 1000) == 0


SMALL = ["plan", "-o", "model.name=ResNet10", "-o", "model.base_width=4", "-o", "model.image_shape=[3,16,16]",
         "-o", "device=cpu", "-o", "with_test=false", "-o", "train_batch_size=4", "--ranks", "2"]  # fmt: skip


def test_the_command_says_what_the_method_says():
    words = [sys.executable, "-m", "plsc", *SMALL, "--memory-gb", "3"]
    done = subprocess.run(words, capture_output=True, text=True, env={"PYTHONPATH": str(ROOT), "PATH": ""})
    assert done.returncode == 0 and "class weights" in done.stdout
    assert "85,742 classes on 2 rank(s) need" in done.stdout.splitlines()[-1]  # the default


def test_what_cannot_be_counted_is_one_line(monkeypatch, capsys):
    def fails(*args):
        raise KeyError("an operation\nmore")

    monkeypatch.setattr("plsc.engine.memory.estimate.estimate_memory", fails)
    with pytest.raises(ConfigError, match=r"memory of this model cannot be counted \(KeyError: 'an operation.*trained"):
        main([*SMALL])


def test_as_json(capsys):
    assert main([*SMALL, "--memory-gb", "3", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["total"] == sum(told["bytes"].values()) and told["fits"] and told["ranks"] == 2


def test_the_command_fails_where_it_does_not_fit_or_is_wrong(capsys):
    assert main([*SMALL, "--memory-gb", "0.1"]) == 1
    assert "does not fit in 0.10 GB" in capsys.readouterr().out
    with pytest.raises(ConfigError, match="lr=-1"):
        main([*SMALL, "-o", "lr=-1"])
