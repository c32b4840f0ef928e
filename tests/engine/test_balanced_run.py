"""A run with balanced batches: it says what an epoch is, and goes on in the middle of one to the bit."""

from __future__ import annotations

import pytest

from plsc import Entry
from plsc.errors import DataError
from tests import using_kit

DATA = {"sampler": "balanced", "identities": 4, "images_per_identity": 2}


def test_it_goes_on_in_the_middle_of_an_epoch_to_the_bit(tmp_path, capfd):
    whole = using_kit.train(tmp_path / "whole", data=DATA, train_steps=6)
    using_kit.train(tmp_path / "part", data=DATA, train_steps=3)  # an epoch has 8
    using_kit.train(tmp_path / "part", data=DATA, train_steps=6, resume="auto")
    ends = [(tmp_path / run).glob("checkpoints/step_00000006/*.safetensors") for run in ("whole", "part")]
    files = [[file.read_bytes() for file in sorted(end)] for end in ends]
    assert len(files[0]) >= 2 and files[0] == files[1]
    said = capfd.readouterr().out
    line = "data.sampler: balanced: groups of 4 identities x 2 images; an epoch is 64 samples, in which each of 20"
    assert said.count(line) == 3 and "this run continues" not in said
    using_kit.train(tmp_path / "part", data={"num_workers": 0}, train_steps=7, resume="auto")
    assert ("was trained with data.sampler='balanced' (4 x 2), this run continues with 'shuffle'"
            in capfd.readouterr().out)  # fmt: skip
    assert whole


def test_data_of_the_users_own_are_refused(tmp_path):
    entry = Entry(config=using_kit.settings(model_save_dir=str(tmp_path / "run"), data=DATA))
    entry.train_dataset = []
    with pytest.raises(DataError, match=r"^data.sampler='balanced': needs the labels .* of your own"):
        entry.train()
