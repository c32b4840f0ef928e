"""--devices that a machine does not have are told in one line, before ranks start."""

from __future__ import annotations

import subprocess
import sys
from types import SimpleNamespace

import pytest

from plsc import launch
from plsc.errors import LaunchError


@pytest.mark.parametrize("devices, labels, said", [
    ("0,1", [], "--devices 0,1: there is no GPU 0 here; Paddle finds none: .* --ranks N"),
    ("0, 2", ["0", "1"], "there is no GPU 2 here; Paddle finds 0, 1 only"),
    ("0", [""], "there is no GPU 0 here; Paddle finds none"),  # CUDA_VISIBLE_DEVICES=
])  # fmt: skip
def test_gpus_that_are_not_there(devices, labels, said):
    with pytest.raises(LaunchError, match=said):
        launch._require_devices(devices, labels)


def test_gpus_that_are_there():
    launch._require_devices("3, 2", ["2", "3"])
    launch._require_devices(None, [])


def test_the_launcher_says_that_there_are_no_gpus(tmp_path):
    """With a label that no machine has; Paddle's launcher has a stack trace."""
    command = [sys.executable, "-m", "plsc.launch", "--devices", "99", "--log_dir", str(tmp_path), "none.py"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert "plsc: error: [rank 0] --devices 99: there is no GPU 99 here; " in done.stderr


@pytest.mark.parametrize("nnodes, ips, given, shared", [
    ("1", None, {}, True), (1, None, {}, True), ("2", None, {}, False), ("1:2", None, {}, False),
    ("1", "10.0.0.1,10.0.0.2", {}, False), ("1", None, {"PLSC_TOKEN": "mine"}, False),
])  # fmt: skip
def test_ranks_of_one_machine_get_a_secret_in_common(nnodes, ips, given, shared):
    """Launchers of several machines would each make another one."""
    envs = dict(given)
    launch._set_token(SimpleNamespace(args=SimpleNamespace(nnodes=nnodes, ips=ips), envs=envs, set_envs=envs.update))
    assert (len(envs["PLSC_TOKEN"]) == 32) if shared else envs == given
