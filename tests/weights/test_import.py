"""plsc import of other projects' nets: what comes out embeds as theirs, trains on, and goes back."""

from __future__ import annotations

import pickle
from collections import OrderedDict

import numpy as np
import pytest

from plsc import Entry, Predictor, checkpoint
from plsc.cli.main import main
from plsc.errors import CheckpointError, ConfigError, ExportError
from plsc.files.torch_file import TorchFile
from plsc.weights.kinds import KINDS
from tests.weights import onnx_kit
from tests.weights import torch_kit as kit
from tests.weights.test_formula import TORCH, file_of, net_of

# Of an embedding's length: float32 in 20 to 60 layers gave torch itself 1e-6 to 4e-6 against its float64.
TOLERANCE = 1e-5


def run_import(tmp_path, value, *words: str, name: str = "model.pt") -> str:
    """Import a file that holds ``value``; returns the directory of the run."""
    path = kit.save(tmp_path / name, value)
    main(["import", str(path), "--to", str(tmp_path / "run"), *words])
    return str(tmp_path / "run")


def embedded(run: str, out, *words: str) -> np.ndarray:
    """Embeddings of kit.pictures() by the exported model."""
    main(["export", "--checkpoint", run, "--output", str(out), "--quiet", *words])
    with Predictor(str(out / "inference"), "paddle") as predictor:
        side = predictor.description.image_shape[1]
        return predictor.embed(kit.pictures(side))


def assert_close(found: np.ndarray, expected: np.ndarray) -> None:
    lengths = np.linalg.norm(expected, axis=1)
    assert (np.linalg.norm(found - expected, axis=1) <= TOLERANCE * lengths).all()


@pytest.mark.parametrize("case", range(4))  # the last, AdaFace of 50 layers, is in test_formula.py
def test_exported_embeddings_are_torchs(tmp_path, capsys, case):
    kind, depth, width, embedding, first, length = TORCH[case]
    run = run_import(tmp_path, file_of(kind, net_of(kind, depth, width, embedding)))
    said = capsys.readouterr().out
    assert f"ResNet{depth}, base_width {width}" in said and f"defaults of {KINDS[kind].describe()}" in said
    found = embedded(run, tmp_path / "out")
    np.testing.assert_allclose(found[0, :4], first, rtol=0, atol=TOLERANCE * np.linalg.norm(found[0]))
    assert np.linalg.norm(found[1]) == pytest.approx(length, rel=TOLERANCE)


def small(**changes) -> OrderedDict:
    shapes = kit.arcface_shapes(18, 4, 6, 2)
    return OrderedDict({**kit.random_net(shapes), **changes})


def test_what_the_user_says_counts(tmp_path):
    words = ("--channels", "BGR", "--mean", "0", "--std", "255", "--bn-epsilon", "2e-5")
    found = embedded(run_import(tmp_path, small(), *words), tmp_path / "out")
    magface = KINDS["magface"]
    assert_close(found, magface.forward(small(), magface.input.prepare(kit.pictures(32)), 2e-5))


def test_an_import_goes_back_to_the_same_file(tmp_path, capsys):
    net = small()
    run = run_import(tmp_path, net)
    main(["export", "--checkpoint", run, "--output", str(tmp_path / "out"), "--to", "torch"])
    assert str(tmp_path / "out" / "model.pt") in capsys.readouterr().out
    with TorchFile(str(tmp_path / "out" / "model.pt")) as file:
        assert list(file.value) == list(net)  # load_state_dict goes by names, optimizers by the order
        for name, array in net.items():
            if array.shape:
                assert np.array_equal(file.value[name].read(), array), name
    before = (tmp_path / "out" / "model.pt").read_bytes()
    with pytest.raises(ExportError, match="model.pt: is there already; set another model_save_dir"):
        main(["export", "--checkpoint", run, "--output", str(tmp_path / "out"), "--to", "torch"])
    assert (tmp_path / "out" / "model.pt").read_bytes() == before


def test_a_trained_net_goes_to_torch(tmp_path):
    """Trained with an epsilon of 2e-5: theirs adds 1e-5 and gives the same."""
    settings = {
        "model": {"name": "ResNet18", "base_width": 4, "embedding_size": 6, "image_shape": [3, 32, 32]},
        "classifier": {"num_classes": 9}, "data": {"dataset": "synthetic", "train_image_num": 16, "num_workers": 0},
        "train_steps": 2, "train_batch_size": 8, "with_test": False, "model_save_dir": str(tmp_path / "run"),
    }  # fmt: skip
    Entry(config=settings).train()
    main(["export", "--checkpoint", str(tmp_path / "run"), "--output", str(tmp_path / "out"), "--to", "torch"])
    with TorchFile(str(tmp_path / "out" / "model.pt")) as file:
        theirs = {name: tensor.read() for name, tensor in file.value.items()}
    images = KINDS["arcface_torch"].input.prepare(kit.pictures(32))
    expected = KINDS["arcface_torch"].forward(theirs, images, 1e-5)
    assert_close(embedded(str(tmp_path / "run"), tmp_path / "out"), expected)


def test_what_goes_to_torch_is_refused_before_it_is_written(tmp_path):
    export = ["export", "--checkpoint", run_import(tmp_path, small(), "--std", "255"), "--to", "torch", "--output"]
    with pytest.raises(ExportError, match="model.options input_scale: 0.5: arcface_torch and AdaFace have no such"):
        main([*export, str(tmp_path / "out")])
    assert not (tmp_path / "out").exists()


def training(run: str, save, **changes) -> dict:
    stored = checkpoint.read_manifest(checkpoint.resolve(run)).config
    return {
        "model": stored["model"], "classifier": {"num_classes": 11},
        "data": {"dataset": "synthetic", "train_image_num": 16, "num_workers": 0}, "train_steps": 2,
        "train_batch_size": 8, "with_test": False, "model_save_dir": str(save), "init_from": "backbone",
        "init_checkpoint": run, "lr": 1e-6, **changes,
    }  # fmt: skip


def test_an_imported_net_trains_on(tmp_path):
    run = run_import(tmp_path, small())
    result = Entry(config=training(run, tmp_path / "more")).train()
    assert np.isfinite(result.loss)
    before = checkpoint.read_replicated(*opened(run))
    after = checkpoint.read_replicated(*opened(str(tmp_path / "more")))
    stem = "backbone.stem.conv.weight"
    assert 0 < np.abs(after[stem] - before[stem]).max() < 1e-3  # moved, by a little
    other = {"model": {**training(run, "")["model"], "options": {}}}
    told = "its model has model.options: {'bn_epsilon': 1e-05}"
    with pytest.raises(CheckpointError, match=told):
        Entry(config=training(run, tmp_path / "other", **other)).train()
    going_on = {**other, "init_from": "none", "init_checkpoint": "", "checkpoint_dir": str(tmp_path / "more")}
    with pytest.raises(CheckpointError, match=told):
        Entry(config=training(run, tmp_path / "other", **going_on)).train()
    with pytest.raises(CheckpointError, match=told):
        Entry(config={**other, "checkpoint_dir": run, "model_save_dir": str(tmp_path)}).convert_for_prediction()


def opened(run: str):
    path = checkpoint.resolve(run)
    return path, checkpoint.read_manifest(path)


def stored_rows(path: str, manifest, name: str):
    return checkpoint.read_rows(path, manifest, 0, 10, checkpoint.ReadOptions([name]))


def write_ranks(tmp_path, sizes, classes: np.ndarray) -> list:
    """checkpoint_gpu_*.pt of arcface_torch."""
    paths, start = [], 0
    for rank, size in enumerate(sizes):
        value = {"epoch": 4, "global_step": 70, "state_dict_backbone": small(),
                 "state_dict_softmax_fc": OrderedDict(weight=classes[start : start + size]),
                 "state_optimizer": {"state": {0: {"momentum_buffer": classes[:1]}}, "param_groups": [{"lr": 0.1}]},
                 "state_lr_scheduler": {"base_lr": 0.1}}  # fmt: skip
        paths.append(kit.save(tmp_path / f"checkpoint_gpu_{rank}.pt", value))
        start += size
    return paths


CLASSES = np.random.Generator(np.random.Philox(key=[3, 3])).normal(size=(10, 6)).astype("<f4")


def with_momentum(net: OrderedDict, rows: np.ndarray) -> dict:
    """state_optimizer as torch.optim.SGD has it for two groups; features.weight is not trained there. The momentum of
    a parameter is twice the parameter."""
    names = [name for name in net if not name.endswith((".running_mean", ".running_var", ".num_batches_tracked"))]
    state = {i: {"momentum_buffer": 2 * net[name]} for i, name in enumerate(names) if name != "features.weight"}
    groups = [{"lr": 0.1, "momentum": 0.9, "params": [*range(len(names))]}, {"lr": 0.1, "params": [len(names)]}]
    return {"state": {**state, len(names): {"momentum_buffer": 2 * rows}}, "param_groups": groups}


def with_optimizer(tmp_path, change=lambda optimizer: None) -> str:
    """checkpoint_gpu_0.pt and 1 with momentum, of which ``change`` changes something in the second."""
    for rank in range(2):
        rows = CLASSES[5 * rank : 5 * rank + 5]
        optimizer = with_momentum(small(), rows)
        if rank == 1:
            change(optimizer)
        value = {"state_dict_backbone": small(), "state_dict_softmax_fc": OrderedDict(weight=rows),
                 "state_optimizer": optimizer}  # fmt: skip
        kit.save(tmp_path / f"checkpoint_gpu_{rank}.pt", value)
    return str(tmp_path / "checkpoint_gpu_1.pt")


def test_momentum_of_sgd_is_taken_over(tmp_path, capsys):
    main(["import", with_optimizer(tmp_path), "--to", str(tmp_path / "run"), "--channels", "BGR"])
    assert "10 classes; momentum of backbone and classes as in the file" in capsys.readouterr().out
    path, manifest = opened(str(tmp_path / "run"))
    velocity = np.concatenate([block for _, _, block in stored_rows(path, manifest, "velocity")])
    np.testing.assert_array_equal(velocity, 2 * CLASSES)
    arrays = checkpoint.read_replicated(path, manifest)
    trained = [name for name in arrays if name.startswith("velocity.")]
    assert len(trained) > 60
    for name in trained:  # turned as the parameters are: the last layer, the channels of the images
        factor = 0 if name == "velocity.backbone.head.feature_bn.weight" else 2
        np.testing.assert_array_equal(arrays[name], factor * arrays[name[len("velocity.") :]], err_msg=name)


@pytest.mark.parametrize("change, said", [
    (lambda optimizer: optimizer["state"].clear(), "momentum starts at zero"),
    (lambda optimizer: optimizer["param_groups"].pop(), "momentum starts at zero"),
    (lambda optimizer: optimizer["param_groups"][0]["params"].pop(), "momentum of classes as in the file"),
    (lambda optimizer: optimizer["state"].popitem(), "momentum of backbone as in the file"),
])  # fmt: skip
def test_momentum_that_is_not_there_is_said(tmp_path, capsys, change, said):
    main(["import", with_optimizer(tmp_path, change), "--to", str(tmp_path / "run")])
    assert said in capsys.readouterr().out


def test_momentum_of_another_shape_is_refused(tmp_path):
    path = with_optimizer(tmp_path, lambda optimizer: optimizer["state"][0].update(momentum_buffer=np.ones(3, "<f4")))
    with pytest.raises(CheckpointError, match=r"momentum of tensor .conv1.weight. is \[3\], must be \[4, 3, 3, 3\]"):
        main(["import", path, "--to", str(tmp_path / "run")])
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("sizes, shards", [((3, 3, 2, 2), 4), ((10,), 1), ((2, 2, 1, 1, 1, 1, 1, 1), 5)])
def test_classes_of_all_ranks_are_one_matrix(tmp_path, sizes, shards):
    paths = write_ranks(tmp_path, sizes, CLASSES)
    main(["import", str(paths[-1]), "--to", str(tmp_path / "run")])
    path, manifest = opened(str(tmp_path / "run"))
    assert (manifest.num_classes, manifest.num_shards, manifest.step, manifest.epoch) == (10, shards, 70, 4)
    rows = {name: [block for _, _, block in stored_rows(path, manifest, name)]
            for name in ("weight", "velocity")}  # fmt: skip
    assert np.array_equal(np.concatenate(rows["weight"]), CLASSES) and not np.concatenate(rows["velocity"]).any()


def test_a_run_goes_on_with_all_classes(tmp_path):
    """checkpoint_dir: as a checkpoint of ours, momentum from zero."""
    write_ranks(tmp_path, (5, 5), CLASSES)
    main(["import", str(tmp_path / "checkpoint_gpu_0.pt"), "--to", str(tmp_path / "run")])
    config = training(str(tmp_path / "run"), tmp_path / "more", classifier={"num_classes": 10}, init_from="none",
                      init_checkpoint="", checkpoint_dir=str(tmp_path / "run"), train_steps=72)  # fmt: skip
    result = Entry(config=config).train()
    assert np.isfinite(result.loss) and opened(str(tmp_path / "more"))[1].step == 72


@pytest.mark.parametrize("sizes, lost, message", [
    ((3, 3, 2, 2), 1, r"checkpoint_gpu_0.pt to checkpoint_gpu_3.pt, a file of each rank; found only .* \[0, 2, 3\]"),
    ((3, 2, 3, 2), None, r"checkpoint_gpu_1.pt: its classes are \[2, 6\]; rank 1 of 4 holds \[3, 6\] of 10 classes"),
])  # fmt: skip
def test_classes_that_do_not_belong_together(tmp_path, sizes, lost, message):
    paths = write_ranks(tmp_path, sizes, CLASSES)
    if lost is not None:
        paths[lost].unlink()
    with pytest.raises(CheckpointError, match=message):
        main(["import", str(paths[0]), "--to", str(tmp_path / "run")])
    assert not (tmp_path / "run").exists()


def test_adafaces_classes_come_along(tmp_path):
    value = file_of("adaface", kit.random_net(kit.adaface_shapes(18, 4, 6, 2)))
    value["state_dict"]["head.kernel"] = np.ascontiguousarray(CLASSES.T)
    path, manifest = opened(run_import(tmp_path, value, name="epoch.ckpt"))
    (rows,) = (block for _, _, block in stored_rows(path, manifest, "weight"))
    assert np.array_equal(rows, CLASSES)


def test_plsc_24(tmp_path):
    """As its trainer saves: paddle.save of a state_dict of paddle.nn's layers, the classes beside the net."""
    import paddle

    net = small()
    named = {}
    for name, array in net.items():
        place, _, part = name.rpartition(".")
        part = {"running_mean": "_mean", "running_var": "_variance"}.get(part, part)
        part = "_weight" if place.endswith("prelu") else part
        if part != "num_batches_tracked":
            named[f"{place}.{part}"] = array.T if name == "fc.weight" else array
    paddle.disable_static()
    tensors = {name: paddle.to_tensor(np.ascontiguousarray(array)) for name, array in named.items()}
    layers = {"bn": paddle.nn.BatchNorm2D(2), "prelu": paddle.nn.PReLU(2), "fc": paddle.nn.Linear(3, 2)}
    assert {*paddle.nn.LayerDict(layers).state_dict()} == {
        "bn.weight", "bn.bias", "bn._mean", "bn._variance", "prelu._weight", "fc.weight", "fc.bias"
    } and layers["fc"].weight.shape == [3, 2]  # fmt: skip
    paddle.save({**tensors, "head.weight": paddle.to_tensor(CLASSES)}, str(tmp_path / "net.pdparams"))
    main(["import", str(tmp_path / "net.pdparams"), "--to", str(tmp_path / "run")])
    path, manifest = opened(str(tmp_path / "run"))
    (rows,) = (block for _, _, block in stored_rows(path, manifest, "weight"))
    assert np.array_equal(rows, CLASSES) and manifest.extra["imported"]["from"] == "plsc2.4"
    arcface = KINDS["arcface_torch"]
    expected = arcface.forward(net, arcface.input.prepare(kit.pictures(32)), 1e-5)
    assert_close(embedded(str(tmp_path / "run"), tmp_path / "out"), expected)


@pytest.mark.parametrize("content, message", [
    (pickle.dumps([1]), "holds list"), (b"\x80\x04", "cannot be read"),
    (pickle.dumps({"conv1.weight": "text"}), "conv1.weight.* holds str, must hold an array"),
    (b"\x80\x02cos\nsystem\nX\x04\0\0\0exit\x85R.", "refused: it tries to load os.system"),
    (pickle.dumps({"conv1.weight": np.zeros(3, "f4")}), "holds no model of these kinds: plsc2.4"),
])  # fmt: skip
def test_pickles_that_are_none_of_plsc_24(tmp_path, content, message):
    (tmp_path / "x.pdparams").write_bytes(content)
    with pytest.raises(CheckpointError, match=f"x.pdparams: .*{message}"):
        main(["import", str(tmp_path / "x.pdparams"), "--to", str(tmp_path / "run")])


def test_an_onnx_graph(tmp_path):
    path = onnx_kit.save(tmp_path / "net.onnx", small())
    main(["import", str(path), "--to", str(tmp_path / "run")])
    arcface = KINDS["arcface_torch"]
    expected = arcface.forward(small(), arcface.input.prepare(kit.pictures(32)), 1e-5)
    assert_close(embedded(str(tmp_path / "run"), tmp_path / "out"), expected)


def test_another_net_than_theirs_is_not_written(tmp_path, monkeypatch):
    """An epsilon that one of the two readings does not know, a convolution that is turned."""
    from plsc.weights import convert

    right = convert._converted

    def wrong(layer, arrays):
        found = right(layer, arrays)
        if layer.ours == "stage3.unit1.conv2":
            found = {name: array[:, :, ::-1].copy() for name, array in found.items()}
        return found

    monkeypatch.setattr(convert, "_converted", wrong)
    with pytest.raises(
        CheckpointError, match=r"model.pt: the embeddings of PLSC's model differ .* nothing was"
    ):
        run_import(tmp_path, small())
    assert not (tmp_path / "run").exists()


def test_a_run_is_not_written_over(tmp_path):
    run = run_import(tmp_path, small())
    before = sorted((tmp_path / "run").rglob("*"))
    with pytest.raises(CheckpointError, match="--to=.*run': holds checkpoints"):
        main(["import", str(tmp_path / "model.pt"), "--to", run])
    assert sorted((tmp_path / "run").rglob("*")) == before


@pytest.mark.parametrize("words, message", [
    (["."], "is a directory; give --from 0.2 or 2.2"), (["x.pt", "--samples", "3"], "--samples is for"),
    (["x", "--from", "2.2", "--std", "3"], "--std is for other projects"),
    (["x.pt", "--std", "0"], "--std 0 must be in"), (["x.pt", "--image-shape", "112"], "must be channels,height,width"),
])  # fmt: skip
def test_options_that_cannot_be(tmp_path, capsys, words, message):
    with pytest.raises(SystemExit):
        main(["import", *words, "--to", str(tmp_path / "run")])
    assert message in capsys.readouterr().err


def test_a_missing_file(tmp_path):
    with pytest.raises(CheckpointError, match="none.pt: No such file"):
        main(["import", str(tmp_path / "none.pt"), "--to", str(tmp_path / "run")])


def test_wrong_options_of_a_net():
    from plsc.models import build_model

    for option, value in (("bn_epsilon", 0), ("input_scale", "a"), ("input_shift", 1e9), ("projection", "none")):
        with pytest.raises(ConfigError, match=f"model.*{option}"):
            build_model("ResNet18", **{option: value})
