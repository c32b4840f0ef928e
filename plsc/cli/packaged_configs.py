"""The YAML files that come with PLSC, found by name: in a wheel plsc/configs, in a checkout configs."""

from __future__ import annotations

import difflib
import os
from pathlib import Path

from plsc.errors import ConfigError

_PACKAGE = Path(__file__).resolve().parents[1]


def directory() -> Path | None:
    """Where they are; None where they were not installed."""
    checkout = _PACKAGE.parent
    if (_PACKAGE / "configs").is_dir():
        return _PACKAGE / "configs"
    return checkout / "configs" if (checkout / "setup.py").is_file() and (checkout / "configs").is_dir() else None


def names() -> list[str]:
    """What -c takes besides files, in order."""
    found = directory()
    return sorted(path.stem for path in found.glob("*.yaml")) if found else []


def find_config(text: str) -> str:
    """The path of a file as it is; else that of the packaged file of this name, with or without .yaml.

    A path that is not there stays as it is, for whoever opens it to say so. Raises ConfigError for an unknown name.
    """
    name = text[: -len(".yaml")] if text.endswith(".yaml") else text
    if os.path.isfile(text) or os.path.basename(text) != text or not text:
        return text
    found, known = directory(), names()
    if found is not None and name in known:
        return str(found / f"{name}.yaml")
    close = difflib.get_close_matches(name, known, n=1)
    meant = f"did you mean {close[0]}? " if close else ""
    raise ConfigError(f"-c {text}: there is no such file, and none of that name comes with PLSC; {meant}"
                      f"those that do: {', '.join(known) or 'none'}")  # fmt: skip
