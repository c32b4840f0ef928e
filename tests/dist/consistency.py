"""The process behind test_alike.py: ranks that differ in one thing, each case on forks of this process.

python -m tests.dist.consistency DIR writes DIR/report.json: exit codes by case; each rank's log is in DIR/<case>/.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import numpy as np
from PIL import Image

from plsc import Entry
from tests.dist import forked
from tests.dist.tiny_run import Pictures, TinyNet, make_entry

CLASSES, SIDE = 8, 16
LINES = [f"{index:02d}.png\t{index % CLASSES}" for index in range(24)]
NAMES = [line.split("\t")[0] for line in LINES]
LISTS = {
    "plain": LINES,
    "permuted": LINES[12:] + LINES[:12],
    "shifted": [f"{name}\t{(index + 1) % CLASSES}" for index, name in enumerate(NAMES)],
    "longer": LINES + [f"{index:02d}.png\t{index % CLASSES}" for index in range(24, 32)],
}


class OtherNet(TinyNet):
    """The same by another name."""


class OtherPictures(Pictures):
    """The same by another name."""


def reader(count: int):
    def samples():
        data = Pictures(count, CLASSES)
        return (data[index] for index in range(count))

    return samples


def make_data(root: Path) -> None:
    rng = np.random.default_rng(0)
    for name, lines in LISTS.items():
        (root / name).mkdir(parents=True)
        (root / name / "label.txt").write_text("".join(line + "\n" for line in lines))
    for index in range(32):
        pixels = rng.integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
        for name in LISTS:
            Image.fromarray(pixels).save(root / name / f"{index:02d}.png")


def make_sets(root: Path) -> None:
    from plsc.evaluation.bin_file import save_bin

    pictures = [(root / "plain" / f"{index % 32:02d}.png").read_bytes() for index in range(40)]
    for name, images in (("plain", pictures), ("permuted", pictures[::-1])):
        save_bin(root / name / "lfw.bin", images, [index % 2 == 0 for index in range(20)])


def entry_for(run_dir: Path, options: dict) -> Entry:
    usual = {"with_test": False, "train_steps": 4, "train_batch_size": 2, "classifier.num_classes": CLASSES,
             "save_period": 0}  # fmt: skip
    entry = make_entry(run_dir, {**usual, **options})
    entry.test_dataset = None
    return entry


def on_list(entry: Entry, root: Path, name: str) -> None:
    entry.train_dataset = None
    entry.set("data.dataset_dir", str(root / "data" / name))


# --- what differs on the last rank, before a run begins ---

SETTINGS = {
    "lr": 0.2, "classifier.scale": 9.0, "classifier.margin2": 0.3, "data.train_image_num": 60,
    "classifier.num_classes": 9, "train_batch_size": 3, "seed": 12, "model_save_dir": "elsewhere",
}  # fmt: skip


def setting(key: str):
    def change(entry: Entry, odd: bool, root: Path) -> None:
        if odd:
            entry.set(key, SETTINGS[key])

    return change


def lists(name: str):
    def change(entry: Entry, odd: bool, root: Path) -> None:
        on_list(entry, root, name if odd else "plain")

    return change


def part(name: str, make, other):
    def change(entry: Entry, odd: bool, root: Path) -> None:
        entry.test_dataset = None
        setattr(entry, name, (other if odd else make)())

    return change


def reader_without_number(entry: Entry, odd: bool, root: Path) -> None:
    entry.train_dataset = None
    entry.train_reader = reader(17 if odd else 16)


def rates(entry: Entry, odd: bool, root: Path) -> None:
    import paddle

    paddle.enable_static()
    entry.set_optimizer(paddle.optimizer.Adam(0.2 if odd else 0.1))


def sets(entry: Entry, odd: bool, root: Path) -> None:
    on_list(entry, root, "plain")
    entry.set("with_test", True)
    if odd:
        here = root / "data" / "mixed"
        here.mkdir()
        for path in (root / "data" / "plain").glob("*.*"):
            os.link(path, here / path.name)
        os.unlink(here / "lfw.bin")
        os.link(root / "data" / "permuted" / "lfw.bin", here / "lfw.bin")
        entry.set("data.dataset_dir", str(here))


def version(module: str, place: int, number: str):
    """Another number at a place of the version."""

    def change(entry: Entry, odd: bool, root: Path) -> None:
        if odd:
            parts = sys.modules[module].__version__.split(".")
            sys.modules[module].__version__ = ".".join([*parts[:place], number, *parts[place + 1 :]])

    return change


def own_version(entry: Entry, odd: bool, root: Path) -> None:
    from plsc.engine.run import consistency

    if odd:
        consistency.__version__ = "9.9.9"


def other_device(entry: Entry, odd: bool, root: Path) -> None:
    from dataclasses import replace

    from plsc.engine.run import start

    find_environment = start.find_environment
    entry.set("device", "auto")
    if odd:
        start.find_environment = lambda config: replace(find_environment(config), device="gpu")
        start.prepare_cpu = None  # nothing may be started for it


def other_processor(entry: Entry, odd: bool, root: Path) -> None:
    from plsc.engine.run import consistency

    if odd:
        consistency.widest_instructions = lambda path: "of another kind"


def not_compiled(entry: Entry, odd: bool, root: Path) -> None:
    from plsc.rows import row_kernels

    row_kernels.available = lambda: False
    if odd:
        from plsc.engine.training import loop as train

        say = train.consistency.log_uncompiled_ranks
        train.consistency.log_uncompiled_ranks = lambda compiled, *rest: say(True, *rest)


# --- what goes apart while a run trains ---


def apart(**options):
    """The last rank's backbone, or its copy of the rows, is not that of the others after step 2."""

    def change(entry: Entry, odd: bool, root: Path) -> None:
        from plsc.engine.program.session import Session

        for key, value in options.items():
            entry.set(key.replace("__", "."), value)
        rows, step = not options.get("classifier__model_parallel", True), Session.step

        def bent(self, number, *rest):
            if odd and number == 2 and rows:
                self.set_rows("weight", np.array([3]), np.full((1, self.program.spec.row_size), 0.5, np.float32))
            elif odd and number == 2:
                name = next(name for name in self.replicated() if name.endswith("w_0"))
                value = self.replicated()[name]
                value.reshape(-1)[0] += 0.01  # one weight
                self.load_replicated({name: value})
            return step(self, number, *rest)

        Session.step = bent

    return change


REFUSED = {
    **{key: setting(key) for key in SETTINGS},
    "permuted": lists("permuted"),
    "shifted": lists("shifted"),
    "longer": lists("longer"),
    "length": part("train_dataset", lambda: Pictures(52, CLASSES), lambda: Pictures(51, CLASSES)),
    "data set": part("train_dataset", lambda: Pictures(52, CLASSES), lambda: OtherPictures(52, CLASSES)),
    "model": part("model", TinyNet, OtherNet),
    "reader": reader_without_number,
    "rate": rates,
    "sets": sets,
    "paddle": version("paddle", 2, "9"),
    "numpy": version("numpy", 1, "999"),
    "plsc": own_version,
    "device": other_device,
    "weights": apart(),
    "weights, waiting": apart(save_async=False),
    "rows": apart(classifier__model_parallel=False),
}
FINE = {"processor": other_processor, "compiled": not_compiled, "bug fix": version("numpy", 2, "999")}
RANKS = {"lr": 3, "weights": 3}


def case(root: Path, name: str, change, options: dict | None = None) -> list[int]:
    """The exit codes of a case on two ranks, of which the last differs."""
    here = root / name
    here.mkdir()
    ranks = RANKS.get(name, 2)

    def work(rank: int) -> None:
        entry = entry_for(here / "run", options or {})
        change(entry, rank == ranks - 1, root)
        finish(entry.train)

    return forked.run(ranks, here, work, lone=True)


def finish(action) -> None:
    """Do it as a script does, which ends with one line where it fails."""
    try:
        action()
    except Exception:
        sys.excepthook(*sys.exc_info())
        raise SystemExit(1) from None


# --- disks of one's own: each rank has another directory, and the same names in it ---


def on_own_disks(root: Path, name: str, options: dict, act) -> list[int]:
    """Rank 0 works in DIR/disk0, rank 1 in DIR/disk1; ``act(entry)``."""
    (root / name).mkdir()

    def work(rank: int) -> None:
        os.chdir(root / f"disk{rank}")
        entry = entry_for(Path("run") if "resume" in options else Path("other"), options)
        finish(lambda: act(entry))

    return forked.run(2, root / name, work, lone=True)


def make_disks(root: Path) -> list[int]:
    """On each disk a run of one rank, of the same step and with other weights, a map of labels, an exported net and
    pictures."""
    codes = []
    for disk in (0, 1):
        where = root / f"disk{disk}"
        where.mkdir()
        (where / "pictures").symlink_to(root / "data" / "plain")
        (where / "list.txt").write_text("".join(f"pictures/{name}\n" for name in (NAMES, NAMES[::-1])[disk]))
        (where / "map.txt").write_text(f"0\t1\n1\t{2 + disk}\n")

        def work(_: int, where=where, disk=disk) -> None:
            os.chdir(where)
            entry = entry_for(Path("run"), {"seed": disk})
            entry.train()
            entry.set("checkpoint_dir", "run")
            entry.set("model_save_dir", "net")
            entry.convert_for_prediction()

        codes += forked.run(1, where, work)
    return codes


DISKS = {
    "resume": ({"resume": "auto"}, Entry.train),
    "checkpoint_dir": ({"checkpoint_dir": "run"}, Entry.train),
    "init_from": ({"init_from": "backbone", "init_checkpoint": "run"}, Entry.train),
    "export": ({"checkpoint_dir": "run"}, Entry.convert_for_prediction),
    "predict": ({"checkpoint_dir": "run"}, Entry.predict),
}
OTHER_FILES = {
    "label_map": {"init_from": "classes", "init_checkpoint": "disk0/run", "label_map": "map.txt"},
    "exported": {"checkpoint_dir": "net/inference"},
    "pictures": {"checkpoint_dir": "disk0/run", "predict.images": "list.txt"},
}


def other_files(root: Path, name: str) -> list[int]:
    """One checkpoint for both, and another file on each disk."""
    options = {key: str(root / value) if value == "disk0/run" else value for key, value in OTHER_FILES[name].items()}
    return on_own_disks(root, name, options, Entry.train if name == "label_map" else Entry.predict)


def damaged(root: Path) -> list[int]:
    """What is on rank 1's disk is not only another run, it is damaged: nothing may be put aside on rank 0's for it."""
    shard = next((root / "disk1" / "run" / "checkpoints" / "step_00000004").glob("shard*"))
    content = bytearray(shard.read_bytes())
    content[-1] ^= 1
    shard.write_bytes(content)
    return on_own_disks(root, "damaged", {"resume": "auto"}, Entry.train)


# --- going on with other data ---


def going_on(root: Path) -> dict[str, list[int]]:
    """A run on the plain list, and what becomes of it with each of the others."""
    codes = {}

    def train(name: str, data: str, options: dict, forget: bool = False) -> None:
        (root / name).mkdir()

        def work(_: int) -> None:
            entry = entry_for(root / name / "run", {**options, "train_batch_size": 4})
            on_list(entry, root, data)
            finish(entry.train)

        codes[name] = forked.run(1, root / name, work)

    train("first", "plain", {"classifier.num_classes": 10})
    first = {"classifier.num_classes": 10, "train_steps": 8, "checkpoint_dir": str(root / "first" / "run")}
    for data in LISTS:
        train(f"on with {data}", data, first)
    train("on with shifted, told", "shifted", {**first, "accept_new_labels": True})
    forget_data(root / "first" / "run" / "checkpoints" / "step_00000004")
    train("on from an old one", "shifted", first)
    train("on with more classes", "plain", {**first, "classifier.num_classes": 9})
    return codes


def forget_data(path: Path) -> None:
    """Make a manifest one of those that were written before there was a record of the data."""
    import hashlib

    lines = (path / "manifest.json").read_text().splitlines(keepends=True)
    kept = [line for line in lines if not line.startswith('"data": ')]
    assert len(kept) == len(lines) - 1
    text = "".join(kept).encode()
    (path / "manifest.json").write_bytes(text)
    (path / "manifest.sha256").write_text(f"{hashlib.sha256(text).hexdigest()}  manifest.json\n")


def main() -> None:
    import plsc.engine.actions  # noqa: F401  loads Paddle once, for all forks

    root = Path(sys.argv[1])
    make_data(root / "data")
    make_sets(root / "data")
    codes = {name: case(root, name, change) for name, change in {**REFUSED, **FINE}.items()}
    codes["disks"] = make_disks(root)
    codes.update({name: on_own_disks(root, name, *how) for name, how in DISKS.items()})
    codes.update({name: other_files(root, name) for name in OTHER_FILES})
    codes["damaged"] = damaged(root)
    codes.update(going_on(root))
    (root / "report.json").write_text(json.dumps(codes))


if __name__ == "__main__":
    main()
