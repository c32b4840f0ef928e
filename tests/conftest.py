"""What holds for every test."""

from __future__ import annotations

import gc
import signal
import sys

import pytest

from tests import short_stacks

short_stacks.use()
signal.signal(signal.SIGINT, signal.default_int_handler)  # a script's background jobs ignore it, and their children


def pytest_collection_finish(session):
    """What is there now stays to the end: a collection, as at the end of each run, need not go over it."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def static_mode():
    """Every test begins in Paddle's static mode, whatever mode the one before it left the process in."""
    paddle = sys.modules.get("paddle")
    if paddle is not None:
        from plsc.backend.paddle_version import end_when_crashed

        paddle.enable_static()
        end_when_crashed()  # as in a run: what is terminated or crashes does not hang


@pytest.fixture(scope="session")
def trained_run(tmp_path_factory) -> str:
    """The directory of a tiny finished run; tests only read it."""
    from tests import using_kit

    return using_kit.train(tmp_path_factory.mktemp("trained") / "run")


@pytest.fixture(scope="session")
def exported(trained_run, tmp_path_factory) -> str:
    """That run's backbone, exported as it is for Paddle Inference."""
    from plsc import Entry
    from tests import using_kit

    where = str(tmp_path_factory.mktemp("exported"))
    return Entry(config=using_kit.settings(model_save_dir=where, checkpoint_dir=trained_run)).convert_for_prediction()
