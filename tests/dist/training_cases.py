"""Whole steps of the engine on each rank (see test_training_step.py): a linear backbone, no batch statistics."""

from __future__ import annotations

import math
from dataclasses import replace
from unittest import mock

import numpy as np
import paddle

from plsc.backend import program_view
from plsc.backend.cpu import run_in_order
from plsc.classifiers import Shard
from plsc.classifiers.hard_negatives import NEAREST
from plsc.config import Config
from plsc.config.user_objects import UserObjects
from plsc.engine.program.averages import begin_averages
from plsc.engine.program.build import BuildOptions, build_train, make_spec
from plsc.engine.program.session import Session
from plsc.engine.training.class_weights import ClassWeights
from plsc.models import BaseModel
from plsc.optim.gradients import BUCKET_BYTES
from plsc.parallel.group import connected_group
from plsc.rows import blocks as row_blocks

COMPILED = ("momentum", "adamw")  # optimizers whose sampled rows have operations in C++


class Linear(BaseModel):
    """feature = image.flatten @ weight + bias."""

    def __init__(self, embedding_size):
        self.embedding_size = embedding_size

    def build_network(self, input, label, is_train=True):
        return paddle.nn.Linear(int(np.prod(input.shape[1:])), self.embedding_size)(paddle.flatten(input, 1))


def run_cases(env, cases):
    run_in_order()  # as a run does: collectives in the loops over blocks must not meet others
    return [run_case(env, case) for case in cases]


def make_optimizer(name):
    if name == "momentum":
        return paddle.optimizer.Momentum(0.2, 0.9, weight_decay=paddle.regularizer.L2Decay(1e-2))
    if name == "adam":
        return paddle.optimizer.Adam(0.01)
    return None


def rows_of_a_block(case, config, env):
    """``block_rows`` of the case, or those of a sample that is cut into ``pieces``."""
    if "pieces" not in case:
        return case.get("block_rows")
    return math.ceil(Shard.of(make_spec(config, case["embedding_size"], 0), env).num_sample / case["pieces"])


def run_case(env, case):
    config = Config.from_dict(case["config"])
    parts = case.get("micro_batches", {}).get(env.world_size, 1)
    config.update({"train_batch_size": case["global_batch"] // env.world_size // parts, "accumulate": parts})
    param_attr = None if case.get("lr_factor") is None else paddle.ParamAttr(learning_rate=case["lr_factor"])
    parts = UserObjects(model=Linear(case["embedding_size"]), optimizer=make_optimizer(case.get("optimizer")),
                  param_attr=param_attr)  # fmt: skip
    bucket_bytes, block_rows = case.get("bucket_bytes", BUCKET_BYTES), rows_of_a_block(case, config, env)
    with mock.patch.object(row_blocks, "FEW_BLOCKS", case.get("few_blocks", row_blocks.FEW_BLOCKS)):
        device = case.get("device", "cpu")  # gpu: see tests/kernels
        program = build_train(config, parts, replace(env, device=device), 7, BuildOptions(block_rows, bucket_bytes))
    section = config.classifier
    one_way = section.model_parallel or env.world_size == 1
    compiled = section.compiled and one_way and program.shard.samples and section.storage == "float32"
    compiled = compiled and parts.optimizer is None and device == "cpu" and program.optimizers.rows.name in COMPILED
    compiled = compiled and not program.spec.frozen and not program.optimizers.rows.repeats_missed_steps
    assert program.rows.spec.compiled == compiled  # a case is about what it says
    if "pieces" in case:  # a batch of more labels than there are places has a sample of unknown size, and so a loop
        kinds = {op.kind for op in program_view.operations(program.main)}
        assert ("while" in kinds) == (case["global_batch"] > program.shard.num_sample)
    session = Session(program, env, seed=7)
    if "class_weights" in case:
        session.class_weights = ClassWeights(case["class_weights"].astype("float32"))
    session.start(connected_group(env))
    begin_averages(session)
    backbone = [name for name in program.replicated if name in [p.name for p in program.parameters]]
    start = {name: session.replicated()[name] for name in backbone}
    shard = {name: [] for name in ("weight", "velocity", "sample")}
    first_weight = tensor(session, "weight")
    losses, accuracies, states = [], [], []
    batch = case["global_batch"] // env.world_size
    mine = slice(env.rank * batch, (env.rank + 1) * batch)
    for step, rate in enumerate(case["rates"]):
        inputs = {"image": case["images"][step][mine], "label": case["labels"][step][mine]}
        if program.spec.lazy:  # what was sampled before is not told from what is now
            session.scope.find_var(program.rows.touched).get_tensor().set(
                np.zeros((program.shard.num_local, 1), np.int64), paddle.CPUPlace()
            )
        if "teacher" in case:
            inputs["teacher"] = case["teacher"][step][mine]
        window_step = session.history.steps if session.history and not session.history.full else 0
        results = session.step(step, inputs, rate)
        losses.append(results["loss"])
        accuracies.append([results.get("acc1"), results.get("acc5")])
        states.append(loss_states(session))
        if session.history is not None:
            touched = np.array(session.scope.find_var(program.rows.touched).get_tensor()).reshape(-1)
            shard["sample"].append(np.flatnonzero(touched == window_step + 1) + program.shard.first)
    session.bring_rows_up_to_date()
    return {
        "losses": losses,
        "accuracies": accuracies,
        "states": states,
        "start": start,
        "end": {name: session.replicated()[name] for name in backbone},
        "averages": session.read(program.averages.values()),
        "first_weight": first_weight,
        "weight": tensor(session, "weight"),
        "slots": [tensor(session, name) for name in list(program.rows.tensors)[1:]],
        "sample": shard["sample"],
        "nearest": tensor(session, NEAREST) if program.hard else None,
    }


def loss_states(session):
    """{name: value} of those that the loss keeps."""
    prefix = "classifier.loss."
    found = session.replicated()
    return {name[len(prefix) :]: float(found[name][0]) for name in found if name.startswith(prefix)}


def tensor(session, wanted):
    return np.concatenate([rows for name, _, rows in session.blocks() if name == wanted])
