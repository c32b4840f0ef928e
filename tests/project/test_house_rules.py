"""Files and signatures that fit a screen."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
MOST_LINES, MOST_PARAMETERS = 350, 6

# What users call, by keywords with defaults, or what another project calls: these stay as they are.
FIXED = {
    "plsc/backend/executors.py": {"Call.__init__"},  # Paddle's signature
    "plsc/classifiers/large_scale_classifier.py": {"LargeScaleClassifier.__init__"},
    "plsc/config/option.py": {"option"},
    "plsc/data/augmentations/colour_jitter.py": {"colour_jitter"},  # its options, by name in a configuration
    "plsc/data/datasets.py": {"ImageListDataset.__init__"},
    "plsc/evaluation/identification.py": {"identify"},
    "plsc/evaluation/megaface.py": {"megaface"},
    "plsc/models/layers.py": {"BuiltInModel.__init__", "LayerBuilder.conv"},
    "plsc/models/resnet.py": {"ResNet.__init__"},
    "plsc/models/vit.py": {"ViT.__init__"},
    "plsc/serving/predictor.py": {"Predictor.__init__"},
    "plsc/setters.py": {"Setters.set_mixed_precision"},
    # the parameters of a schedule are its settings and options
    "plsc/optim/schedules/cosine_restarts.py": {"cosine_restarts"},
    "plsc/optim/schedules/one_cycle.py": {"one_cycle"},
}


def long_signatures(source: str) -> set[str]:
    """ "Class.method" or "function" of each that takes more than MOST_PARAMETERS, itself not counted."""
    found = set()

    def walk(node: ast.AST, owner: str) -> None:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.ClassDef):
                walk(child, f"{child.name}.")
                continue
            if isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef)):
                names = [each.arg for each in (*child.args.posonlyargs, *child.args.args, *child.args.kwonlyargs)]
                if len(names) - (names[:1] in (["self"], ["cls"])) > MOST_PARAMETERS:
                    found.add(owner + child.name)
                walk(child, "")
                continue
            walk(child, owner)

    walk(ast.parse(source), "")
    return found


def sources() -> dict[str, str]:
    paths = sorted((ROOT / "plsc").rglob("*.py"))
    return {path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8") for path in paths}


def test_a_file_holds_one_idea():
    long = {name: lines for name, text in sources().items() if (lines := len(text.splitlines())) > MOST_LINES}
    assert not long, "split what has more than one idea"


def test_a_function_takes_six_parameters_at_most():
    found = {(name, function) for name, text in sources().items() for function in long_signatures(text)}
    known = {(name, one) for name, functions in FIXED.items() for one in functions}
    assert found - known == set(), "make one argument of what belongs together"
    assert known - found == set(), "is short enough now: take it off the list"


@pytest.mark.parametrize("source, found", [
    ("def f(a, b, c, d, e, g): pass", set()),
    ("def f(a, b, c, d, e, g, h): pass", {"f"}),
    ("def f(a, b, c, d, *, e, g, h=1): pass", {"f"}),
    ("class A:\n    def f(self, a, b, c, d, e, g): pass", set()),
    ("class A:\n    def f(self, a, b, c, d, e, g, h): pass", {"A.f"}),
    ("def f():\n    if 1:\n        class A:\n            def g(self, a, b, c, d, e, g, h): pass", {"A.g"}),
])  # fmt: skip
def test_a_planted_signature_is_found(source, found):
    assert long_signatures(source) == found
