"""Parquet files with a column of images and one of labels, by pyarrow: their schema, labels and row groups."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from plsc.data.containers.files import open_container, shown
from plsc.errors import DataError
from plsc.extras import install

MOST_GROUP = 1 << 31  # bytes of the images of a row group, which are in memory together
MOST_ROWS = 1  # for each byte of the file: rows of the same image and label take next to nothing there, but not here
MOST_CLASSES = 2**31


@dataclass(frozen=True)
class Columns:
    """The names of the two columns."""

    image: str
    label: str


class ParquetImages:
    """One file, open in this process. rows: int64 [groups], of each row group. path: for messages.

    The image column holds bytes, or a struct with a field `bytes`, as dataset hubs write it. Raises DataError for
    another schema and for other files.
    """

    def __init__(self, path: str, columns: Columns) -> None:
        self.path, self._columns = path, columns
        arrow, parquet = _pyarrow()
        self._errors = (arrow.ArrowException, OSError, ValueError, KeyError)
        self._source = open_container(path)
        with self._said(""):
            schema = parquet.ParquetFile(self._source).schema_arrow
        self._image_field = _image_field(arrow, schema, columns.image, path)
        self._require_labels(arrow, schema)
        with self._said(""):  # an image that many rows share is in memory only once
            self._file = parquet.ParquetFile(self._source, read_dictionary=[self._image_field])
        self._metadata = self._file.metadata
        self._require_sizes(self._source.seek(0, 2))
        self.rows = np.array([self._group(group).num_rows for group in range(self._metadata.num_row_groups)], np.int64)

    def labels(self, group: int) -> np.ndarray:
        """The labels of a row group, int32 [rows]; -1 for negative ones. Raises DataError."""
        with self._said(f"row group {group}: "):
            column = self._read(group, self._columns.label)
            if column.null_count:
                raise DataError(f"{shown(self.path)}: row group {group}: {column.null_count} rows have no label")
            found = column.to_numpy()
            if np.any(found >= MOST_CLASSES):  # uint64 too
                raise DataError(f"{shown(self.path)}: row group {group}: has the label {found.max()}; none is so large")
            return np.maximum(found.astype(np.int64), -1).astype(np.int32)

    def images(self, group: int) -> Any:
        """The images of a row group, as a pyarrow array of bytes or of a dictionary of them. Raises DataError."""
        with self._said(f"row group {group}: "):
            column = self._read(group, self._image_field)
            return column if self._image_field == self._columns.image else column.combine_chunks().field("bytes")

    def image(self, images: Any, row: int) -> bytes | None:
        """One image of the result of ``images``; None if the row has none. Raises DataError."""
        with self._said(f"row {row} of a row group: "):
            return images[row].as_py()

    def image_bytes(self, group: int) -> int:
        """The size in bytes of the images of a row group in the file."""
        chunk = next(each for each in self._chunks(group) if each.path_in_schema == self._image_field)
        return chunk.total_compressed_size

    def _read(self, group: int, column: str) -> Any:
        """Read a column of a row group, without threads, which do not survive a fork."""
        return self._file.read_row_group(group, columns=[column], use_threads=False).column(0)

    def _group(self, group: int) -> Any:
        return self._metadata.row_group(group)

    def _chunks(self, group: int) -> Iterator[Any]:
        found = self._group(group)
        return (found.column(number) for number in range(found.num_columns))

    def _require_labels(self, arrow: Any, schema: Any) -> None:
        index = schema.get_field_index(self._columns.label)
        if index < 0 or not arrow.types.is_integer(schema.field(index).type):
            what = f"is of type {schema.field(index).type}" if index >= 0 else "is not there"
            raise _schema(self.path, schema, f"the label column {self._columns.label!r} {what}, it must hold integers")

    def _require_sizes(self, file_bytes: int) -> None:
        """Raise DataError for more rows than possible, and for row groups that are too large for memory."""
        rows = self._metadata.num_rows
        if not 0 <= rows <= MOST_ROWS * file_bytes:
            raise DataError(f"{shown(self.path)}: says that it has {rows} rows, in {file_bytes} bytes: it is damaged")
        for group in range(self._metadata.num_row_groups):
            size = sum(each.total_uncompressed_size for each in self._chunks(group) if each.path_in_schema in
                       (self._image_field, self._columns.label))  # fmt: skip
            if not 0 <= self._group(group).num_rows <= rows or size > MOST_GROUP:
                raise DataError(
                    f"{shown(self.path)}: row group {group}: has {self._group(group).num_rows} rows of {size} bytes; a "
                    f"row group may have {MOST_GROUP} bytes, as it is read as a whole: write smaller ones"
                )

    @contextmanager
    def _said(self, where: str) -> Iterator[None]:
        """pyarrow's errors in one line."""
        try:
            yield
        except self._errors as error:
            reason = " ".join(str(error).split())[:200] or type(error).__name__
            raise DataError(f"{shown(self.path)}: {where}cannot be read as Parquet: {reason}") from error


def _image_field(arrow: Any, schema: Any, name: str, path: str) -> str:
    """The column that holds the bytes. Raises DataError for another schema."""
    index = schema.get_field_index(name)
    if index < 0:
        raise _schema(path, schema, f"there is no image column {name!r}")
    kind = schema.field(index).type

    def is_bytes(one: Any) -> bool:
        return arrow.types.is_binary(one) or arrow.types.is_large_binary(one)

    if is_bytes(kind):
        return name
    if arrow.types.is_struct(kind) and kind.get_field_index("bytes") >= 0 and is_bytes(kind.field("bytes").type):
        return f"{name}.bytes"
    raise _schema(path, schema, f"the image column {name!r} is of type {kind}, it must hold bytes, or a struct of them")


def _schema(path: str, schema: Any, problem: str) -> DataError:
    names = ", ".join(schema.names[:10])[:200]
    return DataError(f"{shown(path)}: {problem[:200]}; columns: {names}; set data.options: image_column, label_column")


def _pyarrow() -> tuple[Any, Any]:
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError as error:
        raise DataError(f"data.dataset: parquet: needs pyarrow: {install('parquet')}") from error
    return pyarrow, parquet
