"""What each variable of a training program is for is said where it is made, and all that is kept has a role."""

from __future__ import annotations

import paddle
import pytest

from plsc.backend import program_view
from plsc.config import Config
from plsc.config.user_objects import UserObjects
from plsc.engine.memory.estimate import estimate_memory
from plsc.engine.program.build import BuildOptions, build_train
from plsc.engine.program.results import VARIABLE
from plsc.engine.program.variables import Role
from plsc.parallel.environment import Environment


def built(optimizer=None, rank=0, **classifier):
    paddle.enable_static()
    config = Config.from_dict({
        "model": {"name": "ResNet10", "base_width": 4, "embedding_size": 16, "image_shape": [3, 32, 32]},
        "classifier": {"num_classes": 53, **classifier}, "train_batch_size": 4,
    })  # fmt: skip
    env = Environment(rank, 2)
    return (
        config,
        env,
        build_train(config, UserObjects(optimizer=optimizer), env, seed=1, options=BuildOptions(dry_run=True)),
    )


@pytest.mark.parametrize("own, classifier", [
    (False, {}), (False, {"sample_ratio": 0.5}), (False, {"sample_ratio": 0.5, "storage": "float16"}),
    (True, {"sample_ratio": 0.5}),
])  # fmt: skip
def test_all_that_a_program_keeps_has_a_role(own, classifier):
    _, _, program = built(paddle.optimizer.Adam(0.1) if own else None, **classifier)
    kept = set(program_view.persistables(program_view.operations(program.main)))
    replicated = set(program.replicated)
    assert not replicated & program.rows.variables and len(replicated) == len(program.variables)
    assert kept - {VARIABLE} <= replicated | program.rows.variables  # results of a step are no state
    assert program.names(Role.STEP) == ["classifier.step"] and not program.names(Role.LOSS_SCALING)
    assert {parameter.name for parameter in program.parameters} < set(program.backbone)
    if own:  # Adam keeps two arrays and two numbers for each weight
        assert len(program.names(Role.OPTIMIZER)) == 4 * len(program.parameters) + 1  # and the learning rate
    else:
        assert len(program.names(Role.OPTIMIZER)) == len(program.parameters)


def test_states_of_the_class_weights_as_a_whole_have_one_name_in_a_checkpoint_on_every_rank():
    found = []
    for rank in (0, 1):
        _, _, program = built(paddle.optimizer.Adam(0.1), rank)
        own = [variable for variable in program.variables if variable.role is Role.CLASSES]
        assert len(own) == 2 and all(f"rank@{rank:05d}" in variable.name for variable in own)
        found.append([variable.stored for variable in own])
        assert len({variable.stored for variable in program.variables}) == len(program.variables)
    assert found[0] == found[1] and all(name.startswith("classifier.") for name in found[0])


@pytest.mark.parametrize("own", [False, True])
def test_memory_is_counted_by_role(own):
    config, env, program = built(paddle.optimizer.Adam(0.1) if own else None)
    sizes = estimate_memory(config, env, program, None, None).sizes
    tensors = program_view.persistables(program_view.operations(program.main))
    rows = 27 * 16 * 4  # of 53 classes on two ranks
    assert sizes["class weights"] == rows
    assert sizes["class momentum"] == (2 * rows + 8 if own else rows)
    assert sizes["backbone"] == sum(tensors[name].size() for name in program.backbone)
