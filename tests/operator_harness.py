"""One harness for every operator: drive it as a runner does, snapshot it at every step, cut its input anywhere.

A run is a list of steps per port (a batch, then maybe a watermark, and the port's end), interleaved over the ports. The
harness plays the gate: its watermarks trail each port's newest event time by as much as the port's rows are out of
order (or more), so no row is late. At every step it checks what each operator owes its runner: batches of the declared
schema, no null where none is declared, and never a row older than the watermark already given.

    result = run_operator(spec, left_batches, right_batches, sizes=3, interleave=[1, 1, 0])
    assert_restorable(spec, left_batches, right_batches)
    assert_boundaries_do_not_matter(spec, left_batches, right_batches, data=data)   # hypothesis st.data()
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from hypothesis import strategies as st
from operator_state import decode_state, empty_batch, encode_state
from penstock.pipeline.columns import as_numpy, event_ns, is_fixed_width
from penstock.pipeline.context import BadRecord, Context, StageMetrics
from penstock.pipeline.operator import END_OF_TIME, NO_TIME, Operator, OperatorSpec
from penstock.pipeline.schema import EVENT_FIELDS, difference

__all__ = [
    "Result",
    "assert_boundaries_do_not_matter",
    "assert_restorable",
    "assert_same_rows",
    "decode_state",
    "digest",
    "encode_state",
    "event_times",
    "events",
    "run_operator",
]

Port = Sequence[pa.RecordBatch] | pa.RecordBatch | pa.Table


@dataclass
class Result:
    """What a run gave. `watermarks` are those forwarded downstream, the final END_OF_TIME included."""

    rows: pa.Table
    batches: list[pa.RecordBatch]
    side: dict[str, pa.Table]
    dropped: dict[str, int]
    watermarks: list[int]
    metrics: StageMetrics
    steps: int
    bad: list[BadRecord] = field(default_factory=list)

    @property
    def noted(self) -> dict[str, int]:
        """What was counted about rows that stayed."""
        return dict(self.metrics.noted)

    @property
    def digest(self) -> str:
        """Of the main output's rows, whatever its batches."""
        return digest(self.rows)

    @property
    def sizes(self) -> list[int]:
        """Rows of each emitted batch."""
        return [batch.num_rows for batch in self.batches]


def events(ts_event: Sequence[int], *, ts_recv: Sequence[int] | None = None, first_seq: int = 0, **columns: Any) -> Any:
    """A RecordBatch with the event columns first; `columns` are Arrow arrays, numpy arrays or lists."""
    times = np.asarray(ts_event, np.int64)
    received = times if ts_recv is None else np.asarray(ts_recv, np.int64)
    arrays = [pa.array(times).cast(EVENT_FIELDS[0].type), pa.array(received).cast(EVENT_FIELDS[1].type)]
    arrays.append(pa.array(np.arange(first_seq, first_seq + len(times), dtype=np.uint64)))
    fields = list(EVENT_FIELDS)
    for name, values in columns.items():
        arrays.append(values if isinstance(values, pa.Array) else pa.array(values))
        fields.append(pa.field(name, arrays[-1].type))
    return pa.RecordBatch.from_arrays(arrays, schema=pa.schema(fields))


def event_times(*, most: int = 40, spread: int = 50, disorder: int = 5) -> st.SearchStrategy[list[int]]:
    """Up to `most` event times with ties and jumps up to `spread`, out of order by up to `disorder`."""
    step = st.tuples(st.integers(0, 3) | st.integers(0, spread), st.integers(0, disorder))

    def build(steps: list[tuple[int, int]]) -> list[int]:
        ticks = np.cumsum([gap for gap, _ in steps], dtype=np.int64)
        return [1_000 + int(tick) - back for tick, (_, back) in zip(ticks, steps, strict=True)]

    return st.lists(step, max_size=most).map(build)


def run_operator(
    spec: OperatorSpec,
    *ports: Port,
    schemas: Sequence[pa.Schema] | None = None,
    sizes: int | Sequence[int] | None = None,
    cuts: Sequence[Sequence[int]] | None = None,
    interleave: str | Sequence[int] = "round robin",
    watermarks: str | Sequence[bool] = "every batch",
    gates: Sequence[int] | int | None = None,
    snapshot: bool | str = False,
    parallelism: int = 1,
) -> Result:
    """Run `spec` over `ports` as a runner would and return everything that came out.

    `schemas` are the input schemas (needed for a port without batches). `sizes` re-cuts every port into batches of so
    many rows, `cuts` at the given row numbers (a number twice makes an empty batch); otherwise batches stay as given.
    `interleave` is ``"round robin"``, ``"port by port"``, ``"last port first"``, or a list of ports to take the next
    step from (what is left follows round robin). `watermarks` is ``"every batch"``, ``"at the end"`` (only the end of
    each port), or a list of booleans, one a batch in the order played, repeated. `gates` is how far in ns the
    watermark of each port trails its newest row; by default as little as the port's disorder allows. `snapshot=True`
    replaces the operator at every step by a fresh one restored from its encoded state; ``"watch"`` takes snapshots
    without using them and checks that they do not change afterwards.
    """
    inputs = [_batches(port) for port in ports]
    kinds = list(schemas) if schemas is not None else [batches[0].schema for batches in inputs]
    inputs = [_recut(b, kinds[i], sizes, cuts, i) for i, b in enumerate(inputs)]
    trails = (
        [_disorder(b) for b in inputs] if gates is None else [gates] * len(inputs) if isinstance(gates, int) else gates
    )
    run = _Run(spec, kinds, parallelism, snapshot)
    queues: list[Iterator[pa.RecordBatch | None]] = [iter([*batches, None]) for batches in inputs]
    newest = [NO_TIME] * len(inputs)
    played = 0
    for port in _order(interleave, [len(batches) + 1 for batches in inputs]):
        batch = next(queues[port])
        if batch is None:
            run.advance(END_OF_TIME, port)
            continue
        run.process(batch, port)
        if batch.num_rows:
            newest[port] = max(newest[port], int(event_ns(batch).max()))
        told = watermarks == "every batch" if isinstance(watermarks, str) else watermarks[played % len(watermarks)]
        played += 1
        if told and newest[port] != NO_TIME:
            run.advance(newest[port] - trails[port], port)
    return run.finish()


def assert_restorable(spec: OperatorSpec, *ports: Port, **options: Any) -> Result:
    """Snapshots must be plain data, must not change once taken, and must restore to exactly the same run.

    `options` go to `run_operator`. Returns the undisturbed result.
    """
    undisturbed = run_operator(spec, *ports, **options)
    for how in ("watch", True):
        again = run_operator(spec, *ports, **options, snapshot=how)
        _assert_same(undisturbed, again, f"with snapshot={how!r} at every step", composition=True)
        if again.watermarks != undisturbed.watermarks:
            raise AssertionError(f"watermarks differ after restore: {undisturbed.watermarks} {again.watermarks}")
    return undisturbed


def assert_boundaries_do_not_matter(
    spec: OperatorSpec, *ports: Port, data: st.DataObject, composition: bool = False, **options: Any
) -> Result:
    """The same rows must come out however hypothesis cuts, interleaves and marks the input.

    With `composition` the sizes of the emitted batches must be the same too. `options` go to `run_operator`. Returns
    the reference result: one batch a port, port by port, no watermark before a port's end.
    """
    inputs = [_batches(port) for port in ports]
    whole = [[]] * len(inputs)
    reference = run_operator(spec, *ports, **options, cuts=whole, interleave="port by port", watermarks="at the end")
    cuts = []
    for batches in inputs:
        rows = sum(b.num_rows for b in batches)
        cuts.append(sorted(data.draw(st.lists(st.integers(0, rows), max_size=12), label="cuts")))
    steps = sum(len(c) + 2 for c in cuts)
    drawn: dict[str, Any] = {
        "cuts": cuts,
        "interleave": data.draw(st.lists(st.integers(0, len(inputs) - 1), max_size=steps), label="interleave"),
        "watermarks": data.draw(st.lists(st.booleans(), min_size=1, max_size=steps), label="watermarks"),
    }
    if "gates" not in options:
        slack = data.draw(st.lists(st.sampled_from([0, 1, 7, 100]), min_size=len(inputs), max_size=len(inputs)))
        drawn["gates"] = [_disorder(b) + extra for b, extra in zip(inputs, slack, strict=True)]
    drawn["snapshot"] = data.draw(st.booleans(), label="snapshot")
    again = run_operator(spec, *ports, **options, **drawn)
    _assert_same(reference, again, f"with {drawn}", composition=composition)
    return reference


def assert_same_rows(expected: pa.Table, got: pa.Table, what: str = "rows") -> None:
    """Equal values in equal order, by digest (NaN equals NaN, dictionaries by value); names the first difference."""
    if (problem := difference(expected.schema, got.schema)) is not None:
        raise AssertionError(f"{what}: {problem}")
    if digest(expected) == digest(got):
        return
    for name in expected.column_names:
        left, right = _plain(expected[name]), _plain(got[name])
        for row, (a, b) in enumerate(zip(left, right, strict=False)):
            if repr(a) != repr(b):
                raise AssertionError(f"{what}: row {row}, column {name!r}: expected {a!r}, got {b!r}")
    raise AssertionError(f"{what}: expected {expected.num_rows} rows, got {got.num_rows}")


def digest(table: pa.Table) -> str:
    """SHA-256 of names, types and values; the same whatever the chunks, offsets and dictionaries are."""
    state = hashlib.sha256(str(table.num_rows).encode())
    for name, column in zip(table.column_names, table.columns, strict=True):
        state.update(f"|{name}:{column.type}|".encode())
        kind = column.type
        if is_fixed_width(kind) and not pa.types.is_dictionary(kind) and not column.null_count:
            for chunk in column.chunks:
                state.update(np.ascontiguousarray(as_numpy(chunk)).tobytes())
        else:
            state.update(repr(_plain(column)).encode())
    return state.hexdigest()


class _Run:
    """One operator under test, with all that left it."""

    def __init__(self, spec: OperatorSpec, kinds: Sequence[pa.Schema], parallelism: int, snapshot: bool | str) -> None:
        self.spec, self.kinds, self.parallelism, self.snapshot = spec, kinds, parallelism, snapshot
        self.schema = spec.output_schema(*kinds)
        self.side_schemas = dict(spec.side_outputs(*kinds))
        self.metrics = StageMetrics()
        self.batches: list[pa.RecordBatch] = []
        self.sides: dict[str, list[pa.RecordBatch]] = {name: [] for name in self.side_schemas}
        self.bad: list[BadRecord] = []
        self.inputs = [NO_TIME] * len(kinds)
        self.forwarded: list[int] = []
        self.steps = 0
        self.watched: tuple[Mapping[str, Any], bytes] | None = None
        self.operator = self._open()

    def _open(self) -> Operator:
        context = Context(
            f"{self.spec.kind}-under-test",
            metrics=self.metrics,
            parallelism=self.parallelism,
            side=self._side,
            quarantine=lambda _, record: self.bad.append(record),
        )
        return self.spec.open(context, *self.kinds)

    def process(self, batch: pa.RecordBatch, port: int) -> None:
        self._emit(self.operator.process(batch, port))
        self._step()

    def advance(self, watermark: int, port: int) -> None:
        if watermark <= self.inputs[port]:
            return
        self.inputs[port] = watermark
        self._emit(self.operator.advance(watermark, port))
        own = self.operator.watermark()
        given = min(self.inputs) if own is None else own
        if given > (self.forwarded[-1] if self.forwarded else NO_TIME):
            self.forwarded.append(given)
        self._step()

    def finish(self) -> Result:
        self._emit(self.operator.finish(), check_time=self.forwarded[-1:] != [END_OF_TIME])
        self.operator.close()
        if self.forwarded[-1:] != [END_OF_TIME]:
            self.forwarded.append(END_OF_TIME)
        return Result(
            pa.Table.from_batches(self.batches, self.schema),
            self.batches,
            {name: pa.Table.from_batches(found, self.side_schemas[name]) for name, found in self.sides.items()},
            dict(self.metrics.dropped),
            self.forwarded,
            self.metrics,
            self.steps,
            self.bad,
        )

    def _emit(self, batches: Sequence[pa.RecordBatch], *, check_time: bool = True) -> None:
        for batch in batches:
            _check_batch(batch, self.schema, "main output")
            if check_time and batch.num_rows and self.forwarded and int(event_ns(batch).min()) < self.forwarded[-1]:
                oldest = int(event_ns(batch).min())
                raise AssertionError(f"a row of {oldest} ns came after watermark {self.forwarded[-1]} was given")
            self.batches.append(batch)

    def _side(self, name: str, batch: pa.RecordBatch) -> None:
        if name not in self.side_schemas:
            raise AssertionError(f"side output {name!r} is not declared by side_outputs(): {list(self.side_schemas)}")
        _check_batch(batch, self.side_schemas[name], f"side output {name!r}")
        self.sides[name].append(batch)

    def _step(self) -> None:
        self.steps += 1
        if not self.snapshot:
            return
        if self.watched is not None and encode_state(self.watched[0]) != self.watched[1]:
            raise AssertionError("a snapshot changed after it was taken: it shares memory that the operator writes to")
        state = self.operator.snapshot()
        data = encode_state(state)
        if self.snapshot == "watch":
            self.watched = (state, data)
            return
        self.operator.close()
        self.operator = self._open()
        self.operator.restore(decode_state(data))
        if encode_state(self.operator.snapshot()) != data:
            raise AssertionError(f"a restored operator does not snapshot to what it was restored from: {state}")


def _check_batch(batch: pa.RecordBatch, schema: pa.Schema, where: str) -> None:
    if (problem := difference(schema, batch.schema)) is not None:
        raise AssertionError(f"{where}: {problem}")
    batch.validate()
    for declared, column in zip(schema, batch.columns, strict=True):
        if not declared.nullable and column.null_count:
            raise AssertionError(f"{where}: column {declared.name!r} is declared without nulls and has some")


def _assert_same(expected: Result, got: Result, how: str, *, composition: bool) -> None:
    assert_same_rows(expected.rows, got.rows, f"main output, {how}")
    for name, rows in expected.side.items():
        assert_same_rows(rows, got.side[name], f"side output {name!r}, {how}")
    for what in ("dropped", "noted", "bad"):
        if getattr(expected, what) != getattr(got, what):
            raise AssertionError(f"{what}, {how}: expected {getattr(expected, what)}, got {getattr(got, what)}")
    if expected.metrics.late_rows != got.metrics.late_rows:
        raise AssertionError(f"late rows, {how}: expected {expected.metrics.late_rows}, got {got.metrics.late_rows}")
    if composition and expected.sizes != got.sizes:
        raise AssertionError(f"batch sizes, {how}: expected {expected.sizes}, got {got.sizes}")


def _batches(port: Port) -> list[pa.RecordBatch]:
    if isinstance(port, pa.RecordBatch):
        return [port]
    return port.to_batches() if isinstance(port, pa.Table) else list(port)


def _recut(
    batches: list[pa.RecordBatch],
    schema: pa.Schema,
    sizes: int | Sequence[int] | None,
    cuts: Sequence[Sequence[int]] | None,
    port: int,
) -> list[pa.RecordBatch]:
    if sizes is None and cuts is None:
        return batches
    table = pa.Table.from_batches(batches, schema)
    if cuts is not None:
        bounds = [0, *cuts[port], table.num_rows]
    else:
        size = sizes if isinstance(sizes, int) else (sizes or [])[port]
        bounds = [*range(0, table.num_rows, size), table.num_rows]
    one = table.combine_chunks().to_batches()
    whole = one[0] if one else empty_batch(schema)
    return [whole.slice(start, stop - start) for start, stop in itertools.pairwise(bounds)]


def _disorder(batches: Sequence[pa.RecordBatch]) -> int:
    """How far a row is at most behind the newest row before it."""
    times: npt.NDArray[np.int64] = np.concatenate([np.empty(0, np.int64), *(event_ns(b) for b in batches)])
    return int((np.maximum.accumulate(times) - times).max()) if len(times) else 0


def _order(interleave: str | Sequence[int], left: list[int]) -> Iterator[int]:
    if interleave == "port by port" or interleave == "last port first":
        ports = list(range(len(left)))
        for port in ports if interleave == "port by port" else reversed(ports):
            yield from [port] * left[port]
        return
    if not isinstance(interleave, str):
        for port in interleave:
            if left[port]:
                left[port] -= 1
                yield port
    elif interleave != "round robin":
        raise ValueError(f"{interleave=} is not known")
    while any(left):
        for port, count in enumerate(left):
            if count:
                left[port] -= 1
                yield port


def _plain(column: pa.ChunkedArray) -> list[Any]:
    kind = column.type
    if isinstance(kind, pa.BaseExtensionType):
        column = pa.chunked_array([chunk.storage for chunk in column.chunks], kind.storage_type)
    elif pa.types.is_temporal(kind):
        column = column.cast(pa.int64())
    values: list[Any] = column.to_pylist()
    return values
