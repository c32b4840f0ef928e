"""A tiny trained net, pictures of several kinds, and what a net should give by ways of its own."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

SHAPE = [3, 32, 48]  # not square: height and width cannot be confused
SIZE, CLASSES = 16, 20


def settings(**changes) -> dict:
    """A run of some seconds; the rate is high enough for weights and statistics to leave where they began."""
    values = {
        "model": {"name": "ResNet10", "base_width": 8, "image_shape": SHAPE, "embedding_size": SIZE},
        "classifier": {"num_classes": CLASSES},
        "data": {"dataset": "synthetic", "train_image_num": 64, "num_workers": 0},
        "train_steps": 4, "train_batch_size": 8, "lr": 0.05, "lr_reference_batch": 8, "with_test": False, "seed": 1,
        "test_batch_size": 3,
    }  # fmt: skip
    for key, value in changes.items():
        values[key] = {**values[key], **value} if isinstance(value, dict) and key in values else value
    return values


def train(run_dir: Path, **changes) -> str:
    """Train; returns the directory of the run."""
    from plsc import Entry

    Entry(config=settings(model_save_dir=str(run_dir), **changes)).train()
    return str(run_dir)


def evaluation_program(run_dir: str, images: np.ndarray, **changes) -> np.ndarray:
    """Features of images by the evaluation program with the weights as the safetensors package reads them."""
    import paddle
    from safetensors.numpy import load_file

    from plsc.config import Config
    from plsc.config.user_objects import UserObjects
    from plsc.engine.program.build import build_eval
    from plsc.parallel.environment import Environment

    (file,) = Path(run_dir).glob("checkpoints/*/replicated.safetensors")
    paddle.enable_static()
    program = build_eval(Config.from_dict(settings(**changes)), UserObjects(), Environment(), -1)
    scope, executor = paddle.static.Scope(), paddle.static.Executor(paddle.CPUPlace())
    with paddle.static.scope_guard(scope):
        executor.run(program.startup)
        for name, value in load_file(file).items():
            if scope.find_var(name) is not None:
                scope.find_var(name).get_tensor().set(value, paddle.CPUPlace())
        return executor.run(program.main, feed={"image": images}, fetch_list=[program.feature])[0]


def stored_centres(run_dir: str) -> np.ndarray:
    """[C, row size] float64, by the safetensors package."""
    from safetensors.numpy import load_file

    files = sorted(Path(run_dir).glob("checkpoints/*/shard_*.safetensors"))
    return np.concatenate([load_file(file)["weight"] for file in files]).astype(np.float64)


def unit(rows: np.ndarray) -> np.ndarray:
    """Each row divided by its length, float64."""
    rows = rows.astype(np.float64)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def pixels(seed: int, height: int = SHAPE[1], width: int = SHAPE[2]) -> np.ndarray:
    """Random RGB pixels, as the synthetic training images have them: uint8 [height, width, 3]."""
    return np.random.Generator(np.random.Philox(key=[seed, 5])).integers(0, 256, (height, width, 3), dtype=np.uint8)


def assert_close(found: np.ndarray, expected: np.ndarray) -> None:
    """Each row within 1e-4 of its length: float32 sums in another order; measured 1e-6 to 2e-6."""
    assert found.shape == expected.shape
    lengths = np.linalg.norm(expected.astype(np.float64), axis=1)
    assert (np.linalg.norm(found.astype(np.float64) - expected, axis=1) <= 1e-4 * lengths).all()


def net_input(image: np.ndarray) -> np.ndarray:
    """What the net takes, by the formula in docs/using.md: float32 [1, 3, H, W]."""
    return ((image.astype(np.float64) - 127.5) / 127.5).transpose(2, 0, 1)[None].astype(np.float32)


def make_folder(folder: Path, count: int) -> list[str]:
    """``count`` PNG pictures in two subfolders and a file that is no picture; returns their paths in order."""
    for sub in ("a", "b"):
        (folder / sub).mkdir(parents=True)
    (folder / "a" / "notes.txt").write_text("no picture")
    paths = [folder / ("a" if i < count // 2 else "b") / f"{i:03d}.png" for i in range(count)]
    for i, path in enumerate(paths):
        Image.fromarray(pixels(i)).save(path)
    return [str(path) for path in paths]
