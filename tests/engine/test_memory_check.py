"""A run that does not fit is refused before it begins, by what the machine and its control groups have left."""

from __future__ import annotations

from pathlib import Path

import pytest

from plsc.engine.memory import check as memory_check
from plsc.engine.memory.free import free_memory
from plsc.engine.memory.plan import resident_bytes
from plsc.errors import ConfigError
from tests.engine.test_memory_plan import EMBEDDING, Linear, entry

GIB = 1 << 30


def make(root: Path, files: dict[str, object]) -> str:
    """A root with 8 GiB available to the machine and these files."""
    machine = f"MemTotal: 1 kB\nMemAvailable: {8 * GIB // 1024} kB\nSwapFree: 99 kB\n"
    for name, text in {"proc/meminfo": machine, **files}.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(str(text))
    return str(root)


def group(path: str, limit, used, inactive=0, active=0, v1=False) -> dict[str, object]:
    names = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file", "total_active_file") if v1 else (
        "memory.max", "memory.current", "inactive_file", "active_file")  # fmt: skip
    where = ("sys/fs/cgroup/memory/" if v1 else "sys/fs/cgroup/") + path
    stat = f"anon 5\n{names[2]} {inactive}\n{names[3]} {active}\nrss 1\n"
    return {f"{where}/{names[0]}": f"{limit}\n", f"{where}/{names[1]}": f"{used}\n", f"{where}/memory.stat": stat}


@pytest.mark.parametrize("files, expected", [
    ({}, 8 * GIB),
    ({"proc/self/cgroup": "0::/a/b\n", **group("a/b", "max", 5), **group("a", "max", 5)}, 8 * GIB),
    ({"proc/self/cgroup": "0::/a/b\n", **group("a/b", 3 * GIB, GIB), **group("a", "max", 5)}, 2 * GIB),
    ({"proc/self/cgroup": "0::/a/b\n", **group("a/b", 3 * GIB, GIB), **group("a", 2 * GIB, GIB)}, GIB),  # the one above
    ({"proc/self/cgroup": "0::/a\n", **group("a", 3 * GIB, 3 * GIB, inactive=GIB)}, GIB),  # pages of files come back
    ({"proc/self/cgroup": "0::/a\n", **group("a", 4 * GIB, 4 * GIB, inactive=GIB, active=2 * GIB)}, 3 * GIB),
    ({"proc/self/cgroup": "4:memory:/a\n", **group("a", 4 * GIB, 4 * GIB, GIB, 2 * GIB, v1=True)}, 3 * GIB),
    ({"proc/self/cgroup": "0::/../x\n", **group("", 3 * GIB, GIB)}, 2 * GIB),  # a container's own root
    ({"proc/self/cgroup": "5:cpu,cpuacct:/q\n4:memory:/docker/1\n", **group("", 4 * GIB, GIB, v1=True)}, 3 * GIB),
    ({"proc/self/cgroup": "4:memory:/a\n", **group("a", 9223372036854771712, GIB, v1=True)}, 8 * GIB),
    ({"proc/self/cgroup": "0::/a\n", **group("a", GIB, 2 * GIB)}, 0),
])  # fmt: skip
def test_what_is_free_is_what_the_narrowest_limit_leaves(tmp_path, files, expected):
    assert free_memory(make(tmp_path, files)) == expected


def test_here_it_is_a_number():
    assert 0 < free_memory() < 1 << 50


@pytest.fixture
def run_of(tmp_path):
    def make_run(**options):
        return entry(**{"model_save_dir": str(tmp_path), "data.train_image_num": 8, **options})

    return make_run


def test_what_does_not_fit_is_refused_with_both_numbers_and_what_helps(tmp_path, run_of, monkeypatch):
    """50,000,000 classes of 16 numbers with momentum are 6.4 GB; nothing of them is made."""
    monkeypatch.setattr(memory_check, "free_memory", lambda: 2_500_000_000)
    before = resident_bytes()
    with pytest.raises(ConfigError, match=r"memory: 1 rank\(s\) on this machine need .* GB .* 2.5 GB are") as caught:
        run_of(**{"classifier.num_classes": 50_000_000}).train()
    assert 6.4 < float(str(caught.value).split("need ")[1].split()[0]) < 12
    for word in ("sample_ratio", "storage", "train_batch_size", "more machines", "plsc plan", "memory_check: false"):
        assert word in str(caught.value)
    assert resident_bytes() - before < 1e9


def test_what_fits_and_what_is_told_to_go_on_trains(tmp_path, run_of, monkeypatch):
    assert run_of(model_save_dir=str(tmp_path / "fits")).train().step == 1
    monkeypatch.setattr(memory_check, "free_memory", lambda: 0)
    other = {"model_save_dir": str(tmp_path / "other")}
    with pytest.raises(ConfigError, match="memory: 1 rank"):
        run_of(**other).train()
    assert run_of(**other, memory_check=False).train().step == 1


class OfAParameter(Linear):
    """Its convolution reads no picture but a parameter, which learns."""

    def build_network(self, input, label, is_train=True):
        import paddle

        picture = paddle.create_parameter([1, 16, 4, 4], "float32", name="picture")
        found = paddle.nn.Conv2D(16, EMBEDDING, 4)(picture)
        return super().build_network(input, label, is_train) + paddle.flatten(found, 1)


def test_a_convolution_of_a_parameter_is_counted_too(run_of, tmp_path):
    made = run_of()
    made.set_model(OfAParameter())
    assert made.train().step == 1
    assert "memory was not estimated" not in (tmp_path / "logs" / "rank_00000.log").read_text()


def test_what_cannot_be_estimated_is_said_and_trains(run_of, tmp_path, monkeypatch):
    def fails(*args):
        raise KeyError("an operation")

    monkeypatch.setattr(memory_check, "estimate_memory", fails)
    assert run_of().train().step == 1
    said = "memory was not estimated, the run continues unchecked: KeyError: 'an operation'"
    assert said in (tmp_path / "logs" / "rank_00000.log").read_text()


def test_what_is_refused_leaves_no_logs_and_those_of_another_run_alone(tmp_path, run_of, monkeypatch):
    monkeypatch.setattr(memory_check, "free_memory", lambda: 0)
    for logs in ([], ["rank_00007.log"]):
        for name in logs:
            (tmp_path / "logs").mkdir()
            (tmp_path / "logs" / name).write_text("of another run")
        with pytest.raises(ConfigError):
            run_of().train()
        assert [path.name for path in (tmp_path / "logs").glob("*")] == logs
        assert not (tmp_path / "scalars.jsonl").exists() and (tmp_path / "logs").exists() == bool(logs)
