"""A reader that slices by rank, as PLSC 0.1's did, is refused on every rank; nothing is trained on a part."""

from __future__ import annotations

import os

import numpy as np
import pytest

from tests.dist import ranks

LINE = "do not slice by PADDLE_TRAINER_ID"


def sliced(env, payload):
    """What train() says on this rank, for a reader or a data set of which each rank has its slice."""
    from plsc import Entry
    from plsc.errors import DataError
    from tests.dist.entry_cases import Linear, pictures, settings

    os.chdir(payload["cwd"])
    number, count = int(os.environ["PADDLE_TRAINER_ID"]), int(os.environ["PADDLE_TRAINERS_NUM"])
    own = [(image, 1) for image, _ in pictures(48)][number::count]  # one label: only the pictures tell
    entry = Entry(config=settings(train_batch_size=4, data__train_image_num=payload["said"]))
    entry.set_model(Linear())
    entry.train_reader = lambda: iter(own)
    try:
        return entry.train().step
    except DataError as error:
        return str(error)


@pytest.mark.parametrize("said", [None, 24])
def test_a_sliced_reader_is_refused_on_every_rank(tmp_path, said):
    found = ranks.run("tests.dist.test_readers:sliced", 2, tmp_path, {"cwd": str(tmp_path), "said": said})
    assert found[0] == found[1] and LINE in found[0] and "sample 0 has other pixels on rank 1" in found[0]
    assert not (tmp_path / "output" / "checkpoints").exists()
    assert np.all([LINE in (tmp_path / "output" / "logs" / f"rank_{r:05d}.log").read_text() for r in range(2)])
