"""The writers of containers, by the value of `--to`."""

from __future__ import annotations

from plsc.data.packing.label_list import LabelListWriter
from plsc.data.packing.lmdb import LMDBWriter
from plsc.data.packing.recordio import RecordIOWriter
from plsc.data.packing.tar import TarWriter
from plsc.data.packing.writer import Writer

WRITERS: dict[str, type[Writer]] = {
    "recordio": RecordIOWriter,
    "tar": TarWriter,
    "lmdb": LMDBWriter,
    "list": LabelListWriter,
}
