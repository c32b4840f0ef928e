"""How far the index of a data set is, on stderr, while it is made."""

from __future__ import annotations

import time

from plsc.terminal import print_stderr

TELL_SECONDS = 10.0


class Progress:
    """Tells every TELL_SECONDS how much was read or found. place: the data in messages."""

    def __init__(self, place: str) -> None:
        self._place, self._bytes, self._images = place, 0, 0
        self._begun = self._told = time.monotonic()

    def read(self, count: int) -> None:
        """So many bytes more were read."""
        self._bytes += count
        self._tell()

    def found(self, count: int) -> None:
        """So many images more were found."""
        self._images += count
        self._tell()

    def waits(self) -> None:
        """Another process still makes it."""
        now = time.monotonic()
        if now - self._told >= TELL_SECONDS:
            self._told = now
            print_stderr(f"{self._place}: waiting {self.seconds:.0f} s for the process that makes its index")

    @property
    def seconds(self) -> float:
        """Since it began."""
        return time.monotonic() - self._begun

    def _tell(self) -> None:
        now = time.monotonic()
        if now - self._told >= TELL_SECONDS:
            self._told = now
            images = f"{self._images:,} images found" if self._images else ""
            read = f"{self._bytes / 1e9:,.1f} GB read" if self._bytes else ""
            done = " and ".join(filter(None, (images, read)))
            print_stderr(f"{self._place}: making its index, {done} in {self.seconds:.0f} s")
