"""The version of the package; the only place where it is written."""

from __future__ import annotations

__version__ = "3.0.0"
