"""Trying quarantined records again, one by one, after the flow or a library was mended.

A row that a stateless step failed on was put aside whole, so the step runs on it as it is. Other records hold the bytes of
a message, a line or a picture, and only the source or operator that put them aside knows what to make of those.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import pyarrow as pa

from .context import BadRecord, Context
from .errors import DecodeError, FormatError, PenstockError
from .flow import Flow
from .operator import Operator, OperatorSpec
from .options import RunOptions
from .plan import Node
from .planning import build_plan
from .quarantine import QuarantinedRecord
from .schema import difference
from .sink import Sink
from .source import SourceSpec

__all__ = ["Attempt", "rerun"]

#: How an Arrow IPC stream begins: its continuation marker, which no line, message or picture begins with.
_STREAM = b"\xff\xff\xff\xff"
_ALONE = "this kind of record cannot be re-run alone"

#: Makes the sink for the rows of a step, given its id and the schema of its rows.
Keep = Callable[[str, pa.Schema], Sink]


@dataclass(frozen=True, slots=True)
class Attempt:
    """What became of a record: `rows` if it decodes now, else `error` in one line."""

    name: str
    step: str
    rows: int
    error: str | None

    def __str__(self) -> str:
        return f"{self.name}  {self.step}  {self.error or f'now decodes: {self.rows} rows'}"


def rerun(records: Iterable[QuarantinedRecord], flow: Flow, keep: Keep | None = None) -> Iterator[Attempt]:
    """Try each record on the step of its id in `flow`.

    `keep` gets the rows of those that decode now: a sink a step, committed when the last record was tried and aborted if
    that point is not reached. Their columns are those the step gives, all nullable: what a record does not hold is null.
    """
    steps = {node.id: node for node in build_plan(flow.graph, RunOptions().threads).nodes}
    opened: dict[str, Operator] = {}
    contexts: dict[str, Context] = {}
    sinks: dict[str, Sink] = {}

    def attempt(item: QuarantinedRecord) -> Sequence[pa.RecordBatch]:
        node = steps.get(item.step)
        if node is None:
            raise PenstockError("the flow has no step of that name")
        record = item.record()
        if isinstance(node.spec, SourceSpec):
            return _decoded(node.spec, record)
        if not isinstance(node.spec, OperatorSpec):
            raise PenstockError(_ALONE)
        row = _row(node, node.spec, record)
        if item.step not in opened:
            contexts[item.step] = Context(item.step)
            opened[item.step] = node.spec.open(contexts[item.step], *node.in_schemas)
        contexts[item.step].bad_records.clear()
        out = opened[item.step].process(row)
        for bad in contexts[item.step].bad_records:
            raise DecodeError(bad.error)
        return out

    try:
        for item in records:
            try:
                batches = attempt(item)
            except Exception as error:  # whatever a user's function raises is what is wrong with the record
                yield Attempt(item.name, item.step, 0, _one_line(error))
                continue
            rows = sum(batch.num_rows for batch in batches)
            if keep is not None and rows:
                schema = nullable(steps[item.step].schema)
                if item.step not in sinks:
                    sinks[item.step] = keep(item.step, schema)
                for batch in batches:
                    columns = [batch.column(name) for name in schema.names]
                    sinks[item.step].write(pa.RecordBatch.from_arrays(columns, schema=schema))
            yield Attempt(item.name, item.step, rows, None)
        while sinks:
            step, sink = next(iter(sinks.items()))
            sink.commit()
            del sinks[step]
    finally:
        for operator in opened.values():
            operator.close()
        for sink in sinks.values():
            sink.abort()


def nullable(schema: pa.Schema) -> pa.Schema:
    """`schema` with every column nullable."""
    return pa.schema([field.with_nullable(True) for field in schema], metadata=schema.metadata)


def _decoded(spec: SourceSpec, record: BadRecord) -> Sequence[pa.RecordBatch]:
    decoded = spec.retry(record)
    if decoded is None:
        raise PenstockError(_ALONE)
    for bad in decoded.bad:
        raise DecodeError(bad.error)
    return decoded.batches


def _row(node: Node, spec: OperatorSpec, record: BadRecord) -> pa.RecordBatch:
    """The row that `record` stands for, as the step takes it now."""
    schema = node.in_schemas[0]
    row: pa.RecordBatch | None
    if node.stateless and record.data.startswith(_STREAM):
        try:
            with pa.ipc.open_stream(record.data) as reader:
                row = reader.read_next_batch()
        except (pa.ArrowInvalid, StopIteration, OSError) as error:
            raise FormatError(f"its bytes are no row: {error}") from error
    else:
        row = spec.retry_row(record, schema)
    if row is None:
        raise PenstockError(_ALONE)
    if (problem := difference(schema, row.schema)) is not None:
        raise PenstockError(f"it is not a row of this flow: {problem}")
    return row


def _one_line(error: Exception) -> str:
    text = str(error) if isinstance(error, PenstockError) else f"{type(error).__name__}: {error}"
    return " ".join(text.split())
