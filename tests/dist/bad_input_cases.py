"""What a user can get wrong, as a user's script does it (see test_bad_input.py).

python -m tests.dist.bad_input_cases ROOT NAME      one case on this rank, as a user starts a script
python -m tests.dist.bad_input_cases ROOT --all     every case, each on ranks of its own
"""

from __future__ import annotations

import atexit
import json
import os
import resource
import signal
import sys
import time
from pathlib import Path

from plsc import Entry
from plsc.errors import DataError
from tests.dist import forked
from tests.dist.bad_input_parts import (
    CLASSES,
    EMBEDDING,
    SIDE,
    Frozen,
    Linear,
    Misfitting,
    OneHotSample,
    Raising,
    RaisingSample,
    Slow,
)


def base(root: Path, case: str) -> Entry:
    """A run that works: two steps on 16 of the pictures."""
    entry = Entry(
        config={
            "data": {"dataset_dir": str(root / "pictures"), "num_workers": 0},
            "model": {"embedding_size": EMBEDDING, "image_shape": [3, SIDE, SIDE]},
            "classifier.num_classes": CLASSES,
            "model_save_dir": str(root / "out" / folder(case)),
            "train_batch_size": 4,
            "train_steps": 2,
            "with_test": False,
            "seed": 3,
            "device": "cpu",
            "num_threads": 1,
            "log_period": 1,
        }
    )
    entry.set_model(Linear())
    return entry


def setting(**values):
    """A case that differs from ``base`` in settings (a dot in a key is written as two underscores)."""

    def change(entry: Entry, root: Path) -> None:
        for key, value in values.items():
            entry.set(key.replace("__", "."), value)

    return change


def part(**values):
    """A case that differs in what the user hands over."""

    def change(entry: Entry, root: Path) -> None:
        for name, value in values.items():
            setattr(entry, name, value)

    return change


def yaml_file(name: str):
    """A case that reads a YAML file."""

    def change(entry: Entry, root: Path) -> None:
        Entry(str(root / "pictures" / f"{name}.yaml")).train()

    return change


def save_below_a_file(entry: Entry, root: Path) -> None:
    entry.set_model_save_dir(str(root / "pictures" / "label.txt" / "out"))


def save_below_a_file_on_rank_1(entry: Entry, root: Path) -> None:
    """One relative name for both, and on rank 1's machine a file where a directory should be."""
    here = root / "pictures" if rank() == 1 else root / "elsewhere"
    here.mkdir(exist_ok=True)
    os.chdir(here)
    entry.set_model_save_dir("label.txt/out")


def list_missing_on_rank_1(entry: Entry, root: Path) -> None:
    if rank() == 1:
        entry.set("data.label_file", "elsewhere.txt")


def disk_full_on_rank_1(entry: Entry, root: Path) -> None:
    """No file may grow beyond 32 KiB: enough for a log, not for a shard of 5000 x 4 floats."""
    entry.set_class_num(10000)
    if rank() == 1:
        resource.setrlimit(resource.RLIMIT_FSIZE, (32768, 32768))


def another_paddle(entry: Entry, root: Path) -> None:
    import paddle

    paddle.__version__ = "2.4.2"


def rank() -> int:
    return int(os.environ.get("PADDLE_TRAINER_ID", "0"))


# case -> (what makes it, all that the line must say: field, value, what is allowed or what to do)
CASES = {
    "no list": (setting(data__label_file="nowhere.txt"), ["nowhere.txt", "not found", "data.label_file"]),
    "empty list": (setting(data__label_file="empty.txt"), ["empty.txt", "is empty", "path<TAB>label"]),
    "no label": (setting(data__label_file="no_label.txt"), ["no_label.txt:4", "'03.jpg'", "path<TAB>label"]),
    "label a word": (setting(data__label_file="word.txt"), ["word.txt:4", "cat", "is not an integer"]),
    "label negative": (setting(data__label_file="negative.txt"), ["negative.txt:4", "-1", "0..7", "num_classes=8"]),
    "label too large": (setting(data__label_file="range.txt"), ["range.txt:4", "8", "0..7", "num_classes=8"]),
    "picture missing": (setting(data__label_file="missing.txt"), ["missing.txt:4", "'gone.jpg' is missing"]),
    "picture too wide": (setting(data__label_file="wide.txt"), ["wide.txt:", "9 x 8", "model.image_shape", "8 x 8"]),
    "batch too large": (setting(train_batch_size=17), ["train_batch_size=17", "34", "32 training", "at most 16"]),
    "image number": (setting(data__train_image_num=31), ["data.train_image_num=31", "32 images", "set it to null"]),
    "ratio 0": (setting(classifier__sample_ratio=0), ["classifier.sample_ratio=0", "(0, 1]"]),
    "ratio negative": (setting(classifier__sample_ratio=-1), ["classifier.sample_ratio=-1", "(0, 1]"]),
    "ratio above 1": (setting(classifier__sample_ratio=1.5), ["classifier.sample_ratio=1.5", "(0, 1]"]),
    "ratio not a number": (setting(classifier__sample_ratio=float("nan")), ["classifier.sample_ratio=nan", "(0, 1]"]),
    "one class": (setting(classifier__num_classes=1), ["classifier.num_classes=1", "[2, 2147483647]"]),
    "length twice": (yaml_file("both"), ["both.yaml:2", "train_steps", "train_epochs"]),
    "broken YAML": (yaml_file("broken"), ["broken.yaml:3", "is not YAML"]),
    "unknown section": (yaml_file("key"), ["key.yaml:2", "clasifier", "did you mean classifier"]),
    "text for a number": (yaml_file("kind"), ["kind.yaml:2", "train_steps='many'"]),
    "no YAML": (yaml_file("absent"), ["absent.yaml", "No such file"]),
    "unknown key": (setting(classifier__sample_ration=0.5), ["classifier.sample_ration", "sample_ratio"]),
    "unknown model": (setting(model__name="ResNet51"), ["model.name='ResNet51'", "ResNet50", "MobileFaceNet"]),
    "unknown loss": (setting(classifier__loss_type="arcfase"), ["loss_type='arcfase'", "did you mean arcface"]),
    "other ranks": (setting(world_size=3), ["world_size=3", "launched with 2 ranks", "change it"]),
    "no GPU": (setting(device="gpu"), ["device='gpu'", "device: cpu"]),
    "save below a file": (save_below_a_file, ["model_save_dir=", "label.txt/out", "Not a directory", "choose another"]),
    "save on one": (save_below_a_file_on_rank_1, ["model_save_dir=", "label.txt/out", "Not a directory"]),
    "list on one": (list_missing_on_rank_1, ["rank 1", "elsewhere.txt", "not found", "data.label_file"]),
    "no set to verify": (
        setting(with_test=True, data__val_targets=["lfw"]),
        ["lfw.bin", "data.val_targets", "with_test: false"],
    ),
    "no checkpoint": (setting(checkpoint_dir="/nowhere"), ["/nowhere", "checkpoint"]),
    "embedding": (setting(model__embedding_size=6), ["model.embedding_size=6", "features of 4", "change the model"]),
    "model raises": (part(model=Raising()), ["Raising", "build_network", "KeyError", "bad_input_parts.py:"]),
    "model misfits": (part(model=Misfitting()), ["Misfitting", "build_network", "roadcast", "bad_input_parts.py:"]),
    "data raises": (part(train_dataset=RaisingSample()), ["train_dataset[", "KeyError", "bad_input_parts.py:"]),
    "disk full": (disk_full_on_rank_1, ["cannot save the checkpoint of step 2", "rank 1", "File too large"]),
    "not finite": (part(train_dataset=OneHotSample()), ["the loss is ", "at step 2;", "lower lr"]),
    "another Paddle": (another_paddle, ["PaddlePaddle 2.4.2 is not supported", "2.6 or 3.x", "pip install"]),
}


def odd_pictures(entry: Entry, root: Path) -> None:
    entry.set("data.label_file", "odd.txt")
    entry.set_train_epochs(1)


def cut_picture(entry: Entry, root: Path) -> None:
    """Only the worker of the rank that is to read it finds out."""
    entry.set("data.label_file", "cut.txt")
    entry.set_num_workers(1)
    entry.set_train_epochs(3)


def slow_training(entry: Entry) -> None:
    entry.train_dataset = Slow()
    entry.set_num_workers(1)
    entry.set_train_steps(100000)


def kill_at_step(number: int) -> None:
    from plsc.engine.program.session import Session

    step = Session.step

    def last(self, at, *rest):
        if at == number:
            os.kill(os.getpid(), signal.SIGKILL)
        return step(self, at, *rest)

    Session.step = last


def killed_on(victim: int, step: int = 6):
    """A rank is killed in the middle of training."""

    def change(entry: Entry, root: Path) -> None:
        slow_training(entry)
        if rank() == victim:
            kill_at_step(step)

    return change


def killed_in_a_wait(entry: Entry, root: Path) -> None:
    """Rank 1 is killed while rank 0 waits for it outside of the program, such as while both save."""
    from plsc import checkpoint

    if rank() == 1:
        checkpoint.save = lambda *rest: os.kill(os.getpid(), signal.SIGKILL)


def killed_and_told(entry: Entry, root: Path) -> None:
    """Rank 1 is killed, and a launcher sends SIGTERM to rank 0, which has not said why it ends yet."""
    from plsc.engine.run.run_log import RunLog

    killed_on(1, step=2)(entry, root)  # no save is under way then, so rank 0 ends by an error of its own
    failed = RunLog.error

    def told(self, text):
        os.kill(os.getpid(), signal.SIGTERM)
        failed(self, text)

    RunLog.error = told


def waits_little(entry: Entry, root: Path) -> None:
    """Another rank is killed before it meets the others, see run_case."""
    from plsc.parallel import group

    group.CONNECT_SECONDS = 3


def killed_before_training(entry: Entry, root: Path) -> None:
    """Rank 1 is killed when it has made its Entry and is no further."""
    if rank() == 1:
        time.sleep(0.5)  # it connects in the background
        os.kill(os.getpid(), signal.SIGKILL)


def in_gloo(then):
    """Rank 1 does ``then()`` while Gloo connects the ranks; the others wait, with Paddle 2.6 holding Python's lock."""

    def change(entry: Entry, root: Path) -> None:
        from plsc.backend import private, rings
        from plsc.parallel import group

        group.START_SECONDS = 5
        if rank() == 1 and rings.gloo_needs_store():
            rings.start_gloo = lambda *rest: then()
        elif rank() == 1:
            private.require("base.core").GlooParallelContext = lambda strategy: then()

    return change


def data_raises_on_rank_2(entry: Entry, root: Path) -> None:
    entry.train_dataset = RaisingSample(raises=rank() == 2)


def out_of_memory_on_rank_1(entry: Entry, root: Path) -> None:
    """An error of Paddle's in the middle of a step."""
    from paddle.static import Executor

    execute = Executor.run

    def run(self, *program, feed=None, **rest):
        if "label" in (feed or {}):
            raise RuntimeError("C++ Traceback\nResourceExhaustedError: Out of memory error on CPU")
        return execute(self, *program, feed=feed, **rest)

    if rank() == 1:
        Executor.run = run


def again(entry: Entry, root: Path) -> None:
    """A script that catches an error which all ranks have, and tries again."""
    try:
        wrong = base(root, "again")
        wrong.set("data.label_file", "missing.txt")
        wrong.train()
    except DataError:
        pass


# Those that only one rank runs into, and those that end a rank.
ONE_RANK = {
    "picture cut": (cut_picture, ["cut.txt:8: image 'cut.jpg'", "cannot be decoded"]),
    "one of three": (data_raises_on_rank_2, ["rank 2", "train_dataset[", "KeyError", "bad_input_parts.py:"]),
    "out of memory": (out_of_memory_on_rank_1, ["rank 1", "the program stopped", "memory"]),
    "killed 0": (killed_on(0), ["stopped because of rank 0", "was killed or crashed"]),
    "killed 1": (killed_on(1), ["stopped because of rank 1", "was killed or crashed"]),
    "killed and told": (killed_and_told, ["stopped because of rank 1", "was killed or crashed"]),
    "killed in a wait": (killed_in_a_wait, ["stopped because of rank 1", "was killed or crashed"]),
    "0 not there": (waits_little, ["cannot reach the other ranks", "3 seconds for rank 0 (", "Connection refused"]),
    "1 not there": (waits_little, ["cannot reach the other ranks", "3 seconds for rank(s) 1 (", "all 2 ranks run"]),
    "killed in Gloo": (
        in_gloo(lambda: os.kill(os.getpid(), signal.SIGKILL)), ["stopped because of rank 1", "was killed or crashed"],
    ),
    "hangs in Gloo": (in_gloo(lambda: time.sleep(1000)), ["Gloo"]),
    "killed early": (killed_before_training, ["stopped because of rank 1", "was killed or crashed"]),
    "too few classes": (setting(classifier__num_classes=2), ["num_classes=2", "3 ranks", "launch 2"]),
}  # fmt: skip
FINE = {"odd pictures": (odd_pictures, []), "again": (again, []), "nothing to train": (part(model=Frozen()), [])}
RANKS = {"one of three": 3, "too few classes": 3}
ALL = {**CASES, **ONE_RANK, **FINE}


def run_all(root: Path, names: list[str]) -> None:
    """Each case on two ranks of its own, forks of this process; codes.json gets their exit codes and seconds."""
    import paddle  # noqa: F401  loaded once, for all forks

    import plsc.engine.actions  # noqa: F401

    outcomes = {}
    for name in names:
        logs = root / "logs" / folder(name)
        logs.mkdir(parents=True)
        began = time.monotonic()
        codes = forked.run(RANKS.get(name, 2), logs, lambda _, name=name: run_case(name, root), lone=True)
        outcomes[name] = {"codes": codes, "seconds": time.monotonic() - began}
    (root / "outcomes.json").write_text(json.dumps(outcomes))


def run_case(name: str, root: Path) -> None:
    """The user's script, which ends in a fork as the interpreter ends any script: by its hook, then what is at exit."""
    code = 0
    if name == f"{rank()} not there":
        os.kill(os.getpid(), signal.SIGKILL)
    try:
        entry = base(root, name)
        ALL[name][0](entry, root)
        entry.train()
    except BaseException:
        sys.excepthook(*sys.exc_info())
        code = 1
    atexit._run_exitfuncs()
    raise SystemExit(code)


def folder(name: str) -> str:
    return name.replace(" ", "_")


if __name__ == "__main__":
    where = Path(sys.argv[1])
    if sys.argv[2] == "--all":
        run_all(where, sys.argv[3:] or list(ALL))
    else:
        run_case(sys.argv[2], where)
