"""Runs of two ranks that begin and end on an S3 server."""

from __future__ import annotations

from pathlib import Path

import boto3
import pytest

from tests.dist import ranks
from tests.remote.remote_kit import s3_server, tree


@pytest.fixture
def variables(tmp_path, monkeypatch):
    """The environment of a run that reaches a bucket on this machine."""
    with s3_server() as address:
        found = {
            "AWS_ENDPOINT_URL": address, "AWS_ACCESS_KEY_ID": "AKIAEXAMPLE",
            "AWS_SECRET_ACCESS_KEY": "never-shown", "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_CONFIG_FILE": str(tmp_path / "none"), "NO_PROXY": "127.0.0.1",
        }  # fmt: skip
        for name, value in found.items():
            monkeypatch.setenv(name, value)
        boto3.client("s3").create_bucket(Bucket="bucket")
        yield found


def bucket():
    client = boto3.client("s3")
    names = [entry["Key"] for entry in client.list_objects_v2(Bucket="bucket").get("Contents", [])]
    return {name: client.get_object(Bucket="bucket", Key=name)["Body"].read() for name in names}


def test_a_run_that_lives_on_s3(tmp_path, variables):
    results = ranks.run("tests.dist.remote_cases:life", 2, tmp_path, (str(tmp_path), "s3://bucket/run"), variables)
    there = bucket()
    first, export = tmp_path / "first", Path(results[0])
    expected = {f"run/checkpoints/{name}": data for name, data in tree(first / "checkpoints").items()}
    expected.update({f"run/inference/{name}": data for name, data in tree(export).items()})
    assert there.pop("run/inference/upload.json") and there == expected
    (fetched,) = (tmp_path / "second" / "fetched").iterdir()
    assert tree(fetched) == tree(first / "checkpoints" / "step_00000003")
    assert "steps 3 to 4" in (tmp_path / "second" / "logs" / "rank_00000.log").read_text()
    logs = "".join(path.read_text() for path in tmp_path.glob("**/*.log"))
    assert "read back and compared" in logs and "never-shown" not in logs


def test_a_wrong_address_is_known_on_every_rank_before_training(tmp_path, variables):
    run_dir = tmp_path / "run"
    first, second = ranks.run("tests.dist.remote_cases:wrong_destination", 2, tmp_path, str(run_dir), variables)
    assert first == second
    assert "cannot write to s3://no-such-bucket/x: rank 0: " in first and "does not exist" in first
    assert not (run_dir / "checkpoints").exists()
