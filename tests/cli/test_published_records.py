"""README's command for MS1MV3, on a directory as insightface publishes it: written here, and small."""

from __future__ import annotations

import io
import json
import os
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
from PIL import Image

from plsc.config import Config
from tests.data.container_kit import insightface, write_records
from tests.dist.launch import plain_environment
from tests.project.docs_kit import ROOT, blocks, commands

IMAGES, CLASSES, PAIRS = 24, 12, 10
SMALL = {  # what makes a run on CPUs of it; data and configuration stay
    "device": "cpu", "num_threads": 1, "mixed_precision.enabled": "false", "train_batch_size": 4, "train_steps": 2,
    "test_batch_size": 4, "log_period": 1, "model.base_width": 2, "model.embedding_size": 8, "data.num_workers": 1,
    "data.train_image_num": IMAGES, "model_save_dir": "output", "memory_check": "false",
}  # fmt: skip


def face(number: int) -> bytes:
    file = io.BytesIO()
    pixels = np.random.default_rng(number).integers(0, 256, (112, 112, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(file, "JPEG")
    return file.getvalue()


def publish(directory: Path) -> None:
    """train.rec, train.idx, property and three verification sets, as in insightface's archives."""
    faces = [face(number) for number in range(IMAGES)]
    write_records(directory, insightface(faces, [number % CLASSES for number in range(IMAGES)]))
    (directory / "property").write_text(f"{CLASSES},112,112")
    for name in ("lfw", "cfp_fp", "agedb_30"):
        pictures = [face(1000 + number) for number in range(2 * PAIRS)]
        (directory / f"{name}.bin").write_bytes(pickle.dumps((pictures, [n % 2 == 0 for n in range(PAIRS)]), 4))


def test_the_command_of_the_readme(tmp_path):
    found = [words for block in blocks(ROOT / "README.md") if block.language == "bash" for words in commands(block)]
    (words,) = [words for words in found if any("ms1mv3" in word for word in words)]
    assert words[:2] == ["plsc", "train"] and words[-2] == "--devices"
    (setting,) = [word for word in words if word.startswith("data.dataset_dir=")]
    publish(tmp_path / setting.partition("=")[2])
    small = [word for key, value in SMALL.items() for word in ("-o", f"{key}={value}")]
    command = [sys.executable, "-m", "plsc", *words[1:-2], "--ranks", "2", *small]
    done = subprocess.run(command, cwd=tmp_path, env=plain_environment({"PYTHONPATH": str(ROOT)}), text=True,
                          capture_output=True, timeout=600)  # fmt: skip
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    lines = [json.loads(line) for line in (tmp_path / "output" / "scalars.jsonl").read_text().splitlines()]
    assert sum("loss" in line for line in lines) == 2
    assert {line["test"] for line in lines if "test" in line} >= {"lfw", "cfp_fp", "agedb_30"}
    (manifest,) = (tmp_path / "output" / "checkpoints").glob("*/manifest.json")
    data = json.loads(manifest.read_text())["data"]
    assert (data["kind"], data["images"], data["labels"]) == ("recordio", IMAGES, CLASSES)
    assert "auto takes recordio: ms1m-retinaface-t1 has train.rec" in done.stdout


def test_the_configurations_take_what_is_published():
    """The numbers of MS1MV3's own property, and a source that auto finds."""
    for name in sorted(os.listdir(ROOT / "configs")):
        if name.startswith("ms1mv3"):
            config = Config.from_yaml(ROOT / "configs" / name)
            assert (config.data.dataset, config.classifier.num_classes, config.data.train_image_num) == (
                "auto", 93431, 5179510
            )  # fmt: skip
