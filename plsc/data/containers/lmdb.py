"""Reads the positions of all values of an LMDB file, without the library, which trusts every page of a file.

Version 1 of the data format on a little-endian machine of 64 bits: pages of one size, two meta pages at the beginning,
of which the newer one counts, and a B+tree of branch and leaf pages; values that fit into no leaf have overflow pages
of their own, one after the other. Source: the structures in LMDB 0.9's mdb.c, and files that it wrote.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

from plsc.data.containers.files import Scanner, shown
from plsc.errors import DataError

_PAGE = struct.Struct("<QHHHH")  # number, pad, flags, lower, upper; of overflow pages the last two are their number
_META = struct.Struct("<II8xQ")  # magic, version, (address,) size of the map
_TREE = struct.Struct("<IHHQQQQQ")  # page size or pad, flags, depth, pages of three kinds, entries, root
_LAST = struct.Struct("<QQ")  # last page, transaction
_NODE = struct.Struct("<HHHH")  # lower and upper half of a size or page, flags, bytes of the key
_MAGIC, _VERSION = 0xBEEFC0DE, 1
_BRANCH, _LEAF, _OVERFLOW, _IS_META = 1, 2, 4, 8
_ON_OVERFLOW, _SUB, _DUPLICATES = 1, 2, 4
_NO_PAGE = 2**64 - 1
_MOST_DEPTH = 32


@dataclass
class _Tree:
    page_size: int
    depth: int
    root: int
    pages: int  # of the file
    transaction: int


def entries(scanner: Scanner) -> Iterator[tuple[bytes, int, int]]:
    """(key, offset and size of the value) of all entries of the unnamed database, in the order of the keys.

    Raises DataError for other files, a truncated file, another version, and invalid pages.
    """
    tree = _newest(scanner)
    if tree.root == _NO_PAGE:
        return
    seen, stack = bytearray(tree.pages // 8 + 1), [(tree.root, 1)]  # a bit per page
    while stack:
        number, depth = stack.pop()
        place, bit = number >> 3, 1 << (number & 7)
        if not number < tree.pages or seen[place] & bit or depth > tree.depth:
            raise DataError(f"{shown(scanner.path)}: page {number}: pages lead in a circle: the file is damaged")
        seen[place] |= bit
        page = scanner.read(number * tree.page_size, tree.page_size)
        where = f"{shown(scanner.path)}: page {number}"
        nodes = _nodes(page, number, where)
        if _PAGE.unpack_from(page)[2] & _LEAF:
            for node in nodes:
                yield _entry(scanner, tree, page, node, number)
        else:
            stack += [(_child(page, node, tree, where), depth + 1) for node in reversed(nodes)]


def _newest(scanner: Scanner) -> _Tree:
    """Read the meta page of the last transaction. Raises DataError."""
    first = _meta(scanner, 0)
    second = _meta(scanner, first.page_size)
    tree = max(first, second, key=lambda meta: meta.transaction)
    if tree.pages * tree.page_size > scanner.size:
        raise DataError(
            f"{shown(scanner.path)}: has {scanner.size} bytes, and {tree.pages} pages of {tree.page_size}: it was not "
            "copied whole"
        )
    if tree.depth > _MOST_DEPTH:
        raise DataError(f"{shown(scanner.path)}: a tree of {tree.depth} levels: the file is damaged")
    return tree


def _meta(scanner: Scanner, offset: int) -> _Tree:
    data = scanner.read(offset, 256)
    if len(data) < 256:
        raise DataError(f"{shown(scanner.path)}: byte {offset}: the file ends within its head: it was not copied whole")
    magic, version, _ = _META.unpack_from(data, _PAGE.size)
    if magic != _MAGIC or not _PAGE.unpack_from(data)[2] & _IS_META:
        raise DataError(f"{shown(scanner.path)}: byte {offset}: no head of an LMDB file (of a little-endian machine)")
    if version != _VERSION:
        raise DataError(f"{shown(scanner.path)}: version {version} of LMDB's format; {_VERSION} can be read")
    trees = _PAGE.size + _META.size
    page_size = _TREE.unpack_from(data, trees)[0]
    _, flags, depth, _, _, _, _, root = _TREE.unpack_from(data, trees + _TREE.size)
    last, transaction = _LAST.unpack_from(data, trees + 2 * _TREE.size)
    if page_size not in (1 << power for power in range(9, 17)):
        raise DataError(f"{shown(scanner.path)}: pages of {page_size} bytes: the file is damaged")
    if flags & ~2:
        raise DataError(f"{shown(scanner.path)}: another kind of database (flags {flags}); a key must have one value")
    return _Tree(page_size, depth, root, last + 1, transaction)


def _nodes(page: bytes, number: int, where: str) -> list[int]:
    """The offsets of the nodes in a branch or leaf page. Raises DataError."""
    if len(page) < _PAGE.size:
        raise DataError(f"{where}: is beyond the end of the file")
    own, _, flags, lower, _ = _PAGE.unpack_from(page)
    if own != number or flags & 15 not in (_BRANCH, _LEAF) or not _PAGE.size <= lower <= len(page):
        raise DataError(f"{where}: is no page of the tree: the file is damaged")
    count = (lower - _PAGE.size) // 2
    if _PAGE.size + count * (2 + _NODE.size) > len(page):  # also bounds the memory for the entries of a file
        raise DataError(f"{where}: its {count} entries overlap: the file is damaged")
    nodes = struct.unpack_from(f"<{count}H", page, _PAGE.size)
    for node in nodes:
        if node + _NODE.size + (_NODE.unpack_from(page, node)[3] if node + _NODE.size <= len(page) else 0) > len(page):
            raise DataError(f"{where}: an entry goes beyond the page: the file is damaged")
    return list(nodes)


def _child(page: bytes, node: int, tree: _Tree, where: str) -> int:
    low, high, top, _ = _NODE.unpack_from(page, node)
    number = low | high << 16 | top << 32
    if not 2 <= number < tree.pages:
        raise DataError(f"{where}: leads to page {number} of {tree.pages}: the file is damaged")
    return number


def _entry(scanner: Scanner, tree: _Tree, page: bytes, node: int, number: int) -> tuple[bytes, int, int]:
    """(key, offset, size) of an entry of a leaf page. Raises DataError."""
    low, high, flags, key_size = _NODE.unpack_from(page, node)
    size, begin = low | high << 16, node + _NODE.size + key_size
    key = page[node + _NODE.size : begin]
    where = f"{shown(scanner.path)}: page {number}: key {key!r:.80}"
    if flags & (_SUB | _DUPLICATES):
        raise DataError(f"{where}: is a database of its own; it must be a value")
    if not flags & _ON_OVERFLOW:
        if begin + size > len(page):
            raise DataError(f"{where}: its value goes beyond the page: the file is damaged")
        return key, number * tree.page_size + begin, size
    if begin + 8 > len(page):
        raise DataError(f"{where}: its value goes beyond the page: the file is damaged")
    first = int.from_bytes(page[begin : begin + 8], "little")
    offset = first * tree.page_size + _PAGE.size
    if not 2 <= first < tree.pages or offset + size > tree.pages * tree.page_size:
        raise DataError(f"{where}: its value is on page {first} of {tree.pages}: the file is damaged")
    return key, offset, size
