"""plsc doctor: the checks of a machine, each of which can fail, and the command."""

from __future__ import annotations

import json
import re
import sys

import pytest

from plsc.cli import doctor as command
from plsc.cli.main import main
from plsc.engine.doctor import card as of_card
from plsc.engine.doctor import machine, ranks
from plsc.engine.doctor.card import Card, card
from plsc.engine.doctor.findings import FAIL, NOT_HERE, PASS, Check, Finding


@pytest.mark.parametrize("found, status, said", [
    (Card("3.3.1", "", ""), NOT_HERE, "runs use CPUs"),
    (Card("3.3.1", "535.1", ""), FAIL, "NVIDIA driver 535.1: runs use CPUs"),
    (Card("2.6.2", "", "11.8"), FAIL, "finds no GPU .NVIDIA driver: none"),
    (Card("2.6.2", "535.1", "11.8", ((8, 0), (8, 0))), PASS, "2 GPU.s. of compute capability 8.0, 8.0"),
    (Card("2.6.2", "535.1", "11.8", ((8, 9),)), PASS, "capability 8.9"),  # runs the kernels for 8.6
    (Card("2.6.2", "535.1", "11.8", ((8, 0), (9, 0))), FAIL, "capability 8.0, 9.0"),
    (Card("2.6.2", "535.1", "11.8", ((6, 0),)), FAIL, "capability 6.0"),
    (Card("3.3.1", "535.1", "12.6", ((12, 0),)), PASS, "capability 12.0"),
])  # fmt: skip
def test_wheel_and_card(found, status, said):
    got = card(found)
    assert got[0] == status and re.search(said, got[1]) and bool(got[2]) == (status == FAIL)


def test_the_driver_is_read(tmp_path):
    file = tmp_path / "version"
    assert of_card._driver(str(file)) == ""
    file.write_text("NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.154.05  Thu Dec 28 15:37:48 UTC 2023\n")
    assert of_card._driver(str(file)) == "535.154.05"
    file.write_text("another format")
    assert of_card._driver(str(file)) == "of unknown version"


@pytest.mark.parametrize("got, status, advice", [
    (machine.versions((3, 11), "3.3.1"), PASS, ""),
    (machine.versions((3, 8), "3.3.1"), FAIL, "use Python 3.9 to 3.12"),
    (machine.versions((3, 12), "3.0.0"), FAIL, "tested with Paddle 2.6.2 and 3.3.1 only"),
    (machine.decoding(5000.0), PASS, ""),
    (machine.decoding(10.0), FAIL, "simplejpeg"),
    (machine.shared_memory(64 << 20, 1), PASS, ""),
    (machine.shared_memory(64 << 20, 8), FAIL, "--shm-size=2048m"),
    (machine.open_files(1024), FAIL, "ulimit -n"),
    (machine.open_files(-1), PASS, ""),
    (machine.disk(10**9, "output"), FAIL, "model_save_dir"),
    (machine.disk(10**11, "output"), PASS, ""),
])  # fmt: skip
def test_limits(got, status, advice):
    assert got[0] == status and advice in got[2] and bool(got[2]) == (status == FAIL)


def test_a_machine_is_measured(monkeypatch, tmp_path):
    assert machine.free_bytes(str(tmp_path / "none")) == 0 < machine.free_bytes(str(tmp_path))
    for new in (tmp_path, tmp_path / "output" / "run"):
        assert machine.existing(str(new)) == str(tmp_path)
    disk = machine.machine_checks(str(tmp_path / "output" / "run"), 1)[-1].find()
    assert disk.name == "disk" and not disk.seen.startswith("0.0 GB")
    assert machine.decoded_per_second(0.05) > 0
    other = lambda data, is_good: machine.np.full((112, 112, 3), 200, machine.np.uint8)  # noqa: E731
    monkeypatch.setattr(machine, "open_jpeg_decoder", lambda setting: other)
    assert machine.decoded_per_second(0.05) == 0.0  # a decoder of other pixels is as bad as none


def test_a_compiler_that_is_not_there(monkeypatch):
    monkeypatch.setenv("CXX", "no-such-compiler")
    status, seen, advice = machine.compiler()
    assert status == FAIL and "no-such-compiler" in seen and "g++" in advice


def test_a_check_that_raises_has_failed():
    found = Check("lib", lambda: (_ for _ in ()).throw(OSError("libnccl.so: cannot open\nshared object"))).find()
    assert (found.status, found.seen) == (FAIL, "OSError: libnccl.so: cannot open shared object")


def test_ranks_that_end_too_early_are_told(tmp_path):
    file = tmp_path / "findings"
    file.write_text(json.dumps({"name": "ring", "status": PASS, "seen": "right", "advice": ""}) + "\n")
    first, second = ranks.read_findings(str(file), "rank 1 was killed")
    assert first.status == PASS and second.status == FAIL and second.name == "products"
    assert "did not end: rank 1 was killed; not run: host to device, kernels paddle" in second.seen


def test_ranks_that_never_end_are_ended(monkeypatch, capsys):
    monkeypatch.setattr(command, "program", lambda: [sys.executable, "-c", "import time; time.sleep(60)"])
    monkeypatch.setattr(machine, "machine_checks", lambda directory, ranks: [])
    assert main(["doctor", "--seconds", "3", "--json"]) == 1
    (found,) = json.loads(capsys.readouterr().out)["findings"]
    assert found["name"] == "ring" and "no answer within 3 s" in found["seen"]
    assert found["advice"].startswith("on a slow or busy machine, --seconds above 3; NCCL_DEBUG")


def test_what_is_known_is_printed_before_the_ranks_begin(monkeypatch, capsys):
    def checks_of_ranks(options, number):
        assert "pass     disk           much" in capsys.readouterr().out
        return [Finding("ring", FAIL, "wrong", "change it")]

    monkeypatch.setattr(machine, "machine_checks", lambda *_: [Check("disk", lambda: (PASS, "much", ""))])
    monkeypatch.setattr(command, "_of_ranks", checks_of_ranks)
    assert main(["doctor"]) == 1
    assert capsys.readouterr().out.startswith("FAIL     ring           wrong\n")


@pytest.mark.parametrize("words, said", [
    (["--ranks", "0"], "--ranks 0: must be at least 1"), (["--devices", "a"], "--devices a: must be numbers of GPUs"),
    (["--ranks", "3", "--devices", "0,1"], "as many as --devices"), (["--seconds", "0"], "must be above 0"),
])  # fmt: skip
def test_wrong_options(words, said, capsys):
    with pytest.raises(SystemExit):
        main(["doctor", *words])
    assert said in capsys.readouterr().err
