"""Builds the set: classes, images, lists and pairs, drawn by several processes, with an atomic result."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path

from glyphs import draw
from glyphs.charsets import CHARSETS, Classes, choose_classes, find_twins
from glyphs.fonts import FACES, Face, digests, faces_of, font_path
from glyphs.pairs import ImageSpec, PairChooser, bin_bytes
from plsc.errors import DataError

MARKER = "glyphs.json"
# Increase it when the same settings give other images than before.
FORMAT = 1
VAL_PER_DESIGN = 2


@dataclass(frozen=True)
class Settings:
    """The settings that determine the set. They are written to its marker file."""

    classes: int
    held_out_classes: int
    size: int
    per_class: int
    pairs: int
    seed: int
    charset: str
    train_designs: tuple[str, ...]
    held_out_designs: tuple[str, ...]


@dataclass(frozen=True)
class _Split:
    train: list[list[Face]]
    held_out: list[list[Face]]

    def all_faces(self) -> list[Face]:
        return [face for design in self.train + self.held_out for face in design]


def build(out: Path, settings: Settings, processes: int) -> bool:
    """Draw the set into `out`. Returns False if it exists already with the same settings.

    Raises DataError if `out` has other contents, a font is missing, or the settings are impossible. The set is written
    to a temporary directory beside `out` and renamed at the end, so `out` is never incomplete.
    """
    if _is_done(out, settings):
        return False
    split = _Split(faces_of(settings.train_designs), faces_of(settings.held_out_designs))
    for face in split.all_faces():
        font_path(face)
    out.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{out.name}.partial-", dir=out.parent))
    try:
        target = temporary / "set"  # mkdtemp's own directory is for the owner only; this one follows the umask
        target.mkdir()
        with _workers(processes) as run:
            _write_set(target, settings, split, run)
        try:
            target.rename(out)
        except OSError as error:
            raise DataError(f"--out {out}: the finished set cannot be moved there: {error.strerror}") from None
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return True


def _is_done(out: Path, settings: Settings) -> bool:
    if not out.exists() or out.is_dir() and not any(out.iterdir()):
        return False
    wanted = _marker(settings)
    try:
        found = json.loads((out / MARKER).read_text())
        differing = [key for key in wanted if found.get(key) != wanted[key]]
    except (OSError, ValueError, AttributeError):
        raise DataError(
            f"--out {out} exists and is not a set made by this program (no {MARKER}): choose another --out"
        ) from None
    if differing:
        changes = ", ".join(f"{key} is {found.get(key)} there, requested {wanted[key]}" for key in differing)
        raise DataError(f"--out {out} holds a set with other settings ({changes}): choose another --out or remove it")
    return True


def _marker(settings: Settings) -> dict:
    return json.loads(json.dumps({"format": FORMAT, **asdict(settings)}))


@contextmanager
def _workers(processes: int) -> Iterator:
    """A function like `map` (results in order) that takes a chunk size; in this process when `processes` is 1."""
    if processes == 1:
        yield lambda function, items, chunk: map(function, items)
        return
    # Only the parent handles Ctrl-C.
    quiet = {"initializer": signal.signal, "initargs": (signal.SIGINT, signal.SIG_IGN)}
    with ProcessPoolExecutor(processes, mp_context=get_context("spawn"), **quiet) as pool:
        try:
            yield lambda function, items, chunk: pool.map(function, items, chunksize=chunk)
        except BrokenProcessPool:
            raise DataError("a drawing process was killed (out of memory?): try fewer --processes") from None
        finally:
            pool.shutdown(cancel_futures=True)


def _write_set(target: Path, settings: Settings, split: _Split, run) -> None:
    classes = _survey(settings, split, run)
    chosen = {name: chooser.choose(settings.pairs) for name, chooser in _choosers(settings, split, classes).items()}
    _write_images(target, settings, split, classes, run)
    for name, (specs, is_same) in chosen.items():
        draw_one = partial(_draw_image, settings.seed, PURPOSES[name], settings.size)
        encoded = list(_progress(f"{name}.bin", run(draw_one, specs, 64), len(specs), "images"))
        (target / f"{name}.bin").write_bytes(bin_bytes(encoded, is_same))
    _write_tables(target, split, classes)
    (target / MARKER).write_text(json.dumps(_marker(settings), indent=1) + "\n")


def _survey(settings: Settings, split: _Split, run) -> Classes:
    """Choose classes among the characters of all faces, and find those that share a glyph."""
    points = CHARSETS[settings.charset]()
    examine = partial(_digests_of, split.all_faces())
    drawn = list(_progress("reading the fonts", run(examine, points, 64), len(points), "characters"))
    covered = [(point, row) for point, row in zip(points, drawn) if all(row)]
    points, drawn = [point for point, _ in covered], [row for _, row in covered]
    return choose_classes(points, settings.classes, settings.held_out_classes, settings.seed, find_twins(points, drawn))


def _digests_of(faces: list[Face], point: int) -> list[bytes]:
    return digests(chr(point), faces)


PURPOSES = {
    "seen_newfont": draw.PURPOSE_SEEN_NEWFONT,
    "unseen": draw.PURPOSE_UNSEEN,
    "unseen_newfont": draw.PURPOSE_UNSEEN_NEWFONT,
}


def _choosers(settings: Settings, split: _Split, classes: Classes) -> dict[str, PairChooser]:
    plan = {
        "seen_newfont": (classes.trained, (split.train, split.held_out)),
        "unseen": (classes.unseen, (split.train, split.train)),
        "unseen_newfont": (classes.unseen, (split.held_out, split.held_out)),
    }
    return {
        name: PairChooser(settings.seed, PURPOSES[name], points, sides, classes.twins)
        for name, (points, sides) in plan.items()
    }


def _draw_image(seed: int, purpose: int, size: int, spec: ImageSpec) -> bytes:
    return draw.draw_jpeg(seed, purpose, spec.face, spec.point, spec.k, size)


def _schedule(designs: list[list[Face]], count: int) -> list[tuple[Face, int]]:
    """`count` entries (face, k): designs alternate, and faces within a design; k counts within the face."""
    used: dict[Face, int] = {}
    result = []
    for number in range(count):
        faces = designs[number % len(designs)]
        face = faces[number // len(designs) % len(faces)]
        k = used.get(face, 0)
        used[face] = k + 1
        result.append((face, k))
    return result


def _write_images(target: Path, settings: Settings, split: _Split, classes: Classes, run) -> None:
    """Write images/, label.txt and val.txt, one task per class."""
    lists = {
        "label.txt": (draw.PURPOSE_TRAIN, _schedule(split.train, settings.per_class)),
        "val.txt": (draw.PURPOSE_VAL, _schedule(split.held_out, VAL_PER_DESIGN * len(split.held_out))),
    }
    schedule = [(purpose, face, k) for purpose, specs in lists.values() for face, k in specs]
    (target / "images").mkdir()
    draw_one = partial(_write_class, target, settings.seed, settings.size, schedule)
    for _ in _progress("images", run(draw_one, list(enumerate(classes.trained)), 4), len(classes.trained), "classes"):
        pass
    for name, (_, specs) in lists.items():
        with open(target / name, "w") as file:
            for label in range(len(classes.trained)):
                file.writelines(f"{_image_path(label, face, k)}\t{label}\n" for face, k in specs)


def _image_path(label: int, face: Face, k: int) -> str:
    return f"images/{label:05d}/{face.name}_{k}.jpg"


def _write_class(target: Path, seed: int, size: int, schedule: list, labelled: tuple[int, int]) -> None:
    label, point = labelled
    (target / "images" / f"{label:05d}").mkdir()
    for purpose, face, k in schedule:
        (target / _image_path(label, face, k)).write_bytes(draw.draw_jpeg(seed, purpose, face, point, k, size))


def _write_tables(target: Path, split: _Split, classes: Classes) -> None:
    """Write classes.tsv: every character with its label or "-"; faces.tsv: every face with its design and role."""
    rows = [(str(label), point, "trained") for label, point in enumerate(classes.trained)]
    rows += [("-", point, "unseen") for point in classes.unseen]
    with open(target / "classes.tsv", "w", encoding="utf-8") as file:
        file.write("label\tcode_point\tcharacter\trole\tshares_a_glyph_with\n")
        for label, point, role in rows:
            twins = " ".join(f"U+{twin:04X}" for twin in sorted(classes.twins.get(point, ()))) or "-"
            file.write(f"{label}\tU+{point:04X}\t{chr(point)}\t{role}\t{twins}\n")
    with open(target / "faces.tsv", "w") as file:
        file.write("face\tdesign\trole\tfamily\tpackage\n")
        for face in FACES:
            if face in split.all_faces():
                role = "held_out" if any(face in design for design in split.held_out) else "trained"
                file.write(f"{face.name}\t{face.design}\t{role}\t{face.family}\t{face.package}\n")


def _progress(title: str, results: Iterable, total: int, unit: str) -> Iterator:
    """Yield the results; report count, rate and remaining time on stderr."""
    live = sys.stderr.isatty()
    start = shown = time.monotonic()
    for done, result in enumerate(results, start=1):
        yield result
        now = time.monotonic()
        if done == total or now - shown >= (0.5 if live else 10.0):
            shown = now
            rate = done / max(now - start, 1e-9)
            text = f"{title}: {done:,}/{total:,} {unit}, {rate:,.0f}/s, {(total - done) / rate:,.0f} s left"
            end = "\n" if done == total or not live else ""
            print(f"\r{text:<79}" if live else text, end=end, file=sys.stderr, flush=True)


def default_processes() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0))
