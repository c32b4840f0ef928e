"""Names that are registered, by PLSC's files and by a user's, and what a wrong plugin says."""

from __future__ import annotations

import sys

import pytest

from plsc.config import Config
from plsc.errors import ConfigError
from plsc.plugins import load
from plsc.registry import MODELS, REGISTRIES, Registry
from tests.registries import forget_afterwards

NET = '''"""A plugin."""
from plsc.models import BaseModel, register_model

@register_model("{name}")
class {kind}(BaseModel):
    """A net of one layer."""
'''


@pytest.fixture(autouse=True)
def as_before(monkeypatch):
    """What a test registers and imports is forgotten after it."""
    forget_afterwards(monkeypatch, MODELS)
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        if name.startswith(("plsc_plugin_", "their_package")):
            del sys.modules[name]


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package of the user's that is on the path."""
    (tmp_path / "their_package").mkdir()
    (tmp_path / "their_package" / "__init__.py").write_text("")
    (tmp_path / "their_package" / "nets.py").write_text(NET.format(name="TheirNet", kind="TheirNet"))
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path / "their_package"


@pytest.mark.parametrize("way", ["module", "file", "override", "yaml"])
def test_a_users_model_is_found_by_its_name(package, way, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = Config()
    if way == "module":
        config.update({"plugins": ["their_package.nets"], "model": {"name": "TheirNet"}})
    elif way == "file":  # whichever of the two keys comes first
        config.update({"model": {"name": "TheirNet"}, "plugins": ["their_package/nets.py"]})
    elif way == "override":
        config.override(["model.name=TheirNet", "plugins=[their_package.nets]"])
    else:
        (tmp_path / "run.yaml").write_text("model:\n  name: TheirNet\nplugins: [their_package.nets]\n")
        config = Config.from_yaml(tmp_path / "run.yaml")
    assert config.model.name == "TheirNet"
    entry = MODELS.entries()[-1]
    assert (entry.name, entry.summary) == ("TheirNet", "A net of one layer.")
    assert entry.module.endswith("nets")


def test_without_the_plugin_the_name_is_unknown():
    with pytest.raises(ConfigError, match=r"model.name='TheirNet': is not a model; .*ResNet50, .*`plugins`"):
        Config().set("model.name", "TheirNet")
    with pytest.raises(ConfigError, match="did you mean ResNet50"):
        Config().set("model.name", "Resnet5")


def test_a_file_is_imported_once(tmp_path):
    (tmp_path / "counted.py").write_text("import builtins\nbuiltins.counted = getattr(builtins, 'counted', 0) + 1\n")
    (tmp_path / "link.py").symlink_to(tmp_path / "counted.py")
    modules = [load(str(tmp_path / name)) for name in ("counted.py", "link.py", "counted.py")]
    import builtins

    assert builtins.counted == 1 and len(set(map(id, modules))) == 1
    del builtins.counted


@pytest.mark.parametrize(
    "text, message",
    [
        ("1 / 0\n", r"plugins: .*wrong.py: importing it raised ZeroDivisionError: division by zero \(wrong.py:1\)"),
        ("def f(:\n", r"plugins: .*wrong.py: importing it raised SyntaxError: .*\(wrong.py:1\)"),
        ("import sys\nsys.exit('no')\n", r"plugins: .*wrong.py: importing it raised SystemExit: no \(wrong.py:2\)"),
        ("import no_such_module\n", r"plugins: .*wrong.py: ModuleNotFoundError: No module named 'no_such_module'"),
        (NET.format(name="ResNet50", kind="Mine"), r"model 'ResNet50': the name is taken by plsc.models.resnet.ResNet"),
        (NET.format(name="One", kind="A") + NET.format(name="One", kind="B"), r"model 'One': the name is taken by .*A"),
    ],
)
def test_a_wrong_plugin_is_one_line(tmp_path, text, message):
    path = tmp_path / "wrong.py"
    path.write_text(text)
    config = Config()
    with pytest.raises(ConfigError, match=message) as caught:
        config.set("plugins", [str(path)])
    assert "\n" not in str(caught.value)
    assert config.plugins == []
    with pytest.raises(ConfigError, match=message):  # half of a module is not kept
        config.set("plugins", [str(path)])


@pytest.mark.parametrize("plugin, message", [
    ("no_such_module", "there is no module no_such_module; install it"),
    ("their_package.missing", "there is no module their_package.missing"),
    ("missing.py", "there is no such file"),
    ("", "an empty name"),
])  # fmt: skip
def test_a_missing_plugin_is_one_line(package, plugin, message):
    with pytest.raises(ConfigError, match=message):
        Config().set("plugins", [plugin])


def test_a_module_that_is_imported_anew_may_register_again(package):
    import importlib

    module = load("their_package.nets")
    importlib.reload(module)
    assert MODELS.find("TheirNet") is module.TheirNet


def test_the_same_twice_is_refused():
    registry = Registry("model", "plsc.models")
    value = registry.register("x")(lambda: 1)
    for again in (value, lambda: 2):
        with pytest.raises(ConfigError, match="taken"):
            registry.register("x")(again)


def test_a_value_that_cannot_be_used_is_refused():
    def check(name, value):
        raise ConfigError(f"loss {name!r}: lacks a method")

    registry = Registry("loss", "plsc.models", check)
    with pytest.raises(ConfigError, match="loss 'x': lacks a method"):
        registry.register("x")(int)
    assert "x" not in registry


@pytest.mark.parametrize("word", sorted(REGISTRIES))
def test_everything_built_in_says_what_it_is(word):
    for entry in REGISTRIES[word].entries():
        if entry.module.startswith("plsc."):
            assert 10 < len(entry.summary) < 120, entry.name
