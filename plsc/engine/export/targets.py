"""The programs that an export can be for: where its files lie, what the program refuses, and files beside the model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from plsc.config import Config
from plsc.config.rules import changed
from plsc.engine.export import insightface, kserve, triton
from plsc.serving.description import KINDS

FOR_SERVERS = ("export.model_name", "export.max_batch_size")


@dataclass(frozen=True)
class Target:
    """A program that loads exported models.

    directory: of the export, below ``model_save_dir``. onnx_file: the model in ONNX, below that. kinds: of models that
    are written. check(config): raises ConfigError for a model that the program would refuse or misread.
    write(config, directory, onnx_file): checks the model and writes what the program needs beside it; returns the names
    of the files. unused: keys of the configuration that have no effect.
    """

    directory: str
    onnx_file: str
    kinds: tuple[str, ...]
    check: Callable[[Config], None]
    write: Callable[[Config, str, str], list[str]]
    unused: tuple[str, ...] = ()

    def without_effect(self, config: Config) -> list[str]:
        """A line for each key that was changed from its default without an effect."""
        return [f"{text}: has no effect with this export.target" for text in changed(config.settings, self.unused)]


def target_of(config: Config) -> Target:
    """The target that ``export.target`` names."""
    section, alone = config.export, ("onnx",)
    if section.target == "insightface":
        return Target("insightface", "backbone.onnx", alone, insightface.check, insightface.write, FOR_SERVERS)
    if section.target == "triton":
        return Target("triton", triton.model_file(config), alone, triton.check, triton.write)
    if section.target == "kserve":
        return Target("kserve", triton.model_file(config), alone, triton.check, kserve.write)
    kinds = KINDS if section.format == "both" else (section.format,)
    return Target("inference", "backbone.onnx", kinds, lambda config: None, lambda *of_model: [], FOR_SERVERS)
