"""Two threads of a process cannot be in a run at once: the second is told, and the first is not disturbed."""

from __future__ import annotations

import sys
import threading

import pytest

from plsc.checkpoint.layout import LOCK
from plsc.config import Config
from plsc.config.user_objects import UserObjects
from plsc.engine.run.start import start
from plsc.errors import ConfigError, DataError, LaunchError


def settings(run_dir) -> Config:
    return Config.from_dict({"model_save_dir": str(run_dir), "train_steps": 1})


def nothing(config, user_objects, env) -> dict:
    return {}


def test_a_second_thread_is_told(tmp_path):
    inside, go_on, said = threading.Event(), threading.Event(), []

    def first() -> None:
        with start(settings(tmp_path / "first"), UserObjects(), nothing) as run:
            inside.set()
            go_on.wait()
            run.log.info("still here")

    thread = threading.Thread(target=first)
    thread.start()
    inside.wait()
    try:
        with pytest.raises(LaunchError, match="is in progress in this process: call one after the other"):
            with start(settings(tmp_path / "second"), UserObjects(), nothing):
                said.append("entered")
    finally:
        go_on.set()
        thread.join()
    assert said == [] and not (tmp_path / "second").exists()
    assert "still here" in (tmp_path / "first" / "logs" / "rank_00000.log").read_text()


def test_after_a_failure_the_next_one_may_run(tmp_path):
    def wrong(config, user_objects, env) -> dict:
        raise DataError("no pictures")

    for _ in range(2):
        with pytest.raises(DataError, match="no pictures"), start(settings(tmp_path), UserObjects(), wrong):
            pass
    with pytest.raises(ZeroDivisionError), start(settings(tmp_path), UserObjects(), nothing):
        raise ZeroDivisionError
    with start(settings(tmp_path), UserObjects(), nothing) as run:
        assert run.group.world_size == 1


@pytest.mark.parametrize("continues", [True, False])
def test_a_missing_package_is_told_before_anything_is_written(tmp_path, monkeypatch, continues):
    """By all ranks alike: it is part of what they agree on."""
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    config = settings(tmp_path / "run")
    config.set("scalars", "tensorboard")
    with pytest.raises(ConfigError, match="pip install tensorboardX"), start(config, UserObjects(), nothing, continues):
        pass
    assert not (tmp_path / "run").exists()


def test_a_rank_that_another_one_ends_releases_the_directory(tmp_path):
    """Its lease would keep a run on another machine waiting."""
    with start(settings(tmp_path), UserObjects(), nothing, continues=True) as run:
        assert (tmp_path / LOCK).exists()
        run.group.on_stopped("stopped because of rank 1: x")
        assert not (tmp_path / LOCK).exists()
    assert "because of rank 1: x" in (tmp_path / "logs" / "rank_00000.log").read_text()
