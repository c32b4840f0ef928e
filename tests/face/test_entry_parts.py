"""What Entry keeps besides keys, what it says when it cannot run, and the command line. Needs no Paddle."""

from __future__ import annotations

import importlib.util
import os
import pathlib
import subprocess
import sys
import types

import pytest

from plsc import Entry
from plsc.backend import paddle_version
from plsc.backend.paddle_version import require_paddle
from plsc.config import Config, user_objects
from plsc.errors import ConfigError, LaunchError, PlscError, first_line
from plsc.parallel.excepthook import one_line

ROOT = pathlib.Path(__file__).resolve().parents[2]


def like(package: str, name: str) -> object:
    """An instance of a class that calls itself package's, so that the test needs no Paddle."""
    base = type(name, (), {"__module__": f"{package}.somewhere"})
    return type("Own" + name, (base,), {})()


PARTS = {
    "model": like("plsc", "BaseModel"),
    "optimizer": like("paddle", "Optimizer"),
    "param_attr": like("paddle", "ParamAttr"),
    "bias_attr": like("paddle", "ParamAttr"),
    "train_dataset": [(1, 2)],
    "test_dataset": [(1, 2)],
    "train_reader": lambda: iter([]),
}


@pytest.mark.parametrize("name", PARTS)
def test_part_is_kept_read_and_reset(name):
    entry = Entry()
    setattr(entry, name, PARTS[name])
    assert getattr(entry, name) is PARTS[name] is getattr(entry._user_objects, name)
    setattr(entry, name, None)
    assert entry._user_objects == user_objects.UserObjects()


@pytest.mark.parametrize("name", PARTS)
def test_wrong_part_is_refused(name):
    entry = Entry()
    for wrong in (3, type(PARTS[name])) if name != "train_reader" else (3, "reader"):
        with pytest.raises(ConfigError, match=f"{name}: got .*must be .*or None"):
            setattr(entry, name, wrong)
    assert entry._user_objects == user_objects.UserObjects()


def test_setters_of_parts():
    entry = Entry()
    entry.set_model(PARTS["model"])
    entry.set_optimizer(PARTS["optimizer"])
    entry.set_distfc_attr(PARTS["param_attr"], PARTS["bias_attr"])
    kept = entry._user_objects
    assert (kept.model, kept.optimizer) == (PARTS["model"], PARTS["optimizer"])
    assert (kept.param_attr, kept.bias_attr) == (PARTS["param_attr"], PARTS["bias_attr"])
    for call in (entry.set_model, entry.set_optimizer, entry.set_distfc_attr):
        with pytest.raises(ConfigError):
            call("wrong")
    with pytest.raises(ConfigError):
        entry.set_distfc_attr(None, "wrong")
    assert entry._user_objects.param_attr is PARTS["param_attr"]
    entry.set_model_name("ResNet18")  # the last one said wins
    assert entry.model is None


def test_parts_that_cannot_be_together():
    both = user_objects.UserObjects(train_dataset=[], train_reader=list)
    with pytest.raises(ConfigError, match="train_dataset is set as well"):
        both.check(Config())
    bias = user_objects.UserObjects(bias_attr=PARTS["bias_attr"])
    with pytest.raises(ConfigError, match="'arcface' has no bias"):
        bias.check(Config())
    bias.check(Config.from_dict({"classifier": {"loss_type": "softmax"}}))
    user_objects.UserObjects(**{**PARTS, "train_reader": None, "bias_attr": None}).check(Config())


@pytest.mark.parametrize(
    ("part", "settings", "line"),
    [
        ("optimizer", {"lr": 0.3}, "lr=0.3"),
        ("optimizer", {"lr_schedule": {"kind": "cosine"}}, "lr_schedule.kind='cosine'"),
        ("model", {"model": {"dropout": 0.1}}, "model.dropout=0.1"),
        ("train_reader", {"data": {"pixel_std": 128}}, "data.pixel_std=128.0"),
        ("train_dataset", {"data": {"random_flip": False}}, "data.random_flip=False"),
        ("test_dataset", {"data": {"val_targets": "x"}}, "data.val_targets=['x']"),
    ],
)
def test_keys_that_a_part_makes_idle_are_named(part, settings, line):
    kept = user_objects.UserObjects(**{part: PARTS[part]})
    lines = kept.without_effect(Config.from_dict(settings))
    assert len(lines) == 1 and lines[0].startswith(f"{line}: has no effect with ")
    assert kept.without_effect(Config()) == user_objects.UserObjects().without_effect(Config.from_dict(settings)) == []


def fake_paddle(monkeypatch, version: str) -> None:
    monkeypatch.setitem(sys.modules, "paddle", types.SimpleNamespace(__version__=version))
    monkeypatch.setattr(paddle_version, "end_when_crashed", lambda: None)  # asks more of Paddle, once in a process


ACTIONS = ("train", "test", "predict", "convert_for_prediction")


@pytest.mark.parametrize("action", ACTIONS)
def test_action_calls_the_engine_with_config_and_parts(monkeypatch, action):
    fake_paddle(monkeypatch, "3.3.1")
    calls = []
    run = types.ModuleType("plsc.engine.actions")
    for name in ACTIONS:
        setattr(run, name, lambda *given, name=name: calls.append((name, *given)) or name)
    monkeypatch.setitem(sys.modules, "plsc.engine.actions", run)
    monkeypatch.setattr(importlib.import_module("plsc.engine"), "actions", run, raising=False)
    entry = Entry(config={"lr": 0.3})
    assert getattr(entry, action)() == action
    more = ("", "") if action == "test" else ()  # no JSON, no page
    assert calls == [(action, entry._config, entry._user_objects, *more)]


@pytest.mark.parametrize("version", ["2.6.0", "2.6.2", "3.0.0", "3.3.1"])
def test_supported_paddle(monkeypatch, version):
    fake_paddle(monkeypatch, version)
    assert require_paddle() == version


@pytest.mark.parametrize("version", ["2.5.2", "2.60.1", "4.0.0", "1.8.5", "0.0.0", "3"])
def test_other_paddle_is_refused(monkeypatch, version):
    fake_paddle(monkeypatch, version)
    with pytest.raises(LaunchError, match="is not supported.*install paddlepaddle==.*install paddlepaddle-gpu=="):
        require_paddle()


@pytest.mark.parametrize("action", ACTIONS)
def test_without_paddle_an_action_says_what_to_install(monkeypatch, action):
    monkeypatch.setitem(sys.modules, "paddle", None)  # makes `import paddle` an ImportError
    with pytest.raises(LaunchError, match="PaddlePaddle"):
        getattr(Entry(), action)()


def python(code: str, folder: pathlib.Path) -> subprocess.CompletedProcess:
    """Run code in a fresh interpreter that finds modules in `folder` first."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(folder), str(ROOT)])}
    return subprocess.run(
        [sys.executable, "-c", code], cwd=folder, env=environment, capture_output=True, text=True, timeout=60
    )


def hide_paddle(folder: pathlib.Path, code: str) -> None:
    (folder / "paddle.py").write_text(code)


NO_PADDLE = "raise ModuleNotFoundError(\"No module named 'paddle'\", name='paddle')"


def test_package_works_without_paddle(tmp_path):
    hide_paddle(tmp_path, NO_PADDLE)
    code = (
        "import sys, plsc; hook = sys.excepthook; before = set(sys.modules); assert 'plsc.entry' not in before\n"
        "from plsc import Entry\nassert sys.excepthook is hook\n"
        "entry = Entry(); entry.set_class_num(9); print(plsc.__version__); entry.train()"
    )
    done = python(code, tmp_path)
    assert done.stdout == "3.0.0\n" and done.returncode == 1
    assert done.stderr.count("\n") == 1 and done.stderr.startswith("plsc: error: ")
    assert "PaddlePaddle is not installed; install it with `pip install paddlepaddle==3.3.1`" in done.stderr


def test_broken_paddle_is_one_line(tmp_path):
    hide_paddle(tmp_path, "raise TypeError('Descriptors cannot be created\\ndirectly')")
    done = python("import plsc; plsc.Entry().train()", tmp_path)
    assert done.returncode == 1 and done.stderr.count("\n") == 1
    assert "cannot be imported (TypeError: Descriptors cannot be created directly)" in done.stderr


def test_other_errors_keep_their_traceback_and_the_hook_before(tmp_path):
    hide_paddle(tmp_path, NO_PADDLE)
    code = (
        "import sys, plsc\nbefore = sys.excepthook\n"
        "def mine(*given): print('mine', file=sys.stderr); before(*given)\n"
        "sys.excepthook = mine\nplsc.Entry(); once = sys.excepthook; plsc.Entry()\n"
        "assert sys.excepthook is once is not mine\n{}"
    )
    done = python(code.format("1 / 0"), tmp_path)
    assert done.returncode == 1 and done.stderr.startswith("mine\nTraceback") and "ZeroDivisionError" in done.stderr
    done = python(code.format("plsc.Entry().set_lr(-1)"), tmp_path)
    assert done.returncode == 1 and done.stderr.count("\n") == 1
    assert done.stderr.rstrip().endswith("set_lr(): lr=-1: must be a number in (0, 1e30]")


def test_one_line():
    assert one_line(PlscError("a\n  b\n"), 3) == "plsc: error: [rank 3] a b"
    assert one_line(PlscError("a"), None) == "plsc: error: a"


def test_hook_names_the_rank(tmp_path):
    hide_paddle(tmp_path, NO_PADDLE)
    code = (
        "import sys, types\nmodule = types.ModuleType('plsc.parallel.environment')\n"
        "class Environment:\n    rank, world_size = 2, 1\n    @classmethod\n    def from_launch(cls): return cls()\n"
        "module.Environment, module.quiet_paddle_logs = Environment, lambda: None\n"
        "import plsc.parallel\nsys.modules[module.__name__] = module\n"
        "plsc.Entry('no.yaml')"
    )
    done = python(code, tmp_path)
    expected = "plsc: error: [rank 2] no.yaml: cannot read the configuration: No such file or directory\n"
    assert (done.returncode, done.stderr) == (1, expected)


def load_tool():
    spec = importlib.util.spec_from_file_location("train_tool", ROOT / "tools" / "train.py")
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    return tool


def test_train_tool(monkeypatch, tmp_path):
    path = tmp_path / "run.yaml"
    path.write_text("train_epochs: 3\nlr: 0.3\n")
    seen = []
    monkeypatch.setattr(Entry, "train", lambda entry: seen.append(entry._config))
    load_tool().main(["-c", str(path), "-o", "classifier.sample_ratio=0.1", "-o", "train_steps=7"])
    load_tool().main([])
    changed = {"lr": 0.3, "train_steps": 7, "classifier": {"sample_ratio": 0.1}}
    assert seen == [Config.from_dict(changed), Config()]


def test_train_tool_reports_one_line(tmp_path):
    hide_paddle(tmp_path, NO_PADDLE)
    tool = str(ROOT / "tools" / "train.py")
    code = f"import runpy, sys; sys.argv = ['', '-o', 'sample_ratio=3']; runpy.run_path({tool!r}, run_name='__main__')"
    done = python(code, tmp_path)
    assert done.returncode == 1 and done.stderr.count("\n") == 1
    assert "-o: sample_ratio=3: there is no such key; did you mean classifier.sample_ratio?" in done.stderr


def test_package_names():
    import plsc

    assert {"Entry", "LargeScaleClassifier", "__version__"} <= set(dir(plsc))
    with pytest.raises(AttributeError, match="has no attribute 'Entri'; it has Entry"):
        _ = plsc.Entri


def test_real_paddle_objects():
    import paddle

    entry = Entry()
    optimizer = paddle.optimizer.Momentum(parameters=[paddle.create_parameter([1], "float32")])
    entry.set_optimizer(optimizer)
    attribute = paddle.ParamAttr(name="fc")
    entry.set_distfc_attr(attribute, attribute)
    assert entry.optimizer is optimizer and entry._user_objects.bias_attr is attribute
    assert require_paddle() == paddle.__version__


def test_real_amp_lists_come_out_as_they_went_in():
    from paddle.static.amp import AutoMixedPrecisionLists

    lists = AutoMixedPrecisionLists(custom_white_list=["exp"], custom_black_list=["conv2d"])
    entry = Entry()
    entry.set_mixed_precision(True, amp_lists=lists)
    custom = {name: ops for name, ops in entry.config["mixed_precision"].items() if name.startswith("custom")}
    again = AutoMixedPrecisionLists(**custom)
    assert (again.white_list, again.black_list) == (lists.white_list, lists.black_list)


@pytest.mark.parametrize("text", [
    "In user code:\n\n\n    InvalidArgumentError: the shape is [4]\n      [Hint: ...]",
    "\n---\nC++ Traceback\n0   run()\n----\nError Message Summary:\n---\nInvalidArgumentError: the shape is [4]",
])  # fmt: skip
def test_the_line_of_paddles_errors_that_says_something(text):
    assert first_line(ValueError(text)) == "InvalidArgumentError: the shape is [4]"
