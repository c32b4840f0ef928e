"""Which checkpoint of a run is the newest whole one, where each place has a part of its files."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from plsc.checkpoint.layout import (
    MANIFEST,
    MARKER,
    WRITING,
    checkpoints_dir,
    file_names,
    replaced_dirs,
    step_dirs,
    step_name,
    writing_dirs,
)
from plsc.checkpoint.manifest import read_manifest
from plsc.checkpoint.places import Place
from plsc.errors import CheckpointError
from plsc.files.class_names import CLASS_NAMES
from plsc.files.hashes import hash_file


@dataclass(frozen=True)
class Held:
    """A directory, ``name``, of one place with the checkpoint of ``step`` whose manifest has the SHA-256 ``manifest``,
    and which of its files are there with the right size. ``named``: whether the checkpoint has names of classes."""

    step: int
    name: str
    manifest: str
    files: tuple[str, ...]
    num_shards: int
    named: bool

    @property
    def in_place(self) -> bool:
        return self.name == step_name(self.step)

    @property
    def all_files(self) -> list[str]:
        return [*file_names(self.num_shards), *([CLASS_NAMES] if self.named else [])]


@dataclass(frozen=True)
class Whole:
    """A checkpoint whose files exist. names: {place: its directory}. holders: {file: the places that have it}."""

    step: int
    manifest: str
    names: dict[int, str]
    holders: dict[str, tuple[int, ...]]


@dataclass(frozen=True)
class Survey:
    """newest: the newest whole checkpoint, or None. skipped: what is newer and not whole, a line each."""

    newest: Whole | None
    skipped: tuple[str, ...]


def look(run_dir: str) -> dict[str, Any]:
    """What one place has, as JSON: {"held": fields of Held, "problems": [step, why its manifest
    cannot be read]}.

    A save that was killed between its two phases leaves a finished directory under its temporary name; one that
    replaces a checkpoint renames the older one first. Both count.
    """
    held, problems = [], []
    for step, path in [*step_dirs(run_dir), *replaced_dirs(run_dir), *writing_dirs(run_dir)]:
        in_place = os.path.basename(path) == step_name(step)
        if not in_place and os.path.exists(os.path.join(path, MARKER)):
            continue  # a save that had not finished
        try:
            manifest = read_manifest(path)
            digest = hash_file(os.path.join(path, MANIFEST))
        except (CheckpointError, OSError) as error:
            problems += [[step, str(error)]] if in_place else []
            continue
        files = [name for name, entry in manifest.files.items() if _size(os.path.join(path, name)) == entry.num_bytes]
        if manifest.step == step:
            named = CLASS_NAMES in manifest.files
            one = Held(step, os.path.basename(path), digest, tuple(files), manifest.num_shards, named)
            held.append(asdict(one))
    return {"held": held, "problems": problems}


def survey(answers: Sequence[Any], places: Sequence[Place]) -> Survey:
    """The newest whole checkpoint among what ``look`` returned in each place.

    One whose directories have their final name is preferred to one of the same step that a killed save left; where that
    save had begun to put its own in place, to replace an older one of the step, the new one counts. Raises
    CheckpointError where two different ones of the newest step are both whole and in place for another reason.
    """
    copies: dict[tuple[int, str], dict[int, Held]] = {}
    for place, answer in enumerate(answers):
        for fields in answer["held"]:
            held = Held(**{**fields, "files": tuple(fields["files"])})
            known = copies.setdefault((held.step, held.manifest), {})
            if place not in known or held.in_place:
                known[place] = held
    whole: list[Whole] = []
    skipped = []
    for (step, manifest), found in sorted(copies.items(), reverse=True):
        if whole and whole[0].step != step:
            break
        holders = _holders(found)
        missing = [name for name, where in holders.items() if not where]
        if missing and any(held.in_place for held in found.values()):
            skipped.append((step, _skipped(step, found, missing, places)))
        elif not missing:
            whole.append(Whole(step, manifest, {place: held.name for place, held in found.items()}, holders))
    replacing = [one for one in whole if any(_replaces(one, other) for other in whole)]
    whole.sort(key=lambda one: (one not in replacing, -_in_place(one)))
    if len(whole) > 1 and _in_place(whole[1]) and not _replaces(whole[0], whole[1]):
        _refuse_two(whole, places)
    problems = [(step, text) for answer in answers for step, text in answer["problems"]]
    first = whole[0].step if whole else -1
    return Survey(whole[0] if whole else None, tuple(text for step, text in problems + skipped if step > first))


def _holders(found: dict[int, Held]) -> dict[str, tuple[int, ...]]:
    names = next(iter(found.values())).all_files
    return {name: tuple(place for place, held in found.items() if name in held.files) for name in names}


def _in_place(one: Whole) -> int:
    return sum(name == step_name(one.step) for name in one.names.values())


def _replaces(new: Whole, old: Whole) -> bool:
    """Whether ``new`` is being put in place of ``old`` of the same step: every place that still has the old one under
    its final name has finished the new one beside it, and another place has the new one in place."""
    behind = [place for place, name in old.names.items() if name == step_name(old.step)]
    waits = WRITING + step_name(new.step)
    return bool(_in_place(new)) and bool(behind) and all(new.names.get(place) == waits for place in behind)


def _skipped(step: int, found: dict[int, Held], missing: list[str], places: Sequence[Place]) -> str:
    seen = ", ".join(checkpoint_path(places[place], held.name) for place, held in found.items())
    return f"step {step:,} is not whole: nobody has {shortened(missing)}; a part is in {seen}"


def _refuse_two(whole: list[Whole], places: Sequence[Place]) -> None:
    first, other = sorted(whole[:2], key=lambda one: min(one.names))
    here, there = min(first.names), min(other.names)
    ranks = ", ".join(str(rank) for place in sorted(other.names) for rank in places[place].ranks)
    raise CheckpointError(
        f"{checkpoint_path(places[there], other.names[there])} of rank(s) {ranks} is another checkpoint than "
        f"{checkpoint_path(places[here], first.names[here])} of rank {places[here].lowest}, of the same step and as "
        "whole: these are two runs; move the one away that is not to be continued"
    )


def checkpoint_path(place: Place, name: str) -> str:
    """How a directory of a checkpoint is called in a message: "host:/run/checkpoints/step_00000012"."""
    return os.path.join(checkpoints_dir(place.where), name)


def shortened(names: Iterable[str]) -> str:
    """Some of the names, and how many more there are."""
    names = list(names)
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def _size(path: str) -> int:
    try:
        return os.stat(path).st_size
    except OSError:
        return -1
