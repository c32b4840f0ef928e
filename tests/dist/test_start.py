"""What goes wrong before training reaches every rank, from the first line of `plsc` on."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.dist import ranks

LIMIT_SECONDS = 60  # each takes 3 on an idle machine; without the report the other rank would wait 600
CONFIG = """
train_steps: 1
with_test: false
model_save_dir: out
data: {dataset: synthetic, train_image_num: 8}
model: {name: ResNet10, base_width: 4, image_shape: [3, 16, 16], embedding_size: 8}
classifier: {num_classes: 8}
"""
SCRIPT = """
import sys
from plsc import Entry
entry = Entry()
if sys.argv[1] == "broken":
    import a_package_that_nobody_has
entry.train()
"""
RIGHT, SCRIPT_RIGHT = ["-m", "plsc", "train", "-c", "right.yaml"], ["script.py", "right"]
# {name: the commands of two ranks, the one that fails, what it says, what the other one is told}
CASES = {
    "no file": ([RIGHT, [*RIGHT[:-1], "missing.yaml"]], 1, "missing.yaml", "missing.yaml"),
    "no file on 0": ([[*RIGHT[:-1], "missing.yaml"], RIGHT], 0, "missing.yaml", "missing.yaml"),
    "wrong option": ([[*RIGHT, "--nonsense"], RIGHT], 0, "unrecognized arguments: --nonsense", "ended with status 2"),
    "wrong value": ([RIGHT, [*RIGHT, "-o", "lr=fast"]], 1, "lr='fast'", "lr='fast'"),
    "import": ([SCRIPT_RIGHT, ["script.py", "broken"]], 1, "ModuleNotFoundError", "ModuleNotFoundError: No module"),
}


def start(commands: list[list[str]], cwd: Path) -> list[subprocess.Popen]:
    """Rank 0 starts a second after the other, as another machine may."""
    (cwd / "right.yaml").write_text(CONFIG)
    (cwd / "script.py").write_text(SCRIPT)
    ports, processes = ranks.free_ports(len(commands)), []
    for rank in (1, 0):
        variables = ranks.plain_environment(ranks.launch_variables(rank, ports))
        with open(cwd / f"rank{rank}.log", "wb") as log:
            command = [sys.executable, *commands[rank]]
            processes.append(subprocess.Popen(command, cwd=cwd, env=variables, stdout=log, stderr=log))
        time.sleep(1.0 if rank else 0.0)
    return processes[::-1]


@pytest.mark.parametrize("name", CASES)
def test_the_other_rank_is_told(tmp_path, name):
    commands, failing, said, told = CASES[name]
    began = time.monotonic()
    codes = ranks.wait(start(commands, tmp_path), LIMIT_SECONDS)
    assert time.monotonic() - began < LIMIT_SECONDS
    logs = [(tmp_path / f"rank{rank}.log").read_text(errors="replace") for rank in (0, 1)]
    assert 0 not in codes and -9 not in codes, logs
    assert said in logs[failing]
    other = 1 - failing
    pattern = rf"plsc: error: \[rank {other}\] stopped because of rank {failing}: .*{re.escape(told)}"
    assert codes[other] == 1 and re.search(pattern, logs[other]), logs[other]
    assert "Traceback" not in logs[other]
