"""What the launcher's variables may say, and what a directory of checkpoints that cannot be read is not taken for."""

from __future__ import annotations

import os

import pytest

from plsc.checkpoint import layout
from plsc.checkpoint.find import latest
from plsc.errors import CheckpointError, LaunchError
from plsc.parallel.environment import Environment


def launched(*endpoints: str, **changes: str) -> dict[str, str]:
    return {
        "PADDLE_TRAINER_ID": "0", "PADDLE_TRAINERS_NUM": str(len(endpoints)), "PADDLE_CURRENT_ENDPOINT": endpoints[0],
        "PADDLE_TRAINER_ENDPOINTS": ",".join(endpoints), **changes,
    }  # fmt: skip


@pytest.mark.parametrize("good", ["127.0.0.1:1", "node-7.cluster_a:65535", "[fe80::1]:6170"])
def test_endpoints(good):
    assert Environment.from_launch("cpu", launched(good, "10.0.0.2:70")).endpoints == (good, "10.0.0.2:70")


@pytest.mark.parametrize("junk", [
    "junk", "127.0.0.1:99999", "127.0.0.1:0", "127.0.0.1:-1", "127.0.0.1:x", ":80", "host:", "a b:80", "host:80 ", "",
    "http://host:80", "host:" + "9" * 5000, "x" * 5000, "host:\u0663\u0663", "::1:80",
])  # fmt: skip
@pytest.mark.parametrize("rank", [0, 1])
def test_an_endpoint_that_is_none_is_named(junk, rank):
    with pytest.raises(LaunchError, match="PADDLE_TRAINER_ENDPOINTS: .* is not host:port") as caught:
        Environment.from_launch("cpu", launched("127.0.0.1:70", junk, PADDLE_TRAINER_ID=str(rank)))
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 400


@pytest.mark.parametrize("changes", [
    {"PADDLE_TRAINERS_NUM": "9" * 5000}, {"PADDLE_TRAINER_ID": "9" * 4000}, {"FLAGS_selected_gpus": "9" * 5000},
    {"PADDLE_TRAINER_ID": "x" * 5000},
])  # fmt: skip
def test_numbers_of_thousands_of_digits(changes):
    with pytest.raises(LaunchError, match="PADDLE_|FLAGS_") as caught:
        Environment.from_launch("cpu", launched("a:1", "b:2", **changes))
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize("look", [latest, layout.step_dirs, layout.replaced_dirs])
def test_checkpoints_that_cannot_be_read_are_not_taken_for_none(tmp_path, monkeypatch, look):
    """A run with resume: auto would begin anew over them. Tests run as root, whom no rights stop: the call fails."""
    for name in ("step_00000010", ".replaced_step_00000010"):
        (tmp_path / "checkpoints" / name).mkdir(parents=True)
    real = {"listdir": os.listdir, "stat": os.stat}
    for name in real:

        def refuse(path, *rest, name=name, **options):
            if "checkpoints" in os.fspath(path):
                raise PermissionError(13, "Permission denied", path)
            return real[name](path, *rest, **options)

        monkeypatch.setattr(os, name, refuse)
        with pytest.raises(CheckpointError, match="checkpoints.*: cannot be read: Permission denied; make it readable"):
            look(str(tmp_path))
        monkeypatch.undo()
    assert look(str(tmp_path / "nowhere")) in (None, [])


def test_no_directory_and_no_step(tmp_path):
    (tmp_path / "checkpoints").write_text("")
    assert layout.step_dirs(str(tmp_path)) == [] and layout.aside_dirs(str(tmp_path / "checkpoints")) == []
    (tmp_path / "checkpoints").unlink()
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "step_00000001").symlink_to("nowhere")
    (tmp_path / "checkpoints" / ("step_" + "9" * 200)).mkdir()
    assert layout.step_dirs(str(tmp_path)) == []
