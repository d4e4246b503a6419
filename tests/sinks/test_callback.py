"""`Callback`: what the function is given, and that a number never means other rows."""

from __future__ import annotations

import pickle
from typing import Any

import pyarrow as pa
import pytest
from arrow_rows import ENCODED, column_types, cuts, messy, rows_of
from hypothesis import given, settings
from hypothesis import strategies as st
from operator_state import decode_state, encode_state
from penstock.pipeline.context import Context
from penstock.pipeline.errors import GraphError, RunError
from penstock.pipeline.sink import Sink
from penstock.sinks import Callback

SCHEMA = pa.schema([("n", pa.int64())])


def batch(*numbers: int) -> pa.RecordBatch:
    return pa.record_batch([pa.array(numbers, pa.int64())], schema=SCHEMA)


def opened(spec: Callback, schema: pa.Schema = SCHEMA) -> Sink:
    spec.check(schema)
    return spec.open(Context("write"), schema)


def test_callback_sees_every_batch_in_order() -> None:
    seen: list[int] = []
    spec = Callback(lambda rows: seen.extend(rows.column("n").to_pylist()))
    sink = opened(spec)
    sink.write(batch(1, 2))
    sink.write(batch(3))
    sink.commit()
    assert seen == [1, 2, 3]
    assert "callback" in spec.name


def test_batches_of_so_many_rows_have_numbers_and_the_last_may_be_short() -> None:
    seen: list[tuple[int, list[int]]] = []
    sink = opened(Callback(lambda rows, number: seen.append((number, rows.column("n").to_pylist())), rows=3))
    for numbers in ((0,), (1, 2, 3, 4, 5, 6), (), (7,)):
        sink.write(batch(*numbers))
        assert all(len(rows) == 3 for _, rows in seen)
    sink.commit()
    assert seen == [(0, [0, 1, 2]), (1, [3, 4, 5]), (2, [6, 7])]


def test_rows_that_fill_the_last_batch_leave_no_empty_one() -> None:
    numbers: list[int] = []
    sink = opened(Callback(lambda rows, number: numbers.append(number), rows=2))
    sink.write(batch(1, 2, 3, 4))
    sink.commit()
    assert numbers == [0, 1]


@settings(max_examples=60)
@given(st.data(), st.randoms(use_true_random=False))
def test_a_number_means_the_same_bytes_wherever_batches_were_cut_and_runs_resumed(data: Any, random: Any) -> None:
    kinds = data.draw(st.lists(column_types(dictionaries=False) | st.sampled_from(ENCODED), min_size=1, max_size=3))
    rows = data.draw(st.integers(0, 20))
    each = data.draw(st.integers(1, 9))
    pairs = [(kind, data.draw(rows_of(kind, rows))) for kind in kinds]
    schema = pa.schema([(f"c{i}", kind) for i, kind in enumerate(kinds)])
    content_of: dict[int, bytes] = {}

    def keep(part: pa.RecordBatch, number: int) -> None:
        stream = pa.BufferOutputStream()
        with pa.ipc.new_stream(stream, schema) as writer:
            writer.write_batch(part)
        content = stream.getvalue().to_pybytes()
        assert part.num_rows == min(each, rows - number * each)
        assert content_of.setdefault(number, content) == content

    spec = Callback(keep, rows=each)
    for _ in range(3):
        sink, saved = opened(spec, schema), None
        for start, stop in data.draw(cuts(rows)):
            what = data.draw(st.sampled_from(["write", "write", "save", "lose"]))
            if what == "save":
                saved = encode_state(sink.snapshot()), start
            elif what == "lose" and saved is not None:
                sink.detach()
                sink = opened(spec, schema)
                sink.restore(decode_state(saved[0]))
                for at in range(saved[1], start):
                    sink.write(laid_out(pairs, schema, at, at + 1, random))
            sink.write(laid_out(pairs, schema, start, stop, random))
        sink.commit()
    assert sorted(content_of) == list(range(-(-rows // each)))


def laid_out(pairs: Any, schema: pa.Schema, start: int, stop: int, random: Any) -> pa.RecordBatch:
    return pa.record_batch([messy(kind, values[start:stop], random) for kind, values in pairs], schema=schema)


def test_a_run_that_fails_or_lets_go_gives_no_short_batch() -> None:
    seen: list[int] = []
    for end in ("abort", "detach"):
        sink = opened(Callback(lambda rows, number: seen.append(number), rows=3))
        sink.write(batch(1, 2))
        getattr(sink, end)()
    assert seen == []


def test_resuming_with_another_number_of_rows_is_refused() -> None:
    sink = opened(Callback(print, rows=3))
    sink.write(batch(1))
    with pytest.raises(RunError, match="rows=3"):
        opened(Callback(print, rows=2)).restore(sink.snapshot())
    with pytest.raises(RunError, match="before the first batch"):
        sink.restore(sink.snapshot())


def test_callback_needs_a_function_and_pickles_one_of_a_module() -> None:
    with pytest.raises(GraphError, match="function"):
        Callback(3)  # type: ignore[arg-type]
    with pytest.raises(GraphError, match="rows"):
        Callback(print, rows=0)
    spec = Callback(print, rows=5)
    assert pickle.loads(pickle.dumps(spec)) == spec
    assert spec.state_bound(SCHEMA) == 2 * 5 * 8
    assert Callback(print).state_bound(SCHEMA) == 0


def test_a_type_without_one_layout_is_refused_only_where_it_matters() -> None:
    odd = pa.schema([("odd", pa.string_view())])
    Callback(print).check(odd)
    with pytest.raises(GraphError, match="'odd'"):
        Callback(print, rows=5).check(odd)
