"""Where a snapshot cuts a source: between batches if it can be gone back to, between blocks if it cannot."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pytest
from penstock import event_schema
from penstock.pipeline.context import BadRecord, Context
from penstock.pipeline.operator import NO_TIME
from penstock.pipeline.reading import Head, Reading, Work
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


class Cut:
    """Rows in blocks of one batch, as long as `sizes` says; one record in ten is bad."""

    context: Context

    def __init__(self, sizes: Sequence[int], after: int = 0) -> None:
        self._sizes, self._next = sizes, after

    def blocks(self) -> Iterator[Block]:
        for index, size in enumerate(self._sizes):
            first, self._next = self._next, self._next + size
            self.context.note("framed", size)
            yield Block(index, first, size, 10 * size, {"next": self._next}, None)

    def decode(self, block: Block) -> Decoded:
        numbers = range(block.first_seq, block.first_seq + block.records)
        self.context.note("decoded", block.records)
        bad = [BadRecord("here", "test", f"record {n}", b"x", n) for n in numbers if n % 10 == 0]
        good = [n for n in numbers if n % 10]
        return Decoded([rows(n) for n in good], bad, {"tens": len(bad)})


class Kept:
    """Keeps the last part of every step that is saved."""

    def __init__(self) -> None:
        self.parts: dict[str, Any] = {}

    def saved(self, number: int, step: str, state: Any) -> None:
        self.parts[step] = state

    def finished(self, step: str, state: Any) -> None: ...


def run_of(reader: Any, state: Any, cut_at: Sequence[int]) -> tuple[list[int], Reading, list[Any]]:
    """Rows that go out, the reading, and snapshots before the rows `cut_at`, the last of which ends the run."""
    node: Any = SimpleNamespace(id="read", schema=SCHEMA, spec=SimpleNamespace(rewinds=True))
    reader.context = Context("read")
    reading = Reading(0, node, reader, reader.context, Head([]), None)
    kept, out, snapshots = Kept(), [], []
    reading.saver = kept
    if state is not None:
        reading.load(state)

    class Receiver:
        def push(self, batch: pa.RecordBatch, port: int, trace: Any) -> None:
            out.extend(batch.column("v").to_pylist())
            if out[-1] + 1 in cut_at:
                reading.asked = (len(snapshots) + 1, NO_TIME)

        def barrier(self, number: int, port: int) -> None:
            snapshots.append((kept.parts["read"], len(out)))

    target: Any = SimpleNamespace(receiver=Receiver(), port=0)
    reading.down.append(target)
    ahead: list[Work] = []
    while (work := reading.frame()) is not None or ahead:
        ahead += [] if work is None else [reading.decode(work)]
        if work is None or len(ahead) > 2:
            reading.deliver(ahead.pop(0))
    return out, reading, snapshots


@pytest.mark.parametrize("again", [[100], [0, 3, 3, 94], [1] * 100, [41, 59]])
def test_a_source_that_is_cut_into_other_blocks_when_it_goes_on_gives_the_same_rows_and_counts(
    again: list[int],
) -> None:
    out, whole, snapshots = run_of(Cut([10, 50, 40]), None, [35, 44])
    assert len(snapshots) == 2
    for state, gone in snapshots:
        after = state["position"]["next"]
        sizes, left = [], 100 - after
        for size in again:
            sizes.append(min(size, left))
            left -= sizes[-1]
        rest, reading, later = run_of(Cut(sizes, after), state, [after + 12])
        assert rest == out[gone:]
        names = ("rows_in", "rows_out", "bytes_in", "bytes_out", "dropped", "noted", "quarantined")
        counted = {name: getattr(reading.metrics, name) for name in names}
        assert counted == {name: getattr(whole.metrics, name) for name in names}
        for once_more, behind in later:  # cut again while rows that are out come by
            third, last, _ = run_of(
                Cut([100 - once_more["position"]["next"]], once_more["position"]["next"]), once_more, []
            )
            assert third == rest[behind:]
            assert {name: getattr(last.metrics, name) for name in names} == counted
