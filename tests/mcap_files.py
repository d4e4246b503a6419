"""Small MCAP files in every shape, and the rows a source reads from them."""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import pyarrow as pa
import pytest
from mcap.writer import CompressionType, IndexType, Writer
from penstock.pipeline.context import BadRecord, Context
from penstock.pipeline.source import Position, SourceSpec, Split
from penstock.sources.driving import _mcap_contents

CAN_TOPIC, TEXT_TOPIC = "/can/bus3", "/chatter"
CAN_TYPE, TEXT_TYPE = "can_msgs/msg/Frame", "std_msgs/msg/String"
SHAPES: dict[str, dict[str, Any]] = {
    "zstd": {"compression": CompressionType.ZSTD},
    "lz4": {"compression": CompressionType.LZ4},
    "plain": {"compression": CompressionType.NONE},
    "loose": {"use_chunking": False},
    "no message index": {"index_types": IndexType.CHUNK},
    "no chunk index": {"index_types": IndexType.MESSAGE},
    "no statistics": {"use_statistics": False},
    "no summary": {
        "index_types": IndexType.NONE,
        "use_statistics": False,
        "repeat_channels": False,
        "repeat_schemas": False,
        "use_summary_offsets": False,
    },
}


@dataclass
class Read:
    """What came out of a source: rows as plain values, and what did not."""

    rows: list[dict[str, Any]] = field(default_factory=list)
    bad: list[BadRecord] = field(default_factory=list)
    dropped: int = 0
    records: int = 0
    positions: list[Position] = field(default_factory=list)


def can_message(number: int, *, stamp_ns: int = 0) -> bytes:
    head = struct.pack("<4siI", b"\0\1\0\0", stamp_ns // 10**9, stamp_ns % 10**9)
    return head + struct.pack("<I5s3xI????Q", 5, b"can3\0", number, False, False, False, True, number * 7)


def text_message(number: int) -> bytes:
    text = f"message {number}".encode() + b"\0"
    return b"\0\1\0\0" + struct.pack("<I", len(text)) + text


def write_file(count: int = 24, *, chunk_size: int = 256, attachment: bool = False, **options: Any) -> bytes:
    """A file of `count` CAN frames and `count` texts in turn, in chunks of about 6 messages."""
    out = io.BytesIO()
    writer = Writer(out, chunk_size=chunk_size, **options)
    writer.start(profile="ros2", library="test")
    can_type = writer.register_schema(CAN_TYPE, "ros2msg", b"")
    text_type = writer.register_schema(TEXT_TYPE, "ros2msg", b"string data\n")
    can = writer.register_channel(CAN_TOPIC, "cdr", can_type)
    text = writer.register_channel(TEXT_TOPIC, "cdr", text_type)
    for i in range(count):
        writer.add_message(can, 1000 + 10 * i, can_message(i, stamp_ns=5_000_000_000 + i), 1000 + 10 * i, i)
        writer.add_message(text, 1005 + 10 * i, text_message(i), 1005 + 10 * i, i)
        if attachment and i == count // 2:
            writer.add_attachment(0, 0, "notes.txt", "text/plain", b"x" * 100)
    writer.finish()
    return out.getvalue()


def plain_rows(batch: pa.RecordBatch) -> list[dict[str, Any]]:
    """Rows with times as integers of ns."""
    columns = [c.cast(pa.int64()) if pa.types.is_timestamp(c.type) else c for c in batch.columns]
    return pa.RecordBatch.from_arrays(columns, batch.schema.names).to_pylist()


@contextmanager
def together(nbytes: int) -> Iterator[None]:
    """Within it, pieces of a file are one block up to `nbytes`; 0: each is one."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_mcap_contents, "_JOINED_BYTES", nbytes)
        yield


def read_joined(spec: SourceSpec) -> Read:
    """`read`, of which no more than the positions depends on how many pieces are one block."""
    whole = read(spec)
    with together(0):
        alone = read(spec)
    assert repr(replace(alone, positions=[])) == repr(replace(whole, positions=[]))  # a NaN is not equal to itself
    return whole


def read(
    spec: SourceSpec,
    *,
    split: Split | None = None,
    position: Position | None = None,
    order: Sequence[int] | None = None,
) -> Read:
    """Everything a source gives; `order` decodes the blocks in another order before putting them back."""
    reader = spec.open(Context("test"), split, position)
    try:
        blocks = list(reader.blocks())
        decoded: dict[int, Any] = {}
        for i in order if order is not None else range(len(blocks)):
            decoded[i] = reader.decode(blocks[i])
        out = Read()
        for i, block in enumerate(blocks):
            for batch in decoded[i].batches:
                batch.validate(full=True)
                assert batch.schema.equals(spec.schema, check_metadata=True)
                out.rows += plain_rows(batch)
            out.bad += decoded[i].bad
            out.dropped += sum(decoded[i].dropped.values())
            out.records += block.records
            out.positions.append(dict(block.after))
        return out
    finally:
        reader.close()
