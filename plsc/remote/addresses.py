"""The addresses that a run copies from and to, and the protocol of a run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

from plsc.checkpoint.places import Places
from plsc.config import Config
from plsc.config.urls import is_url
from plsc.parallel.environment import Environment
from plsc.parallel.ranks import Ranks

FETCHED = "fetched"  # <model_save_dir>/fetched: local copies


class Run(Protocol):
    """The attributes of a run that copying needs, such as plsc.engine.run.start.Run."""

    @property
    def config(self) -> Config: ...
    @property
    def env(self) -> Environment: ...
    @property
    def group(self) -> Ranks: ...
    @property
    def places(self) -> Places: ...
    @property
    def log(self) -> Any: ...  # with info(text)


@dataclass(frozen=True)
class Copying:
    """A run whose copies use another group of the same ranks, in a thread."""

    config: Config
    env: Environment
    group: Ranks
    places: Places
    log: Any


def uploads_saves(config: Config) -> bool:
    """Whether each checkpoint is copied when it is saved."""
    return save_url(config) is not None and config.remote.upload == "every_save"


def save_url(config: Config) -> str | None:
    """The address to which checkpoints and exports are copied, or None."""
    remote = config.remote
    return remote.save_url or _on_fs(remote.fs_name, remote.fs_dir_for_save)


def start_url(config: Config) -> str | None:
    """The address of the checkpoint to start from; None if it is local or there is none."""
    if is_url(config.checkpoint_dir):
        return config.checkpoint_dir
    return _on_fs(config.remote.fs_name, config.remote.fs_checkpoint_dir)


def _on_fs(fs_name: str | None, directory: str | None) -> str | None:
    return None if fs_name is None or directory is None else fs_name.rstrip("/") + directory
