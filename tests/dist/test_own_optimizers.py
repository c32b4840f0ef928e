"""Optimizers from outside of the repository: the code of docs/add_an_optimizer.md on one and two ranks, against dense
optimizers in NumPy float64. With sampled classes most rows wait for several steps."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from tests.dist import ranks
from tests.dist.test_training_step import check_training, make_case
from tests.project.docs_kit import ROOT, blocks
from tests.reference import optimizers

# momentum by its formulas alone, without what makes it fast
SLOW_MOMENTUM = """
from plsc.rows import RowOptimizer, register_optimizer
from plsc.rows.optimizers.momentum import Momentum

@register_optimizer("slow_momentum")
class SlowMomentum(Momentum):
    has_kernels = False
    update_ = RowOptimizer.update_
    rows_class = RowOptimizer.rows_class

@register_optimizer("replayed_momentum")
class ReplayedMomentum(SlowMomentum):
    nothing_missed = RowOptimizer.nothing_missed
    missed = RowOptimizer.missed
    bring_up_to_date = RowOptimizer.bring_up_to_date
"""
MOMENTUM = optimizers.Momentum(0.9)
# A gradient is divided by about its own size, but by no less than epsilon; those that are smaller keep the error that
# comes from larger ones, so that it is some times larger than with momentum. Cosines rounded to float32 in NumPy move
# the rows of 12 steps by up to 4e-5 of the largest with an epsilon of 1e-3, and by up to 8e-6 with this one (of 12
# seeds; float32 rounds in more places, by the order in which a processor adds): the tolerance is 1e-4.
ADAMW = {"beta1": 0.8, "beta2": 0.95, "epsilon": 1e-2}
REFERENCES = {
    "my_adamw": optimizers.AdamW(**ADAMW), "sgdw": optimizers.SGDW(), "slow_momentum": MOMENTUM,
    "replayed_momentum": MOMENTUM,
}  # fmt: skip


def write_plugins(directory: Path) -> list[str]:
    """The files of the page, and the one above; their paths."""
    found = [(block.text, re.match(r"# (\S+\.py)\n", block.text)) for block in
             blocks(ROOT / "docs" / "add_an_optimizer.md")]  # fmt: skip
    files = {name[1]: text for text, name in found if name is not None} | {"slow.py": SLOW_MOMENTUM}
    assert set(files) == {"my_adamw.py", "sgdw.py", "slow.py"}
    for name, text in files.items():
        (directory / name).write_text(text, encoding="utf-8")
    return [str(directory / name) for name in files]


def case(name, optimizer, sampled, config=None, steps=12, **options):
    num_classes, ratio = (203, 0.2) if sampled else (29, 1.0)
    classifier = {"sample_ratio": ratio, **options.pop("classifier", {})}
    chosen = {"name": optimizer, "options": ADAMW if optimizer == "my_adamw" else {}}
    options.update(config={"optimizer": chosen, **(config or {})}, classifier=classifier)
    made = make_case(f"{optimizer}, {name}", num_classes, steps, **options)
    if optimizer == "my_adamw":
        made["rates"] = [0.1 * rate for rate in made["rates"]]  # a step of it is about the rate
    return made


LOOPS, PIECES = {"block_rows": 5, "few_blocks": 0}, {"block_rows": 5, "few_blocks": 40}
CASES = [
    case("full", "my_adamw", False, **LOOPS),
    case("data parallel", "my_adamw", False, classifier={"model_parallel": False}),
    case("sampled", "my_adamw", True, **LOOPS),
    case("own rate", "my_adamw", True, lr_factor=0.5, **PIECES),
    case("clipped", "my_adamw", True, {"grad_clip_norm": 0.05}),
    case("softmax data parallel", "my_adamw", True, classifier={"loss_type": "softmax", "model_parallel": False},
         **LOOPS),
    case("many steps", "my_adamw", True, classifier={"sample_ratio": 0.05}, steps=60, **PIECES),
    case("sampled", "sgdw", True, **PIECES),
    case("full", "slow_momentum", False, **LOOPS),
    case("clipped", "slow_momentum", True, {"grad_clip_norm": 0.05}),
    case("float16", "slow_momentum", True, classifier={"storage": "float16"}, **LOOPS),
    case("sampled", "replayed_momentum", True, **PIECES),
]  # fmt: skip
BY_NAME = {made["name"]: made for made in CASES}
assert len(BY_NAME) == len(CASES)


@pytest.fixture(scope="module")
def outcome(tmp_path_factory):
    """{number of ranks: [what each rank found, by the name of the case]}."""
    found = {}
    for world_size in (1, 2):
        cwd = tmp_path_factory.mktemp(f"ranks{world_size}")
        plugins = write_plugins(cwd)
        cases = [{**made, "config": {"plugins": plugins, **made["config"]}} for made in CASES]
        parts = ranks.run("tests.dist.training_cases:run_cases", world_size, cwd, cases)
        found[world_size] = [dict(zip(BY_NAME, part)) for part in parts]
    return found


@pytest.mark.parametrize("world_size", [1, 2])
@pytest.mark.parametrize("name", BY_NAME)
def test_training_is_that_of_the_dense_optimizer(outcome, world_size, name):
    optimizer = name.partition(",")[0]
    looser = 8.0 if optimizer == "my_adamw" else 1.0
    check_training(BY_NAME[name], [rank[name] for rank in outcome[world_size]], REFERENCES[optimizer], looser)


def test_rows_waited(outcome):
    """The test would say nothing otherwise."""
    samples = outcome[1][0]["my_adamw, sampled"]["sample"]
    last = np.zeros(203, int)
    waits = []
    for step, sample in enumerate(samples, 1):
        waits += list(step - 1 - last[sample])
        last[sample] = step
    assert max(waits) > 5 and np.mean(waits) > 1
