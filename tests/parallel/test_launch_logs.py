"""Secrets in what Paddle's launcher writes: its own code writes the files here."""

from __future__ import annotations

import json
import logging
import os
import stat
import subprocess
import sys
import types
from pathlib import Path

import pytest

from plsc.parallel import launch_logs
from plsc.parallel.launch_logs import hide_secrets

ROOT = Path(__file__).resolve().parents[2]
SECRETS = {
    "AWS_ACCESS_KEY_ID": "AKIAEXAMPLE", "AWS_SECRET_ACCESS_KEY": "wJalr/XUtn'FE\"MI\\x=", "AWS_SESSION_TOKEN": "tökén",
    "MY_PASSWORD": "p4ss\nword", "http_proxy": "http://me:pr0xypass@proxy:80/", "HADOOP_USER_UGI": "me,hdfspass",
}  # fmt: skip
PARTS = ["AKIAEXAMPLE", "wJalr", "XUtn", "t\u00f6k", "p4ss", "pr0xypass", "hdfspass", "fromconfig"]


@pytest.fixture
def logs(tmp_path, monkeypatch):
    """A directory as the launcher leaves it, made by the launcher's own methods and by its format of backup_env."""
    from paddle.distributed.launch.controllers.controller import Controller

    environment = {**SECRETS, "PADDLE_TRAINER_ENDPOINTS": "a:1,b:2", "PWD": "/some/where", "HOME": "/root"}
    for name in list(os.environ):
        monkeypatch.delenv(name)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("PADDLE_LOG_DIR", str(tmp_path))
    ours = types.SimpleNamespace(
        ctx=types.SimpleNamespace(args=types.SimpleNamespace(log_dir=str(tmp_path)), logger=logging.getLogger()),
        job=types.SimpleNamespace(id="default"), pod=types.SimpleNamespace(name="abcdef"),
    )  # fmt: skip
    Controller.save_pod_log(ours, "['-o', 'remote.fs_ugi=me,fromconfig']")
    for rank in (0, 1):
        container = types.SimpleNamespace(rank=rank, log_mode="w", env=dict(os.environ))
        Controller._save_container_env(ours, container)
        (tmp_path / f"backup_env.{rank}.json").write_text(json.dumps(dict(os.environ), indent=4, sort_keys=True))
    for path in tmp_path.iterdir():
        path.chmod(0o644)
    assert len(list(tmp_path.iterdir())) == 5
    return tmp_path


def test_no_secret_is_left_and_the_rest_stays(logs):
    before = {path: path.read_bytes() for path in logs.iterdir()}
    assert sum(data.count(b"AKIAEXAMPLE") for data in before.values()) == 5  # in each file
    hide_secrets(["me,fromconfig", "fromconfig", None, ""])
    for path, data in before.items():
        now = path.read_bytes()
        assert len(now) == len(data) and stat.S_IMODE(path.stat().st_mode) == 0o600
        for part in PARTS:
            for form in (part, repr(part)[1:-1], json.dumps(part)[1:-1]):
                assert form.encode() not in now, (path, part)
        assert b"a:1,b:2" in now and b"/some/where" in now and b"@proxy:80/" in now
    assert json.loads((logs / "backup_env.0.json").read_text())["PADDLE_TRAINER_ENDPOINTS"] == "a:1,b:2"


def test_it_is_done_again_without_harm(logs):
    hide_secrets()
    once = {path: path.read_bytes() for path in logs.iterdir()}
    hide_secrets()
    assert once == {path: path.read_bytes() for path in logs.iterdir()}


def test_other_files_are_left_alone(logs, monkeypatch, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("elsewhere") / "file"
    elsewhere.touch()
    elsewhere.chmod(0o644)
    ours = "environ({'A': 'AKIAEXAMPLE'})"
    elsewhere.write_text(ours)
    (logs / "default.linked.log").symlink_to(elsewhere)
    os.mkfifo(logs / "default.afifoo.log")
    (logs / "default.folder.log").mkdir()
    for name in ("workerlog.0", "nginx.log", "nginx.access.log", "my envlog.0", "default.access.log.1"):
        (logs / name).write_text("AKIAEXAMPLE")
        (logs / name).chmod(0o644)
    hide_secrets()
    assert elsewhere.read_text() == ours and stat.S_IMODE(elsewhere.stat().st_mode) == 0o644
    for name in ("workerlog.0", "nginx.log", "nginx.access.log", "my envlog.0", "default.access.log.1"):
        assert (logs / name).read_text() == "AKIAEXAMPLE" and stat.S_IMODE((logs / name).stat().st_mode) == 0o644
    (logs / "job.zyxwvu.log").write_text(ours)
    with monkeypatch.context() as patch:
        patch.setattr(launch_logs.os, "geteuid", lambda: os.getuid() + 1)
        hide_secrets()
    assert (logs / "job.zyxwvu.log").read_text() == ours  # another user's
    hide_secrets()
    assert (logs / "job.zyxwvu.log").read_text() == ours.replace("AKIAEXAMPLE", "*" * 11)  # of another launch


def test_settings_are_no_secrets(logs, monkeypatch):
    """Each would put asterisks over everything that is the same: `false`, a port, every x."""
    before = {path: path.read_bytes() for path in logs.iterdir()}
    for path in before:
        path.write_bytes(before[path] + b" x FALSE, 127.0.0.1:6170 None")
    for name, value in {"TOKENIZERS_PARALLELISM": "FALSE", "MAX_TOKENS": "6170", "A_KEY": "x", "AUTH": "None"}.items():
        monkeypatch.setenv(name, value)
    hide_secrets()
    for path, data in before.items():
        assert path.read_bytes()[len(data) :] == b" x FALSE, 127.0.0.1:6170 None"


def test_without_a_launcher_nothing_is_done(monkeypatch):
    hide_secrets(environ={})
    hide_secrets(environ={"PADDLE_LOG_DIR": "/nowhere"})


def test_a_run_does_it_before_anything_else(logs, monkeypatch):
    """Also one that ends at once; the password of the settings is among the secrets."""
    from plsc.config import Config
    from plsc.config.user_objects import UserObjects
    from plsc.engine.run.start import start
    from plsc.errors import LaunchError

    for name, value in {"PADDLE_TRAINERS_NUM": "2", "PADDLE_TRAINER_ID": "0", "PADDLE_CURRENT_ENDPOINT": "junk",
                        "PADDLE_TRAINER_ENDPOINTS": "junk,junk"}.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    config = Config.from_dict({"remote": {"fs_ugi": "me,fromconfig"}})
    with pytest.raises(LaunchError, match="junk"), start(config, UserObjects(), lambda *_: None):
        pass
    for path in logs.iterdir():
        data = path.read_bytes()
        assert b"AKIAEXAMPLE" not in data and b"fromconfig" not in data, path


def test_our_launcher_writes_no_environment(tmp_path):
    """The real one, with a rank that looks at what is there when it starts."""
    script = tmp_path / "rank.py"
    script.write_text(
        "import os, stat\nlog = os.environ['PADDLE_LOG_DIR']\nprint('mode', oct(stat.S_IMODE(os.stat(log).st_mode)))\n"
        "from plsc.parallel.launch_logs import hide_secrets\nhide_secrets()\nraise SystemExit(3)\n"
    )
    environment = {**os.environ, "AWS_SECRET_ACCESS_KEY": "wJalrXUtnFEMI", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "plsc.launch", "--nproc_per_node", "1", "--log_dir", "log", str(script)]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=200)
    assert done.returncode == 3 and "rank 0: status 3, log" in done.stderr + done.stdout
    files = {path.name: path.read_text() for path in (tmp_path / "log").iterdir()}
    assert "mode 0o700" in files["workerlog.0"]
    assert not any("wJalrXUtnFEMI" in text for text in [*files.values(), done.stdout, done.stderr])
    assert set(files) <= {"workerlog.0", "backup_env.0.json"}  # the second is Paddle 3's
