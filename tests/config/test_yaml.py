"""The YAML file: what is read, and the one line with file and line number for what is wrong."""

from __future__ import annotations

import pytest

from plsc.config import Config
from plsc.errors import ConfigError


def refusal(function, *arguments) -> str:
    with pytest.raises(ConfigError) as caught:
        function(*arguments)
    message = str(caught.value)
    assert "\n" not in message
    return message


def write(directory, text: str) -> str:
    path = directory / "run.yaml"
    path.write_text(text, encoding="utf-8")
    return str(path)


def test_yaml_good(tmp_path):
    text = "# a run\nlr: 1e-3\nclassifier:\n  sample_ratio: 0.5\nmodel:\n  # nothing yet\n"
    config = Config.from_yaml(write(tmp_path, text))
    assert config.lr == 0.001 and config.classifier.sample_ratio == 0.5
    for empty in ("", "# only this\n", "---\n", "null\n"):
        assert Config.from_yaml(write(tmp_path, empty)) == Config()


@pytest.mark.parametrize(
    ("text", "line", "says"),
    [
        ("lr: 0.1\nmomentum: 2\n", 2, "momentum=2: must be a number in [0, 1)"),
        ("lr: 0.1\n\nmodel:\n  nme: x\n", 4, "model.nme='x': there is no such key; did you mean model.name?"),
        ("lr: 1\nseed: 3\nlr: 2\n", 3, "lr: the key is given twice, first in line 1"),
        ("lr: 1\nmodel: {dropout: 0}\nmodel: {name: ResNet18}\n", 3, "the key is given twice"),
        ("lr: [1\nseed: 2\n", 2, "is not YAML"),
        ("lr: 1\n\tseed: 2\n", 2, "is not YAML"),
        ("- lr\n- seed\n", 1, "the file must be a mapping"),
        ("model: ResNet50\n", 1, "must be a mapping"),
        ("lr: 1\n3: 4\n", 2, "3: a key must be text"),
        ("lr: 1\n---\nlr: 2\n", 2, "is not YAML"),
        ("lr: !!python/object:os.system x\n", 1, "is not YAML"),
        ("lr: *nothing\n", 1, "is not YAML"),
        ("seed: &a [*a]\n", 1, "is not YAML"),
        ("remote:\n  fs_ugi: me,secret\n  fs_ugy: me,secret\n", 3, "<hidden>"),
        ("remote:\n  fs_ugi: me,secret: x\n", 2, "is not YAML"),
        ("remote:\n  fs_ugi: [secret]\n", 2, "remote.fs_ugi=<hidden>: must be text"),
        ("classifier:\n  loss_type: mine\n", 2, "needs margin1"),
    ],
)
def test_yaml_bad(tmp_path, text, line, says):
    path = write(tmp_path, text)
    message = refusal(Config.from_yaml, path)
    assert message.startswith(f"{path}:{line}: ") and says in message and "secret" not in message


def test_yaml_files_that_cannot_be_read(tmp_path):
    assert refusal(Config.from_yaml, str(tmp_path / "no.yaml")).endswith("No such file or directory")
    assert "Is a directory" in refusal(Config.from_yaml, tmp_path)
    (tmp_path / "bytes.yaml").write_bytes(b"lr: \xff\xfe\n")
    assert "bytes.yaml: is not YAML" in refusal(Config.from_yaml, tmp_path / "bytes.yaml")
    (tmp_path / "deep.yaml").write_text("lr: " + "[" * 5000)
    assert "nested too deeply" in refusal(Config.from_yaml, tmp_path / "deep.yaml")
    (tmp_path / "date.yaml").write_text("lr: 2020-99-99\n")
    assert "is not YAML" in refusal(Config.from_yaml, tmp_path / "date.yaml")
    assert "a YAML file is needed" in refusal(Config.from_yaml, {"lr": 1})


@pytest.mark.parametrize("value", [
    "!!bool foo", "!!timestamp foo", "!!int ''", "!!float ''", "!!int x", "{!!bool a: 1}",
])  # fmt: skip
def test_tags_that_do_not_fit(tmp_path, value):
    """PyYAML raises KeyError, AttributeError and IndexError for them."""
    assert "run.yaml: is not YAML" in refusal(Config.from_yaml, write(tmp_path, f"lr: {value}\n"))
    assert "is not YAML" in refusal(Config().override, [f"lr={value}"])
