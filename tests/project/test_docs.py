"""The documentation is true: what it tells to run runs, what cannot run here is at least well formed, links lead."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from plsc.cli import packaged_configs
from plsc.config import OPTIONS, Config
from tests import tool_kit
from tests.faces import copy_faces
from tests.project.docs_kit import LANGUAGES, PAGES, REASONS, ROOT, SHELLS, Block, anchors, blocks, commands, links

CONFIGS = sorted((ROOT / "configs").glob("*.yaml"))
# Pages whose programs have a test of their own, which feeds them or compares what they print.
OWN_TESTS = {
    "add_a_backbone.md": "dist/test_extensions.py",
    "add_a_data_source.md": "dist/test_extensions.py",
    "add_a_loss.md": "losses/test_page.py",
    "add_a_metric.md": "dist/test_own_metric.py",
    "add_a_schedule.md": "dist/test_extensions.py",
    "add_an_augmentation.md": "dist/test_extensions.py",
    "add_an_optimizer.md": "dist/test_own_optimizers.py",
    "checkpoint_format.md": "project/test_checkpoint_docs.py",
    "performance.md": "tools/test_bench.py",
}


def programs(page: Path) -> list[Block]:
    """The blocks to run, in order; a file of settings that begins with `# name.yaml` counts as one."""
    kinds = ("python", *SHELLS, "yaml")
    return [block for block in blocks(page) if block.language in kinds and block.reason is None]


RUN = [page for page in PAGES if page.name not in OWN_TESTS and programs(page)]
NOT_RUN = [block for page in PAGES for block in blocks(page) if block.reason is not None]
NOT_RUN += programs(ROOT / "docs" / "performance.md")  # its commands, which are run smaller


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_blocks_say_what_they_are(page):
    for block in blocks(page):
        assert block.language in LANGUAGES, f"{block}: {block.language!r} is none of {LANGUAGES}"
        assert block.reason is None or block.reason in REASONS, f"{block}: {block.reason!r} is no reason not to run"


def test_pages_with_a_test_of_their_own_have_one():
    for page, test in OWN_TESTS.items():
        assert page in (ROOT / "tests" / test).read_text(encoding="utf-8"), f"{test} does not read {page}"


@pytest.mark.parametrize("page", RUN, ids=lambda page: page.name)
def test_programs_run(page, tmp_path):
    """In order, in one directory that looks like a checkout; neighbouring Python blocks are one program."""
    for name in ("configs", "docs", "plsc", "tools"):
        (tmp_path / name).symlink_to(ROOT / name)
    if page.name == "README.md":  # the reader's own folder
        copy_faces(tmp_path / "faces")
    steps: list[tuple[str, str]] = []
    for block in programs(page):
        if block.language == "yaml":
            Config.from_yaml(save_settings(block, tmp_path))
        elif block.language != "python":
            steps.append(("shell", "set -euo pipefail\n" + block.text))
        elif steps and steps[-1][0] == "python":
            steps[-1] = ("python", at_line(block, steps[-1][1]))
        else:
            steps.append(("python", at_line(block, "")))
    for kind, text in steps:
        script = tmp_path / (f"{page.stem}.py" if kind == "python" else "commands.sh")
        script.write_text(text, encoding="utf-8")
        program = sys.executable if kind == "python" else "bash"
        done = subprocess.run([program, script.name], cwd=tmp_path, env=environment(tmp_path), capture_output=True,
                              text=True, timeout=600)  # fmt: skip
        assert done.returncode == 0, f"{page.name}:\n{text[-1500:]}\n{done.stdout[-1500:]}\n{done.stderr[-3000:]}"


def save_settings(block: Block, directory: Path) -> Path:
    name = re.match(r"# (\S+\.yaml)\n", block.text)
    path = directory / (name[1] if name else "unnamed.yaml")
    path.write_text(block.text, encoding="utf-8")
    return path


def at_line(block: Block, before: str) -> str:
    """The program so far and this block, on the lines that they have in the page, so that errors name these."""
    return before + "\n" * (block.line - 1 - before.count("\n")) + block.text


def environment(directory: Path) -> dict[str, str]:
    """`python` is the one that runs the tests, `plsc` that of the checkout; no launcher is above."""
    python = directory / "bin" / "python"
    if not python.exists():
        python.parent.mkdir()
        python.write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
        script = f"#!{sys.executable}\nimport sys\nfrom plsc.cli.main import main\nsys.exit(main())\n"
        (python.parent / "plsc").write_text(script)  # as setup.py has pip write it
        for program in python.parent.iterdir():
            program.chmod(0o755)
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PADDLE_")}
    return {**kept, "PATH": f"{python.parent}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}


@pytest.fixture(scope="module")
def help_of():
    """What a command says of itself, asked once for each."""
    known: dict[tuple[str, ...], str] = {}

    def ask(*command: str) -> str:
        if command not in known:
            tool = re.fullmatch(r"tools/(\w+)\.py", command[1])
            ours = command[0] == "plsc" and tool_kit.plsc(*command[1:], "--help")
            done = ours or (tool_kit.run(tool[1], *command[2:], "--help") if tool else subprocess.run(
                [*command, "--help"], cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)},
                capture_output=True, text=True, timeout=60,
            ))  # fmt: skip
            assert done.returncode == 0, done.stderr
            known[command] = done.stdout
        return known[command]

    return ask


@pytest.mark.parametrize("block", NOT_RUN, ids=str)
def test_what_is_not_run_is_well_formed(block, help_of):
    if block.language == "python":
        compile(block.text, str(block), "exec")
        return
    for words in commands(block):
        check_command(words, f"{block}: {' '.join(words)}", help_of)


def test_commands_in_tables_and_in_heads_of_configs_are_well_formed(help_of):
    texts = [page.read_text(encoding="utf-8") for page in PAGES]
    quoted = re.findall(r"`((?:plsc|python (?:tools/|-m paddle|-m plsc)) ?[a-z-][^`]+)`", "\n".join(texts))
    for config in CONFIGS:
        quoted += re.findall(r"^#.*?((?:python|bash) .+)$", config.read_text(encoding="utf-8"), re.MULTILINE)
    whole = [command for command in quoted if not re.search(r"\.\.\.|\b(?:FILE|RUN|N|HOST)\b|key=value", command)]
    assert len(whole) > len(CONFIGS)
    for command in whole:
        check_command(command.split(), command, help_of)


def check_command(words: list[str], where: str, help_of) -> None:
    """Every script and file is there, every option is known, every setting is accepted."""
    if words[0] == "bash":
        said = help_of("bash", words[1]) if words[1].endswith("quickstart.sh") else ""
        assert (ROOT / words[1]).is_file(), where
        assert all(word in said for word in words[2:] if word.startswith("--")), where
    elif words[:2] == ["pip", "install"]:
        return  # test_install_hints.py looks at these
    elif words[0] == "plsc":
        check_options(words[2:], help_of(*words[:2]), where)
        check_settings(words, where)
    elif words[:2] == ["python", "-m"] and words[2] in ("paddle.distributed.launch", "plsc.launch"):
        script = next(place for place, word in enumerate(words) if word.endswith(".py"))
        check_options(words[3:script], help_of(sys.executable, *words[1:3]), where)
        check_script(words[script:], where, help_of)
    else:
        assert words[0] == "python", f"{where}: how is this checked?"
        check_script(words[1:], where, help_of)


def check_script(words: list[str], where: str, help_of) -> None:
    if words[0] == "train.py":  # the reader's own
        return
    assert (ROOT / words[0]).is_file(), where
    if words[0] == "tools/config_docs.py":  # takes a file only
        return
    with_part = 2 if words[0] == "tools/bench.py" else 1
    check_options(words[with_part:], help_of(sys.executable, *words[:with_part]), where)
    if words[0] == "tools/train.py":
        check_settings(words, where)


def check_settings(words: list[str], where: str) -> None:
    """A file of configs/, or the name of one, is there; every -o is accepted."""
    file = words[words.index("-c") + 1] if "-c" in words else ""
    own = file.endswith(".yaml") and not file.startswith("configs/")  # the reader's
    config = Config.from_yaml(ROOT / packaged_configs.find_config(file)) if file and not own else Config()
    config.override([words[place + 1] for place, word in enumerate(words) if word == "-o"])


def check_options(words: list[str], said: str, where: str) -> None:
    for word in words:
        if word.startswith("-"):
            assert re.search(rf"(?<![\w-]){re.escape(word)}(?![\w-])", said), f"{where}: {word} is no option"


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_config_can_run_and_its_head_says_how(path):
    config = Config.from_yaml(path)
    config.check(2 if path.stem == "quickstart" else 8, None if path.stem == "quickstart" else "gpu")
    assert config.without_effect() == []
    head = re.match(r"(?:#.*\n)+", path.read_text(encoding="utf-8"))[0]
    for part in ("command:", "hardware:", "data:", "expect:"):
        assert part in head, f"{path.name} does not say its {part}"
    assert f"configs/{path.name}" in head


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    for target in links(page):
        file, _, anchor = target.partition("#")
        there = page if not file else (page.parent / file).resolve()
        assert there.exists(), f"{page.name}: {target}"
        assert not anchor or anchor in anchors(there), f"{page.name}: {target}"


def test_every_page_is_in_the_index_and_in_the_navigation():
    index = links(ROOT / "docs" / "README.md")
    pages = {page.name for page in PAGES if page.parent.name == "docs"}
    assert pages - {"README.md"} <= set(index)
    site = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    navigation = re.findall(r"^ +- (?:.*: )?(\w+\.md)$", site, re.MULTILINE)
    assert pages == set(navigation) and len(navigation) == len(pages), "mkdocs.yml: nav has each page once"


FILES = ("data.mdb", "model.safetensors")  # of LMDB and of an export, named like keys


def test_keys_and_setters_named_in_the_docs_exist():
    sections = {key.split(".")[0] for key in OPTIONS if "." in key}
    from plsc.setters import Setters

    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        for key in re.findall(rf"`((?:{'|'.join(sections)})\.[a-z_0-9]+)(?:[:=][^`]*)?`", text):
            assert key in OPTIONS or (ROOT / key).exists() or key in FILES, f"{page.name}: no key {key}"
        for setter in re.findall(r"\b(set_[a-z_]+)\b", text):
            assert hasattr(Setters, setter), f"{page.name}: no setter {setter}"


def test_logs_in_the_guide_are_json_where_it_says_so():
    for page in PAGES:
        for block in blocks(page):
            if block.language == "json":
                json.loads(block.text)
