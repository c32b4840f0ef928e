"""The classifier's step on each rank with its gradients, in every way it goes over the rows (see test_limits.py)."""

from __future__ import annotations

from unittest import mock

import numpy as np
import paddle

from plsc.backend import ops, static
from plsc.backend.cpu import run_in_order
from plsc.classifiers import ClassifierSpec, Shard, StepContext, classify
from plsc.losses.combined import Combined
from plsc.losses.softmax import Softmax
from plsc.rows import blocks as row_blocks
from plsc.rows.operations import scale_rows
from plsc.rows.optimizers.momentum import Momentum
from plsc.rows.shard_rows import DenseRows, RowsSpec


def run_cases(env, cases):
    """[{loss [1], dfeature [B, E], drows [L, row size]}] for each case, as this rank sees it."""
    run_in_order()
    return [run_case(env, case) for case in cases]


def run_case(env, case):
    """``feature`` [G, E], ``weight`` [C, row size], ``label`` [G]; ``way``: (rows of a block or None, blocks that are
    pieces of one, whether the rows move where their gradient is made). ``loss``: a Loss instead of ``margins``;
    ``spec``: more of its ClassifierSpec."""
    block_rows, few_blocks, moves = case["way"]
    names = "num_classes", "embedding_size", "scale", "sample_ratio", "model_parallel"
    loss = case["loss"] if "loss" in case else Softmax() if case["margins"] is None else Combined(*case["margins"])
    more = {"loss": loss, "with_bias": not loss.normalised, **case.get("spec", {})}
    spec = ClassifierSpec(**{name: case[name] for name in names}, **more)
    shard = Shard.of(spec, env)
    batch = len(case["feature"]) // env.world_size
    mine = slice(env.rank * batch, (env.rank + 1) * batch)
    main, startup, scope = paddle.static.Program(), paddle.static.Program(), paddle.static.Scope()
    few = mock.patch.object(row_blocks, "FEW_BLOCKS", few_blocks)
    with few, static.building(main, startup):
        feature = paddle.static.data("feature", [batch, case["embedding_size"]], "float32")
        label = paddle.static.data("label", [batch], "int64")
        found = static.create_state("found", [shard.num_local, spec.row_size], "float32")
        initial = paddle.nn.initializer.Constant(0.0)
        rows = DenseRows(RowsSpec("rows", [shard.num_local, spec.row_size], initial), Momentum(0.9))

        def move(block, along):
            along = None if along is None else block.split(along)

            def move_piece(piece, product):
                gradient = product.compute()
                if along is not None:
                    gradient = gradient - scale_rows(rows.fetch(piece), piece.select(along))
                keep(piece, gradient)

            return move_piece

        def keep(piece, gradient):
            index = piece.block.index
            if index is None:
                index = paddle.arange(shard.num_local, dtype="int64")
            else:
                index = piece.select(piece.block.split(index))
            ops.scatter_rows_(found, index, gradient)

        step = paddle.full([1], 3, "int64")
        context = StepContext(spec, shard, env, step, None, block_rows, move if moves else None)
        out = classify(feature, label, rows, context)
        if not moves:
            gradients = out.row_gradients
            gradient_of = lambda piece: gradients.compute(piece, rows.fetch(piece))  # noqa: E731
            gradients.blocks.for_each_piece(lambda piece: keep(piece, gradient_of(piece)) or [])
    executor = paddle.static.Executor(paddle.CPUPlace())
    with paddle.static.scope_guard(scope):
        executor.run(startup)
        own = case["weight"][shard.first : shard.first + shard.num_local]
        scope.find_var(rows.weight.name).get_tensor().set(own, paddle.CPUPlace())
        feed = {"feature": case["feature"][mine], "label": case["label"][mine]}
        loss, dfeature = executor.run(main, feed=feed, fetch_list=[out.loss, out.dfeature])
        return {"loss": loss, "dfeature": dfeature, "drows": np.array(scope.find_var("found").get_tensor())}
