"""The directory of a training run: it holds no other run, or the run that is continued; one training at a time."""

from __future__ import annotations

import json
import os
from collections.abc import Callable

from plsc import checkpoint
from plsc.checkpoint import Places, find_places, remove_probes
from plsc.checkpoint.layout import BEST, replaced_dirs, step_dirs
from plsc.checkpoint.lock import RunDirInUse, RunLock
from plsc.config import Config
from plsc.engine.run.scalars import SCALARS
from plsc.errors import CheckpointError, ConfigError, PlscError
from plsc.files import safe_open
from plsc.parallel.environment import Environment
from plsc.parallel.group import Group
from plsc.terminal import print_stderr


def lock_run_dir(config: Config, group: Group, env: Environment) -> tuple[RunLock | None, Places]:
    """Set ``model_save_dir`` to the directory that this training may write to, and lock it; returns the lock, on the
    lowest rank of each place, and the places: which ranks share the directory.

    With ``resume: new`` it is `run_2`, `run_3`, ... in ``model_save_dir`` if that holds a run. The lowest rank of a
    place decides; every rank raises the same error: ConfigError for a directory that holds another run, CheckpointError
    where another process trains there or the directory cannot be written, and where the places choose different names.
    """
    places = find_places(config.model_save_dir, group, env)
    held: list[RunLock] = []

    def on_loss(reason: str) -> None:
        group.fail(reason)
        print_stderr(f"plsc: error: {reason}")
        os._exit(1)

    def decide() -> str | None:
        if places.leads(group.rank):
            held.append(_choose(config, on_loss))
            remove_probes(held[0].run_dir)
            return os.path.relpath(held[0].run_dir, config.model_save_dir)
        return None

    try:
        chosen = group.all_gather(group.agree(decide))
        _require_same_name(chosen, places)
    except PlscError:
        if held:
            held[0].release()  # another place cannot be written, or is in use
        raise
    inside = chosen[0]
    if inside != os.curdir:  # otherwise each rank keeps its own path of the directory
        config.set("model_save_dir", os.path.join(config.model_save_dir, inside))
    return (held[0] if held else None), places


def _require_same_name(chosen: list[str | None], places: Places) -> None:
    if len({chosen[place.lowest] for place in places.all}) > 1:
        names = ", ".join(f"{chosen[place.lowest]} in {place.where}" for place in places.all)
        raise CheckpointError(
            f"resume='new': the machines do not share model_save_dir, and the next free name is not the same: {names}; "
            "choose another model_save_dir"
        )


def describe_existing_run(run_dir: str) -> str | None:
    """What shows that a directory holds a run: a checkpoint, or a logged step; None if nothing does.

    Log files alone do not: a training that failed before its first step leaves some, and test(), predict() and exports
    write theirs to any ``model_save_dir``.
    """
    for place in (run_dir, os.path.join(run_dir, BEST)):
        found = step_dirs(place) + replaced_dirs(place)
        if found:
            return f"the newest of its {len(found)} checkpoint(s) is {os.path.relpath(max(found)[1], run_dir)}"
    step = _first_logged_step(os.path.join(run_dir, SCALARS))
    return None if step is None else f"its {SCALARS} begins with step {step}"


def _choose(config: Config, on_loss: Callable[[str], None]) -> RunLock:
    if config.resume == "new":
        return _lock_new_run_dir(config.model_save_dir, on_loss)
    try:
        lock = _lock(config.model_save_dir, on_loss)
    except RunDirInUse as error:
        raise CheckpointError(str(error)) from None  # the same class on the other ranks
    if config.resume == "never":
        problem = _problem(config)
        if problem is not None:
            lock.release()
            raise ConfigError(problem)
    return lock


def _problem(config: Config) -> str | None:
    run_dir = config.model_save_dir
    found = describe_existing_run(run_dir)
    if found is None or _continues_newest(config):
        return None
    return (
        f"model_save_dir={run_dir!r} holds a run already ({found}): set resume: auto to continue it, resume: new to "
        f"start another one in {os.path.join(run_dir, _free_name(run_dir))}, or choose another model_save_dir"
    )


def _continues_newest(config: Config) -> bool:
    """True if ``checkpoint_dir`` is the checkpoint that ``resume: auto`` would continue from."""
    newest = checkpoint.latest(config.model_save_dir)
    if newest is None or not config.checkpoint_dir or not os.path.isdir(config.checkpoint_dir):
        return False
    try:
        return os.path.samefile(checkpoint.resolve(config.checkpoint_dir), newest)
    except CheckpointError:
        return False  # reported when it is opened


def _lock_new_run_dir(base: str, on_loss: Callable[[str], None]) -> RunLock:
    run_dir = base
    while True:
        if describe_existing_run(run_dir) is None:
            try:
                return _lock(run_dir, on_loss)
            except RunDirInUse:
                pass  # a run that has just started
        run_dir = os.path.join(base, _free_name(base))


def _free_name(base: str) -> str:
    number = 2
    while os.path.lexists(os.path.join(base, f"run_{number}")):
        number += 1
    return f"run_{number}"


def _lock(run_dir: str, on_loss: Callable[[str], None]) -> RunLock:
    try:
        os.makedirs(run_dir, exist_ok=True)
        return RunLock(run_dir, on_loss)
    except OSError as error:
        raise CheckpointError(
            f"model_save_dir={os.path.abspath(run_dir)!r}: cannot be written: {error.strerror}; make it writable or "
            "choose another"
        ) from None


def _first_logged_step(path: str) -> int | None:
    try:
        with safe_open.open_text(path, safe_open.LIST, errors="replace") as lines:
            for line in lines:
                values = _parsed(line)
                if "loss" in values:
                    return values.get("step")
    except OSError:
        pass
    return None


def _parsed(line: str) -> dict:
    try:
        values = json.loads(line)
    except (ValueError, RecursionError):
        return {}
    return values if isinstance(values, dict) else {}
