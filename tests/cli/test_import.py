"""plsc import, held against the order in which Paddle really makes the layers of our nets."""

from __future__ import annotations

import json
import pickle

import numpy as np
import pytest

from plsc import checkpoint
from plsc.checkpoint.lock import RunLock
from plsc.checkpoint.old_names import layers, our_names
from plsc.checkpoint.old_plsc import import_old
from plsc.cli.main import main
from plsc.errors import CheckpointError

CLASSES, EMBEDDING, RANKS = 11, 4, 3
KINDS = {"conv": "conv2d", "bn": "batch_norm", "prelu": "prelu", "fc": "fc"}
ENDINGS = {"weight": "w_0", "bias": "b_0", "running_mean": "w_1", "running_variance": "w_2"}


class Tensor:
    """Pickled as paddle.save pickles a tensor: as a call of eval."""

    def __init__(self, array):
        self.array = array

    def __reduce__(self):
        return eval, ("data", {"data": self.array})


@pytest.fixture(scope="module")
def variables():
    """{our variable: shape} of a narrow ResNet50 in the order of making."""
    import paddle

    from plsc.backend import static
    from plsc.models import build_feature, build_model

    paddle.enable_static()
    main_program = paddle.static.Program()
    with paddle.static.program_guard(main_program, paddle.static.Program()):
        image = paddle.static.data("image", [2, 3, 16, 16], "float32")
        net = build_model("ResNet50", embedding_size=EMBEDDING, image_shape=[3, 16, 16], base_width=2)
        build_feature(net, {"image": image, "label": None}, is_train=False)
    found = {name: tuple(value.shape) for name, value in static.persistables(main_program).items()}
    return dict(reversed(found.items())) if static.is_pir() else found  # PIR lists the latest first


def old_names(variables):
    """{our variable: old one}: each layer gets the next number of its kind when its first variable comes."""
    numbers, names = {}, {}
    for name in variables:
        layer, part = name.rsplit(".", 1)
        leaf = layer.rsplit(".", 1)[1].rstrip("0123456789")
        kind = KINDS["bn" if leaf == "feature_bn" else leaf]
        of_kind = numbers.setdefault(kind, {})
        names[name] = f"{kind}_{of_kind.setdefault(layer, len(of_kind) + 5)}.{ENDINGS[part]}"  # counting began at 5
    return names


def write_old(path, variables, shared_prelu=False, key="pretrain_world_size"):
    """An old checkpoint of random numbers; returns them by our names."""
    rng, expected = np.random.default_rng(3), {}
    path.mkdir()

    def put(name, array):
        (path / name).write_bytes(pickle.dumps(Tensor(array), protocol=4 if len(name) % 2 else 2))

    for ours, old in old_names(variables).items():
        shape = (1,) if shared_prelu and ".prelu." in ours else variables[ours]
        shape = (1, *shape, 1, 1) if ".prelu." in ours and not shared_prelu else shape
        expected[ours] = rng.uniform(0.5, 1.0, shape).astype("float32")
        put(old + (".pdopt" if "running" in ours and key == "pretrain_nranks" else ".pdparam"), expected[ours])
        if "running" not in ours:
            expected["velocity." + ours] = rng.standard_normal(shape).astype("float32")
            put(old + "_velocity_0.pdopt", expected["velocity." + ours])
    for kind in ("weight", "velocity"):
        expected[kind] = rng.standard_normal((CLASSES, EMBEDDING)).astype("float32")
    for rank in range(RANKS):
        part, name = slice(4 * rank, 4 * rank + 4), f"dist@fc@rank@{rank:05d}.w"
        put(f"{name}.pdparam", np.ascontiguousarray(expected["weight"][part].T))
        put(f"{name}_velocity_0.pdopt", np.asfortranarray(expected["velocity"][part].T))
    meta = {key: RANKS, "embedding_size": EMBEDDING, "num_classes": CLASSES, "epoch": 24,
            "lr_state": {"last_epoch": 180000, "last_lr": 1e-4}}  # fmt: skip
    (path / "meta.json").write_text(json.dumps(meta))
    return expected


def read_back(path):
    manifest = checkpoint.read_manifest(path)
    found = checkpoint.read_replicated(path, manifest)
    for kind in ("weight", "velocity"):
        rows = [
            block for _, _, block in checkpoint.read_rows(path, manifest, 0, CLASSES, checkpoint.ReadOptions([kind]))
        ]
        found[kind] = np.concatenate(rows)
    return manifest, found


@pytest.mark.parametrize(
    "version, shared, key", [("2.2", False, "pretrain_world_size"), ("0.2", True, "pretrain_nranks")]
)
def test_every_value_arrives_under_its_name(tmp_path, variables, capsys, version, shared, key):
    expected = write_old(tmp_path / "24", variables, shared, key)
    main(["import", str(tmp_path / "24"), "--from", version, "--to", str(tmp_path / "run")])
    out = capsys.readouterr().out.splitlines()
    manifest, found = read_back(out[0])
    assert (manifest.step, manifest.epoch, manifest.num_shards) == (180000, 24, RANKS)
    assert found.pop("classifier.step").tolist() == [180000]
    assert found.keys() == expected.keys()
    for name, array in expected.items():
        want = array
        if ".prelu." in name:
            want = array.reshape(-1)
            if shared:
                want = np.full(found[name].shape, 0.0 if "velocity" in name else want[0])
        if name.endswith("variance") and version == "2.2":
            want = array + np.float32(1e-5) - np.float32(2e-5)
        np.testing.assert_allclose(found[name], want, rtol=0, atol=2e-7 if name.endswith("variance") else 0)
        assert name not in variables or found[name].shape == variables[name]
    assert any("position in the data" in line for line in out)
    assert any("one PReLU slope" in line for line in out) == shared


def test_a_directory_in_use_is_refused(tmp_path, variables):
    write_old(tmp_path / "24", variables)
    words = ["import", str(tmp_path / "24"), "--from", "2.2", "--to", str(tmp_path / "run")]
    (tmp_path / "run").mkdir()
    with RunLock(str(tmp_path / "run")), pytest.raises(CheckpointError, match="--to=.*/run': process .* trains there"):
        main(words)
    assert list((tmp_path / "run").iterdir()) == []


@pytest.mark.parametrize("depth", [50, 100, 101, 152])
def test_each_depth_is_known_by_its_layers(depth):
    from plsc.checkpoint.old_names import PARTS

    numbers, names = dict.fromkeys(PARTS, 0), []
    for kind, _ in layers(depth):
        names += [f"{kind}_{numbers[kind]}.{ending}" for ending in PARTS[kind].values()]
        numbers[kind] += 1
    assert our_names(names)[0] == depth
    with pytest.raises(CheckpointError, match="conv2d_0.w_0: missing|layers are missing"):
        our_names([name for name in names if name != "conv2d_0.w_0"])
    with pytest.raises(CheckpointError, match="batch_norm_3.w_2: missing"):
        our_names([name for name in names if name != "batch_norm_3.w_2"])


class Run:
    def __reduce__(self):
        import os

        return os.mkdir, ("/tmp/plsc_import_was_run",)


class Evaluate:
    def __reduce__(self):
        return eval, ("__import__('os').mkdir('/tmp/plsc_import_was_run')", {"data": 1})


@pytest.mark.parametrize("content, message", [
    (pickle.dumps(Run()), "refused: it tries to load"), (pickle.dumps(Evaluate()), "refused: it tries to evaluate"),
    (b"", "damaged"), (pickle.dumps({"a": 1}), "holds dict"), (pickle.dumps(np.array([object()])), "refused"),
    (pickle.dumps(Tensor(np.zeros((5, 5), "float32"))), r"is \[5, 5\], meta.json implies \[4, 4\]"),
    (None, "found \\[0, 2\\]"),
])  # fmt: skip
def test_a_bad_file_is_named_and_nothing_is_run_or_left(tmp_path, variables, content, message):
    write_old(tmp_path / "24", variables)
    file = tmp_path / "24" / "dist@fc@rank@00001.w.pdparam"
    file.unlink() if content is None else file.write_bytes(content)
    with pytest.raises(CheckpointError, match=message):
        import_old(str(tmp_path / "24"), str(tmp_path / "run"), 1e-5)
    import os

    assert not os.path.exists("/tmp/plsc_import_was_run")
    assert not (tmp_path / "run").exists() or not list((tmp_path / "run" / "checkpoints").iterdir())
