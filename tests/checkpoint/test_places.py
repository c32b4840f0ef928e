"""Checkpoints in several places: each has its part, all together are one, and any ranks go on from it."""

from __future__ import annotations

import errno
import json
import os
import shutil
from pathlib import Path

import pytest

from plsc.checkpoint import (
    OneRank,
    exchange,
    find_places,
    gathered,
    latest,
    link,
    merge,
    newest,
    newest_intact,
    open_checkpoint,
    read_manifest,
    read_replicated,
    read_rows,
    remove_old,
    remove_probes,
    reshard,
    resolve,
)
from plsc.checkpoint.exchange import Wanted, plan_rounds, wanted_by_a_save
from plsc.checkpoint.places import SHARED, group_ranks
from plsc.checkpoint.survey import look, survey
from plsc.errors import CheckpointError
from plsc.files import atomic
from plsc.parallel.environment import Environment
from plsc.parallel.file_service import FileServer, receive
from plsc.parallel.shards import class_range
from tests.checkpoint.checkpoint_kit import (
    Killed,
    class_arrays,
    gather_rows,
    on_ranks,
    replicated_arrays,
    same_arrays,
    save_as,
)
from tests.checkpoint.places_kit import disk, places_of, resume_in, save_in, values

CLASSES = 11
TWO = places_of((0, 1), (2, 3))


def trees(root) -> dict[str, list[str]]:
    """{disk: files of its newest checkpoint}, without the manifest's."""
    found = {}
    for one in sorted(root.glob("disk*")):
        path = max(p for p in (one / "run" / "checkpoints").iterdir() if p.name.startswith("step_"))
        found[one.name] = sorted(p.name for p in path.iterdir() if not p.name.startswith("manifest"))
    return found


def check_read(paths, salt, places, model_parallel=True):
    """Every rank finds in its own place what it needs, and that is what was saved."""
    for rank, path in enumerate(values(paths)):
        manifest, world_size = read_manifest(path), len(places.hosts)
        first, last = class_range(CLASSES, rank, world_size) if model_parallel else (0, CLASSES)
        found = gather_rows(read_rows(path, manifest, first, last), manifest.shard_tensors, last - first)
        same_arrays(found, {name: array[first:last] for name, array in class_arrays(CLASSES, salt).items()})
        same_arrays(read_replicated(path, manifest), replicated_arrays(salt))


# --- which ranks are a place ---


@pytest.mark.parametrize("seen, expected", [
    ([0], [(0,)]),
    ([0, 0, 0], [(0, 1, 2)]),
    ([0, 1, 2], [(0,), (1,), (2,)]),
    ([0, 0, 2, 2], [(0, 1), (2, 3)]),
    ([0, 1, 0, 1, 4], [(0, 2), (1, 3), (4,)]),  # ranks dealt out in turn
])  # fmt: skip
def test_ranks_that_see_one_another_are_a_place(seen, expected):
    found = group_ranks(seen)
    assert [place.ranks for place in found] == expected
    assert [place.lowest for place in found] == [ranks[0] for ranks in expected]


@pytest.mark.parametrize("seen", [[0, 0, 1], [1, 1]])
def test_a_directory_that_ranks_see_differently_is_refused(seen):
    with pytest.raises(CheckpointError, match="mount it alike everywhere"):
        group_ranks(seen)


def test_the_probe_finds_the_places_and_leaves_nothing(tmp_path):
    dirs = [tmp_path / "a", tmp_path / "b", tmp_path / "a", tmp_path / "b", tmp_path / "c"]
    endpoints = tuple(f"10.0.0.{rank}:70" for rank in range(5))

    def work(group):
        return find_places(str(dirs[group.rank]), group, Environment(group.rank, 5, endpoints=endpoints))

    for found in values(on_ranks(5, work)):
        assert [place.ranks for place in found.all] == [(0, 2), (1, 3), (4,)] and found.several
        assert [place.where.rpartition(":")[2] for place in found.all] == [str(tmp_path / name) for name in "abc"]
        assert found.hosts == tuple(f"10.0.0.{rank}" for rank in range(5))
    assert not [name for one in "abc" for name in os.listdir(tmp_path / one)]
    shared = values(on_ranks(3, lambda group: find_places(str(tmp_path / "a"), group, Environment())))
    assert shared == [SHARED] * 3 and not SHARED.several
    assert [SHARED.leads(rank) for rank in range(3)] == [True, False, False]


def test_what_a_killed_probe_left_goes_and_one_that_is_in_progress_stays(tmp_path):
    for name, age in ((".plsc_lock", 0), (".plsc_place_1_old", 4000), (".plsc_place_1_new", 100), ("mine", 9999)):
        (tmp_path / name).write_text("")
        os.utime(tmp_path / name, (1e9 - age, 1e9 - age))  # whatever this machine's clock says
    remove_probes(str(tmp_path))
    assert sorted(os.listdir(tmp_path)) == [".plsc_lock", ".plsc_place_1_new", "mine"]


def test_a_directory_that_cannot_be_written_is_said_on_every_rank(tmp_path):
    (tmp_path / "file").write_text("")

    def work(group):
        return find_places(str(tmp_path / ("file" if group.rank else "a")), group, Environment())

    own, other = on_ranks(2, work)[::-1]
    assert "model_save_dir=" in str(own) and "cannot be written" in str(own)
    assert str(other) == f"rank 1: {own}"
    assert os.listdir(tmp_path / "a") == []


# --- what goes where ---


@pytest.mark.parametrize("count", [2, 3, 5, 8])
@pytest.mark.parametrize("replicas, shards", [(0, None), (1, None), (0, 1)])
def test_every_file_gets_where_it_is_wanted_and_is_sent_by_who_has_it(count, replicas, shards):
    places = places_of(*((2 * i, 2 * i + 1) for i in range(count)), replicas=replicas)
    wanted = wanted_by_a_save(places, shards or 2 * count, 2 * count, True)
    have = {(file.name, place) for file in wanted for place in file.holders}
    rounds = plan_rounds(places, wanted)
    for turn in rounds:
        for each in turn:
            assert (each.name, places.index(each.source)) in have, each
        for each in turn:
            place = places.index(each.target)
            assert (each.name, place) not in have, "sent twice"
            have.add((each.name, place))
    assert have >= {(file.name, place) for file in wanted for place in file.targets}
    assert len(rounds) == (count - 1).bit_length()  # the replicated tensors: twice as many places after each
    copies = {file.name: len(file.holders) + len(file.targets) for file in wanted}
    assert copies.pop("replicated.safetensors") == copies.pop("class_names.json") == count
    assert set(copies.values()) == {count if shards else 1 + replicas}


def test_the_ranks_of_a_place_share_its_files():
    places = places_of((0, 1), (2, 3))
    (turn,) = plan_rounds(places, [Wanted(name, (0,), (1,)) for name in "abcd"])
    assert [(each.source, each.target) for each in turn] == [(0, 2), (1, 3), (0, 2), (1, 3)]


# --- saving ---


def test_all_places_together_are_the_checkpoint_of_one_disk(tmp_path):
    paths = values(save_in(tmp_path, 12, CLASSES, TWO, salt=5))
    one = save_as(tmp_path / "shared", 12, CLASSES, 4, salt=5, class_names=[f"n{i}" for i in range(CLASSES)])
    assert {Path(path, "manifest.json").read_bytes() for path in paths} == {Path(one, "manifest.json").read_bytes()}
    shards = [f"shard_0000{i}_of_00004.safetensors" for i in range(4)]
    both = ["class_names.json", "elsewhere.json", "replicated.safetensors"]
    assert trees(tmp_path) == {"disk0": [*both, *shards[:2]], "disk1": [*both, *shards[2:]]}
    for path in (paths[0], paths[2]):
        for name in os.listdir(path):
            if name != "elsewhere.json":
                assert Path(path, name).read_bytes() == Path(one, name).read_bytes(), name
    assert json.loads(Path(paths[0], "elsewhere.json").read_text()) == dict.fromkeys(shards[2:], "d1")
    check_read(resume_in(tmp_path, CLASSES, TWO), 5, TWO)
    shutil.copytree(paths[2], paths[0], dirs_exist_ok=True)  # what the messages advise
    open_checkpoint(paths[0], OneRank())


def test_rows_that_all_ranks_hold_alike_are_everywhere(tmp_path):
    values(save_in(tmp_path, 12, CLASSES, TWO, salt=5, shards=1))
    names = ["class_names.json", "replicated.safetensors", "shard_00000_of_00001.safetensors"]
    assert trees(tmp_path) == {"disk0": names, "disk1": names}
    for one in (0, 1):
        open_checkpoint(str(tmp_path / f"disk{one}" / "run"), OneRank())
    check_read(resume_in(tmp_path, CLASSES, TWO, model_parallel=False), 5, TWO, model_parallel=False)


def test_an_error_in_one_place_is_an_error_in_all_and_older_checkpoints_stay(tmp_path):
    values(save_in(tmp_path, 1, CLASSES, TWO, salt=1))
    blocked = tmp_path / "disk1" / "run" / "checkpoints" / "step_00000002"
    blocked.mkdir()
    (blocked / "mine").write_text("")
    found = save_in(tmp_path, 2, CLASSES, TWO, salt=2)
    assert all("is not a checkpoint of PLSC" in str(error) for error in found), found
    assert all("rank 2: " in str(error) for error in found)
    shutil.rmtree(blocked)
    assert all(path.endswith("step_00000001") for path in values(resume_in(tmp_path, CLASSES, TWO)))


def test_a_byte_that_arrives_wrong_is_found(tmp_path, monkeypatch):
    places = places_of((0,), (1,))
    values(save_in(tmp_path, 1, CLASSES, places, salt=1))

    def wrong(address, name, write):
        found = bytearray()
        receive(address, name, found.extend)
        found[-1] ^= 1
        write(found)

    monkeypatch.setattr(exchange, "receive", wrong)
    found = save_in(tmp_path, 2, CLASSES, places, salt=2)
    assert all("has another SHA-256 than the manifest says" in str(error) for error in found), found
    assert all(os.listdir(tmp_path / f"disk{one}/run/checkpoints") == ["step_00000001"] for one in (0, 1))


# --- going on ---


@pytest.mark.parametrize("places, disks, copied", [
    (TWO, (0, 1), 0),
    (TWO, (1, 0), 4),  # the launcher numbers the machines anew
    (places_of((0, 2), (1, 3)), (0, 1), 2),  # and deals the ranks out in turn
    (places_of((0,), (1,)), (0, 1), 0),  # half as many ranks: [0, 6) of shards [0, 3) [3, 6) ...
    (places_of((0,), (1, 2)), (0, 1), 1),  # 3 ranks: [0, 4) [4, 8) [8, 11)
    (places_of((0, 1, 2), (3,), (4,)), (0, 1, 2), None),  # one more machine, with an empty disk; 5 ranks have 3, 3, ...
])  # fmt: skip
def test_other_ranks_on_other_machines_find_what_they_need(tmp_path, places, disks, copied):
    values(save_in(tmp_path, 12, CLASSES, TWO, salt=5))
    before = sum(name.startswith("shard") for names in trees(tmp_path).values() for name in names)
    needs_rows = len(places.hosts) != 5  # 11 classes cannot be split over 5 ranks: such a run is refused later
    found = resume_in(tmp_path, CLASSES, places, disks)
    if needs_rows:
        check_read(found, 5, places)
    after = sum(name.startswith("shard") for names in trees(tmp_path).values() for name in names)
    assert copied is None or after - before == copied
    assert all(path.endswith("step_00000012") for path in values(found))


def test_a_machine_that_lost_its_disk_is_served_where_there_are_replicas(tmp_path):
    places = places_of((0,), (1,), (2,), replicas=1)
    values(save_in(tmp_path, 12, CLASSES, places, salt=5))
    assert trees(tmp_path)["disk0"] == [
        "class_names.json", "elsewhere.json", "replicated.safetensors", "shard_00000_of_00003.safetensors",
        "shard_00002_of_00003.safetensors",
    ]  # fmt: skip
    shutil.rmtree(tmp_path / "disk0")
    check_read(resume_in(tmp_path, CLASSES, places), 5, places)
    check_read(resume_in(tmp_path, CLASSES, places_of((0,), (1,)), disks=(2, 0)), 5, places_of((0,), (1,)))


def test_without_replicas_a_lost_disk_ends_the_run_and_says_what_is_missing(tmp_path, caplog):
    values(save_in(tmp_path, 12, CLASSES, TWO))
    shutil.rmtree(tmp_path / "disk1")
    found = resume_in(tmp_path, CLASSES, TWO)
    assert {type(error) for error in found} == {CheckpointError}
    assert "the run kept shard_00002_of_00004.safetensors, shard_00003_of_00004.safetensors in d1" in str(found[0])
    assert "nobody has shard_00002_of_00004.safetensors, shard_00003_of_00004.safetensors" in caplog.text
    assert "step_00000012" in os.listdir(tmp_path / "disk0" / "run" / "checkpoints")  # not touched
    assert resume_in(tmp_path / "new", CLASSES, TWO) == [None] * 4


def test_an_older_checkpoint_is_taken_where_the_newest_is_not_whole(tmp_path, caplog):
    for step in (1, 2):
        values(save_in(tmp_path, step, CLASSES, TWO, salt=step))
    shutil.rmtree(tmp_path / "disk1" / "run" / "checkpoints" / "step_00000002")
    check_read(resume_in(tmp_path, CLASSES, TWO), 1, TWO)
    assert "step 2 is not whole" in caplog.text
    assert sorted(os.listdir(tmp_path / "disk0" / "run" / "checkpoints")) == ["damaged_step_00000002", "step_00000001"]


def test_newer_means_more_steps_not_a_later_name(tmp_path):
    for step in (99_999_999, 100_000_000):
        values(save_in(tmp_path, step, CLASSES, TWO, salt=step % 2))
    assert all(path.endswith("step_100000000") for path in values(resume_in(tmp_path, CLASSES, TWO)))
    assert sorted(os.listdir(tmp_path / "disk0/run/checkpoints")) == ["step_100000000", "step_99999999"]


def flip(path):
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def test_a_damaged_copy_is_replaced_by_another_one(tmp_path, caplog):
    places = places_of((0, 1), (2, 3), replicas=1)
    for step in (1, 2):
        values(save_in(tmp_path, step, CLASSES, places, salt=step))
    stored = [tmp_path / f"disk{one}" / "run" / "checkpoints" / "step_00000002" for one in (0, 1)]
    flip(stored[0] / "shard_00001_of_00004.safetensors")
    flip(stored[1] / "replicated.safetensors")
    check_read(resume_in(tmp_path, CLASSES, places), 2, places)
    assert caplog.text.count("SHA-256 differs") == 2
    assert (stored[0] / "damaged_shard_00001_of_00004.safetensors").exists()
    flip(stored[0] / "shard_00003_of_00004.safetensors")
    flip(stored[1] / "shard_00003_of_00004.safetensors")
    check_read(resume_in(tmp_path, CLASSES, places), 1, places)
    assert "no place has an intact copy of shard_00003_of_00004.safetensors" in caplog.text
    assert all((one.parent / "damaged_step_00000002").is_dir() for one in stored)


def test_two_runs_of_one_name_are_refused(tmp_path):
    for one in (0, 1):
        save_as(tmp_path / f"disk{one}" / "run", 12, CLASSES, 1, salt=one)
    found = resume_in(tmp_path, CLASSES, TWO)
    assert all("of the same step and as whole: these are two runs" in str(error) for error in found), found


class KillAt:
    """The ``n``-th rename or creation of a directory of the ranks of one place kills them, before or after it."""

    def __init__(self, monkeypatch, run_dir, n, after):
        self.left, self.calls = n, 0
        for owner, name in ((os, "replace"), (os, "mkdir"), (os, "unlink"), (atomic, "sync_dir")):
            monkeypatch.setattr(owner, name, self.wrap(getattr(owner, name), run_dir, after))

    def wrap(self, real, run_dir, after):
        def call(path, *args, **kwargs):
            if str(path).startswith(run_dir):
                self.left, self.calls = self.left - 1, self.calls + 1
                if self.left == 0 and not after:
                    raise Killed
            result = real(path, *args, **kwargs)
            if str(path).startswith(run_dir) and self.left == 0 and after:
                raise Killed
            return result

        return call


@pytest.mark.parametrize("killed, again", [(0, True), (1, False)], ids=["again", "next"])
def test_a_kill_at_every_stage_of_a_save_leaves_one_whole_checkpoint_everywhere(tmp_path, killed, again):
    """The same step everywhere: the new one only where all places had finished theirs."""
    places, outcomes, n, calls = places_of((0,), (1,)), [], 0, 1
    while n < calls:
        n += 1
        root, step = tmp_path / str(n), 1 if again else 2
        values(save_in(root, 1, CLASSES, places, salt=10))
        with pytest.MonkeyPatch.context() as patch:
            kill = KillAt(patch, disk(root, places, killed), n, n % 2 == 0)
            save_in(root, step, CLASSES, places, salt=20)
        if n == 1:
            with pytest.MonkeyPatch.context() as patch:
                save_in(tmp_path / "count", 1, CLASSES, places)
                count = KillAt(patch, disk(tmp_path / "count", places, killed), 0, False)
                values(save_in(tmp_path / "count", step, CLASSES, places, salt=20))
            calls = count.calls
        found = values(resume_in(root, CLASSES, places))
        salt = 20 if read_replicated(found[0], read_manifest(found[0]))["count"][0] == 2**40 + 20 else 10
        check_read(found, salt, places)
        outcomes.append(salt)
        values(save_in(root, 3, CLASSES, places, salt=30))
        check_read(resume_in(root, CLASSES, places), 30, places)
        assert kill.calls >= min(n, calls)
    assert set(outcomes) == {10, 20}


def test_a_place_that_had_not_renamed_is_made_good(tmp_path):
    """Killed between the phases: place 0 has renamed, place 1 has the finished directory."""
    places = places_of((0,), (1,))
    values(save_in(tmp_path, 1, CLASSES, places, salt=10))
    values(save_in(tmp_path, 2, CLASSES, places, salt=20))
    root = tmp_path / "disk1" / "run" / "checkpoints"
    (root / "step_00000002").rename(root / ".tmp_step_00000002")
    check_read(resume_in(tmp_path, CLASSES, places), 20, places)
    (root / "step_00000002").rename(root / ".tmp_step_00000002")
    (root / ".tmp_step_00000002" / "plsc_save_in_progress").write_text("")  # but this one had not finished
    check_read(resume_in(tmp_path, CLASSES, places), 10, places)


@pytest.mark.parametrize("shards", [1, None])
@pytest.mark.parametrize("slow", [0, 1])
@pytest.mark.parametrize("cleaned", [False, True])
def test_a_kill_between_the_phases_of_a_save_that_replaces_one_of_the_same_step(tmp_path, shards, slow, cleaned):
    """As the best checkpoint does. One place has put its own in place, the other one has both: the new one counts."""
    places = places_of((0,), (1,))
    old = values(save_in(tmp_path / "old", 1, CLASSES, places, salt=10, shards=shards))
    values(save_in(tmp_path, 1, CLASSES, places, salt=20, shards=shards))
    for one in (0, 1):
        root = tmp_path / f"disk{one}" / "run" / "checkpoints"
        if one == slow:
            (root / "step_00000001").rename(root / ".tmp_step_00000001")
        if one == slow or not cleaned:
            name = "step_00000001" if one == slow else ".replaced_step_00000001"
            shutil.copytree(old[one], root / name)
    check_read(resume_in(tmp_path, CLASSES, places, model_parallel=not shards), 20, places, model_parallel=not shards)
    (left,) = (tmp_path / f"disk{slow}" / "run" / "checkpoints").glob("damaged_*")
    same_arrays(read_replicated(str(left), read_manifest(str(left))), replicated_arrays(10))


@pytest.mark.parametrize("step", [1, 2])
def test_a_place_that_cannot_rename_loses_nothing(tmp_path, monkeypatch, step):
    """The disk is full in the second phase: what all have finished is put in place at the next start."""
    places = places_of((0,), (1,))
    values(save_in(tmp_path, 1, CLASSES, places, salt=10))
    rename = atomic.rename

    def full(path, target):
        if target == disk(tmp_path, places, 1) + f"/checkpoints/step_{step:08d}":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), target)
        rename(path, target)

    monkeypatch.setattr(atomic, "rename", full)
    found = save_in(tmp_path, step, CLASSES, places, salt=20)
    assert all("rank 1: No space left on device" in str(error) for error in found), found
    monkeypatch.undo()
    check_read(resume_in(tmp_path, CLASSES, places), 20, places)


def test_a_link_that_one_place_cannot_rename_loses_nothing(tmp_path, monkeypatch):
    paths = values(save_in(tmp_path, 1, CLASSES, TWO, salt=10))
    rename = atomic.rename

    def full(path, target):
        if "disk1" in target:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), target)
        rename(path, target)

    monkeypatch.setattr(atomic, "rename", full)

    def work(group):
        return link(paths[group.rank], disk(tmp_path, TWO, group.rank), {"best": 1}, group, TWO)

    found = on_ranks(len(TWO.hosts), work)
    assert all("No space left on device" in str(error) for error in found), found
    monkeypatch.undo()
    paths = resume_in(tmp_path, CLASSES, TWO)
    check_read(paths, 10, TWO)
    assert {str(read_manifest(path).extra) for path in paths} == {"{'best': 1}"}


@pytest.mark.parametrize("said", [1.0, 0.5], ids=["ends early", "says it is shorter"])
def test_a_transfer_that_ends_early_is_no_checkpoint(tmp_path, monkeypatch, said):
    places = places_of((0,), (1,))
    values(save_in(tmp_path, 1, CLASSES, places, salt=1))

    def half(server, client, path):
        data = Path(path).read_bytes()
        client.sendall(int(len(data) * said).to_bytes(8, "big") + data[: len(data) // 2])

    monkeypatch.setattr(FileServer, "_send", half)
    found = save_in(tmp_path, 2, CLASSES, places, salt=2)
    reason = "it ended after" if said == 1.0 else "has another SHA-256 than the manifest says"
    assert all(reason in str(error) and "rank 1: " in str(error) for error in found), found
    monkeypatch.undo()
    assert all(os.listdir(tmp_path / f"disk{one}/run/checkpoints") == ["step_00000001"] for one in (0, 1))
    check_read(resume_in(tmp_path, CLASSES, places), 1, places)


def test_a_disk_that_is_full_when_a_copy_arrives_is_named_and_nothing_is_left(tmp_path, monkeypatch):
    places = places_of((0,), (1,))
    values(save_in(tmp_path, 1, CLASSES, places, salt=1))

    def full(address, name, write):
        def write_nothing(data):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        return receive(address, name, write_nothing)

    monkeypatch.setattr(exchange, "receive", full)
    found = save_in(tmp_path, 2, CLASSES, places, salt=2)
    path = disk(tmp_path, places, 1) + "/checkpoints/.tmp_step_00000002/replicated.safetensors"
    assert all(str(error).endswith(f"rank 1: No space left on device: {path}") for error in found), found
    assert all(os.listdir(tmp_path / f"disk{one}/run/checkpoints") == ["step_00000001"] for one in (0, 1))


def test_what_cannot_be_read_for_another_reason_is_not_called_damaged(tmp_path, monkeypatch):
    values(save_in(tmp_path, 1, CLASSES, TWO, salt=1))

    def refused(path, manifest, names):
        raise CheckpointError(f"{path}: Permission denied")

    monkeypatch.setattr(gathered, "verify_files", refused)
    assert all("Permission denied" in str(error) for error in resume_in(tmp_path, CLASSES, TWO))
    monkeypatch.undo()
    check_read(resume_in(tmp_path, CLASSES, TWO), 1, TWO)


def test_a_run_whose_manifests_cannot_be_read_does_not_start_over(tmp_path):
    for path in values(save_in(tmp_path, 1, CLASSES, TWO)):
        Path(path, "manifest.json").write_bytes(b"\0" * 100)
    found = resume_in(tmp_path, CLASSES, TWO)
    assert all("none of its checkpoint(s) is whole in all places together" in str(error) for error in found), found


def test_a_finished_directory_does_not_win_over_one_that_is_in_place():
    def held(name, manifest):
        return {"step": 2, "name": name, "manifest": manifest, "files": ["replicated.safetensors"], "num_shards": 0,
                "named": False}  # fmt: skip

    old, new = held("step_00000002", "a"), held(".tmp_step_00000002", "b")
    answers = [{"held": [old, new], "problems": []}, {"held": [old, new], "problems": []}]
    assert survey(answers, TWO.all).newest.manifest == "a"
    answers[1]["held"] = [old, held(".tmp_step_00000002", "a")]
    assert survey(answers, TWO.all).newest.names == {0: "step_00000002", 1: "step_00000002"}
    answers[1]["held"] = [held("step_00000002", "b")]  # has put it in place, and deleted the old one
    for both in (answers, answers[::-1]):
        assert survey(both, TWO.all).newest.manifest == "b"
    answers[1]["held"] += [held(".replaced_step_00000002", "a")]  # not deleted yet
    for both in (answers, answers[::-1]):
        assert survey(both, TWO.all).newest.manifest == "b"
    answers[0]["held"] = [old]
    answers[1]["held"] = [held("step_00000002", "b")]
    with pytest.raises(CheckpointError, match="is another checkpoint than"):
        survey(answers, TWO.all)


# --- the rest of a run ---


def test_the_best_is_kept_and_the_old_ones_go_in_every_place(tmp_path):
    for step in (1, 2, 3):
        paths = values(save_in(tmp_path, step, CLASSES, TWO, salt=step))

    def work(group):
        run_dir = disk(tmp_path, TWO, group.rank)
        copy = link(paths[group.rank], os.path.join(run_dir, "best"), {"best": 3}, group, TWO)
        remove_old(run_dir, 2, group, [], TWO)
        return copy, newest(os.path.join(run_dir, "best"), group, TWO)

    for copy, found in values(on_ranks(len(TWO.hosts), work)):
        assert copy == found and read_manifest(found).extra == {"best": 3}
    for one in (0, 1):
        assert sorted(os.listdir(tmp_path / f"disk{one}" / "run" / "checkpoints")) == ["step_00000002", "step_00000003"]
        (best,) = (tmp_path / f"disk{one}" / "run" / "best" / "checkpoints").iterdir()
        assert sum(name.startswith("shard") for name in os.listdir(best)) == 2
    assert look(disk(tmp_path, TWO, 0))["problems"] == []


@pytest.mark.parametrize("use", [
    lambda run, path: open_checkpoint(path, OneRank()), lambda run, path: open_checkpoint(run, OneRank()),
    lambda run, path: resolve(run), lambda run, path: latest(run), lambda run, path: newest_intact(run, OneRank()),
    lambda run, path: reshard(path, run + "2", 2), lambda run, path: merge(path, run + ".safetensors"),
])  # fmt: skip
def test_other_users_of_a_part_are_told_where_the_rest_is(tmp_path, use):
    """An older checkpoint that is complete here is not taken in its place."""
    run = str(tmp_path / "disk0" / "run")
    save_as(run, 1, CLASSES, 1)
    path = values(save_in(tmp_path, 12, CLASSES, TWO))[0]
    with pytest.raises(CheckpointError, match=r"shard_00002_of_00004.safetensors: No such file or directory; the run "
                       r"kept this and 1 more on the disks of other machines, this one in d1; go on"):  # fmt: skip
        use(run, path)
    os.rename(path, path + ".away")
    assert latest(run).endswith("step_00000001")


