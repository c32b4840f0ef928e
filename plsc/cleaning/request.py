"""What `plsc clean` is asked for."""

from __future__ import annotations

from dataclasses import dataclass

from plsc.cleaning.find import Limits


@dataclass(frozen=True)
class Request:
    """limits: the given ones. processes: that decode for the perceptual hashes; 0: this one. list_file: where a cleaned
    list will be written, "" for none; refused before the work where that cannot be."""

    limits: Limits = Limits()
    processes: int = 0
    list_file: str = ""
