"""A Paddle 3 that lacks what is private: training takes the public way, slower, and says so; else it is one line."""

from __future__ import annotations

import ast
import json
from pathlib import Path

import numpy as np
import paddle
import pytest

from plsc import Entry
from plsc.backend import private, static
from plsc.errors import LaunchError
from plsc.rows import row_kernels

ROOT = Path(__file__).resolve().parents[2]
FAST = {  # operations with a public way; each is taken away below
    "_C_ops.scatter_", "_C_ops.index_add_", "_C_ops.affine_channel", "_C_ops.index_put_", "_C_ops.momentum_",
    "_C_ops.sgd_", "_C_ops.check_finite_and_unscale_",
}  # fmt: skip
OPTIONAL = {
    "pir.set_insertion_point_after", "pir.reset_insertion_point_to_end", "base.core.has_vjp",
    "base.core.set_num_threads", "base.core.is_compiled_with_mkldnn", "_C_ops._run_custom_op",
    "utils.cpp_extension.load_op_meta_info_and_register_op", "base.core.op_supported_infos",
    "base.core._get_phi_kernel_name",
}  # fmt: skip
VIEW = {"base.core.pir.ops", "base.core.pir.get_op_inplace_info"}  # what memory is estimated by
RUNS = {
    "full": {},
    "sampled": {"classifier": {"sample_ratio": 0.5}},
    "half": {"classifier": {"sample_ratio": 0.5, "storage": "float16"}},
}

pytestmark = pytest.mark.skipif(not static.is_pir(), reason="of Paddle 2.6 no other version will come")


def names_asked(function: str) -> set[str]:
    """The names that plsc gives to private.<function>."""
    found = set()
    for path in sorted((ROOT / "plsc").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == f"private.{function}":
                found.add(ast.literal_eval(node.args[0]))
    return found


def without(monkeypatch, names) -> None:
    """Take names away from Paddle, as far as plsc sees it."""
    find = private.find
    monkeypatch.setattr(private, "find", lambda name: None if name in names else find(name))


def train(directory, settings) -> list[float]:
    """The loss of each step of a tiny run."""
    private.warn_missing.cache_clear()
    row_kernels.available.cache_clear()
    classifier = {"num_classes": 53, "scale": 16.0, **settings.get("classifier", {})}
    config = {
        "data": {"dataset": "synthetic", "train_image_num": 96, "num_workers": 0, "val_targets": []},
        "with_test": False, "use_onednn": False, "train_batch_size": 8, "train_steps": 5, "seed": 5,
        "lr": 0.01, "lr_reference_batch": 8,
        "log_period": 1, "num_threads": 1, "model_save_dir": str(directory),
        "model": {"name": "ResNet10", "base_width": 4, "embedding_size": 16, "image_shape": [3, 32, 32]},
        **settings, "classifier": classifier,
    }  # fmt: skip
    Entry(config=config).train()
    lines = [json.loads(line) for line in (directory / "scalars.jsonl").read_text().splitlines()]
    return [line["loss"] for line in lines]


@pytest.mark.parametrize("name", RUNS)
def test_training_gives_the_same_losses_by_the_public_way(tmp_path, monkeypatch, name):
    """To the rounding of other operations, which batches of eight amplify from step to step; a float16 row may be
    rounded to its neighbour."""
    losses = train(tmp_path / "as_it_is", RUNS[name])
    without(monkeypatch, FAST | OPTIONAL | VIEW)
    others = train(tmp_path / "without", RUNS[name])
    assert len(set(losses)) == 5  # all of it moves
    np.testing.assert_allclose(others, losses, rtol=2e-3 if name == "half" else 1e-4)
    log = (tmp_path / "without" / "logs" / "rank_00000.log").read_text()
    said = [line for line in log.splitlines() if " as in 2.6.2 and 3.3.1: " in line]
    for operation in ("momentum_", "sgd_", "index_add_", *(["index_put_"] if name == "half" else [])):
        assert sum(f"no paddle._C_ops.{operation} as" in line for line in said) == 1, operation
    assert "memory was not estimated, the run continues unchecked" in log


def test_every_name_is_taken_away_above():
    assert names_asked("fast_or_public") == FAST
    assert names_asked("find") == OPTIONAL
    assert names_asked("require") >= VIEW


def test_what_plsc_cannot_do_without_is_one_line(tmp_path, monkeypatch):
    without(monkeypatch, {"tensor.random.gaussian"})
    with pytest.raises(LaunchError) as caught:
        train(tmp_path, {})
    known = f"PaddlePaddle {paddle.__version__} has no paddle.tensor.random.gaussian, which PLSC needs; "
    assert str(caught.value).startswith(known + "PLSC is tested with 2.6.2 and 3.3.1: `pip install ")
    assert "\n" not in str(caught.value)


def test_an_operation_that_takes_other_arguments_is_left_alone_by_an_unknown_paddle(monkeypatch):
    def other(*_):
        raise TypeError("an argument more")

    monkeypatch.setattr(private, "find", lambda name: other)
    with pytest.raises(TypeError):
        private.fast_or_public("_C_ops.x", (1,), lambda: 2)  # with a Paddle that is known it is our own fault
    monkeypatch.setattr(paddle, "__version__", "3.9.0")
    assert private.fast_or_public("_C_ops.x", (1,), lambda: 2) == 2


@pytest.mark.parametrize("without_it", [None, "it takes longer"])
def test_a_flag_that_is_gone(monkeypatch, caplog, without_it):
    private.warn_missing.cache_clear()
    if without_it is None:
        with pytest.raises(LaunchError, match="has no flag FLAGS_of_nobody, which PLSC needs"):
            private.set_flag("FLAGS_of_nobody", True)
    else:
        private.set_flag("FLAGS_of_nobody", True, without_it)
        private.set_flag("FLAGS_of_nobody", True, without_it)
        assert len(caplog.messages) == 1 and caplog.messages[0].endswith(": it takes longer")


# What touches Paddle's private side by itself, and why.
BY_ITSELF = {
    "plsc/backend/private.py": "here it is done",
    "plsc/backend/executors.py": "a subclass of one of its types, guarded there",
    "plsc/backend/fleet.py": "worker_num of paddle.distributed.fleet, which is public",
    "plsc/backend/half_precision.py": "paddle.static.amp of 2.6, which does not change any more",
    "plsc/backend/key_server.py": "paddle.distributed of 2.6, which does not change any more",
    "plsc/launch.py": "Paddle's own launcher with other ears",
}


def private_touches(source: str) -> list[str]:
    """Imports of Paddle's inner modules, and its private names."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("paddle."):
            found.append(node.module)
        elif isinstance(node, ast.Import):
            found += [alias.name for alias in node.names if alias.name.startswith("paddle.")]
        elif isinstance(node, ast.Attribute) and ast.unparse(node).startswith("paddle."):
            parts = ast.unparse(node).split(".")[1:]
            if parts[0] in ("base", "fluid", "framework", "tensor") or any(
                part.startswith("_") and not part.startswith("__") for part in parts
            ):
                found.append(ast.unparse(node))
    return found


def test_nothing_else_touches_what_is_private():
    found = {
        path.relative_to(ROOT).as_posix()
        for path in sorted((ROOT / "plsc").rglob("*.py"))
        if private_touches(path.read_text(encoding="utf-8"))
    }
    assert found - set(BY_ITSELF) == set(), "use plsc.backend.private, or say here why not"
    assert set(BY_ITSELF) - found <= {"plsc/backend/private.py"}, "is allowed and not done any more"


@pytest.mark.parametrize("line, count", [
    ("from paddle.base import core", 1), ("import paddle.base.core", 1), ("paddle._C_ops.scatter_(a)", 2),
    ("paddle.base.core.TCPStore()", 3), ("paddle.scatter(a)", 0), ("paddle.__version__", 0), ("import paddle", 0),
])  # fmt: skip
def test_a_planted_touch_is_found(line, count):
    assert bool(private_touches(line)) == bool(count)
