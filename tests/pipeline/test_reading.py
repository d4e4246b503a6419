"""Where a snapshot cuts a source: between batches if it can be gone back to, between blocks if it cannot."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pytest
from penstock import event_schema
from penstock.pipeline.context import Context
from penstock.pipeline.reading import Head, Reading
from penstock.pipeline.source import Block, Decoded

SCHEMA = event_schema([pa.field("v", pa.int64())], source="test", format="test")


def rows(*numbers: int) -> pa.RecordBatch:
    times = pa.array(numbers, pa.int64()).cast(SCHEMA.field("ts_event").type)
    columns = [times, times, pa.array(numbers, pa.uint64()), pa.array(numbers, pa.int64())]
    return pa.RecordBatch.from_arrays(columns, schema=SCHEMA)


class TwoBatches:
    """One block of two batches."""

    def blocks(self) -> Any:
        yield Block(0, 0, 4, 10, {"next": 4}, None)

    def decode(self, block: Block) -> Decoded:
        return Decoded([rows(0, 1), rows(2, 3)])


@pytest.mark.parametrize(("rewinds", "given"), [(True, 2), (False, 0)])
def test_a_source_that_cannot_be_gone_back_to_is_cut_behind_whole_blocks(rewinds: bool, given: int) -> None:
    node: Any = SimpleNamespace(id="read", schema=SCHEMA, spec=SimpleNamespace(rewinds=rewinds))
    reader: Any = TwoBatches()
    reading = Reading(0, node, reader, Context("read"), Head([]), None)
    saved: dict[str, Any] = {}

    class Receiver:
        def push(self, batch: pa.RecordBatch, port: int, trace: Any) -> None:
            reading.asked = (1, 0) if not saved else None

        def barrier(self, number: int, port: int) -> None:
            saved.update(reading.save())

    target: Any = SimpleNamespace(receiver=Receiver(), port=0)
    reading.down.append(target)
    work = reading.frame()
    assert work is not None
    reading.deliver(reading.decode(work))
    assert saved["given"] == given
    assert saved["position"] == (None if rewinds else {"next": 4})
