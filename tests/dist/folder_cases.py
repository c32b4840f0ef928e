"""Runs on a folder of identities (see test_folder_runs.py)."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

from plsc import Entry, Predictor
from plsc.errors import PlscError
from tests.dist.tiny_run import SHAPE, TinyNet

STEPS, SAVED = 10, 4  # 3 steps an epoch: the run goes on from the middle of one


def entry(run_dir: str, data: dict, ranks: int = 1, **changes) -> Entry:
    """A global batch of 8; no statistics of a batch, so that one rank and two compute the same."""
    settings = {
        "seed": 3, "device": "cpu", "num_threads": 1, "model_save_dir": run_dir, "train_batch_size": 8 // ranks,
        "train_steps": STEPS, "log_period": 1, "lr": 0.5, "save_period": SAVED, "max_last_checkpoint_num": 0,
        "memory_check": False, "model": {"image_shape": SHAPE, "embedding_size": 8},
        "classifier": {"num_classes": None, "scale": 8.0}, "data": {"num_workers": 1, **data},
    }  # fmt: skip
    made = Entry(config=settings)
    made.set_model(TinyNet(plain=True))
    for key, value in changes.items():
        made.set(key.replace("__", "."), value)
    return made


def losses(run_dir: str) -> list[float]:
    lines = map(json.loads, (Path(run_dir) / "scalars.jsonl").read_text().splitlines())
    return [line["loss"] for line in lines if "loss" in line]


def refusal(made: Entry) -> str:
    try:
        made.train()
    except PlscError as error:
        return str(error)
    return "nothing was refused"


def trained(env, payload: dict) -> dict:
    """The run on the folder, on the list and (one rank) the container of the same images, and on the folder again from
    a checkpoint."""
    ranks, root = payload["ranks"], payload["root"]
    listed = {"dataset_dir": root, "label_file": payload["list"]}
    entry("folder", {"dataset_dir": root}, ranks).train()
    entry("list", listed, ranks).train()
    if ranks == 1:
        entry("packed", {"dataset_dir": payload["packed"]}).train()
    if env.rank == 0:
        shutil.copytree("folder", "resumed")
        for name in os.listdir("resumed/checkpoints"):
            if name != f"step_{SAVED:08d}":
                shutil.rmtree(f"resumed/checkpoints/{name}")
        os.unlink("resumed/scalars.jsonl")
    entry("resumed", {"dataset_dir": root}, ranks, resume="auto").train()
    names = ("folder", "list", "resumed", "packed")
    return {name: losses(name) for name in names if os.path.isdir(name)} if env.rank == 0 else {}


FIRST = {"train_steps": 2, "classifier__num_classes": 20}
GOING_ON = {**FIRST, "train_steps": 4, "checkpoint_dir": "wide"}
# After a refusal the ranks end: a process each.
REFUSED = {
    "renumbered": ("changed", GOING_ON),
    "another number": ("changed", {"checkpoint_dir": "wide"}),
    "named set": ("root", {"data__val_targets": ["lfw"], "with_test": True}),
}


def wide(env, payload: dict) -> None:
    """A run with more classes than folders, and one that goes on with other labels because it may."""
    entry("wide", {"dataset_dir": payload["root"]}, payload["ranks"], **FIRST).train()
    changed = {"dataset_dir": payload["changed"]}
    entry("allowed", changed, payload["ranks"], **GOING_ON, accept_new_labels=True).train()


def refused(env, payload: dict) -> str:
    """What each rank says."""
    place, changes = REFUSED[payload["case"]]
    return refusal(entry("refused", {"dataset_dir": payload[place]}, payload["ranks"], **changes))


def disagreeing(env, payload: dict) -> str:
    """What each rank says where rank 1 finds something else."""
    return refusal(entry("apart", {"dataset_dir": payload["roots"][env.rank]}, 2))


def exported(env, payload: dict) -> dict:
    """Exported with its classifier, the names answer; predict writes them."""
    data = {"dataset_dir": payload["root"]}
    common = {"checkpoint_dir": payload["run"], "export__with_classifier": True}
    directory = entry("exported", data, **common).convert_for_prediction()
    images = [os.fsdecode(path) for path in payload["images"]]
    with Predictor(directory) as predictor:
        best = predictor.classify(images, k=2)
        found = {"names": predictor.class_names, "label": best.label.tolist(), "best": best.names,
                 "score": best.score.tolist(), "scores": predictor.scores(images)}  # fmt: skip
    entry("predicted", data, checkpoint_dir=directory, predict__images=payload["folder"]).predict()
    entry("plain", data, checkpoint_dir=payload["run"]).predict()  # of the training folder, by a checkpoint
    return {**found, "table": Path("predicted/predictions/pictures.csv").read_bytes(),
            "plain": Path("plain/predictions/pictures.csv").read_bytes()}  # fmt: skip
