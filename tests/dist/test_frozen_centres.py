"""Centres of a teacher that stay (distill.centres): steps on 1 to 3 ranks, and in the program of GPUs, against NumPy
float64; runs on real ranks, through a resumption and on another number of ranks."""

from __future__ import annotations

import numpy as np
import pytest

from plsc import checkpoint
from plsc.backend.program_view import operations, walk
from plsc.config import Config
from plsc.config.user_objects import UserObjects
from plsc.engine.program.build import BuildOptions, build_train
from plsc.parallel.environment import Environment
from tests.dist import ranks
from tests.dist.cross import on_ranks
from tests.dist.test_frozen_runs import stored
from tests.dist.test_gpu_training import each
from tests.dist.test_resume import run_process
from tests.dist.test_training_step import EMBEDDING, REFERENCE, check_training, make_case
from tests.dist.training_cases import Linear
from tests.kernels.library import library

CENTRES = {"distill": {"centres": "any"}}
SAMPLED = {"num_classes": 203, "classifier": {"sample_ratio": 0.2}}
LOOPS, PIECES = {"block_rows": 5, "few_blocks": 0}, {"block_rows": 5, "few_blocks": 40}
CLIPPED = {"grad_clip_norm": 0.05, "calc_acc": True, **CENTRES}
HALF = {"mixed_precision": {"enabled": True, "init_loss_scaling": 1024.0}}


class Still:
    """No optimizer."""

    def start(self, weight):
        return []

    def step(self, weight, states, gradient, rate, decay, count):
        return weight


def frozen(name, config=CENTRES, **options):
    return make_case(name, config=config, **options)


CASES = [
    frozen("loops, clipped", CLIPPED, **LOOPS),
    frozen("sampled", **SAMPLED),
    frozen("sampled loops, clipped", CLIPPED, **SAMPLED, **LOOPS),
    frozen("sampled pieces", **SAMPLED, **PIECES),
    frozen("data parallel sampled", CLIPPED, num_classes=203,
           classifier={"sample_ratio": 0.2, "model_parallel": False}),
    frozen("softmax", classifier={"loss_type": "softmax"}),
    frozen("sub centres", classifier={"sub_centres": 3}),
    frozen("own optimizer", optimizer="momentum", rates=[0.2] * 6),
    frozen("adamw for the classes", {"class_optimizer": {"name": "adamw"}, **CENTRES}, **SAMPLED),
]  # fmt: skip
GPU_CASES = [
    # by PLSC's own sample, which can be told: Paddle's kernel draws from a generator that goes on from case to case
    frozen("gpu sampled, clipped", CLIPPED, num_classes=203, classifier={"sample_ratio": 0.2, "kernels": "plsc"}),
    frozen("gpu loss scaling", {**CLIPPED, **HALF}),
    frozen("gpu data parallel", {**CENTRES, **HALF}, classifier={"model_parallel": False}),
]


def trained(case):
    """The same steps with centres that move: the sample depends on the labels, the step and the seed alone, and only
    rows that an optimizer moves tell which were sampled."""
    return {**case, "config": {key: value for key, value in case["config"].items() if key != "distill"}}


def check(case, found):
    parts, others = zip(*found)
    for part, other in zip(parts, others):
        np.testing.assert_array_equal(part["weight"], part["first_weight"])
        assert not part["slots"] and (other["weight"] != other["first_weight"]).any()
    check_training(case, [{**part, "sample": other["sample"]} for part, other in zip(parts, others)],
                   (REFERENCE, Still()))  # fmt: skip


@pytest.mark.parametrize("world_size", [1, 2, on_ranks(3)])
def test_steps_are_those_of_the_reference(tmp_path, world_size):
    both = [one for case in CASES for one in (case, trained(case))]
    parts = ranks.run("tests.dist.training_cases:run_cases", world_size, tmp_path, both)
    each([(case, [part[2 * n : 2 * n + 2] for part in parts]) for n, case in enumerate(CASES)], check)


def test_steps_of_the_program_of_gpus(tmp_path):
    both = [one for case in GPU_CASES for one in (case, trained(case))]
    found = ranks.run("tests.dist.gpu_cases:run_all", 2, tmp_path, (library(), {"training": both}))
    each([(case, [part["training"][2 * n : 2 * n + 2] for part in found]) for n, case in enumerate(GPU_CASES)], check)


@pytest.mark.parametrize("device", ["cpu", "gpu"])
@pytest.mark.parametrize("case", [CASES[0], CASES[1]], ids=["all", "sampled"])
def test_nothing_is_computed_for_the_rows(case, device):
    """No operation writes them, and fewer results are of their shape: their gradient is one."""
    like_rows = {}
    for one in (case, trained(case)):
        config = Config.from_dict(one["config"])
        env, options = Environment(0, 2, device=device), BuildOptions(dry_run=True)
        program = build_train(config, UserObjects(model=Linear(case["embedding_size"])), env, 7, options)
        ops = list(walk(operations(program.main)))
        written = {tensor.name for op in ops for tensor in op.writes if op.kind != "parameter"}
        shapes = [tensor.shape for op in ops for tensor in op.writes]
        sizes = (program.shard.num_sample, -1)  # a sample's may be unknown
        like_rows["distill" in one["config"]] = sum(len(s) == 2 and s[0] in sizes and s[1] == EMBEDDING for s in shapes)
        assert (program.rows.table.value.name in written) == ("distill" not in one["config"])
        assert list(program.tables) == (["weight"] if "distill" in one["config"] else ["weight", "velocity"])
    assert like_rows[True] < like_rows[False]


@pytest.fixture(scope="module")
def outcome(tmp_path_factory):
    cwd = tmp_path_factory.mktemp("frozen_centres")
    return cwd, run_process("tests.dist.frozen_centres_cases", cwd)


def test_the_centres_are_the_teachers_to_the_bit_whatever_happens(outcome):
    cwd, report = outcome
    assert {*report["teacher"], *report["straight"], *report["on three"]} == {0}
    teacher = stored(cwd / "teacher")["classes.weight"]
    for name in ("straight", "halves"):
        found = stored(cwd / name)
        assert [key for key in found if key.startswith("classes.")] == ["classes.weight"]
        np.testing.assert_array_equal(found["classes.weight"], teacher)
    path = checkpoint.resolve(str(cwd / "halves"))
    assert checkpoint.read_manifest(path).world_size == 3


def test_a_resumed_run_ends_as_one_that_was_not(outcome):
    cwd, report = outcome
    assert {*report["first half"], *report["second half"]} == {0}
    paths = [cwd / run / "checkpoints" / "step_00000006" for run in ("straight", "halves")]
    ends = [sorted(path.glob("*.safetensors")) for path in paths]
    assert len(ends[0]) == 3 and [file.read_bytes() for file in ends[0]] == [file.read_bytes() for file in ends[1]]


def test_what_does_not_fit_is_refused_and_said(outcome):
    cwd, report = outcome
    assert report["trained again"] == [1, 1] and report["more classes"] == [1, 1]
    for rank in (0, 1):
        said = (cwd / "trained again" / f"rank{rank}.log").read_text()
        assert f"was trained with distill.centres={str(cwd / 'teacher')!r}, this run has ''; set it as it was" in said
        said = (cwd / "more classes" / f"rank{rank}.log").read_text()
        assert "distill.centres=" in said and "has 37 classes, the training data 40" in said
    log = (cwd / "straight" / "logs" / "rank_00000.log").read_text()
    assert "distill.centres: 37 classes have the centres of" in log and "and keep them" in log
