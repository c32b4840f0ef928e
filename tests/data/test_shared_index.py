"""The index of a large data set: one file for all processes of the machine, and the same images as without it."""

from __future__ import annotations

import errno
import gc
import os
import re
import signal
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from plsc.config import Config
from plsc.data import indexing, shared_index
from plsc.data.balanced import BalancedOrder, GroupSize
from plsc.data.label_list import read_label_list
from plsc.data.opening import open_to_read
from plsc.data.record import list_record
from plsc.data.sampler import GlobalBatchSampler, SampleOrder
from plsc.data.shared_index import Made, share
from plsc.data.sources import label_list
from plsc.data.workers import call_in_fork
from plsc.errors import DataError
from plsc.files import array_file
from plsc.files.array_file import Arrays
from tests.data.container_kit import contents, images, insightface, plain, write_all, write_records

LABELS = [0, 0, 1, 2, 2, 2, 3, 4, 4]
PICTURES = images(len(LABELS))
SHARED = ("insightface", "without_idx", "im2rec", "shards", "lmdb", "parquet", "base64")


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    root = tmp_path_factory.mktemp("places")
    return root, write_all(root, PICTURES, LABELS)


@pytest.fixture
def cache(tmp_path, monkeypatch) -> Path:
    """The cache of a user for whom every data set is large."""
    monkeypatch.setattr(shared_index, "LEAST_BYTES", 1)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "plsc" / "index"


def opened(settings: dict):
    """(source, log lines)."""
    log: list[str] = []
    config = Config()
    config.update({"model": {"image_shape": [3, 8, 8]}, "data": settings})
    source = open_to_read(config, log.append)
    source.open_files()
    return source, log


def test_a_list_is_the_same_from_the_file(tmp_path, cache, monkeypatch):
    """Also its bad lines, and the text of a line that is longer than what is looked at first."""
    long = "d" * 3000
    text = f"\ufeffa.jpg\t1\n\n b c.jpg 7 \nlabel-less\n{long}.jpg\t12\nx\t3x\ne.jpg\t2"
    (tmp_path / "label.txt").write_text(text, encoding="utf-8")
    expected = read_label_list(str(tmp_path / "label.txt"), 9)
    monkeypatch.setattr(label_list, "LEAST_BYTES", 1)
    for how in ("made now", "kept from before"):
        source = label_list.LabelListSource(tmp_path, "label.txt", 9)
        found = source._list
        assert how in source.notes[0]
        assert (found.labels.tolist(), found.problems.tolist()) == (expected.labels.tolist(), [0, 0, 1, 4, 2, 0])
        for index in range(6):
            assert found.name(index) == expected.name(index) and found.path(index) == expected.path(index)
            assert found.line_text(index) == expected.line_text(index)
        assert found.paths(slice(0, 6)) == expected.paths(slice(0, 6)) and list_record(found) == list_record(expected)
        assert found.line_number(5) == 7 and found.line_text(3).endswith("...") and found.num_classes == 9
        with pytest.raises(DataError, match="label.txt:4"):
            source.check(check_files=False)
        with pytest.raises(DataError, match="5 whose image is missing: label.txt:1: image 'a.jpg' is missing"):
            source.check(check_files=True)
    other = label_list.LabelListSource(tmp_path, "label.txt", 13)
    assert "made now" in other.notes[0] and other._list.labels.tolist() == [1, 7, -1, 12, -1, 2]


def test_images_of_a_shared_list_are_looked_for(tmp_path, cache, monkeypatch):
    """Whose arrays are read-only: nothing is marked where no image is missing."""
    monkeypatch.setattr(label_list, "LEAST_BYTES", 1)
    (tmp_path / "label.txt").write_text("a.jpg\t0\na.jpg\t1\n")
    (tmp_path / "a.jpg").touch()
    for how in ("made now", "kept from before"):
        source = label_list.LabelListSource(tmp_path, "label.txt", None)
        assert how in source.notes[0] and not source.known_labels().flags.writeable
        source.check(check_files=True)


@pytest.mark.parametrize("name", SHARED)
def test_every_container_gives_the_same_from_the_file(places, cache, monkeypatch, name):
    settings = places[1][name]
    with monkeypatch.context() as small:
        small.setattr(shared_index, "LEAST_BYTES", 1 << 30)
        expected, log = opened(settings)
    assert not cache.exists() and not [line for line in log if "index" in line]
    for how in ("made now", "kept from before"):
        source, log = opened(settings)
        assert contents(source) == contents(expected) == list(zip(PICTURES, LABELS))
        assert source.record() == expected.record() and source.name(5) == expected.name(5)
        assert source.num_classes == expected.num_classes and not source.labels.flags.writeable
        (line,) = [line for line in log if "index" in line]
        assert f"index {how}, shared by all processes of this machine: '{cache}/" in line
        assert Path(re.findall("'([^']*)'", line)[-1]).is_file()


@pytest.mark.parametrize("name", [*SHARED, "list", "folder", "several"])
def test_how_far_an_index_is_is_told(places, monkeypatch, capfd, name):
    opened(places[1][name])
    assert "index" not in capfd.readouterr().err, "a short time is not worth a line"
    monkeypatch.setattr(indexing, "TELL_SECONDS", 0.0)
    opened(places[1][name])
    lines = [line for line in capfd.readouterr().err.split("\n") if line]
    form = r"'.*': making its index, ([0-9.]+ GB read|[0-9,]+ images found)( and [0-9.]+ GB read)? in \d+ s"
    assert lines and all(re.fullmatch(form, line.replace(" (1 files)", "")) for line in lines), lines


def test_keys_with_gaps_are_in_the_file(tmp_path, cache):
    data = {key * key: each for key, each in plain(PICTURES, LABELS, 2).items()}
    settings = {"dataset_dir": str(write_records(tmp_path / "data", data))}
    first, second = opened(settings)[0], opened(settings)[0]
    assert contents(second) == list(zip(PICTURES, LABELS)) and "key 25 at byte" in second.name(3)
    assert second.record() == first.record()


def test_other_contents_are_indexed_anew(tmp_path, cache):
    directory = write_records(tmp_path / "data", insightface(PICTURES, LABELS))
    settings = {"dataset_dir": str(directory)}
    old = opened(settings)[0]
    times = os.stat(directory / "train.rec")
    relabelled = insightface(PICTURES, LABELS[::-1])
    write_records(directory, relabelled)
    os.utime(directory / "train.rec", ns=(times.st_atime_ns, times.st_mtime_ns))  # same size, same time
    assert os.stat(directory / "train.rec").st_size == times.st_size
    source, log = opened(settings)
    assert "made now" in log[-1] and contents(source) == list(zip(PICTURES, LABELS[::-1]))
    assert old.labels.tolist() == LABELS, "who has mapped the old file keeps it"
    (directory / "train.idx").unlink()
    assert "made now" in opened(settings)[1][-1]


def test_a_damaged_file_is_made_anew(tmp_path, cache):
    settings = {"dataset_dir": str(write_records(tmp_path / "data", insightface(PICTURES, LABELS)))}
    opened(settings)
    (path,) = (each for each in cache.iterdir() if not each.name.startswith("lock-"))
    whole = bytearray(path.read_bytes())
    whole[-3] ^= 1
    path.write_bytes(whole)
    source, log = opened(settings)
    assert "made now" in log[-1] and contents(source) == list(zip(PICTURES, LABELS))


def test_one_process_makes_it_and_the_others_wait(tmp_path, cache):
    """Four processes at once, each of which says in a file that it builds."""
    (tmp_path / "input").write_bytes(b"input")
    made, built = Made("test", [str(tmp_path / "input")]), tmp_path / "built"

    def build(progress) -> Arrays:
        with open(built, "a") as file:
            file.write("x")
        return Arrays({"numbers": np.arange(10, dtype=np.int64)})

    def is_good() -> bool:
        return share(made, "test", build).content.arrays["numbers"].sum() == 45

    assert call_in_fork(lambda: four_times(is_good)) == [0] * 4
    assert built.read_text() == "x"
    assert not [name for name in os.listdir(cache) if name.startswith("lock-")]


def four_times(is_good: Callable[[], bool]) -> list[int]:
    """The exit statuses of four processes at once: 0 where it is good."""
    children = []
    for _ in range(4):
        pid = os.fork()
        if not pid:
            signal.alarm(60)
            status = 1
            try:
                status = 0 if is_good() else 1
            finally:
                os._exit(status)
        children.append(pid)
    return [os.waitpid(pid, 0)[1] for pid in children]


def test_who_waits_gets_the_error_of_who_failed(tmp_path, cache):
    """Four processes: the first of them fails when all have begun, and the others do not read the file again."""
    (tmp_path / "input").write_bytes(b"input")
    made, tried = Made("test", [str(tmp_path / "input")]), tmp_path / "tried"

    def build(progress) -> Arrays:
        with open(tried, "a") as file:
            file.write("x")
        for _ in range(1000):  # the locks of all: four who are at it
            if len(list(tmp_path.glob("begun-*"))) == 4:
                break
            time.sleep(0.02)
        raise DataError("byte 7: damaged")

    def is_refused() -> bool:
        real = Made.key

        def key(self) -> str:
            found = real(self)
            (tmp_path / f"begun-{os.getpid()}").touch()
            return found

        Made.key = key  # in this process only
        with pytest.raises(DataError, match="^byte 7: damaged$"):
            share(made, "test", build)
        return True

    assert call_in_fork(lambda: four_times(is_refused)) == [0] * 4
    assert tried.read_text() == "x"
    good = share(made, "test", lambda progress: Arrays({}, {"mended": True}))
    assert good.content.facts == {"mended": True}, "an error from before does not stay"


@pytest.mark.parametrize("change", ["earlier", "of the future", "other contents"])
def test_an_error_for_others_is_not_used(tmp_path, cache, change, monkeypatch):
    (tmp_path / "input").write_bytes(b"input")
    made = Made("test", [str(tmp_path / "input")])
    at = {"earlier": -1.0, "of the future": 1000.0, "other contents": 0.0}[change]
    real = shared_index._raise_failure

    def after_a_failure(made, key, directory, begun):
        facts = {"error": "not ours", "time": begun + at}
        written_for = "other" if change == "other contents" else key
        array_file.write(directory, f"failed-{made.name}", written_for, Arrays({}, facts))
        real(made, key, directory, begun)

    monkeypatch.setattr(shared_index, "_raise_failure", after_a_failure)
    assert share(made, "test", lambda progress: Arrays({}, {"own": True})).content.facts == {"own": True}
    assert f"failed-{made.name}" in os.listdir(cache)
    os.utime(cache / f"failed-{made.name}", (1000, 1000))
    (tmp_path / "input").write_bytes(b"other")
    monkeypatch.setattr(shared_index, "_raise_failure", real)
    share(made, "test", lambda progress: Arrays({}))
    assert f"failed-{made.name}" not in os.listdir(cache), "it is removed when it is old"


def test_without_a_cache_each_process_has_its_own(tmp_path, cache, monkeypatch):
    settings = {"dataset_dir": str(write_records(tmp_path / "data", insightface(PICTURES, LABELS)))}
    cache.parent.mkdir()
    cache.write_text("a file in its place")
    source, log = opened(settings)
    assert "each process keeps its own index, as the cache cannot be used" in log[-1] and "\n" not in log[-1]
    assert contents(source) == list(zip(PICTURES, LABELS))
    monkeypatch.setenv("XDG_CACHE_HOME", "~/relative")
    source, log = opened(settings)
    assert "is not absolute" in log[-1] and contents(source) == list(zip(PICTURES, LABELS))


@pytest.mark.parametrize("full", ["write", "read"])
def test_a_full_disk_costs_no_second_index(tmp_path, cache, monkeypatch, full):
    """What was made is used by the process that made it. Half a file is not used, and nothing is left of it."""
    (tmp_path / "input").write_bytes(b"input")
    made, built = Made("test", [str(tmp_path / "input")]), []

    def build(progress) -> Arrays:
        built.append(1)
        return Arrays({"numbers": np.arange(10**5)})

    def out_of_space(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(array_file, "flush" if full == "write" else "_content", out_of_space)
    index = share(made, "test", build)
    assert index.content.arrays["numbers"].sum() == 10**5 * (10**5 - 1) // 2
    (note,) = index.notes
    assert "each process keeps its own index, as the cache cannot be used ([Errno 28] No space left on device)" in note
    assert len(built) == (1 if full == "write" else 2)
    assert not [name for name in os.listdir(cache) if name.endswith(".tmp") or name.startswith("lock-")]


def test_who_waits_says_so(tmp_path, cache, monkeypatch, capfd):
    """For a process that was stopped (Ctrl-Z) it would wait without an end."""
    monkeypatch.setattr(indexing, "TELL_SECONDS", 0.1)
    (tmp_path / "input").write_bytes(b"input")
    made, pid = Made("test", [str(tmp_path / "input")]), os.fork()
    if not pid:
        signal.alarm(60)
        share(made, "test", lambda progress: [time.sleep(1), (tmp_path / "made").touch(), Arrays({})][-1])
        os._exit(0)
    while not list(cache.glob("lock-*")):
        time.sleep(0.01)
    index = share(made, "test", lambda progress: Arrays({}, {"another": True}))
    assert os.waitpid(pid, 0)[1] == 0 and index.content.facts == {} and "kept from before" in index.notes[0]
    lines = [line for line in capfd.readouterr().err.split("\n") if line]
    form = r"test: waiting \d s for the process that makes its index"
    assert lines and all(re.fullmatch(form, line) for line in lines)


def test_files_that_change_meanwhile_are_refused(tmp_path, cache):
    path = tmp_path / "input"
    path.write_bytes(b"input")

    def build(progress) -> Arrays:
        path.write_bytes(b"other")
        return Arrays({})

    with pytest.raises(DataError, match="has changed while it was indexed"):
        share(Made("test", [str(path)]), "test", build)


def test_an_error_of_the_data_is_that_of_the_data(tmp_path, cache):
    directory = write_records(tmp_path / "data", plain(PICTURES, LABELS))
    whole = (directory / "train.rec").read_bytes()
    (directory / "train.rec").write_bytes(whole[:-9])
    for _ in range(2):
        with pytest.raises(DataError, match="goes beyond the end of the file"):
            opened({"dataset_dir": str(directory)})


def test_the_order_of_an_epoch_is_the_same_from_the_file(cache, monkeypatch):
    orders = {None: SampleOrder(), 64: SampleOrder(window=64)}
    plain = {window: stream(order) for window, order in orders.items()}
    assert not cache.exists()
    monkeypatch.setattr(shared_index, "LEAST_ORDER", 1)
    for window, order in orders.items():
        for _ in range(2):
            assert stream(order) == plain[window]
            assert order_files(cache), "the sampler has mapped one"
    sampler = GlobalBatchSampler(100, 10, 0, 1, 3)
    sampler.indices(0)
    assert len(order_files(cache)) == 1, "what no process uses is removed when another is stored"
    monkeypatch.setenv("XDG_CACHE_HOME", "~/relative")
    assert stream(orders[64]) == plain[64]


def test_a_balanced_order_is_the_same_from_the_file(cache, monkeypatch):
    """Two orders at once, of other labels and other groups: none takes the file of the other."""
    labels = np.random.default_rng(0).integers(0, 7, 100).astype(np.int32)
    cases = [(labels, GroupSize(4, 2)), (labels[::-1], GroupSize(4, 2)), (labels, GroupSize(2, 4)),
             (labels.astype(np.int64), GroupSize(4, 2))]  # fmt: skip
    plain = [BalancedOrder(*case) for case in cases]
    expected = [[order(seed, epoch).tolist() for seed in (3, 4) for epoch in (0, 1)] for order in plain]
    assert not cache.exists() and expected[0] == expected[3]
    monkeypatch.setattr(shared_index, "LEAST_ORDER", 1)
    for _ in range(2):
        shared = [BalancedOrder(*case) for case in cases]
        for number, (seed, epoch) in enumerate(((3, 0), (3, 1), (4, 0), (4, 1))):
            found = [order(seed, epoch) for order in shared]
            assert [one.tolist() for one in found] == [orders[number] for orders in expected]
        assert len(order_files(cache)) >= 5, "the images of two lists by identity, and three orders, which are mapped"
        kept = found[0]
        assert not kept.flags.writeable and not shared[0].images.flags.writeable
        assert shared[0].images.dtype == plain[0].images.dtype and kept.dtype == plain[0](3, 0).dtype
        del found, kept


def stream(order: SampleOrder) -> list[int]:
    """The samples of three epochs."""
    sampler = GlobalBatchSampler(500, 10, 0, 1, 3, order)
    return [index for step in range(150) for index in sampler.indices(step)[1].tolist()]


def order_files(cache: Path) -> list[str]:
    return [each.name for each in cache.iterdir() if each.name.startswith("order-")]


def test_machines_that_share_a_cache_have_an_index_each(tmp_path, cache, monkeypatch):
    """A name that was not used for a week is that of a container that is gone."""
    settings = {"dataset_dir": str(write_records(tmp_path / "data", insightface(PICTURES, LABELS)))}

    def files() -> list[str]:
        return sorted(each.name for each in cache.iterdir() if each.name.startswith("recordio-"))

    opened(settings)
    (first,) = files()
    for name, count in (("other", 2), ("third", 3)):
        monkeypatch.setattr("platform.node", lambda name=name: name)
        assert "made now" in opened(settings)[1][-1] and len(files()) == count
    gc.collect()  # the sources refer to themselves
    os.utime(cache / first, (1000, 1000))
    monkeypatch.setattr("platform.node", lambda: "fourth")
    opened(settings)
    assert len(files()) == 3 and first not in files()
