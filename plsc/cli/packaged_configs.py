"""The YAML files that PLSC ships: plsc/configs in a wheel, configs in a checkout."""

from __future__ import annotations

import difflib
import os
from pathlib import Path

from plsc.errors import ConfigError

_PACKAGE = Path(__file__).resolve().parents[1]


def directory() -> Path | None:
    """Their directory; None where they are not installed."""
    checkout = _PACKAGE.parent
    if (_PACKAGE / "configs").is_dir():
        return _PACKAGE / "configs"
    return checkout / "configs" if (checkout / "setup.py").is_file() and (checkout / "configs").is_dir() else None


def names() -> list[str]:
    """The names that -c accepts besides files, sorted."""
    found = directory()
    return sorted(path.stem for path in found.glob("*.yaml")) if found else []


def find_config(text: str) -> str:
    """The path itself if it is a file, else that of the packaged file of this name, with or without .yaml.

    A path that does not exist is returned unchanged; opening it then fails. Raises ConfigError for an unknown name.
    """
    name = text[: -len(".yaml")] if text.endswith(".yaml") else text
    if os.path.isfile(text) or os.path.basename(text) != text or not text:
        return text
    found, known = directory(), names()
    if found is not None and name in known:
        return str(found / f"{name}.yaml")
    close = difflib.get_close_matches(name, known, n=1)
    meant = f"did you mean {close[0]}? " if close else ""
    raise ConfigError(f"-c {text}: there is no such file, and PLSC ships none of this name; {meant}"
                      f"shipped: {', '.join(known) or 'none'}")  # fmt: skip
