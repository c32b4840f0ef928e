"""Verification of sets of every kind on each rank (see test_verification_sets.py)."""

from __future__ import annotations

import os

from plsc import Entry
from tests import using_kit as kit


def judge(env, payload: dict) -> dict:
    """{batch size: {set: figures}} of this rank. payload: run, sets (dataset_dir), names, batches, out."""
    results = {}
    for batch in payload["batches"]:
        settings = kit.settings(
            model_save_dir=os.path.join(payload["out"], str(batch)), checkpoint_dir=payload["run"],
            test_batch_size=batch, data={"dataset_dir": payload["sets"], "val_targets": payload["names"]},
        )  # fmt: skip
        results[batch] = {name: figures(result) for name, result in Entry(config=settings).test().items()}
    return results


def figures(result) -> tuple:
    return result.accuracy, result.auc, result.eer, result.num_same, result.num_different, result.xnorm
