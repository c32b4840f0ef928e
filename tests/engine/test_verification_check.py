"""Verification sets are looked at before training, not hours later."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from plsc.config import Config
from plsc.config.user_objects import UserObjects
from plsc.engine.evaluation.data import check_verification
from plsc.errors import DataError
from plsc.evaluation.bin_file import save_bin


def picture(side: int) -> bytes:
    data = io.BytesIO()
    Image.fromarray(np.full((side, side, 3), 90, np.uint8)).save(data, "PNG")
    return data.getvalue()


def check(tmp_path, issame, side=16, damage=False):
    path = tmp_path / "faces.bin"
    save_bin(path, [picture(side)] * (2 * len(issame)), issame)
    if damage:
        path.write_bytes(path.read_bytes()[:-200])
    config = {"data": {"dataset_dir": str(tmp_path), "val_targets": ["faces"]}, "model": {"image_shape": [3, 16, 16]}}
    check_verification(Config.from_dict(config), UserObjects())


def test_a_good_set_passes(tmp_path):
    check(tmp_path, [True, False] * 5)


@pytest.mark.parametrize("options, message", [
    ({"issame": [True, False] * 4}, "4 same and 4 different pairs; it needs both kinds, and a pair for each of 10"),
    ({"issame": [True] * 12}, "12 same and 0 different"),
    ({"issame": [False] * 12}, "0 same and 12 different"),
    ({"issame": [True, False] * 5, "side": 20}, "faces, image 0: is 20 x 20 pixels .*, model.image_shape requires"),
    ({"issame": [True, False] * 5, "damage": True}, "faces.bin"),
])  # fmt: skip
def test_a_bad_set_is_named(tmp_path, options, message):
    with pytest.raises(DataError, match=message):
        check(tmp_path, **options)
