"""plsc train: what the launcher is given, and a real training on two ranks that a stop ends with 75."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import plsc.launch
from plsc.checkpoint import latest
from plsc.cli.main import main
from plsc.errors import ConfigError, LaunchError

ROOT = Path(__file__).resolve().parents[2]
SECONDS = 240  # what a machine with ten other runs may take to start two ranks
TINY = """
model: {name: ResNet10, base_width: 4, image_shape: [3, 16, 16], embedding_size: 8}
classifier: {num_classes: 20}
data: {dataset: synthetic, train_image_num: 64, num_workers: 0}
train_batch_size: 8
with_test: false
log_period: 1
device: cpu
seed: 1
"""


@pytest.fixture
def launched(monkeypatch):
    """What the launcher was given; nothing is started."""
    given: list[list[str]] = []
    monkeypatch.setattr(plsc.launch, "launch", lambda words: given.append(words) or 75)
    return given


def test_the_launcher_is_given_the_same_command(launched, monkeypatch, tmp_path):
    words = ["train", "-c", "quickstart", "-o", "lr=0.1", "-o", f"model_save_dir={tmp_path}", "--quiet"]
    assert main([*words, "--ranks", "2"]) == 75
    assert launched[0] == [
        "--nproc_per_node", "2", "--log_dir", f"{tmp_path}/launch", "--log_level", "WARNING", sys.executable, "-u",
        "-m", "plsc", *words,
    ]  # fmt: skip
    script = tmp_path / "plsc"
    script.touch()
    monkeypatch.setattr(sys, "argv", [str(script)])
    assert main(["train", "--devices", "0,3", "--nnodes", "2", "--master", "h:1", "--log-dir", "logs", "--port-range",
                 "2000-2009", "--interface", "eth1"]) == 75  # fmt: skip
    assert launched[1] == [
        "--devices", "0,3", "--nnodes", "2", "--master", "h:1", "--interface", "eth1", "--port-range", "2000-2009",
        "--log_dir", "logs", "--log_level", "WARNING",
        sys.executable, "-u", str(script), "train",
    ]  # fmt: skip


def test_what_cannot_work_is_said_by_the_launcher(launched, monkeypatch):
    with pytest.raises(ConfigError, match="leave the last one without any"):
        main(["train", "--ranks", "3", "-o", "classifier.num_classes=4"])
    with pytest.raises(ConfigError, match="cannot read the configuration"):
        main(["train", "-c", "none/none.yaml", "--ranks", "2"])
    monkeypatch.setenv("PADDLE_RANK_IN_NODE", "0")
    with pytest.raises(LaunchError, match="is a rank of a launcher already"):
        main(["train", "--ranks", "2"])
    assert launched == []


def start(cwd: Path, *words: str) -> subprocess.Popen:
    env = {key: value for key, value in os.environ.items() if not key.startswith("PADDLE_")}
    env |= {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    (cwd / "tiny.yaml").write_text(TINY)
    command = [sys.executable, "-m", "plsc", "train", "-c", "tiny.yaml", "--ranks", "2", *words]
    with open(cwd / "said.txt", "wb") as said:
        return subprocess.Popen(command, cwd=cwd, env=env, stdout=said, stderr=said, start_new_session=True)


def test_two_ranks_train_and_a_stop_saves(tmp_path):
    launcher, log = start(tmp_path, "-o", "train_steps=100000"), tmp_path / "output" / "logs" / "rank_00000.log"
    deadline = time.monotonic() + SECONDS
    while not log.exists() or "step 3/" not in log.read_text():
        assert time.monotonic() < deadline and launcher.poll() is None, (tmp_path / "said.txt").read_text()
        time.sleep(0.1)
    launcher.send_signal(signal.SIGTERM)
    assert launcher.wait(SECONDS) == 75, (tmp_path / "said.txt").read_text()
    path = latest(str(tmp_path / "output"))
    assert path is not None and len(list(Path(path).glob("shard_*_of_00002.safetensors"))) == 2
    assert "2 rank(s) on cpu" in log.read_text() and (tmp_path / "output" / "launch" / "workerlog.1").exists()
    assert not (tmp_path / "output" / ".plsc_lock").exists()
    said = (tmp_path / "said.txt").read_text()
    assert "SIGTERM: the ranks save and end" in said and "step 3/" in said and "LAUNCH INFO" not in said
