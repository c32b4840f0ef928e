"""Imports point one way, and only few rooms may know the environment and Paddle."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

# A room may be imported by itself and by the storeys that come after it. Rooms of one storey do not know each other.
STOREYS = [
    ["plsc.errors", "plsc.extras", "plsc.version", "plsc.terminal"],
    ["plsc.registry", "plsc.plugins", "plsc.signatures"],
    ["plsc.files"],
    ["plsc.config", "plsc.backend"],
    ["plsc.parallel"],
    ["plsc.rows", "plsc.losses"],
    ["plsc.classifiers", "plsc.models", "plsc.data", "plsc.optim", "plsc.checkpoint", "plsc.evaluation"],
    ["plsc.serving", "plsc.remote", "plsc.weights", "plsc.cleaning"],
    ["plsc.engine"],  # the package itself; its wings follow
    ["plsc.engine.run"],
    ["plsc.engine.program"],
    ["plsc.engine.memory", "plsc.engine.evaluation"],
    ["plsc.engine.training", "plsc.engine.inference", "plsc.engine.doctor"],
    ["plsc.engine.export", "plsc.engine.weights"],
    ["plsc.engine.cleaning"],
    ["plsc.engine.actions"],
    ["plsc.setters"],
    ["plsc.entry"],
    ["plsc.launch"],
    ["plsc.cli"],
    ["plsc", "plsc.__main__"],  # plsc/__init__.py: what `from plsc import Entry` imports from
    ["tools"],
    ["tests"],
]
STOREY = {room: storey for storey, rooms in enumerate(STOREYS) for room in rooms}

# Only these may name Paddle where it is imported together with the module; all others do it inside of functions.
WITH_PADDLE = (
    "plsc.backend", "plsc.rows", "plsc.classifiers", "plsc.engine", "plsc.optim", "plsc.parallel.group",
    "plsc.parallel.side",
)  # fmt: skip

# The reader of the process's environment, where the launch says which rank this is and which card is its own.
# backend.cpu sets one variable for MKL, which has no other way to be told; which compiler and which cache are the
# user's is what the usual variables say. backend.flags: what the user says of Paddle's flags
READERS_OF_ENVIRONMENT = (
    "plsc.parallel", "plsc.backend.cpu", "plsc.backend.compiler", "plsc.backend.flags", "plsc.files.private_directory",
)  # fmt: skip


def module_name(path: Path) -> str:
    """ "plsc/data/check.py" -> "plsc.data.check"; tools/x.py is imported as x, and stays "tools.x" here."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def sources() -> Iterator[tuple[str, str]]:
    """(module, source) of every Python file of the project."""
    for folder in ("plsc", "tools", "tests"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            yield module_name(path), path.read_text(encoding="utf-8")


def library(without: tuple[str, ...]) -> list[tuple[str, str]]:
    """(module, source) of the modules of plsc, except those of some rooms."""
    return [item for item in sources() if inside(item[0], ["plsc"]) and not inside(item[0], without)]


def inside(module: str, rooms) -> bool:
    return any(module == room or module.startswith(room + ".") for room in rooms)


def room_of(module: str) -> str | None:
    """The room that a module belongs to; None for other people's modules, KeyError for one that has no place yet."""
    parts = module.split(".")
    if parts[0] in ("glyphs", "benches"):  # folders of tools, imported by tools that run as scripts
        return "tools"
    if parts[0] not in ("plsc", "tools", "tests"):
        return None
    if parts[0] != "plsc":
        return parts[0]
    # a wing of a room, where it has some
    names = [".".join(parts[:count]) for count in range(len(parts), 1, -1)] or ["plsc"]
    room = next((name for name in names if name in STOREY), None)
    if room is None:
        raise KeyError(f"{'.'.join(parts[:2])} has no storey: say in tests/project/test_imports.py who may import it")
    return room


def imported(node: ast.AST) -> list[str]:
    """The modules that a statement imports, also by import_module("name"). A relative import is not of this house."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom):
        assert node.level == 0, f"a relative import of {node.module or '.'}: write the whole name"
        return [_submodule(node.module, alias.name) for alias in node.names]
    if isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
        name = getattr(node.func, "attr", getattr(node.func, "id", ""))
        if name in ("import_module", "__import__") and isinstance(node.args[0].value, str):
            return [node.args[0].value]
    return []


def _submodule(base: str, name: str) -> str:
    """`from plsc import compat` imports plsc.compat; `from plsc import Entry` imports plsc."""
    path = ROOT / base.replace(".", "/") / name
    return f"{base}.{name}" if path.is_dir() or path.with_suffix(".py").is_file() else base


def backward_arrows(module: str, source: str) -> list[str]:
    """Every import of a higher storey, or of a neighbour in the same one, wherever in the file it stands."""
    room = room_of(module)
    arrows = []
    for node in ast.walk(ast.parse(source)):
        for target in imported(node):
            other = room_of(target)
            if other is not None and other != room and STOREY[other] >= STOREY[room]:
                arrows.append(f"{module}:{node.lineno} imports {target}")
    return arrows


def environment_readers(module: str, source: str) -> list[str]:
    """Every place that names os.environ, os.getenv and the like."""
    names = ("environ", "environb", "getenv", "getenvb", "putenv", "unsetenv")
    found = []
    for node in ast.walk(ast.parse(source)):
        from_os = isinstance(node, ast.ImportFrom) and node.module == "os"
        if (
            isinstance(node, ast.Attribute)
            and node.attr in names
            and isinstance(node.value, ast.Name)
            and node.value.id == "os"
        ) or (from_os and any(alias.name in names for alias in node.names)):
            found.append(f"{module}:{node.lineno} uses the environment")
    return found


def paddle_at_import(module: str, source: str) -> list[str]:
    """Every import of Paddle that runs when the module is imported; those in functions and for types do not."""
    found = []

    def walk(nodes) -> None:
        for node in nodes:
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
                continue
            if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
                walk(node.orelse)
                continue
            if any(inside(target, ["paddle"]) for target in imported(node)):
                found.append(f"{module}:{node.lineno} imports Paddle")
            walk(ast.iter_child_nodes(node))

    walk(ast.parse(source).body)
    return found


def test_imports_point_one_way():
    arrows = [arrow for module, source in sources() for arrow in backward_arrows(module, source)]
    assert not arrows, "\n".join(arrows)


def test_only_one_room_reads_the_environment():
    found = [line for module, source in library(READERS_OF_ENVIRONMENT) for line in environment_readers(module, source)]
    assert not found, "\n".join(found)


def test_paddle_is_imported_where_it_computes():
    found = [line for module, source in library(WITH_PADDLE) for line in paddle_at_import(module, source)]
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    "module, line",
    [
        ("plsc.errors", "from plsc.config import Config"),
        ("plsc.config.rules", "import plsc.parallel.shards"),
        ("plsc.parallel.group", "from plsc.rows.optimizers.momentum import Momentum"),
        ("plsc.data.loader", "from plsc.models import build_model"),  # a neighbour
        ("plsc.data.loader", "def f():\n    from plsc.engine import actions"),  # late, but still an arrow
        ("plsc.evaluation.roc", "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import plsc.checkpoint"),
        ("plsc.models.resnet", "from plsc import classifiers"),
        ("plsc.engine.training.loop", "from plsc import Entry"),
        ("plsc.engine.training.loop", "from plsc.entry import Entry"),
        ("plsc.engine.run.start", "from plsc.engine.program.build import build_train"),  # a higher wing
        ("plsc.engine.inference.trained_model", "from plsc.engine.training.loop import Result"),  # a wing beside it
        ("plsc.setters", "from plsc.entry import Entry"),
        ("plsc.entry", "from plsc.cli.main import main"),
        ("plsc.launch", "from plsc.cli import launching"),
        ("plsc.entry", "from tools import train"),
        ("plsc.entry", "import importlib\nimportlib.import_module('tests.dist.ranks')"),
        ("tools.make_glyphs", "from tests.reference import backbones"),
    ],
)
def test_a_planted_arrow_is_found(module, line):
    assert len(backward_arrows(module, line)) == 1


@pytest.mark.parametrize(
    "module, line",
    [
        ("plsc.engine.training.loop", "from plsc.backend import ops\nfrom plsc.data import Loader\nimport numpy"),
        ("plsc.models.resnet", "from plsc.models.layers import Backbone\nfrom plsc.backend import static"),
        ("plsc.classifiers.step", "from plsc.parallel.shards import class_range"),
        ("plsc.cli.launching", "from plsc.launch import launch\nfrom plsc.entry import Entry\nimport plsc.errors"),
        ("tools.make_glyphs", "from glyphs.build import build"),
        ("tests.data.test_x", "from plsc import Entry\nfrom glyphs import fonts\nfrom tools import train"),
    ],
)
def test_an_arrow_down_is_allowed(module, line):
    assert backward_arrows(module, line) == []


def test_a_relative_import_is_refused():
    with pytest.raises(AssertionError, match="write the whole name"):
        backward_arrows("plsc.models.resnet", "from ..classifiers import step")


def test_a_new_room_must_be_given_its_place():
    with pytest.raises(KeyError, match="plsc.nowhere has no storey"):
        backward_arrows("plsc.nowhere.server", "import os")


@pytest.mark.parametrize(
    "source", ["import os\nx = os.environ['A']", "import os\nx = os.getenv('A')", "from os import environ, path"]
)
def test_a_planted_reader_of_the_environment_is_found(source):
    assert len(environment_readers("plsc.data.x", source)) == 1
    assert not environment_readers("plsc.data.x", "import os\nos.getpid()\nself.environ = 1")


@pytest.mark.parametrize(
    "source, found",
    [
        ("import paddle", 1),
        ("from paddle.base import core", 1),
        ("class A:\n    import paddle.nn as nn", 1),
        ("try:\n    import paddle\nexcept ImportError:\n    pass", 1),
        ("from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import paddle", 0),
        ("def f():\n    import paddle", 0),
        ("import paddle_like", 0),
    ],
)
def test_a_planted_import_of_paddle_is_found(source, found):
    assert len(paddle_at_import("plsc.data.x", source)) == found
