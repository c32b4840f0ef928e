"""A user's own verification set is looked at before training, as far as it takes to see that it can be judged."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

import tools.train
from plsc import Entry
from plsc.config import Config
from plsc.config.user_objects import UserObjects
from plsc.engine.evaluation import sets_check
from plsc.errors import PlscError, VerificationError
from plsc.parallel.excepthook import EXIT_UNVERIFIED


class Samples:
    """``test_dataset`` of 24 samples with these labels, of which one may be broken."""

    def __init__(self, labels, broken=None):
        self.labels, self.broken, self.read = labels, broken, []

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, index):
        self.read.append(index)
        if index == self.broken:
            raise ValueError("cut off")
        return np.zeros((3, 16, 16), np.float32), self.labels[index]


def check_own(dataset, best_metric=""):
    config = Config.from_dict({"model": {"image_shape": [3, 16, 16]}, "best_metric": best_metric})
    run = SimpleNamespace(config=config, user_objects=UserObjects(test_dataset=dataset), env=SimpleNamespace(rank=0))
    sets_check._check_user_set_here(run)


def test_of_a_users_set_as_much_is_read_as_it_takes_to_see_both_kinds():
    dataset = Samples([0, 0] * 50 + [0, 1] * 50)
    check_own(dataset)
    assert {0, 199} <= set(dataset.read) and len(dataset.read) <= 2 + 2 * 11  # far apart: not all the same ones first


@pytest.mark.parametrize("dataset, metric, message", [
    (Samples([0, 1] * 12), "", "test_dataset: all 12 pairs .* are different; verification needs both kinds"),
    (Samples([1, 1] * 12), "", "are same"),
    (Samples([0, 0, 0, 1] * 6, broken=23), "", r"test_dataset\[23\] raised ValueError: cut off"),
    (Samples([0, 0, 0, 1] * 6, broken=0), "", r"test_dataset\[0\]"),
    (Samples([0, 0, 0, 1] * 6, broken=13), "", r"test_dataset\[13\]"),
    (Samples([0, 0, 0, 1] * 20), "test_dataset.tar@1e-2", "test_dataset is too small for it; it supports tar@0.1"),
])  # fmt: skip
def test_a_users_set_that_cannot_be_judged_is_named(dataset, metric, message):
    with pytest.raises(PlscError, match=message):
        check_own(dataset, metric)


POOL_RUN = """
import sys
from concurrent.futures import ThreadPoolExecutor
import numpy as np
import plsc
sys.path.insert(0, {root!r})
from tests.engine.test_memory_plan import entry

POOL = ThreadPoolExecutor(1)  # of the process, as those of image libraries: its threads are not in a fork


class Numbers:
    def __len__(self):
        return 24

    def __getitem__(self, index):
        return POOL.submit(lambda: (np.full((3, 4, 4), index, np.float32), index // 4 + index % 4 // 3)).result()


made = entry(**{{"data.dataset": "list", "data.num_workers": 1, "classifier.num_classes": 8, "with_test": True}})
made.train_dataset = made.test_dataset = Numbers()
print("trained to step", made.train().step)
"""


def test_users_threads_are_not_started_before_the_workers_are_forked(tmp_path):
    """Else the workers would wait for ever for a pool whose threads they do not have. The limit is for that only."""
    root = str(Path(__file__).resolve().parents[2])
    done = subprocess.run([sys.executable, "-c", POOL_RUN.format(root=root)], cwd=tmp_path, capture_output=True,
                          text=True, timeout=120, env={**os.environ, "PYTHONPATH": root})  # fmt: skip
    assert "trained to step 1" in done.stdout, done.stdout + done.stderr


def test_the_command_ends_with_a_status_of_its_own(monkeypatch, capsys):
    def train(self):
        raise VerificationError("trained and saved (x), but verification failed at 1 step(s): 8")

    monkeypatch.setattr(Entry, "train", train)
    assert tools.train.main([]) == EXIT_UNVERIFIED == 65
    assert capsys.readouterr().err == "plsc: error: trained and saved (x), but verification failed at 1 step(s): 8\n"
