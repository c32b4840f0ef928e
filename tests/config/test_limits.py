"""Absurd numbers and texts: one short line at once, whatever way they come in."""

from __future__ import annotations

import pytest

from plsc.config import Config
from plsc.config.format_value import format_value
from plsc.config.keys import OPTIONS
from plsc.errors import ConfigError

FREE = {key: entry.kind for key, entry in sorted(OPTIONS.items()) if not entry.choices and not entry.registry}
NUMBERS = [key for key, kind in FREE.items() if kind in ("int", "float", "list[int]")]
TEXTS = [key for key, kind in FREE.items() if kind in ("str", "list[str]")]


def refusal(function, *arguments) -> str:
    with pytest.raises(ConfigError) as caught:
        function(*arguments)
    message = str(caught.value)
    assert "\n" not in message and len(message) < 600
    message.encode()  # fit to be written to a log
    return message


@pytest.mark.parametrize("number", [2**40 + 2**70, 10**5000, -(10**5000)], ids=["large", "digits", "negative"])
@pytest.mark.parametrize("key", NUMBERS)
def test_no_number_is_without_bounds(key, number):
    """A key whose range has an open end would take it, and end inside Paddle."""
    kind = OPTIONS[key].kind
    if kind == "float" and number == 2**40 + 2**70:
        number = 10**40  # more than float32 holds
    assert f"{key}=" in refusal(Config().set, key, [number] * 3 if kind == "list[int]" else number)


def test_the_sizes_that_ended_in_crashes():
    for key, value, allowed in (
        ("classifier.num_classes", 2**31, "[2, 2147483647]"), ("num_threads", 10**9, "[0, 1024]"),
        ("data.num_workers", 10**9, "[0, 1024]"), ("model.embedding_size", 2**31, "[1, 65536]"),
        ("model.base_width", 10**9, "[1, 4096]"), ("model.image_shape", [3, 10**9, 112], "[1, 16384]"),
        ("train_batch_size", 10**9, "[1, 1000000]"),
    ):  # fmt: skip
        assert allowed in refusal(Config().set, key, value)
    config = Config.from_dict({"model": {"image_shape": [3, 16384, 16384]}})
    assert "values; at most 268,435,456" in refusal(config.check, 1)
    assert "sizes from 1 to 16384" in refusal(Config().set, "model.input_info", [
        {"name": "label", "shape": [-1, 1], "dtype": "int64"},
        {"name": "image", "shape": [-1, 3, 10**9, 9], "dtype": "float32"},
    ])  # fmt: skip


@pytest.mark.parametrize("text", ["a\0b", "a\nb", "a\x1bb", "a\ud800b", "x" * 5000])
@pytest.mark.parametrize("key", TEXTS)
def test_texts_that_no_file_and_no_log_can_hold(key, text):
    message = refusal(Config().set, key, [text] if OPTIONS[key].kind == "list[str]" else text)
    assert "control character" in message or "5000 characters" in message


def laughs(prefix: str, join: str) -> str:
    """Nine parts, each of which names the one before nine times."""
    parts = [f"{prefix.format('a')}&a [x,x,x,x,x,x,x,x,x]"]
    for other, name in zip("abcdefgh", "bcdefghi"):
        parts.append(f"{prefix.format(name)}&{name} [{','.join([f'*{other}'] * 9)}]")
    return join.join(parts)


@pytest.mark.parametrize(("text", "said"), [
    (laughs("{}: ", "\n"), "6: is not YAML: more than 100000 values"),
    ("seed: " + "[" * 30 + "]" * 30, "1: is not YAML: nested too deeply"),
    ("seed: " + "[" * 100_000, "nested too deeply"),
    ("seed: " + "9" * 5000, "seed"),
    ("seed: 0x" + "f" * 5000, "seed=an integer of 20000 bits"),
    ("x" * 1000 + ": 1", "there is no such key"),
    ("? " + "x" * 100_000 + "\n: 1", "there is no such key"),
    ("seed: &a {b: *a}", "more than 100000 values"),
    ("seed: *" + "a" * 5000, "found undefined alias 'aaa"),
])  # fmt: skip
def test_yaml_that_stands_for_more_than_it_is(tmp_path, text, said):
    path = tmp_path / "run.yaml"
    path.write_text(text)
    message = refusal(Config.from_yaml, path)
    assert said in message or "4300 digits" in message  # Python 3.9 has no limit of its own


@pytest.mark.parametrize(("right", "said"), [
    ("[" + laughs("", ",") + "]", "more than 100000 values"), ("[" * 30, "is not YAML"), ("&a [*a]", "100000 values"),
    ("x" * 300_000, "300000 characters, more than 262144"), ("[" * 30 + "]" * 30, "nested too deeply"),
])  # fmt: skip
def test_assignments_that_stand_for_more_than_they_are(right, said):
    assert said in refusal(Config().override, [f"seed={right}"])


def test_names_for_parts_are_taken_where_they_are_small(tmp_path):
    path = tmp_path / "run.yaml"
    path.write_text("lr_schedule: {boundaries: &points [10, 20]}\ndata: {val_targets: &sets [a, b]}\n")
    assert Config.from_yaml(path).lr_schedule.boundaries == [10, 20]
    path.write_text("train_steps: &n 40\nsave_period: *n\n")
    assert Config.from_yaml(path).save_period == 40


@pytest.mark.parametrize(("value", "text"), [
    ([1, "a", None, (2,), {"b": 1.5}, {3}], "[1, 'a', None, (2,), {'b': 1.5}, {3}]"), ((), "()"), ({}, "{}"),
    ([[[[[5]]]]], "[[[[...]]]]"), (True, "True"), (b"x", "b'x'"), ("a\n b", "'a\\n b'"), (set(), "set()"),
    (1 << 9999, "an integer of 10000 bits"), ("s3://key:se/cret@host", "'s3://***@host'"), ("\ud800", "'\\ud800'"),
], ids=lambda value: repr(value)[:20] if not isinstance(value, int) else "integer")  # fmt: skip
def test_shown(value, text):
    assert format_value(value) == text


def test_shown_ends_whatever_it_is_given():
    value = ["x"] * 9
    for _ in range(30):
        value = [value] * 9
    assert len(format_value(value)) == 80 and len(format_value({1: value, 2: "y" * 10**6})) == 80
    seen = []

    class Item:
        def __repr__(self):
            seen.append(self)
            return "item"

    assert len(format_value([Item()] * 10**6)) == 80 and len(seen) < 100
    round_and_round: list = []
    round_and_round.append(round_and_round)
    assert format_value(round_and_round) == "[[[[...]]]]"


def test_a_secret_on_the_command_line_is_warned_of_and_not_shown(caplog):
    config = Config()
    config.override(["remote.fs_ugi=me,hidden", "lr=1"])
    assert config.get("remote.fs_ugi") == "me,hidden"
    assert "-o remote.fs_ugi: every user" in caplog.text and "hidden" not in caplog.text
    caplog.clear()
    config.override(["remote.fs_ugi=", "lr=1"])
    config.set("remote.fs_ugi", "me,hidden")
    assert not caplog.text


def test_a_secret_is_hidden_where_the_sign_between_is_missing():
    for text in ("remote.fs_ugi:me,secret", "=me,secret", " = me,secret", "fs_ugi me,secret", "remote.fs_ugi"):
        assert "secret" not in refusal(Config().override, [text])
