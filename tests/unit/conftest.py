"""What several test files share."""

from __future__ import annotations

import pytest

from tests.unit import using_kit


@pytest.fixture(scope="session")
def trained_run(tmp_path_factory) -> str:
    """The directory of a tiny finished run; tests only read it."""
    return using_kit.train(tmp_path_factory.mktemp("trained") / "run")


@pytest.fixture(scope="session")
def exported(trained_run, tmp_path_factory) -> str:
    """That run's backbone, exported as it is for Paddle Inference."""
    from plsc import Entry

    where = str(tmp_path_factory.mktemp("exported"))
    return Entry(config=using_kit.settings(model_save_dir=where, checkpoint_dir=trained_run)).convert_for_prediction()
