"""Every `pip install` that docs and messages tell of installs what is meant: never the other project named plsc."""

from __future__ import annotations

import re
import runpy
import shlex

import pytest

from plsc import __version__
from plsc.extras import EXTRAS, install
from tests.project.docs_kit import PAGES
from tests.project.test_imports import ROOT

NAME = "large-scale-classification"
WHEEL = f"./{NAME.replace('-', '_')}-{__version__}-py3-none-any.whl"
# What is no extra's: needed by all, or chosen by a key.
OTHERS = {"pillow", "numpy", "tensorboardX", "visualdl"}
FILES = [*PAGES, ROOT / "CONTRIBUTING.md", ROOT / "setup.py", *sorted((ROOT / "configs").glob("*")),
         *(path for folder in ("plsc", "tools") for path in sorted((ROOT / folder).rglob("*.py")))]  # fmt: skip
# Words in quotes or without; {package} is one of an f-string.
WORD = r"""(?:'[^'\n]*'|"[^"\n]*"|[\w.,=<>\[\]{}/-]+)"""
HINT = re.compile(rf"pip install ({WORD}(?: {WORD})*)")


def problem(text: str) -> str | None:
    """What is wrong with the words that follow `pip install`; None for an allowed form."""
    for word in shlex.split(text):
        if word.startswith(("--", "{")):
            continue
        name, _, rest = word.partition("[")
        spec = re.split("[=<>]", name)[0]
        if name in (".", WHEEL):
            unknown = set(rest.rstrip("]").split(",")) - set(EXTRAS) if rest else set()
            if unknown:
                return f"{word}: no extra {sorted(unknown)}"
        elif spec not in OTHERS | {re.split(r"[=<>\[]", one)[0] for specs in EXTRAS.values() for one in specs}:
            return f"{word}: must be '.[extra]', '{WHEEL}[extra]' or packages that an extra names"
    return None


def hints() -> list[tuple[str, str]]:
    """(file, what follows `pip install`) of every hint."""
    return [(path.name, hint) for path in FILES for hint in HINT.findall(path.read_text(encoding="utf-8"))]


def test_every_hint_is_of_an_allowed_form():
    found = hints()
    assert len(found) > 10
    assert {"'.[cpu]'", f"'{WHEEL}[cpu]'", "{face.package}"} <= {hint for _, hint in found}
    assert [f"{name}: {hint}: {problem(hint)}" for name, hint in found if problem(hint)] == []


@pytest.mark.parametrize("text", [
    "'plsc[cpu]'", "plsc", "'.[nonsense]'", f"'{WHEEL}[cpu,nonsense]'", f"{NAME}", f"'{NAME}[onnx]'", "left-pad",
    "'paddlepaddle==3.3.1' plsc", "'./large_scale_classification-0.0.0-py3-none-any.whl[cpu]'",
])  # fmt: skip
def test_a_planted_hint_is_refused(text):
    assert problem(text)


def test_nothing_speaks_of_an_extra_of_the_other_project():
    for path in FILES:
        assert not re.search(r"\bplsc\[", path.read_text(encoding="utf-8")), path


def test_messages_name_what_the_extras_of_the_package_install(monkeypatch):
    """As pip sees it: what setup.py passes on."""
    passed = {}
    monkeypatch.setattr("setuptools.setup", lambda **given: passed.update(given))
    runpy.run_path(str(ROOT / "setup.py"))
    assert passed["name"] == NAME and passed["extras_require"].keys() == EXTRAS.keys()
    for extra, packages in passed["extras_require"].items():
        assert shlex.split(install(extra).strip("`")) == ["pip", "install", *packages]
    assert install("onnx", "onnxruntime") == "`pip install 'onnxruntime>=1.15'`"
