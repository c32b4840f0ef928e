"""The memory that the index of each container takes per image, while it is made and afterwards.

Counted by tracemalloc, which sees NumPy's arrays and Python's objects to the byte, as the difference of two sizes of
the data: what does not grow with them is no part of it. 28 bytes are 1.4 GB for 50 million images. `bench.py index`
measures whole processes, and Parquet (4 bytes per image): pyarrow's threads and tracemalloc crash together.
"""

from __future__ import annotations

import importlib.util
import tracemalloc
from pathlib import Path

import pytest

from plsc.config import Config
from plsc.data import check, folder_index, label_counts, label_list, record
from plsc.data.containers import base64_lines, files, image_values, ordering, recordio_index
from plsc.data.opening import open_source
from plsc.errors import DataError
from plsc.files.texts import GrowingText

MADE = Path(__file__).resolve().parents[2] / "tools" / "benches" / "_made_data.py"
SIZES = {"lmdb": (10_000, 30_000), "folder": (10_000, 20_000)}  # of others FEW and MANY, which are faster
FEW, MANY = 60_000, 120_000
# {container: (bytes per image while it is made, and afterwards)}; the reasons are in the modules
LIMITS = {
    "recordio": (26, 16.5),  # keys 8, positions 8, sizes 4, labels 4, truth values
    "shuffled": (28.5, 24.5),  # keys with gaps are kept, 8; 4 for the order of one column
    "lmdb": (25, 16.5),
    "base64": (19, 18),  # arrays that grow have up to an eighth to spare; tar has the same
    "list": (27, 14),  # the search for the files takes 9, and the marks 1
    "several": (27, 16),  # half a list, half a RecordIO file
    "folder": (17, 9),  # with the names of the classes
}


@pytest.fixture
def small_blocks(monkeypatch):
    """So that blocks do not grow with data of these sizes."""
    for module, name in ((ordering, "_BLOCK"), (recordio_index, "_BLOCK"), (image_values, "_BLOCK"), (record, "_BLOCK"),
                         (image_values, "_PART"), (folder_index, "_BLOCK"), (label_counts, "_BLOCK"),
                         (check, "_CHUNK_LINES"), (check, "_BATCH")):  # fmt: skip
        monkeypatch.setattr(module, name, 500)
    for module, name in ((files, "BLOCK_BYTES"), (base64_lines, "BLOCK_BYTES"), (label_list, "_CHUNK")):
        monkeypatch.setattr(module, name, 16_384)
    monkeypatch.setattr(label_list, "LARGE", 1)
    monkeypatch.setattr(GrowingText.__init__, "__defaults__", (lambda: None, 16_384))


def memory(settings: dict) -> tuple[int, int]:
    """(the most bytes while the data are opened, checked or recorded, the bytes that are left)."""
    settings = {"data": settings, "model": {"image_shape": [3, 8, 8]}, "classifier": {"num_classes": None}}
    config = Config.from_dict(settings)
    tracemalloc.start()
    source = open_source(config, 0)
    source.check(check_files=False)
    if config.data.dataset == "list" and not config.data.sources:
        with pytest.raises(DataError, match="whose image is missing"):
            source.check(check_files=True)
    source.record()
    kept, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return peak, kept


@pytest.fixture(scope="module")
def made():
    """tools/benches/_made_data.py, with few classes."""
    spec = importlib.util.spec_from_file_location("made_data", MADE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.CLASSES = 100
    return module


@pytest.mark.parametrize("container", LIMITS)
def test_bytes_per_image(container, tmp_path, small_blocks, made):
    found, (few, many) = [], SIZES.get(container, (FEW, MANY))
    for count in (300, few, many):  # the first imports modules
        (tmp_path / str(count)).mkdir()
        settings = made.WRITERS[container](tmp_path / str(count), count)
        found.append(memory({"dataset_dir": str(tmp_path / str(count)), **settings}))
    per_image = [round((more - less) / (many - few), 1) for less, more in zip(*found[1:])]
    assert all(taken <= most for taken, most in zip(per_image, LIMITS[container])), per_image
