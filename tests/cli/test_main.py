"""`plsc` and `python -m plsc`: help, wrong options and the version at once, without Paddle and without NumPy."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from plsc import __version__
from plsc.cli import packaged_configs
from plsc.cli.main import COMMANDS, main, module_of, parser_of
from plsc.errors import ConfigError
from tests import tool_kit

ROOT = Path(__file__).resolve().parents[2]
REFUSED = """
import sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("paddle", "numpy", "PIL"):
            raise SystemExit(f"{name} was imported")
sys.meta_path.insert(0, Refuse())
import contextlib, io
from plsc.cli.main import COMMANDS, main
ways = [[name, way] for name in COMMANDS for way in ("--help", "--no")]
for words in [["--help"], ["--version"], ["trian"], [], *ways]:
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        try:
            main(words)
        except SystemExit as end:
            code = end.code
    wanted = 0 if words and words[-1] in ("--help", "--version") else 2
    assert code == wanted and said.getvalue().count("\\n") > 0, (words, code, said.getvalue())
print("all", len(COMMANDS))
"""


def test_help_and_wrong_options_import_neither_paddle_nor_numpy():
    done = subprocess.run([sys.executable, "-c", REFUSED], cwd=ROOT, capture_output=True, text=True, timeout=100)
    assert done.stdout == f"all {len(COMMANDS)}\n" and len(COMMANDS) == 21, done.stdout + done.stderr


def test_every_command_says_what_it_is_for():
    for name, (_, summary) in COMMANDS.items():
        command = module_of(name)
        assert command.__doc__ and f"plsc {name} " in command.__doc__, name
        said = parser_of(name, command).format_help()
        assert said.startswith(f"usage: plsc {name} ") and summary and not summary.endswith(".")
        assert all(word in said.split() for word in command.__doc__.split())


@pytest.mark.parametrize("words, said", [
    (["trian"], "'trian' is not a command; did you mean train?"),
    (["x"], "'x' is not a command; choose from train, verify"),
    ([], "give a command: train, verify"),
    (["plan", "--rank", "2"], "unrecognized arguments: --rank"),  # no abbreviations: --rank may mean something later
    (["verify", "--checkpoint", "x"], "give -c FILE, or both --checkpoint and --output"),
    (["identify", "--probes", "x"], "give --gallery, --distractors or both"),
    (["reshard", "x", "--ranks", "2"], "--ranks and --to go together"),
    (["import", "x", "--from", "2.2", "--to", "y", "--samples", "-1"], "--samples must be at least 0"),
    (["list", "losses_"], "'losses_' is not a kind; choose from"),
    (["train", "--nnodes", "2"], "--nnodes needs --ranks or --devices"),
    (["train", "--ranks", "0"], "--ranks 0: must be at least 1"),
    (["train", "--ranks", "2", "--nnodes", "2"], "--nnodes needs --master HOST:PORT"),
    (["train", "--ranks", "3", "--devices", "0,1"], "--ranks 3 and --devices 0,1 contradict each other"),
    (["train", "--devices", "0,x"], "--devices 0,x: must be numbers of GPUs"),
])  # fmt: skip
def test_wrong_options_end_with_2_and_say_what_is_allowed(words, said, capsys):
    with pytest.raises(SystemExit) as end:
        main(words)
    assert end.value.code == 2 and said in capsys.readouterr().err


def test_the_module_and_the_version():
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-m", "plsc", "--version"], env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, f"plsc {__version__}\n")


def test_an_error_is_one_line_and_status_1():
    done = tool_kit.plsc("train", "-o", "lr=-1")
    assert done.returncode == 1 and done.stderr.count("\n") == 1 and "lr=-1" in done.stderr


def test_nobody_reads():
    """`plsc --help | true`: no trace and no status 120."""
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-m", "plsc", "list", "models"]
    try:
        done = subprocess.run(command, cwd=ROOT, stdout=writer, stderr=subprocess.PIPE, text=True, timeout=100)
    finally:
        os.close(writer)
    assert done.returncode == 0 and done.stderr == "", done.stderr


def test_configs_are_found_by_name(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert packaged_configs.names() == sorted(path.stem for path in (ROOT / "configs").glob("*.yaml"))
    for text in ("ms1mv3_r50", "ms1mv3_r50.yaml"):
        assert packaged_configs.find_config(text) == str(ROOT / "configs" / "ms1mv3_r50.yaml")
    assert packaged_configs.find_config("ms1mv3_r50_pfc0.1") == str(ROOT / "configs" / "ms1mv3_r50_pfc0.1.yaml")
    assert packaged_configs.find_config("here/ms1mv3_r50.yaml") == "here/ms1mv3_r50.yaml"  # for the reader to refuse
    (tmp_path / "quickstart").write_text("lr: 1\n")
    assert packaged_configs.find_config("quickstart") == "quickstart"  # the user's own file comes first
    with pytest.raises(ConfigError, match="-c ms1mv3_r5: there is no .*; did you mean ms1mv3_r50.* casia_r50, ms1mv3"):
        packaged_configs.find_config("ms1mv3_r5")


def test_installed_configs_are_beside_the_modules(monkeypatch, tmp_path):
    """As in a wheel; a folder named configs beside the package counts in a checkout only."""
    package = tmp_path / "site-packages" / "plsc"
    (package / "cli").mkdir(parents=True)
    (package.parent / "configs").mkdir()
    (package.parent / "configs" / "other.yaml").touch()
    monkeypatch.setattr(packaged_configs, "_PACKAGE", package)
    assert packaged_configs.directory() is None and packaged_configs.names() == []
    with pytest.raises(ConfigError, match="shipped: none"):
        packaged_configs.find_config("other")
    (package / "configs").mkdir()
    (package / "configs" / "mine.yaml").touch()
    assert packaged_configs.names() == ["mine"]
