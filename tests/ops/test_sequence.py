"""Rolling sequences against lists of the last rows."""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from operator_harness import assert_boundaries_do_not_matter, assert_restorable, events, run_operator
from penstock.ops import sequence
from penstock.ops.sequence import RollingSequence
from penstock.pipeline.columns import as_numpy
from penstock.pipeline.context import Context
from penstock.pipeline.errors import GraphError, StateLimitError

NAMES = ["b", "a", "c", "unused"]


def rows(keys: Sequence[int], *, dictionary: Sequence[str] | None = NAMES, **more: Any) -> pa.RecordBatch:
    """A batch whose key is `keys` (into `dictionary`, or as they are) and whose x, y, on count up."""
    at = np.arange(len(keys))
    key: pa.Array = pa.array(keys, pa.int32())
    if dictionary is not None:
        key = pa.DictionaryArray.from_arrays(key, pa.array(list(dictionary)))
    return events(at * 10, key=key, x=at * 1.5, y=at.astype(np.int64) ** 2, on=pa.array((at % 3 == 0).tolist()), **more)


def windows(table: pa.Table, name: str = "features") -> npt.NDArray[np.float32]:
    column = table[name].combine_chunks()
    return as_numpy(column.chunk(0) if isinstance(column, pa.ChunkedArray) else column)


def plain(
    batch: pa.RecordBatch, columns: Sequence[str], length: int, every: int, normalize: str | None
) -> tuple[list[tuple[int, Any]], list[npt.NDArray[np.float64]], dict[str, int]]:
    """What must come out: (seq, key) of each window, the windows, and how many rows give none."""
    heads, out, dropped = [], [], {"warming up": 0, "between windows": 0}
    held: dict[Any, list[list[float]]] = {}
    keys = batch.column("key").to_pylist()
    values = [[float(v or 0) for v in batch.column(name).to_pylist()] for name in columns]
    for seq, key in enumerate(keys):
        mine = held.setdefault(key, [])
        mine.append([column[seq] for column in values])
        if len(mine) < length:
            dropped["warming up"] += 1
        elif (len(mine) - length) % every:
            dropped["between windows"] += 1
        else:
            window = np.array(mine[-length:])
            if normalize:
                deviation = window.std(axis=0)
                flat = (window == window[0]).all(axis=0)
                window = np.where(flat, 0, (window - window.mean(axis=0)) / np.where(flat, 1, deviation))
            heads.append((seq, key))
            out.append(window)
    return heads, out, {reason: count for reason, count in dropped.items() if count}


@settings(max_examples=80, deadline=None)
@given(
    keys=st.lists(st.integers(0, 2), min_size=1, max_size=60),
    length=st.integers(1, 6),
    every=st.integers(1, 4),
    normalize=st.sampled_from([None, "window"]),
    named=st.booleans(),
)
def test_windows_are_the_last_rows_of_each_key(
    keys: list[int], length: int, every: int, normalize: str | None, named: bool
) -> None:
    batch = rows(keys, dictionary=NAMES if named else None)
    spec = RollingSequence(("x", "y", "on"), length, every, "key", normalize=normalize)
    result = run_operator(spec, batch)
    heads, expected, dropped = plain(batch, spec.columns, length, every, normalize)
    assert list(zip(result.rows["seq"].to_pylist(), result.rows["key"].to_pylist(), strict=True)) == heads
    assert result.rows["ts_event"].cast(pa.int64()).to_pylist() == [10 * seq for seq, _ in heads]
    assert result.dropped == dropped
    if heads:
        got = windows(result.rows)
        assert got.shape == (len(heads), length, 3)
        assert got.dtype == np.float32
        if normalize:
            np.testing.assert_allclose(got, np.array(expected), rtol=1e-5, atol=1e-6)
        else:
            np.testing.assert_array_equal(got, np.array(expected).astype(np.float32))


@settings(max_examples=40, deadline=None)
@given(keys=st.lists(st.integers(0, 3), min_size=1, max_size=50), data=st.data())
def test_cuts_and_snapshots_do_not_change_rows(keys: list[int], data: st.DataObject) -> None:
    spec = RollingSequence(
        ("x", "y"),
        data.draw(st.integers(1, 5)),
        data.draw(st.integers(1, 3)),
        "key",
        normalize=data.draw(st.sampled_from([None, "window"])),
    )
    named = data.draw(st.booleans())
    assert_boundaries_do_not_matter(spec, rows(keys, dictionary=NAMES if named else None), data=data)


def test_a_snapshot_at_every_step_changes_nothing() -> None:
    keys = [i * i % 7 % 4 for i in range(300)]
    assert_restorable(RollingSequence("x", 5, 2, "key", normalize="window"), rows(keys), sizes=13)


def test_keys_are_told_apart_by_value_whatever_their_dictionary() -> None:
    keys = [i * i % 7 % 3 for i in range(200)]
    whole = rows(keys)
    pieces = []
    for start in range(0, 200, 20):
        part = whole.slice(start, 20)
        order = list(np.roll(["z", "a", "b", "c"], start // 20))
        values = part.column("key").to_pylist()
        again = pa.DictionaryArray.from_arrays(pa.array([order.index(v) for v in values], pa.int32()), pa.array(order))
        pieces.append(part.set_column(3, whole.schema.field("key"), again))
    spec = RollingSequence(("x", "y"), 4, 1, "key")
    one, other = run_operator(spec, whole), run_operator(spec, pieces)
    assert one.digest == other.digest
    assert one.rows.num_rows == 200 - 3 * len(set(keys))


def test_a_dictionary_may_grow_between_batches() -> None:
    first = rows([0, 1, 0, 1], dictionary=["p", "q"])
    second = rows([0, 2, 1, 2], dictionary=["p", "q", "r"])
    result = run_operator(RollingSequence("x", 2, 1, "key"), [first, second])
    assert result.rows["key"].to_pylist() == ["p", "q", "p", "q", "r"]


def test_nulls_count_as_zero_and_null_keys_are_an_error() -> None:
    batch = rows([0, 0, 0], z=pa.array([1.5, None, 2.5]), t=pa.array([True, None, False]))
    result = run_operator(RollingSequence(("z", "t"), 3, 1, "key"), batch)
    assert windows(result.rows).tolist() == [[[1.5, 1.0], [0.0, 0.0], [2.5, 0.0]]]
    keys = pa.DictionaryArray.from_arrays(pa.array([0, None, 0], pa.int32()), pa.array(NAMES))
    with pytest.raises(ValueError, match="key 'key' has 1 nulls"):
        run_operator(RollingSequence("x", 1, 1, "key"), batch.set_column(3, "key", keys))


def test_a_constant_column_is_standardized_to_zero() -> None:
    batch = rows([0] * 9, z=pa.array([0.1] * 9))
    result = run_operator(RollingSequence("z", 7, 1, "key", normalize="window"), batch)
    assert (windows(result.rows) == 0).all()


def test_prices_keep_their_differences_when_standardized() -> None:
    prices = np.array([4_000_000_000_000_001, 4_000_000_000_000_002, 4_000_000_000_000_003], np.int64)
    result = run_operator(RollingSequence("p", 3, 1, "key", normalize="window"), rows([0] * 3, p=prices))
    np.testing.assert_allclose(windows(result.rows)[0, :, 0], [-1.2247449, 0, 1.2247449], rtol=1e-6)


def test_output_batches_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sequence, "_BATCH", 4096)
    keys = [0] * 500
    spec = RollingSequence(("x", "y"), 10, 1, "key")
    result = run_operator(spec, rows(keys))
    assert max(result.sizes) <= 4096 // 80
    np.testing.assert_array_equal(
        np.concatenate([as_numpy(batch.column("features")) for batch in result.batches]),
        np.array(plain(rows(keys), ("x", "y"), 10, 1, None)[1]).astype(np.float32),
    )


def test_more_keys_than_allowed_name_the_limit() -> None:
    batch = rows(list(range(6)), dictionary=None)
    with pytest.raises(StateLimitError, match="column 'key' has more than max_keys=5"):
        run_operator(RollingSequence("x", 2, 1, "key", max_keys=5), batch)
    spec = RollingSequence("x", 2, 1, "key", max_keys=6)
    assert 0 < run_operator(spec, batch).metrics.state_bytes <= spec.state_bound(batch.schema)


def test_the_schema_keeps_time_and_key_and_names_the_tensor() -> None:
    schema = RollingSequence(("x", "y"), 8, 1, "key", "window").output_schema(rows([0]).schema)
    assert schema.names == ["ts_event", "ts_recv", "seq", "key", "window"]
    assert schema.field("window").type == pa.fixed_shape_tensor(pa.float32(), [8, 2])
    assert schema.field("key").type == rows([0]).schema.field("key").type


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"columns": ()}, "at least one column"),
        ({"columns": ("x",), "length": 0}, "length must be at least 1, got 0"),
        ({"columns": ("x",), "every": -1}, "every must be at least 1"),
        ({"columns": ("x",), "normalize": "zscore"}, "normalize is None or 'window'"),
        ({"columns": ("x",), "output": "seq"}, "name of another output column"),
        ({"columns": ("nope",), "key": "key"}, "no column 'nope'"),
        ({"columns": ("key",), "key": "key"}, "column 'key'; expected integer, float or bool"),
        ({"columns": ("x",), "key": "x"}, "key 'x'; expected a dictionary or integer column, got double"),
    ],
)
def test_wrong_arguments_are_graph_errors(arguments: dict[str, Any], error: str) -> None:
    with pytest.raises(GraphError, match=error):
        RollingSequence(**arguments).output_schema(rows([0]).schema)


def test_the_spec_survives_pickling_and_empty_batches_give_nothing() -> None:
    spec = RollingSequence(["x", "y"], 4, key="key")  # type: ignore[arg-type]
    assert pickle.loads(pickle.dumps(spec)) == spec
    assert spec.columns == ("x", "y")
    operator = spec.open(Context("sequence"), rows([0]).schema)
    assert list(operator.process(rows([0]).slice(0, 0))) == []
