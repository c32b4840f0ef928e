"""The classifier on its own, run by each rank on its slice of a case (see test_classifier.py)."""

from __future__ import annotations

import numpy as np
import paddle

from plsc.parallel.shards import class_range


def run_cases(env, cases):
    """[{loss, dfeature, dweight, first, num_sample}] for each case, as this rank sees it."""
    return [run_case(env, case) for case in cases]


def run_case(env, case):
    from plsc import LargeScaleClassifier

    batch = len(case["feature"]) // env.world_size
    mine = slice(env.rank * batch, (env.rank + 1) * batch)
    first, end = class_range(case["num_classes"], env.rank, env.world_size)
    main, startup, scope = paddle.static.Program(), paddle.static.Program(), paddle.static.Scope()
    with paddle.static.program_guard(main, startup), paddle.utils.unique_name.guard():
        feature = paddle.static.data("feature", [case.get("static_batch", batch), case["embedding_size"]], "float32")
        label = paddle.static.data("label", [case.get("static_batch", batch)], "int64")
        feature.stop_gradient = False
        classifier = LargeScaleClassifier(
            feature,
            label,
            env.rank,
            env.world_size,
            case["num_classes"],
            *case["margins"],
            scale=case["scale"],
            sample_ratio=case["sample_ratio"],
            embedding_size=case["embedding_size"],
        )
        loss = classifier.output_dict["loss"]
        dfeature, dweight = paddle.static.gradients([loss], [feature, classifier.weight])
    executor = paddle.static.Executor(paddle.CPUPlace())
    with paddle.static.scope_guard(scope):
        executor.run(startup)
        scope.find_var(classifier.weight.name).get_tensor().set(case["weight"][first:end], paddle.CPUPlace())
        feed = {"feature": case["feature"][mine], "label": case["label"][mine]}
        results = [executor.run(main, feed=feed, fetch_list=[loss, dfeature, dweight]) for _ in range(case["steps"])]
    loss, dfeature, dweight = (np.stack(values) for values in zip(*results))
    return {"loss": loss, "dfeature": dfeature, "dweight": dweight, "first": first, "num_sample": classifier.num_sample}


def minimize(env, case):
    """One step of SGD(0.1) by ``minimize`` on a product before the classifier, as a user's program has it.

    Returns {loss, before and after of the shard, after of the net's weight, first}.
    """
    from plsc import LargeScaleClassifier

    batch = len(case["image"]) // env.world_size
    mine = slice(env.rank * batch, (env.rank + 1) * batch)
    main, startup, scope = paddle.static.Program(), paddle.static.Program(), paddle.static.Scope()
    with paddle.static.program_guard(main, startup), paddle.utils.unique_name.guard():
        image = paddle.static.data("image", [batch, case["image"].shape[1]], "float32")
        label = paddle.static.data("label", [batch, 1], "int64")
        net = paddle.static.create_parameter(
            list(case["net"].shape), "float32", default_initializer=paddle.nn.initializer.Assign(case["net"])
        )
        classifier = LargeScaleClassifier(
            paddle.matmul(image, net), label, env.rank, env.world_size, case["num_classes"],
            sample_ratio=case["sample_ratio"], embedding_size=case["net"].shape[1],
        )  # fmt: skip
        loss = classifier.output_dict["loss"]
        paddle.optimizer.SGD(0.1).minimize(loss)
    executor = paddle.static.Executor(paddle.CPUPlace())
    with paddle.static.scope_guard(scope):
        executor.run(startup)
        before = np.array(scope.find_var(classifier.weight.name).get_tensor())
        feed = {"image": case["image"][mine], "label": case["label"][mine]}
        (value,) = executor.run(main, feed=feed, fetch_list=[loss])
        after, net = (np.array(scope.find_var(v.name).get_tensor()) for v in (classifier.weight, net))
    return {"loss": value, "before": before, "after": after, "net": net}
