"""Text files with one image and label per line; indexed in one pass."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from plsc.data.containers.files import BLOCK_BYTES, Scanner, shown
from plsc.data.label_list import parse_lines
from plsc.errors import DataError
from plsc.files import safe_open

MOST_LINE = safe_open.IMAGE // 3 * 4 + 1000  # bytes
MOST_CLASSES = 2**31


@dataclass
class Lines:
    """The lines of a file. positions: int64 [n], of the base64. sizes: uint32 [n], its bytes. labels: int32 [n].
    size: of the file in bytes."""

    positions: np.ndarray
    sizes: np.ndarray
    labels: np.ndarray
    size: int


def find_lines(path: str, start: int) -> Lines:
    """The lines of a file whose first byte has the position ``start``.

    A line is base64, a tab or spaces, and the label; blank lines are ignored. Raises DataError for a line without a
    label, and for one that is longer than any image.
    """
    found = [(np.empty(0, np.int64), np.empty(0, np.uint32), np.empty(0, np.int32))]
    with Scanner(path) as scanner:
        offset = lines = 0
        while offset < scanner.size:
            block = _whole_lines(scanner, offset)
            starts, stops, labels, problems = parse_lines(block)
            bad = np.flatnonzero((problems != 0) | (labels >= MOST_CLASSES) | (labels < -1))
            if len(bad):
                line = lines + block.count(b"\n", 0, int(starts[bad[0]])) + 1
                raise DataError(f"{shown(path)}: line {line}: is not 'base64<TAB>label'")
            found.append((start + offset + starts, (stops - starts).astype(np.uint32), labels.astype(np.int32)))
            lines += block.count(b"\n")
            offset += len(block)
        positions, sizes, every_label = (np.concatenate(each) for each in zip(*found))
        return Lines(positions, sizes, every_label, scanner.size)


def _whole_lines(scanner: Scanner, offset: int) -> bytes:
    """A block of complete lines from ``offset`` on. Raises DataError for a line without an end."""
    size = 4 * BLOCK_BYTES
    while True:
        block = scanner.read(offset, size)
        last = block.rfind(b"\n") + 1
        if last or offset + len(block) >= scanner.size:
            return block[:last] if offset + len(block) < scanner.size else block
        if size >= MOST_LINE:
            raise DataError(f"{shown(scanner.path)}: byte {offset}: a line of more than {MOST_LINE:,} bytes")
        del block
        size = min(4 * size, MOST_LINE)
