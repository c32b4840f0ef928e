"""Half precision on 1 to 3 CPU ranks: against NumPy that rounds where the program casts, one rank, and float32."""

from __future__ import annotations

import numpy as np
import pytest

from plsc.backend import static
from tests.dist import half_resumes
from tests.dist.cross import Cross, by_name, on_ranks
from tests.dist.test_resume import run_process
from tests.dist.test_training_step import MICRO_BATCHES, REFERENCE, check_training, make_case
from tests.dist.tiny_run import manifest, told

BITS = {"float16": 11, "bfloat16": 8}  # of precision
DTYPES = ("bfloat16", "float16") if static.is_pir() else ("bfloat16",)  # 2.6 cannot sum float16 on CPUs


def unit_roundoff(dtype):
    """The largest relative error of a rounding to the nearest."""
    return 2.0 ** -BITS[dtype]


def rounded(values, dtype):
    """Float64 ``values`` as the nearest numbers of ``dtype``; none overflows here."""
    values = np.asarray(values, np.float64)
    spacing = np.exp2(np.floor(np.log2(np.maximum(np.abs(values), 2.0**-14))) - (BITS[dtype] - 1))
    return np.rint(values / spacing) * spacing


class HalfNet:
    """FloatNet as the program computes it: the product of half factors, its result and its gradients are half. The
    bias is added in half, but with O1 of Paddle 3. Each rank (and micro-batch) rounds its own gradient; their sum is
    float32.

    ``parts``: in how many parts the global batch is processed."""

    def __init__(self, precision, parts):
        self.dtype, self.parts = precision["dtype"], parts
        self.scale = SCALE if self.dtype == "float16" else 1.0
        self.half_bias = precision["level"] == "O2" or not static.is_pir()

    def feature(self, image, weight, bias):
        product = rounded(rounded(image, self.dtype) @ rounded(weight, self.dtype), self.dtype)
        return rounded(product + rounded(bias, self.dtype), self.dtype) if self.half_bias else product + bias

    def gradients(self, image, dfeature):
        half = rounded(dfeature * self.scale, self.dtype)
        pairs = list(zip(np.split(rounded(image, self.dtype), self.parts), np.split(half, self.parts)))
        of_weight = sum(rounded(x.T @ y, self.dtype) for x, y in pairs) / self.scale
        if not self.half_bias:
            return of_weight, dfeature.sum(0)
        return of_weight, sum(rounded(y.sum(0), self.dtype) for _, y in pairs) / self.scale


SCALE = 128.0
SAMPLED = {"num_classes": 203, "classifier": {"sample_ratio": 0.2}}


def linear_case(name, dtype, level, **options):
    half = {"enabled": True, "dtype": dtype, "level": level, "init_loss_scaling": SCALE}
    config = {**options.get("config", {}), "mixed_precision": half, "device": "cpu"}
    return make_case(f"{dtype} {level} {name}", **{**options, "config": config})


WITH_ALL = {**SAMPLED, "config": {"grad_clip_norm": 0.05}, "micro_batches": MICRO_BATCHES}
KINDS = {"model parallel": {}, "data parallel": {"classifier": {"model_parallel": False}},
         "sampled, clipped, accumulated": WITH_ALL}  # fmt: skip
LINEAR = [linear_case(name, dtype, "O1", **KINDS[name]) for dtype in DTYPES for name in KINDS]
LINEAR += [
    linear_case(name, DTYPES[-1] if name == "data parallel" else "bfloat16", "O2", **KINDS[name]) for name in KINDS
]
STEPS = 24


def small_case(name, dtype=None, steps=STEPS, **options):
    half = {"enabled": dtype is not None, "dtype": dtype or "float16", "init_loss_scaling": SCALE}
    half.update(options.pop("precision", {}))
    classifier = {"num_classes": 23, "scale": 16.0, **options.pop("classifier", {})}
    config = {"classifier": classifier, "mixed_precision": half, "ema": {"decay": 0.9}, **options.pop("config", {})}
    return {"name": name, "steps": steps, "config": config, **options}


OVERFLOW = {"init_loss_scaling": 2.0**24, "decr_every_n_nan_or_inf": 1, "decr_ratio": 2.0**-12}
SMALL = [
    small_case("float32"),
    *[small_case(dtype, dtype) for dtype in DTYPES],
    small_case("bfloat16 O2", "bfloat16", precision={"level": "O2"}),
    small_case("float32 sampled", classifier={"sample_ratio": 0.5}),
    small_case("bfloat16 sampled", "bfloat16", classifier={"sample_ratio": 0.5}),
    *[small_case("overflow", "float16", steps=4, precision=OVERFLOW, kept=(0, 1)) for _ in DTYPES[1:]],
]  # fmt: skip


CROSS = Cross("tests.dist.half_cases:run_cases", by_name([*LINEAR, *SMALL]),
              dict.fromkeys((1, 2, 3), tuple(case["name"] for case in (*LINEAR, *SMALL))))  # fmt: skip
outcome = CROSS.outcome()


def half_net(case, world_size):
    return HalfNet(case["config"]["mixed_precision"], world_size * case.get("micro_batches", {}).get(world_size, 1))


@CROSS.each(lambda case: "images" in case)
def test_training_is_that_of_numbers_rounded_where_the_program_casts(outcome, world_size, name):
    case = CROSS.cases[name]
    parts, net = [rank[name] for rank in outcome(world_size)], half_net(case, world_size)
    # Both round the same numbers, which are 1e-7 apart, so that one in 1e-7 / u of them goes to another half number,
    # 2 u away: of some thousand in six steps at most a few, each of which moves a value by a part of u (0.5 u was
    # measured). Without any it is 0.01 u.
    check_training(case, parts, REFERENCE, unit_roundoff(net.dtype) / 1e-5, net)


@pytest.mark.parametrize("case", LINEAR[:2], ids=lambda case: case["name"])
def test_casts_that_were_left_out_would_be_found(outcome, case):
    parts = [rank[case["name"]] for rank in outcome(2)]
    with pytest.raises(AssertionError):
        check_training(case, parts, REFERENCE, unit_roundoff("bfloat16") / 1e-5)


def losses(outcome, world_size, name):
    first, *others = (rank[name]["losses"] for rank in outcome(world_size))
    assert all(other == first for other in others)
    return np.array(first)


ON_SIZES = pytest.mark.parametrize("world_size", [on_ranks(size) for size in CROSS.names])


@ON_SIZES
@pytest.mark.parametrize("name", [*DTYPES, "bfloat16 O2"])
def test_losses_are_those_of_float32_and_of_one_rank(outcome, world_size, name):
    """A cosine of vectors that are off by u is off by about u, and its logit by 16 u: that is the unit. A loss is off
    by as much, and after 24 steps by what has gathered in the weights: 1.7 units were measured at most, over ranks and
    types. Between one rank and N the forward pass is the same, and gradients are rounded once for each rank: 1.0."""
    unit = 16.0 * unit_roundoff(name.split()[0])
    found, exact = losses(outcome, world_size, name), losses(outcome, world_size, "float32")
    assert exact[-1] < 0.2 * exact[0]  # it learns
    off = np.abs(found - exact)
    assert unit / 10 < off.max() < 4 * unit
    np.testing.assert_allclose(found, losses(outcome, 1, name), rtol=0, atol=3 * unit)


@ON_SIZES
def test_a_sample_in_half_precision(outcome, world_size):
    off = losses(outcome, world_size, "bfloat16 sampled") - losses(outcome, world_size, "float32 sampled")
    assert 0 < np.abs(off).max() < 4 * 16.0 * unit_roundoff("bfloat16")


@ON_SIZES
def test_a_gradient_that_overflows_float16_skips_the_step(outcome, world_size):
    """Not planted: the scale of 2^24 makes gradients larger than 65504. bfloat16 skips none."""
    assert not any(rank[dtype]["skipped"] for rank in outcome(world_size) for dtype in DTYPES)
    for part in (rank["overflow"] for rank in outcome(world_size) if DTYPES[1:]):
        assert part["skipped"] == [0]
        before, after = part["kept"][0], part["kept"][1]
        assert before["loss_scaling.scale"] == 2.0**24 * 2.0**-12
        moved = [name for name in before if name.startswith(("backbone.", "ema.")) or name == "weight"]
        assert moved and all((before[name] != after[name]).any() for name in moved)
        velocities = [before[name] for name in before if "velocity" in name]
        assert velocities and not any(value.any() for value in velocities)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    cwd = tmp_path_factory.mktemp("half_resumes")
    report = run_process("tests.dist.half_resumes", cwd)
    assert {code for codes in report.values() for code in codes} == {0}
    return cwd


def test_a_resumed_run_ends_to_the_bit(runs):
    """With micro-batches, clipping, averages, a sample, and skipped steps where the loss is scaled."""
    straight, resumed = (manifest(runs / name, half_resumes.STEPS) for name in ("straight", "resumed"))
    assert straight["files"] == resumed["files"]
    names = {spec["name"] for spec in straight["replicated_tensors"]}
    assert any(name.startswith("ema.") for name in names)
    assert ("loss_scaling.scale" in names) == bool(DTYPES[1:])
    assert {spec["dtype"] for spec in straight["replicated_tensors"]} <= {"F32", "I32", "I64"}


def test_other_ranks_go_on(runs):
    """Their losses, of the same images and classes, are those of the ranks before, within 3 units as above."""
    both = [told(runs / name) for name in ("straight", "2 to 3")]
    for step in range(half_resumes.HALF + 1, half_resumes.STEPS + 1):
        (one,), (other,) = (values[step, "train", "loss"] for values in both)
        assert abs(one - other) < 3 * 8.0 * unit_roundoff(DTYPES[-1])


def test_the_log_says_what_it_costs(runs):
    assert "this is for checking, and slower" in (runs / "rank0.log").read_text()
