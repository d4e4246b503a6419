"""Operators divided by key, beside the undivided one: the same rows for every batch and watermark, and the same state.

A run is a list of batches and watermarks. `play` runs it on as many parts as a schedule says, changing between steps
through snapshots (0 parts: the undivided operator). What goes to parts and comes from them goes through Arrow's IPC, as
between processes, so no dictionary keeps its memory.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from operator_harness import assert_same_rows, event_times, events
from operator_state import decode_state, encode_state
from penstock.ops import agg
from penstock.ops.actions import ActionSequence
from penstock.ops.book import BookFeatures
from penstock.ops.join import JoinAsof
from penstock.ops.sequence import RollingSequence
from penstock.ops.window import Assigner, Session, Sliding, Tumbling, Window
from penstock.pipeline.columns import event_ns
from penstock.pipeline.context import Context, StageMetrics
from penstock.pipeline.operator import END_OF_TIME, Operator, OperatorSpec
from penstock.pipeline.partition import Partitioned, partition_of
from penstock.sources.market.itch import Itch

Step = pa.RecordBatch | int
#: What one step gave: rows of the main output and of the side outputs.
Given = tuple[pa.Table, dict[str, pa.Table]]

ALL = {
    "rows": agg.count(),
    "present": agg.count("x"),
    "size": agg.sum("i"),
    "total": agg.sum("x"),
    "mean": agg.mean("x"),
    "spread": agg.std("x"),
    "low": agg.min("x"),
    "high": agg.max("i"),
    "open": agg.first("name"),
    "close": agg.last("name"),
    "on": agg.last("flag"),
}


def wired(batch: pa.RecordBatch) -> pa.RecordBatch:
    """`batch` as another process gets it."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema) as writer:
        writer.write_batch(batch)
    with pa.ipc.open_stream(sink.getvalue()) as reader:
        return reader.read_next_batch()


class Undivided:
    def __init__(self, spec: OperatorSpec, schema: pa.Schema, metrics: StageMetrics) -> None:
        self.side: dict[str, list[pa.RecordBatch]] = {}
        context = Context("whole", metrics=metrics, side=lambda name, rows: self.side.setdefault(name, []).append(rows))
        self.operator: Operator = spec.open(context, schema)

    def step(self, step: Step) -> tuple[Sequence[pa.RecordBatch], dict[str, list[pa.RecordBatch]]]:
        self.side.clear()
        rows = self.operator.advance(step) if isinstance(step, int) else self.operator.process(step)
        return rows, self.side

    def finish(self) -> Sequence[pa.RecordBatch]:
        return self.operator.finish()

    def snapshot(self) -> Mapping[str, Any]:
        return self.operator.snapshot()

    def restore(self, state: Mapping[str, Any]) -> None:
        self.operator.restore(state)


class Divided:
    def __init__(self, spec: OperatorSpec, schema: pa.Schema, metrics: StageMetrics, parts: int) -> None:
        divided = spec.partitioned(schema)
        assert isinstance(divided, Partitioned)
        self.divided = divided
        self.parts = [Undivided(spec, schema, metrics) for _ in range(parts)]

    def step(self, step: Step) -> tuple[Sequence[pa.RecordBatch], dict[str, list[pa.RecordBatch]]]:
        seq = None
        if isinstance(step, int):
            out = [part.step(step) for part in self.parts]
        else:
            seq = step.column("seq")
            sent = self.divided.divide(step, len(self.parts))
            out = [
                ((), {}) if rows is None else part.step(wired(rows))
                for part, rows in zip(self.parts, sent, strict=True)
            ]
        side = {}
        for name in sorted({name for _, found in out for name in found}):
            side[name] = list(self.divided.merge_side(name, [_sent(found.get(name, ())) for _, found in out], seq))
        return self.divided.merge([_sent(rows) for rows, _ in out], seq), side

    def finish(self) -> Sequence[pa.RecordBatch]:
        return self.divided.merge([part.finish() for part in self.parts])

    def snapshot(self) -> Mapping[str, Any]:
        return self.divided.join([part.snapshot() for part in self.parts])

    def restore(self, state: Mapping[str, Any]) -> None:
        for part, own in zip(self.parts, self.divided.split(state, len(self.parts)), strict=True):
            part.restore(decode_state(encode_state(own)))


def _sent(batches: Sequence[pa.RecordBatch]) -> list[pa.RecordBatch]:
    return [wired(batch) for batch in batches]


def play(
    spec: OperatorSpec, schema: pa.Schema, steps: Sequence[Step], schedule: Sequence[int]
) -> tuple[list[Given], StageMetrics]:
    """What each step gives; before step i the operator has ``schedule[i % len(schedule)]`` parts."""
    metrics = StageMetrics()
    out: list[Given] = []
    output, sides = spec.output_schema(schema), spec.side_outputs(schema)
    running: Undivided | Divided | None = None
    now = -1
    for number, step in enumerate([*steps, END_OF_TIME]):
        parts = schedule[number % len(schedule)]
        if parts != now:
            state = None if running is None else encode_state(running.snapshot())
            running = Divided(spec, schema, metrics, parts) if parts else Undivided(spec, schema, metrics)
            if state is not None:
                running.restore(decode_state(state))
            now = parts
        assert running is not None
        rows, side = running.step(step)
        for batch in rows:
            batch.validate(full=True)
        tables = {name: pa.Table.from_batches(side.get(name, []), kind) for name, kind in sides.items()}
        out.append((pa.Table.from_batches(rows, output), tables))
    assert running is not None
    out.append((pa.Table.from_batches(running.finish(), output), {}))
    return out, metrics


def assert_divides(spec: OperatorSpec, schema: pa.Schema, steps: Sequence[Step], *schedules: Sequence[int]) -> pa.Table:
    """Every schedule must give what the undivided operator gives, step by step; returns all its rows."""
    expected, counted = play(spec, schema, steps, [0])
    for schedule in schedules:
        got, metrics = play(spec, schema, steps, schedule)
        for number, ((rows, sides), (got_rows, got_sides)) in enumerate(zip(expected, got, strict=True)):
            assert_same_rows(rows, got_rows, f"step {number}, parts {schedule}")
            for name, table in sides.items():
                assert_same_rows(table, got_sides[name], f"{name} of step {number}, parts {schedule}")
        assert metrics.dropped == counted.dropped
        assert metrics.noted == counted.noted
        assert metrics.late_rows == counted.late_rows
    return pa.concat_tables([rows for rows, _ in expected])


SCHEDULES = st.one_of(
    st.integers(1, 4).map(lambda parts: [parts]), st.lists(st.integers(0, 4), min_size=2, max_size=12)
)
INSTANTS = st.integers(-20, 40)


@st.composite
def steps_of(draw: st.DrawFn, batch: pa.RecordBatch, *, watermarks: bool = True) -> list[Step]:
    """`batch` cut anywhere, watermarks anywhere in between: behind the rows and before them, so that some are late."""
    cuts = sorted(draw(st.lists(st.integers(0, batch.num_rows), max_size=8)))
    steps: list[Step] = []
    newest = -(1 << 62)
    for start, stop in itertools.pairwise([0, *cuts, batch.num_rows]):
        steps.append(batch.slice(start, stop - start))
        if watermarks and stop > start and draw(st.booleans()):
            newest = max(newest, int(event_ns(batch)[:stop].max()) + draw(INSTANTS) - 10)
            steps.append(newest)
    return steps


KEY_VALUES: dict[str, tuple[pa.DataType, list[Any]]] = {
    "name": (pa.dictionary(pa.int32(), pa.utf8()), ["b", "a", "ä", "B", "", None]),
    "text": (pa.utf8(), ["x", "y", "", None, "zz"]),
    "number": (pa.int16(), [-2, 7, 0, None]),
    "big": (pa.uint64(), [2**64 - 1, 2**63, 1, None]),
    "flag": (pa.bool_(), [True, False, None]),
    "raw": (pa.binary(2), [b"ab", b"\0\xff", None]),
    "when": (pa.timestamp("s"), [0, 5, -9, None]),
}
SOME = [None, 0.1, 0.2, 0.3, 1e16, -1e16, -0.0, float("nan")]


@st.composite
def streams(draw: st.DrawFn, *, most: int = 50) -> pa.RecordBatch:
    times = draw(event_times(most=most))
    count = len(times)

    def some(values: Sequence[Any]) -> list[Any]:
        return draw(st.lists(st.sampled_from(values), min_size=count, max_size=count))

    columns = {name: pa.array(some(values), kind) for name, (kind, values) in KEY_VALUES.items()}
    columns["x"] = pa.array(some(SOME), pa.float64())
    columns["i"] = pa.array(some(range(-5, 6)), pa.int32())
    batch = events(times, ts_recv=[t + draw(st.integers(0, 9)) for t in times], **columns)
    # seq of a merged stream: neither gap-free nor ascending
    return batch.set_column(2, batch.schema.field(2), pa.array(some([0, 1, 2, 2**64 - 1]), pa.uint64()))


KEYS = st.sampled_from(
    [("name",), ("text",), ("number",), ("big", "flag"), ("raw", "when"), ("name", "number", "text"), ("flag",)]
)
SPANS = st.tuples(st.integers(1, 40), st.integers(1, 40), st.integers(0, 50))
ASSIGNERS: st.SearchStrategy[Assigner] = st.one_of(
    SPANS.map(lambda t: Sliding(max(t[:2]), min(t[:2]), offset=t[2])),
    SPANS.map(lambda t: Tumbling(t[0], offset=t[2])),
    st.integers(1, 30).map(Session),
)


@settings(max_examples=150, deadline=None)
@given(streams(most=40), ASSIGNERS, KEYS, SCHEDULES, st.data())
def test_windows_of_parts_are_those_of_the_whole(
    batch: pa.RecordBatch, assigner: Assigner, keys: tuple[str, ...], schedule: list[int], data: st.DataObject
) -> None:
    spec = Window(assigner, {name: what for name, what in ALL.items() if name not in keys}, keys=keys)
    assert_divides(spec, batch.schema, data.draw(steps_of(batch)), schedule)


@settings(max_examples=30, deadline=None)
@given(streams(most=30), ASSIGNERS, KEYS, st.data())
def test_the_snapshot_of_a_window_does_not_know_how_many_parts_made_it(
    batch: pa.RecordBatch, assigner: Assigner, keys: tuple[str, ...], data: st.DataObject
) -> None:
    spec = Window(assigner, {name: what for name, what in ALL.items() if name not in keys}, keys=keys)
    assert_canonical(spec, batch, data.draw(steps_of(batch)))


def assert_canonical(spec: OperatorSpec, batch: pa.RecordBatch, steps: Sequence[Step]) -> None:
    """At every step, 1 to 4 parts must give the same snapshot, byte for byte, and that of the whole split and joined."""
    metrics = StageMetrics()
    runs = [Divided(spec, batch.schema, metrics, parts) for parts in range(1, 5)]
    whole = Undivided(spec, batch.schema, metrics)
    for step in steps:
        states = []
        for run in runs:
            run.step(step)
            states.append(encode_state(run.snapshot()))
        assert len(set(states)) == 1
        whole.step(step)
        divided = spec.partitioned(batch.schema)
        assert divided is not None
        again = encode_state(divided.join(divided.split(whole.snapshot(), 3)))
        assert tidied(decode_state(again)) == tidied(decode_state(states[0]))


def tidied(state: Any) -> bytes:
    """A state as bytes, without what the undivided operator has seen and no slot refers to."""
    for accumulator in state.get("windows", {}).get("accumulators", []):
        if "values" in accumulator:
            values = accumulator.pop("values")["keys"].column(0).to_pylist()
            filled = accumulator["n"] > 0
            accumulator["shown"] = [values[number] for number in accumulator["held"][filled, 0].tolist()]
            accumulator["held"] = 0
    return encode_state(state)


def test_late_rows_leave_in_the_order_of_the_input_with_their_seq() -> None:
    names = pa.array(["a", "b", "c", "d"] * 25).dictionary_encode()
    batch = events(list(range(100)), name=names)
    batch = batch.set_column(2, batch.schema.field(2), pa.array(np.arange(100, dtype=np.uint64) * 7919 % 100))
    steps: list[Step] = [batch.slice(50), 60, batch.slice(0, 70)]
    spec = Window(Tumbling(10), {"rows": agg.count()}, keys=("name",))
    given_late = play(spec, batch.schema, steps, [3])[0][2][1]["late"]
    assert_same_rows(pa.Table.from_batches([batch.slice(0, 60)]), given_late)
    assert_divides(spec, batch.schema, steps, [2], [4])


def test_a_day_of_many_keys_is_the_same_on_three_parts() -> None:
    rng = np.random.Generator(np.random.Philox(3))
    rows = 30_000
    times = np.sort(rng.integers(0, 20_000_000_000, rows))
    symbols = pa.array([f"S{i}" for i in range(200)])
    batch = events(
        times,
        symbol=pa.DictionaryArray.from_arrays(pa.array(rng.integers(0, 200, rows), pa.int32()), symbols),
        account=pa.array(rng.integers(0, 40, rows)),
        price=pa.array(rng.random(rows)),
    )
    steps: list[Step] = []
    for start in range(0, rows, 2_500):
        steps += [batch.slice(start, 2_500), int(times[start : start + 2_500].max())]
    for assigner in (Sliding("2500ms", "1s"), Session("300ms")):
        spec = Window(assigner, {"total": agg.sum("price"), "sd": agg.std("price")}, keys=("account", "symbol"))
        table = assert_divides(spec, batch.schema, steps, [3], [0, 4, 2])
        assert table.num_rows > 20_000
        assert table["seq"].to_pylist() == list(range(table.num_rows))


def test_what_a_dictionary_last_said_survives_a_change_of_parts() -> None:
    steps: list[Step] = []
    for start in range(0, 40, 4):
        said = [None if start + i == 6 else f"word {start + i}" for i in range(4)]
        encoded = pa.array(said[::-1], pa.utf8()).dictionary_encode().take(pa.array([3, 2, 1, 0]))
        steps.append(events(list(range(start, start + 4)), key=pa.array([0, 1, 2, 3]), word=encoded))
    spec = Window(Tumbling(30), {"first": agg.first("word"), "last": agg.last("word")}, keys=("key",))
    table = assert_divides(spec, steps[0].schema, steps, [3], [0, 2], [2, 0, 3, 1])  # type: ignore[union-attr]
    assert table["first"].to_pylist()[:4] == ["word 0", "word 1", "word 2", "word 3"]
    assert table["last"].to_pylist()[:4] == ["word 28", "word 29", "word 26", "word 27"]


@settings(max_examples=60, deadline=None)
@given(
    streams(),
    st.sampled_from(["key", "number", "big"]),
    st.integers(1, 4),
    st.integers(1, 3),
    st.sampled_from([None, "window"]),
    SCHEDULES,
    st.data(),
)
def test_sequences_of_parts_are_those_of_the_whole(
    batch: pa.RecordBatch, key: str, length: int, every: int, normalize: str | None, schedule: list[int], data: Any
) -> None:
    batch = without_nulls(batch)
    spec = RollingSequence(("x", "i", "flag"), length, every, key, normalize=normalize)
    steps = data.draw(steps_of(batch))
    assert_divides(spec, batch.schema, steps, schedule)
    assert_canonical(spec, batch, steps)


def without_nulls(batch: pa.RecordBatch) -> pa.RecordBatch:
    """`batch` with keys that a rolling sequence takes: ``key`` in a dictionary, ``number`` and ``big``."""
    key = batch["text"].fill_null("none").dictionary_encode()
    batch = batch.append_column(pa.field("key", key.type), key)
    for name in ("number", "big"):
        place = batch.schema.get_field_index(name)
        batch = batch.set_column(place, name, batch[name].fill_null(3))
    return batch


def test_sequences_larger_than_an_output_batch_are_the_same() -> None:
    rng = np.random.Generator(np.random.Philox(4))
    rows = 8_000
    batch = events(np.arange(rows), key=pa.array(rng.integers(0, 30, rows)), x=pa.array(rng.random(rows)))
    spec = RollingSequence("x", 400, 1, "key", max_keys=100)
    batch = pa.concat_batches([batch, batch, batch])
    got, _ = play(spec, batch.schema, [batch], [3])
    table = assert_divides(spec, batch.schema, [batch.slice(0, 9_000), batch.slice(9_000)], [3], [4, 2])
    assert_same_rows(table, got[0][0])
    assert table.num_rows == 3 * rows - 30 * 399
    assert got[0][0].nbytes > 16 << 20


ACTIONS = st.tuples(
    st.sampled_from(["a", "b", None]),
    st.sampled_from([-1, 0, 1, 7, 9, None]),
    st.sampled_from(["Move", "Attack", "", None]),
    st.none() | st.floats(-100, 100, width=32),
)


@settings(max_examples=60, deadline=None)
@given(event_times(most=50), st.integers(1, 4), st.integers(1, 3), st.booleans(), SCHEDULES, st.data())
def test_actions_of_parts_are_those_of_the_whole(
    times: list[int], length: int, every: int, by_match: bool, schedule: list[int], data: st.DataObject
) -> None:
    rows = data.draw(st.lists(ACTIONS, min_size=len(times), max_size=len(times)))
    batch = events(
        times,
        match_id=pa.array([row[0] for row in rows], pa.utf8()).dictionary_encode(),
        player=pa.array([row[1] for row in rows], pa.int16()),
        type=pa.array([row[2] for row in rows], pa.utf8()).dictionary_encode(),
        x=pa.array([row[3] for row in rows], pa.float32()),
        y=pa.array([row[3] for row in rows], pa.float32()),
    )
    spec = ActionSequence(length, every=every, key=("match_id", "player") if by_match else ("player",))
    steps = data.draw(steps_of(batch))
    assert_divides(spec, batch.schema, steps, schedule)
    assert_canonical(spec, batch, steps)


def test_a_match_of_many_players_is_the_same_on_three_parts() -> None:
    rng = np.random.Generator(np.random.Philox(5))
    rows = 4_000
    batch = events(
        np.cumsum(rng.integers(0, 50_000_000, rows)),
        player=pa.array(rng.integers(-1, 40, rows), pa.int16()),
        type=pa.array(rng.choice(["Move", "Attack", "Build"], rows)).dictionary_encode(),
        x=pa.array(rng.random(rows)),
        y=pa.array(rng.random(rows), mask=rng.random(rows) < 0.3),
    )
    steps: list[Step] = [batch.slice(start, 450) for start in range(0, rows, 450)]
    table = assert_divides(ActionSequence(8, every=2, key=("player",)), batch.schema, steps, [3], [0, 4, 1, 2])
    assert 1_500 < table.num_rows < 2_000
    assert table["seq"].to_pylist() == sorted(table["seq"].to_pylist())


def test_windows_of_a_real_recording_are_the_same_on_three_parts(recordings: Callable[[str], Path]) -> None:
    source = Itch(recordings("market/itch50") / "ex20101224.TEST_ITCH_50", date="2010-12-24")
    reader = source.open(Context("itch"))
    steps: list[Step] = []
    for block in reader.blocks():
        for batch in reader.decode(block).batches:
            for start in range(0, batch.num_rows, 1_500):
                steps += [batch.slice(start, 1_500), int(event_ns(batch.slice(start, 1_500)).max())]
    reader.close()
    wanted = {
        "orders": agg.count(),
        "shares": agg.sum("size"),
        "price": agg.last("price"),
        "kind": agg.first("msg_type"),
    }
    for assigner in (Sliding("90s", "60s"), Session("20s")):
        spec = Window(assigner, wanted, keys=("symbol", "side"))
        table = assert_divides(spec, source.schema, steps, [3], [2, 0, 4])
        assert table.num_rows > 500


def test_every_part_gets_its_keys_and_no_other() -> None:
    batch = events(list(range(60)), key=pa.array([f"k{i % 13}" for i in range(60)]).dictionary_encode())
    spec = Window(Tumbling(10), {"rows": agg.count()}, keys=("key",))
    divided = spec.partitioned(batch.schema)
    assert divided is not None
    run = Divided(spec, batch.schema, StageMetrics(), 4)
    run.step(batch)
    owner = dict(zip(batch["key"].to_pylist(), partition_of([batch["key"]], 4).tolist(), strict=True))
    for state in ([part.snapshot() for part in run.parts], divided.split(run.snapshot(), 4)):
        for part, own in enumerate(state):
            keys = own["keys"]["keys"].column(0).to_pylist()
            assert sorted(keys) == sorted(key for key, at in owner.items() if at == part)


def test_parts_that_stopped_at_different_watermarks_are_not_joined() -> None:
    schema = events([1], key=pa.array([1])).schema
    run = Divided(Window(Tumbling(10), {"rows": agg.count()}, keys=("key",)), schema, StageMetrics(), 2)
    run.parts[0].step(50)
    with pytest.raises(ValueError, match="different watermarks"):
        run.snapshot()


BATCH = events([1], key=pa.array(["a"]).dictionary_encode(), x=pa.array([1.5]), player=pa.array([1]))


@pytest.mark.parametrize(
    "spec",
    [
        Window(Tumbling(10), {"rows": agg.count()}),
        Window(Tumbling(10), {"newest": agg.last("seq")}, keys=("key",)),
        RollingSequence(("x", "seq"), 2, 1, "key"),
        ActionSequence(2, key=("player",), action="key", position=("x", "seq")),
        JoinAsof(by=("key",)),
        BookFeatures(),
    ],
    ids=lambda spec: f"{spec.kind}",
)
def test_what_cannot_be_divided_exactly_is_not(spec: OperatorSpec) -> None:
    assert spec.partitioned(BATCH.schema) is None


def test_rows_without_a_batch_to_be_in_the_order_of_are_an_error() -> None:
    spec = RollingSequence("x", 1, 1, "key")
    divided = spec.partitioned(BATCH.schema)
    assert divided is not None
    with pytest.raises(ValueError, match="no side output 'late'"):
        divided.merge_side("late", [])
    with pytest.raises(ValueError, match="pass the batch's seq"):
        divided.merge([spec.open(Context("one"), BATCH.schema).process(BATCH)])
