"""Checkpoints and exports to and from an S3 server on this machine."""

from __future__ import annotations

import json
import os
import socket
import time

import boto3
import numpy as np
import pytest

from plsc import checkpoint
from plsc.errors import CheckpointError
from plsc.remote import (
    check_destination,
    fetch_checkpoint,
    fetch_initial_checkpoint,
    publish,
    publish_checkpoints,
    transfer,
)
from plsc.remote.fetch import PART
from tests.checkpoint.checkpoint_kit import class_arrays, gather_rows, replicated_arrays, same_arrays, save_as
from tests.remote.remote_kit import FakeRun, on_runs, raise_first, s3_server, tree

KEY, SECRET = "AKIAEXAMPLE", "a-secret-that-is-never-shown"


@pytest.fixture(scope="module")
def server():
    with s3_server() as address:
        yield address


@pytest.fixture
def s3(server, monkeypatch, tmp_path):
    """An empty bucket, seen through another client than PLSC's."""
    variables = {
        "AWS_ENDPOINT_URL": server, "AWS_ACCESS_KEY_ID": KEY, "AWS_SECRET_ACCESS_KEY": SECRET,
        "AWS_DEFAULT_REGION": "us-east-1", "AWS_CONFIG_FILE": str(tmp_path / "none"), "NO_PROXY": "127.0.0.1",
    }  # fmt: skip
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    client = boto3.client("s3")
    client.create_bucket(Bucket="bucket")
    yield Bucket(client)
    Bucket(client).delete(*Bucket(client).names())


class Bucket:
    def __init__(self, client):
        self.client = client

    def names(self):
        return [entry["Key"] for entry in self.client.list_objects_v2(Bucket="bucket").get("Contents", [])]

    def tree(self, prefix):
        names = [name for name in self.names() if name.startswith(prefix)]
        return {name[len(prefix) :]: self.read(name) for name in names}

    def read(self, name):
        return self.client.get_object(Bucket="bucket", Key=name)["Body"].read()

    def write(self, name, data):
        self.client.put_object(Bucket="bucket", Key=name, Body=data)

    def delete(self, *names):
        for name in names:
            self.client.delete_object(Bucket="bucket", Key=name)


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch):
    monkeypatch.setattr(transfer, "RETRY_DELAYS", (0.0, 0.0))


SAVE = {"remote": {"save_url": "s3://bucket/runs/one"}}


@pytest.mark.parametrize("world_size", [1, 3])
def test_there_and_back(s3, tmp_path, world_size):
    local = [save_as(tmp_path / "run", step, 11, 3) for step in (4, 8)]
    raise_first(on_runs([tmp_path / "run"] * world_size, SAVE, publish_checkpoints))
    for path in local:
        assert s3.tree(f"runs/one/checkpoints/{os.path.basename(path)}/") == tree(path)
    assert len(s3.names()) == sum(len(tree(path)) for path in local)

    start = {"checkpoint_dir": "s3://bucket/runs/one"}
    runs = on_runs([tmp_path / "other"] * world_size, start, lambda run: fetch_initial_checkpoint(run, None))
    copies = set(raise_first(runs))
    assert len(copies) == 1
    copy = copies.pop()
    assert tree(copy) == tree(local[1])
    path, manifest = checkpoint.open_checkpoint(copy, checkpoint.OneRank(), checkpoint.Expected(num_classes=11))
    same_arrays(checkpoint.read_replicated(path, manifest), replicated_arrays())
    same_arrays(gather_rows(checkpoint.read_rows(path, manifest, 0, 11), manifest.shard_tensors, 11), class_arrays(11))
    assert not [name for name in os.listdir(os.path.dirname(copy)) if PART in name]


def test_a_checkpoint_by_its_own_address_and_once_more(s3, tmp_path):
    local = save_as(tmp_path / "run", 4, 7, 2)
    publish(FakeRun(tmp_path / "run", SAVE), local)
    run = FakeRun(tmp_path / "other")
    copy = fetch_checkpoint(run, "s3://bucket/runs/one/checkpoints/step_00000004/")
    assert tree(copy) == tree(local) and len(run.log.lines) == 1
    before = {name: os.stat(os.path.join(copy, name)).st_mtime_ns for name in tree(copy)}
    again = FakeRun(tmp_path / "other")
    assert fetch_checkpoint(again, "s3://bucket/runs/one") == copy and again.log.lines == []
    assert {name: os.stat(os.path.join(copy, name)).st_mtime_ns for name in tree(copy)} == before


def test_what_is_there_is_not_copied_again_and_another_checkpoint_replaces_it(s3, tmp_path):
    local = save_as(tmp_path / "run", 4, 7, 2)
    publish(FakeRun(tmp_path / "run", SAVE), local)
    dates = {entry["Key"]: entry["LastModified"] for entry in s3.client.list_objects_v2(Bucket="bucket")["Contents"]}
    time.sleep(1.1)  # moto's dates have whole seconds
    run = FakeRun(tmp_path / "run", SAVE)
    publish(run, local)
    assert run.log.lines == ["s3://bucket/runs/one/checkpoints/step_00000004 is already there"]
    again = {entry["Key"]: entry["LastModified"] for entry in s3.client.list_objects_v2(Bucket="bucket")["Contents"]}
    assert again == dates
    other = save_as(tmp_path / "run", 4, 7, 2, salt=5)
    publish(FakeRun(tmp_path / "run", SAVE), other)
    assert s3.tree("runs/one/checkpoints/step_00000004/") == tree(other)


def test_an_export_is_complete_with_its_list(s3, tmp_path):
    export = tmp_path / "run" / "inference"
    (export / "deep").mkdir(parents=True)
    (export / "backbone.pdmodel").write_bytes(b"net")
    (export / "deep" / "facts.json").write_bytes(b"{}")
    (export / "unfinished.tmp").write_bytes(b"x")
    (export / ".hidden").write_bytes(b"x")
    publish(FakeRun(tmp_path / "run", SAVE), str(export))
    found = s3.tree("runs/one/inference/")
    listed = json.loads(found.pop("upload.json"))
    assert found == {"backbone.pdmodel": b"net", "deep/facts.json": b"{}"}
    assert {name: entry["bytes"] for name, entry in listed["files"].items()} == {key: len(found[key]) for key in found}


def test_the_destination_is_tried_before_training(s3, tmp_path):
    check_destination(FakeRun(tmp_path, SAVE))
    assert s3.names() == []
    check_destination(FakeRun(tmp_path))
    with pytest.raises(CheckpointError, match="cannot write to s3://no-such-bucket/x: .*does not exist") as raised:
        check_destination(FakeRun(tmp_path, {"remote": {"save_url": "s3://no-such-bucket/x"}}))
    assert SECRET not in str(raised.value)


def test_a_server_that_is_not_there(s3, tmp_path, monkeypatch, caplog):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{probe.getsockname()[1]}")
        monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
        for work in (check_destination, lambda run: fetch_checkpoint(run, "s3://bucket/runs/one")):
            with pytest.raises(CheckpointError, match=r"\(tried 3 times\)") as raised:
                work(FakeRun(tmp_path, SAVE))
            assert "\n" not in str(raised.value) and SECRET not in str(raised.value) + caplog.text


def test_a_large_file_in_several_parts(s3, tmp_path):
    # s3fs sends more than 50 MiB in parts; the whole must come back in order
    data = np.random.Generator(np.random.Philox(3)).bytes(60 << 20)
    directory = tmp_path / "run" / "inference"
    directory.mkdir(parents=True)
    (directory / "net").write_bytes(data)
    publish(FakeRun(tmp_path / "run", SAVE), str(directory))
    assert s3.read("runs/one/inference/net") == data
