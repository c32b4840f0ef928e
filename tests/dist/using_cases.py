"""Predict, test and export on every rank (see test_using.py), one after the other in the same processes."""

from __future__ import annotations

import os

import numpy as np

from plsc import Entry
from tests import using_kit as kit


def run_all(env, payload: dict) -> dict:
    """{what: result} of this rank. payload: run, images (a folder), out."""
    results = {}

    def entry(source: str, name: str, **changes) -> Entry:
        save = os.path.join(payload["out"], name)
        data = {"dataset_dir": payload["sets"], "val_targets": ["own"]}
        settings = kit.settings(
            model_save_dir=save, checkpoint_dir=source, test_batch_size=2, data=data,
            predict={"images": payload["images"]}, **changes,
        )  # fmt: skip
        return Entry(config=settings)

    exported = entry(payload["run"], "export").convert_for_prediction()
    for name, source in (("checkpoint", payload["run"]), ("exported", exported)):
        prediction = entry(source, name).predict()
        results[name] = np.array(prediction.features), prediction.paths
        again = entry(source, name).predict()  # complete already
        assert (again.features == prediction.features).all()
        files = [os.path.join(payload["out"], f"{name}.{kind}") for kind in ("json", "html")]
        figures = entry(source, name).test(*files)["own"]
        if name == "checkpoint":
            results["clean"] = cleaned(entry(source, "clean").clean(), os.path.join(payload["out"], "clean"))
        results[name] += ((figures.accuracy, figures.auc, figures.eer, figures.xnorm),)
    return results


def cleaned(report, folder: str):
    """(the embeddings, the report as plain JSON) of rank 0; None of others."""
    if report is None:
        return None
    plain = report.plain()
    return np.load(os.path.join(folder, "clean", "features.npy")), plain
