"""What is said of hard negatives before a run, from sizes alone."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from plsc.engine.training.before import log_hard_negatives

START = "classifier.hard_negative_share=0.5: "


@pytest.mark.parametrize(
    "sample, ranks, batch, num_classes, said",
    [
        (1000, 2, 100, 10_000, "up to 1,000 of the 2,000 sampled classes are hard negatives; a global batch of 100 "
         "names at most 800"),
        (100, 2, 50, 1000, "up to 100 of the 200 sampled classes are hard negatives"),
        (24, 1, 64, 80, "up to 12 of the 24 sampled classes are hard negatives; where the global batch has 64 classes, "
         "its own leave room for 0"),
        (24, 1, 64, 20, "up to 12 of the 24 sampled classes are hard negatives; where the global batch has 20 classes, "
         "its own leave room for 4"),
        (1, 1, 64, 20, "there are none, as it is less than one of the 1 classes that a rank samples"),
        (0, 1, 64, 20, None),
    ],
)  # fmt: skip
def test_what_limits_them_is_said(sample, ranks, batch, num_classes, said):
    lines = []
    run = SimpleNamespace(
        config=SimpleNamespace(step_batch_size=batch // ranks),
        env=SimpleNamespace(world_size=ranks),
        log=SimpleNamespace(info=lines.append),
    )
    spec = SimpleNamespace(hard_negative_share=0.5 if sample else 0.0, num_classes=num_classes)
    shard = SimpleNamespace(num_sample=sample, world_size=ranks)
    hard = SimpleNamespace(num_hard=sample // 2) if sample > 1 else None
    log_hard_negatives(run, SimpleNamespace(spec=spec, shard=shard, hard=hard))
    assert lines == ([START + said] if said else [])
