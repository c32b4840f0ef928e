"""Text files with one image and label per line; indexed in one pass."""

from __future__ import annotations

import numpy as np

from plsc.data.containers.files import BLOCK_BYTES, Scanner, shown
from plsc.data.containers.samples import MOST_CLASSES, Samples
from plsc.data.indexing import Progress
from plsc.data.label_list import parse_lines
from plsc.errors import DataError
from plsc.files import safe_open

MOST_LINE = safe_open.IMAGE // 3 * 4 + 1000  # bytes


def add_lines(samples: Samples, path: str, start: int, progress: Progress) -> int:
    """Add the lines of the file ``path``, whose first byte has the position ``start``; return the file's size.

    A line is base64, a tab or spaces, and the label; blank lines are ignored. Positions and sizes are those of the
    base64. Raises DataError for a line without a label, and for one that is longer than any image.
    """
    with Scanner(path, progress) as scanner:
        offset = lines = 0
        while offset < scanner.size:
            block = _whole_lines(scanner, offset)
            starts, stops, labels, problems = parse_lines(block)
            bad = np.flatnonzero((problems != 0) | (labels >= MOST_CLASSES) | (labels < -1))
            if len(bad):
                line = lines + block.count(b"\n", 0, int(starts[bad[0]])) + 1
                raise DataError(f"{shown(path)}: line {line}: is not 'base64<TAB>label'")
            samples.add(start + offset + starts, stops - starts, labels)
            lines += block.count(b"\n")
            offset += len(block)
        return scanner.size


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
