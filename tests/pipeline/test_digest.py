"""`RowDigest`: equal for equal rows in any layout and any batches, different for anything else."""

from __future__ import annotations

from random import Random
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from arrow_rows import column_types, cuts, messy, rows_of, tidy
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from penstock.pipeline.digest import RowDigest

TYPES = column_types(exotic=True)


def digest(schema: pa.Schema, *batches: pa.RecordBatch) -> str:
    total = RowDigest(schema)
    for batch in batches:
        total.update(batch)
    return total.hexdigest()


def one_column(array: pa.Array) -> str:
    batch = pa.record_batch([array], names=["x"])
    return digest(batch.schema, batch)


@settings(max_examples=150, deadline=None)
@given(st.data(), st.randoms(use_true_random=False))
def test_layout_and_batch_boundaries_do_not_matter(data: st.DataObject, random: Random) -> None:
    kinds = data.draw(st.lists(TYPES, min_size=1, max_size=3))
    rows = data.draw(st.integers(0, 25))
    columns = [data.draw(rows_of(kind, rows)) for kind in kinds]
    schema = pa.schema([(f"c{i}", kind) for i, kind in enumerate(kinds)])
    plain = pa.record_batch([tidy(kind, values) for kind, values in zip(kinds, columns, strict=True)], schema=schema)
    expected = digest(schema, plain)
    once = pa.record_batch(
        [messy(kind, values, random) for kind, values in zip(kinds, columns, strict=True)], schema=schema
    )
    assert digest(schema, once) == expected
    pieces = data.draw(cuts(rows))
    assert digest(schema, *(once.slice(start, stop - start) for start, stop in pieces)) == expected
    rebuilt = [
        pa.record_batch(
            [messy(kind, values[start:stop], random) for kind, values in zip(kinds, columns, strict=True)],
            schema=schema,
        )
        for start, stop in pieces
    ]
    assert digest(schema, *rebuilt) == expected


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_other_rows_give_another_digest(data: st.DataObject) -> None:
    kind = data.draw(TYPES)
    rows = data.draw(st.integers(1, 12))
    left, right = data.draw(rows_of(kind, rows)), data.draw(rows_of(kind, rows))
    assume(left != right)
    assert one_column(tidy(kind, left)) != one_column(tidy(kind, right))


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_one_changed_row_one_null_or_another_order_changes_it(data: st.DataObject) -> None:
    kind = data.draw(TYPES)
    values: list[Any] = data.draw(rows_of(kind, data.draw(st.integers(2, 12))))
    place = data.draw(st.integers(0, len(values) - 1))
    changed = [*values[:place], data.draw(rows_of(kind, 1))[0], *values[place + 1 :]]
    nulled = [*values[:place], None, *values[place + 1 :]]
    other = data.draw(st.permutations(values))
    for candidate in (changed, nulled, list(other), values[:-1], [*values, values[-1]]):
        assert (one_column(tidy(kind, candidate)) == one_column(tidy(kind, values))) == (candidate == values)


def test_names_types_and_values_moved_between_columns_count() -> None:
    a, b = pa.array([1, 2]), pa.array([3, 4])
    digests = {
        digest(batch.schema, batch)
        for batch in (
            pa.record_batch({"a": a, "b": b}),
            pa.record_batch({"a": b, "b": a}),
            pa.record_batch({"b": a, "a": b}),
            pa.record_batch({"a": a, "c": b}),
            pa.record_batch({"a": a.cast(pa.uint64()), "b": b}),
            pa.record_batch({"a": a.cast(pa.timestamp("ns", "UTC")), "b": b}),
            pa.record_batch({"a": a}),
        )
    }
    assert len(digests) == 7


def test_metadata_and_nullability_do_not_count() -> None:
    array = pa.array([1, 2])
    plain = pa.schema([pa.field("a", pa.int64())])
    marked = pa.schema([pa.field("a", pa.int64(), nullable=False)], metadata={"penstock.source": "x"})
    assert digest(plain, pa.record_batch([array], schema=plain)) == digest(
        marked, pa.record_batch([array], schema=marked)
    )


def test_floats_are_compared_bit_by_bit() -> None:
    assert one_column(pa.array([0.0])) != one_column(pa.array([-0.0]))
    assert one_column(pa.array([float("nan")], from_pandas=False)) == one_column(
        pa.array([float("nan")], from_pandas=False)
    )
    assert one_column(pa.array([float("nan")], from_pandas=False)) != one_column(pa.array([None], pa.float64()))


def test_a_null_in_a_dictionary_is_a_null() -> None:
    kind = pa.dictionary(pa.int8(), pa.utf8())
    by_value = pa.DictionaryArray.from_arrays(pa.array([0, 1, 1], pa.int8()), pa.array(["a", None]))
    assert one_column(by_value) == one_column(pa.array(["a", None, None], kind))


def test_dictionaries_that_grow_shrink_and_return_give_what_one_dictionary_gives() -> None:
    kind = pa.dictionary(pa.int32(), pa.utf8())
    schema = pa.schema([("s", kind)])
    whole = ["a", "b", "a", "c", "b", "d", "a"]
    dictionaries = [["a", "b"], ["a", "b", "c"], ["d", "b"], ["a", "z"]]
    batches, at = [], 0
    for size, entries in zip((2, 2, 2, 1), dictionaries, strict=True):
        indices = pa.array([entries.index(value) for value in whole[at : at + size]], pa.int32())
        batches.append(pa.record_batch([pa.DictionaryArray.from_arrays(indices, pa.array(entries))], schema=schema))
        at += size
    single = pa.record_batch([pa.array(whole, kind)], schema=schema)
    assert digest(schema, *batches) == digest(schema, single)


def test_zeros_of_either_sign_in_growing_float_dictionaries_differ() -> None:
    kind = pa.dictionary(pa.int8(), pa.float64())
    schema = pa.schema([("s", kind)])

    def batch(entries: list[float]) -> pa.RecordBatch:
        return pa.record_batch(
            [pa.DictionaryArray.from_arrays(pa.array([0], pa.int8()), pa.array(entries))], schema=schema
        )

    assert digest(schema, batch([0.0]), batch([-0.0, 1.0])) != digest(schema, batch([0.0]), batch([0.0, 1.0]))


def test_run_end_encoding_is_an_encoding() -> None:
    runs = pa.RunEndEncodedArray.from_arrays(pa.array([2, 5], pa.int32()), pa.array([7, None], pa.int64()))
    split = pa.RunEndEncodedArray.from_arrays(pa.array([1, 2, 5], pa.int32()), pa.array([7, 7, None], pa.int64()))
    assert one_column(runs) == one_column(split)
    assert one_column(runs.slice(1)) != one_column(runs)


def test_large_batches_are_not_kept_and_small_ones_are_counted() -> None:
    schema = pa.schema([("x", pa.int64())])
    total = RowDigest(schema)
    rng = np.random.default_rng(1)
    values = rng.integers(0, 1 << 60, 400_000)
    for start, stop in ((0, 10), (10, 300_000), (300_000, 300_001), (300_001, 400_000)):
        total.update(pa.record_batch([pa.array(values[start:stop])], schema=schema))
    assert total.rows == 400_000
    assert total.hexdigest() == digest(schema, pa.record_batch([pa.array(values)], schema=schema))


def test_the_digest_may_be_read_on_the_way() -> None:
    batch = pa.record_batch({"x": pa.array([1, 2, 3])})
    total = RowDigest(batch.schema)
    total.update(batch)
    first = total.hexdigest()
    assert total.hexdigest() == first == digest(batch.schema, batch)
    total.update(batch)
    assert total.hexdigest() == digest(batch.schema, batch, batch) != first


def test_a_batch_of_another_schema_is_refused() -> None:
    with pytest.raises(ValueError, match="does not belong"):
        RowDigest(pa.schema([("x", pa.int64())])).update(pa.record_batch({"y": pa.array([1])}))


@pytest.mark.parametrize(
    "kind", [pa.dense_union([pa.field("a", pa.int8())]), pa.list_view(pa.int8()), pa.list_(pa.string_view())]
)
def test_a_type_without_a_digest_is_refused_by_name(kind: pa.DataType) -> None:
    with pytest.raises(TypeError, match="'u'"):
        RowDigest(pa.schema([("u", kind)]))


def test_the_digest_of_known_rows_is_fixed() -> None:
    batch = pa.record_batch(
        {"n": pa.array([1, None, 3]), "s": pa.array(["a", "", None]), "b": pa.array([True, None, False])}
    )
    assert digest(batch.schema, batch) == "bda7eeaacdc4fb732a505e735f72b582"
