"""Views of Arrow columns as numpy arrays, and columns written through numpy."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from arrow_rows import messy, rows_of
from hypothesis import given, settings
from hypothesis import strategies as st
from penstock.pipeline.columns import ColumnBlock, ColumnLayout, as_numpy, event_ns, is_fixed_width, numpy_layout
from penstock.pipeline.memory import BufferPool
from penstock.pipeline.schema import TIMESTAMP, tensor_type

NUMBERS = [pa.int8(), pa.uint16(), pa.int32(), pa.uint64(), pa.float32(), pa.float64()]
PLAIN = [*NUMBERS, TIMESTAMP, pa.duration("us"), pa.binary(3)]


def fixed_width_types() -> st.SearchStrategy[Any]:
    inner = st.sampled_from(PLAIN)
    lists = st.tuples(inner, st.integers(1, 3)).map(lambda pair: pa.list_(*pair))
    deep = st.tuples(lists, st.integers(1, 2)).map(lambda pair: pa.list_(*pair))
    tensors = st.tuples(st.sampled_from(NUMBERS), st.lists(st.integers(1, 3), min_size=1, max_size=3)).map(
        lambda pair: tensor_type(*pair)
    )
    return st.one_of(inner, lists, deep, tensors)


def plain(kind: pa.DataType, value: Any) -> Any:
    """A row as nested lists of numbers, which is what the view should show."""
    if isinstance(kind, pa.FixedShapeTensorType):
        return np.array(value, kind.value_type.to_pandas_dtype()).reshape(kind.shape).tolist()
    if isinstance(kind, pa.FixedSizeListType):
        return [plain(kind.value_type, item) for item in value]
    return list(value) if isinstance(value, bytes) else value


@settings(max_examples=250, deadline=None)
@given(st.data(), st.randoms(use_true_random=False))
def test_a_view_shows_the_rows_whatever_the_offsets(data: st.DataObject, random: Any) -> None:
    kind = data.draw(fixed_width_types())
    values = data.draw(rows_of(kind, data.draw(st.integers(0, 12)), nulls=False))
    values = [[0] * len(v) if isinstance(v, list) and None in v else v for v in values]
    array = messy(kind, values, random)
    start = data.draw(st.integers(0, len(values)))
    array, values = array.slice(start), values[start:]
    view = as_numpy(array)
    layout = numpy_layout(kind)
    assert layout is not None
    assert view.dtype == layout[0]
    assert view.shape == (len(values), *layout[1])
    assert view.tolist() == [plain(kind, value) for value in values]
    assert not view.flags.writeable


@settings(max_examples=60, deadline=None)
@given(st.lists(st.sampled_from(["a", "b", "c"]), max_size=12), st.randoms(use_true_random=False))
def test_a_dictionary_shows_its_indices(values: list[str], random: Any) -> None:
    array = messy(pa.dictionary(pa.int16(), pa.utf8()), values, random)
    entries = array.dictionary.to_pylist()
    assert [entries[index] for index in as_numpy(array)] == values


def test_a_view_of_dictionaries_in_lists_starts_at_its_own_row() -> None:
    items = pa.array(["a", "b", "a", "c", "b", "c"]).dictionary_encode()
    lists = pa.FixedSizeListArray.from_arrays(items, 2)
    assert as_numpy(lists.slice(1)).tolist() == [[0, 2], [1, 2]]


def test_a_view_is_no_copy() -> None:
    array = pa.array(np.arange(1000))
    assert as_numpy(array.slice(10)).ctypes.data == array.buffers()[1].address + 80


def test_a_view_cannot_be_written_to_even_where_arrow_says_the_memory_may() -> None:
    array = pa.array([1, 2, 3])
    view = as_numpy(array)
    with pytest.raises(ValueError, match="read-only"):
        view[0] = 9
    assert array.to_pylist() == [1, 2, 3]


def test_nulls_are_refused_at_every_level() -> None:
    with pytest.raises(ValueError, match="nulls"):
        as_numpy(pa.array([1, None]))
    lists = pa.array([[1, 2], [3, None], [5, 6]], pa.list_(pa.int64(), 2))
    with pytest.raises(ValueError, match="nulls"):
        as_numpy(lists)
    assert as_numpy(lists.slice(2)).tolist() == [[5, 6]]
    assert as_numpy(lists.slice(0, 1)).tolist() == [[1, 2]]


@pytest.mark.parametrize("kind", [pa.utf8(), pa.bool_(), pa.list_(pa.int8()), pa.list_(pa.utf8(), 2), pa.struct([])])
def test_types_without_a_view_are_refused(kind: pa.DataType) -> None:
    assert not is_fixed_width(kind)
    with pytest.raises(TypeError, match="no numpy view"):
        as_numpy(pa.array([], kind))


def test_event_ns_reads_a_time_column() -> None:
    batch = pa.record_batch([pa.array([5, 7], TIMESTAMP)], names=["ts_event"])
    assert event_ns(batch).tolist() == [5, 7]
    assert event_ns(batch).dtype == np.int64


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_what_is_written_to_a_block_is_what_its_batches_hold(data: st.DataObject) -> None:
    kinds = data.draw(st.lists(fixed_width_types(), min_size=1, max_size=4))
    rows = data.draw(st.integers(0, 10))
    schema = pa.schema([(f"c{i}", kind) for i, kind in enumerate(kinds)])
    block = ColumnBlock(BufferPool(), schema, rows)
    expected = {}
    for field in schema:
        view = block[field.name]
        random = np.random.Generator(np.random.Philox(data.draw(st.integers(0, 99))))
        view[...] = random.integers(0, 100, view.shape).astype(view.dtype)
        expected[field.name] = view.copy()
    start = data.draw(st.integers(0, rows))
    count = data.draw(st.integers(0, rows - start))
    present = {name: np.arange(rows) % 3 > 0 for name in data.draw(st.sets(st.sampled_from(schema.names)))}
    batch = block.batch(count, start=start, valid=present)
    del block
    batch.validate(full=True)
    assert batch.schema == schema
    assert batch.num_rows == count
    for name in schema.names:
        valid = present.get(name, np.ones(rows, bool))[start : start + count]
        column = batch.column(name)
        assert np.asarray(column.is_valid()).tolist() == valid.tolist()
        shown = as_numpy(column.drop_null())
        np.testing.assert_array_equal(shown, expected[name][start : start + count][valid])


def test_a_block_takes_ready_columns_and_dictionaries() -> None:
    schema = pa.schema([("s", pa.dictionary(pa.int16(), pa.utf8())), ("text", pa.utf8()), ("n", pa.int32())])
    block = ColumnBlock(BufferPool(), schema, 3)
    block["s"][:] = [1, 0, 1]
    block["n"][:] = [1, 2, 3]
    batch = block.batch(3, dictionaries={"s": pa.array(["a", "b"])}, columns={"text": pa.array(["x", "y", "z"])})
    assert batch.to_pylist() == [
        {"s": "b", "text": "x", "n": 1},
        {"s": "a", "text": "y", "n": 2},
        {"s": "b", "text": "z", "n": 3},
    ]
    with pytest.raises(ValueError, match="needs its dictionary"):
        block.batch(3, columns={"text": pa.array(["x", "y", "z"])})


def test_a_batch_holds_the_memory_of_its_block() -> None:
    pool = BufferPool()
    schema = pa.schema([("n", pa.int64())])
    block = ColumnBlock(pool, schema, 1000)
    block["n"][:] = np.arange(1000)
    batch = block.batch(1000)
    del block
    other = ColumnBlock(pool, schema, 1000)
    other["n"][:] = -1
    assert batch.column("n").to_pylist() == list(range(1000))


@pytest.mark.parametrize(("start", "rows"), [(0, 4), (2, 2), (-1, 1), (0, -1)])
def test_rows_outside_the_block_are_refused(start: int, rows: int) -> None:
    block = ColumnBlock(BufferPool(), pa.schema([("n", pa.int64())]), 3)
    with pytest.raises(ValueError, match="outside a block of 3"):
        block.batch(rows, start=start)


def test_columns_start_on_aligned_addresses() -> None:
    block = ColumnBlock(BufferPool(), pa.schema([("a", pa.int8()), ("b", pa.int64()), ("c", pa.float32())]), 7)
    assert [block[name].ctypes.data % 64 for name in "abc"] == [0, 0, 0]


def test_a_layout_is_made_once_and_lays_out_blocks_of_any_number_of_rows() -> None:
    schema = pa.schema(
        [("n", pa.int16()), ("known", pa.int64()), ("text", pa.utf8()), ("v", pa.list_(pa.float32(), 2))]
    )
    layout, pool = ColumnLayout(schema, ready=("known",)), BufferPool()
    for rows in (0, 1, 70):
        block = layout.take(pool, rows)
        assert sorted(block.arrays) == ["n", "v"]
        block["n"][:], block["v"][:] = np.arange(rows), 0.5
        ready = {"known": pa.array(range(rows), pa.int64()), "text": pa.array(["x"] * rows, pa.utf8())}
        batch = block.batch(rows, columns=ready)
        batch.validate(full=True)
        assert batch.schema.equals(schema)
        assert batch.to_pylist() == [{"n": i, "known": i, "text": "x", "v": [0.5, 0.5]} for i in range(rows)]


def test_masks_of_bytes_are_masks() -> None:
    block = ColumnBlock(BufferPool(), pa.schema([("n", pa.int8())]), 3)
    block["n"][:] = 7
    assert block.batch(3, valid={"n": np.array([2, 0, 1], np.uint8)}).to_pydict() == {"n": [7, None, 7]}
