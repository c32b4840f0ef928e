"""What is installed is what is needed: every folder is a package, and what plsc imports is asked for in setup.py."""

from __future__ import annotations

import ast
import importlib.util
import re
import subprocess
import sys
import sysconfig

from plsc import __version__
from tests.project.test_imports import ROOT, imported, library

# The name to import and the name in the package registry, where they differ.
DISTRIBUTIONS = {"yaml": "pyyaml", "PIL": "pillow", "paddle": "paddlepaddle"}
STANDARD_LIBRARY = sysconfig.get_paths()["stdlib"]


def from_elsewhere(name: str) -> bool:
    """True for a package that is neither plsc nor part of Python; also for one that is not installed."""
    if name in ("plsc", *sys.builtin_module_names):
        return False
    spec = importlib.util.find_spec(name)
    if spec is None or spec.origin is None:
        return True
    return spec.origin not in ("built-in", "frozen") and (
        "site-packages" in spec.origin or not spec.origin.startswith(STANDARD_LIBRARY)
    )


def undeclared(sources: list[tuple[str, str]], setup: str) -> set[str]:
    """The packages that the sources import and setup.py does not name."""
    names = {target.split(".")[0] for _, source in sources for node in ast.walk(ast.parse(source))
             for target in imported(node)}  # fmt: skip
    wanted = {DISTRIBUTIONS.get(name, name) for name in names if from_elsewhere(name)}
    return {name for name in wanted if not re.search(rf'"{name}[=<>"]', setup)}


def test_every_import_is_declared():
    setup = "".join((ROOT / name).read_text(encoding="utf-8") for name in ("setup.py", "plsc/extras.py"))
    assert undeclared(library(()), setup) == set()
    assert undeclared([("plsc.x", "import numpy, os, yaml\nimport not_in_setup.part")], setup) == {"not_in_setup"}
    assert undeclared([("plsc.x", "import yaml")], "") == {"pyyaml"}


def test_every_folder_is_a_package():
    """A folder without __init__.py works in the checkout, but find_packages would not install it."""
    folders = {path.parent for path in (ROOT / "plsc").rglob("*.py")}
    assert [str(folder) for folder in folders if not (folder / "__init__.py").is_file()] == []


def test_setup_reads_the_version_without_importing():
    version = subprocess.run([sys.executable, "setup.py", "--version"], cwd=ROOT, capture_output=True, text=True)
    assert version.stdout.split()[-1:] == [__version__], version.stderr


def test_what_is_not_python_is_installed(tmp_path):
    """C++ is compiled where it runs; the files of configs/ are found by their names."""
    built = ["build", "--build-base", str(tmp_path), "egg_info", "--egg-base", str(tmp_path)]
    subprocess.run([sys.executable, "setup.py", "-q", *built], cwd=ROOT, check=True, capture_output=True)
    installed = {path.name for path in tmp_path.rglob("*.cc")}
    assert installed == {path.name for path in (ROOT / "plsc").rglob("*.cc")} == {"half_kernels.cc", "row_kernels.cc"}
    configs = {path.relative_to(tmp_path / "lib" / "plsc").as_posix() for path in tmp_path.rglob("*.yaml")}
    assert configs == {f"configs/{path.name}" for path in (ROOT / "configs").glob("*.yaml")}
