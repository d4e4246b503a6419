"""`KeyIndex`: numbers belong to values, in order of first appearance."""

from __future__ import annotations

from datetime import date
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from penstock.ops.keys import KeyIndex, check_key_type
from penstock.pipeline.errors import GraphError, RunError

TEXT = st.one_of(st.none(), st.sampled_from(["", "a", "b", "AAPL", "é", "\U0001f600", "zz"]))
VALUES: list[tuple[pa.DataType, st.SearchStrategy[Any]]] = [
    (pa.utf8(), TEXT),
    (pa.large_utf8(), TEXT),
    (pa.dictionary(pa.int8(), pa.utf8()), TEXT),
    (pa.dictionary(pa.int32(), pa.int64()), st.one_of(st.none(), st.integers(-3, 3))),
    (pa.binary(2), st.one_of(st.none(), st.binary(min_size=2, max_size=2))),
    (pa.int8(), st.one_of(st.none(), st.integers(-128, 127))),
    (pa.int64(), st.sampled_from([None, 0, 1, -1, 2**63 - 1, -(2**63)])),
    (pa.uint64(), st.sampled_from([None, 0, 1, 2**63, 2**64 - 1])),
    (pa.bool_(), st.sampled_from([None, True, False])),
    (pa.date32(), st.sampled_from([None, date(1969, 12, 31), date(2024, 2, 29)])),
    (pa.timestamp("ns", "UTC"), st.sampled_from([None, 0, -1, 1_700_000_000_123_456_789])),
]


def first_appearance(rows: list[Any]) -> list[int]:
    numbers: dict[Any, int] = {}
    return [numbers.setdefault(row, len(numbers)) for row in rows]


def column(kind: pa.DataType, values: list[Any], salt: int = 0) -> pa.Array:
    """An array of `kind`; dictionaries hold unused entries and a rotated order, so that indices mean nothing."""
    if not pa.types.is_dictionary(kind):
        return pa.array(values, kind)
    distinct = sorted({v for v in values if v is not None})
    distinct = distinct[salt % (len(distinct) + 1) :] + distinct[: salt % (len(distinct) + 1)]
    unused = ["unused"] if pa.types.is_string(kind.value_type) else [99]
    entries = unused + distinct
    indices = [None if v is None else entries.index(v) for v in values]
    return pa.DictionaryArray.from_arrays(pa.array(indices, kind.index_type), pa.array(entries, kind.value_type))


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_numbers_follow_first_appearance_whatever_the_batches(data: st.DataObject) -> None:
    columns = data.draw(st.lists(st.sampled_from(VALUES), min_size=1, max_size=3))
    kinds = [kind for kind, _ in columns]
    rows = data.draw(st.lists(st.tuples(*(values for _, values in columns)), max_size=40))
    cut = data.draw(st.integers(0, len(rows)))
    index = KeyIndex(kinds)
    got: list[int] = []
    for salt, part in enumerate((rows[:cut], rows[cut:])):
        arrays = [column(kind, [row[i] for row in part], salt) for i, kind in enumerate(kinds)]
        sliced = [pa.concat_arrays([a.slice(0, min(1, len(a))), a]).slice(min(1, len(a))) for a in arrays]
        got += index.ids(sliced).tolist()
    assert got == first_appearance(rows)
    assert len(index) == len(set(rows))
    back = index.arrays(np.array(got, np.int64))
    assert [a.type for a in back] == kinds
    for i, kind in enumerate(kinds):
        assert back[i].equals(column(kind, [row[i] for row in rows])) or back[i].to_pylist() == [
            v.as_py() for v in column(kind, [row[i] for row in rows])
        ]


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_a_restored_index_numbers_as_the_original(data: st.DataObject) -> None:
    columns = data.draw(st.lists(st.sampled_from(VALUES), min_size=1, max_size=2))
    kinds = [kind for kind, _ in columns]
    rows = data.draw(st.lists(st.tuples(*(values for _, values in columns)), min_size=1, max_size=30))
    arrays = [column(kind, [row[i] for row in rows]) for i, kind in enumerate(kinds)]
    cut = data.draw(st.integers(0, len(rows)))
    original = KeyIndex(kinds)
    original.ids([a.slice(0, cut) for a in arrays])
    restored = KeyIndex(kinds)
    restored.restore(original.snapshot())
    rest = [a.slice(cut) for a in arrays]
    np.testing.assert_array_equal(restored.ids(rest), original.ids(rest))
    everything = np.arange(len(original))
    assert restored.arrays(everything) == original.arrays(everything)


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_order_is_by_value_with_nulls_last(data: st.DataObject) -> None:
    kind, values = data.draw(st.sampled_from(VALUES))
    rows = data.draw(st.lists(values, min_size=1, max_size=30))
    index = KeyIndex([kind, pa.int32()])
    numbers = data.draw(st.lists(st.integers(-5, 5), min_size=len(rows), max_size=len(rows)))
    ids = index.ids([column(kind, rows), pa.array(numbers, pa.int32())])
    got = np.lexsort(tuple(reversed(index.order(ids)))).tolist()

    def by_value(row: int) -> tuple[bool, Any, int]:
        value = rows[row].encode() if isinstance(rows[row], str) else rows[row]
        return (value is None, 0 if value is None else value, numbers[row])

    assert got == sorted(range(len(rows)), key=by_value)


def test_order_of_few_keys_among_many_agrees_with_the_whole() -> None:
    index = KeyIndex([pa.int64()])
    values = np.random.Generator(np.random.Philox(3)).permutation(5_000)
    ids = index.ids([pa.array(values)])
    few = ids[[17, 4_000, 3, 999]]
    assert np.argsort(index.order(few)[0]).tolist() == np.argsort(values[[17, 4_000, 3, 999]]).tolist()
    whole = index.order(ids)[0]
    np.testing.assert_array_equal(whole, values)


def test_many_integers_are_numbered_like_a_dict() -> None:
    rng = np.random.Generator(np.random.Philox(1))
    values = rng.integers(-(2**62), 2**62, 20_000)[rng.integers(0, 20_000, 100_000)]
    index = KeyIndex([pa.int64()])
    got = np.concatenate([index.ids([pa.array(part)]) for part in np.array_split(values, 13)])
    assert got.tolist() == first_appearance(values.tolist())
    assert index.nbytes > 20_000 * 8


def test_retain_forgets_the_others_and_renumbers() -> None:
    index = KeyIndex([pa.utf8(), pa.bool_()])
    ids = index.ids([pa.array(["a", "b", "c", "b"]), pa.array([True, False, None, True])])
    assert ids.tolist() == [0, 1, 2, 3]
    assert index.retain(np.array([3, 1, 3])).tolist() == [-1, 0, -1, 1]
    assert len(index) == 2
    assert index.ids([pa.array(["b", "a"]), pa.array([True, True])]).tolist() == [1, 2]
    assert [a.to_pylist() for a in index.arrays(np.array([0, 1, 2]))] == [["b", "b", "a"], [False, True, True]]


def test_a_growing_or_replaced_dictionary_keeps_the_numbers_of_its_values() -> None:
    index = KeyIndex([pa.dictionary(pa.int32(), pa.utf8())])

    def ids(indices: list[int], entries: list[str]) -> list[int]:
        array = pa.DictionaryArray.from_arrays(pa.array(indices, pa.int32()), pa.array(entries))
        return index.ids([array]).tolist()  # type: ignore[no-any-return]

    assert ids([1, 1, 0], ["x", "y"]) == [0, 0, 1]
    for _ in range(20):
        assert ids([2, 0, 1], ["x", "y", "z"]) == [2, 1, 0]
        assert ids([0, 1], ["z", "w"]) == [2, 3]


def test_a_narrow_index_type_is_enough_while_one_answer_fits_it() -> None:
    kind = pa.dictionary(pa.int8(), pa.utf8())
    index = KeyIndex([kind])
    for start in (0, 100):
        entries = pa.array([f"s{i}" for i in range(start, start + 100)])
        array = pa.DictionaryArray.from_arrays(pa.array(range(100), pa.int8()), entries)
        index.ids([array])
    assert index.arrays(np.array([150, 3]))[0].to_pylist() == ["s150", "s3"]
    with pytest.raises(RunError, match="wider index type"):
        index.arrays(np.arange(200))


def test_an_index_outside_its_dictionary_is_an_error() -> None:
    array = pa.DictionaryArray.from_arrays(pa.array([0, 7], pa.int32()), pa.array(["a"]), safe=False)
    with pytest.raises(RunError, match="row 1"):
        KeyIndex([array.type]).ids([array])


@pytest.mark.parametrize("kind", [pa.float64(), pa.list_(pa.int8()), pa.struct([("a", pa.int8())])])
def test_types_without_equality_are_refused_by_name(kind: pa.DataType) -> None:
    with pytest.raises(GraphError, match="'price' cannot be a key"):
        check_key_type("price", kind)
