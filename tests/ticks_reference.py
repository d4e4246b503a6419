"""Files of ticks read the slow way, with the csv module and decimals, and a reader of sources that checks their contract."""

from __future__ import annotations

import json
from decimal import ROUND_HALF_EVEN, Decimal, InvalidOperation
from typing import Any

import pyarrow as pa
from penstock.pipeline.context import BadRecord, Context
from penstock.pipeline.schema import check_event_schema
from penstock.pipeline.source import SourceSpec


def read(
    spec: SourceSpec, position: Any = None, split: Any = None
) -> tuple[list[dict[str, Any]], list[BadRecord], list[Any]]:
    """Rows with times as int64, bad records, and the position behind each block."""
    assert check_event_schema(spec.schema) is None
    reader = spec.open(Context("ticks"), split, position)
    rows: list[dict[str, Any]] = []
    bad: list[BadRecord] = []
    positions, records, first = [], 0, None
    for block in reader.blocks():
        first = block.first_seq if first is None else first
        assert block.first_seq == first + records
        records += block.records
        decoded = reader.decode(block)
        assert not decoded.dropped
        for batch in decoded.batches:
            batch.validate(full=True)
            assert batch.schema.equals(spec.schema, check_metadata=True)
            rows += plain(batch)
        bad += decoded.bad
        positions.append(json.loads(json.dumps(block.after)))
    reader.close()
    numbers = {row["seq"] for row in rows} | {record.seq for record in bad if record.seq is not None}
    assert len(numbers) <= records
    return rows, bad, positions


def plain(batch: pa.RecordBatch) -> list[dict[str, Any]]:
    columns = {}
    for name, column in zip(batch.schema.names, batch.columns, strict=True):
        columns[name] = (column.cast(pa.int64()) if pa.types.is_timestamp(column.type) else column).to_pylist()
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


class Refused(Exception):
    """A field that is not what it should be."""


def price(text: str, *, rounded: bool = False, places: int = 9) -> int:
    """Exactly ``text * 10**places``, or rounded half to even."""
    try:
        value = Decimal(text).scaleb(places)
        whole = value.to_integral_value(ROUND_HALF_EVEN)
    except InvalidOperation:
        raise Refused(text) from None
    if not value.is_finite() or (whole != value and not rounded) or abs(whole) >= 1 << 63:
        raise Refused(text)
    return int(whole)


def lines_of(data: bytes) -> list[tuple[int, bytes]]:
    """Lines that are not blank, with their number in the file."""
    found = enumerate(data.split(b"\n"), 1)
    return [(number, line.removesuffix(b"\r")) for number, line in found if line.removesuffix(b"\r")]
