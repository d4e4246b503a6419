"""Schemas: the three leading columns, differences named, sizes of rows."""

from __future__ import annotations

import pyarrow as pa
import pytest
from arrow_rows import column_types, rows_of, tidy
from hypothesis import given, settings
from hypothesis import strategies as st
from penstock.pipeline.schema import (
    EVENT_FIELDS,
    TIMESTAMP,
    check_event_schema,
    describe,
    difference,
    event_schema,
    row_bytes,
    tensor_type,
)

FIELDS = st.lists(st.tuples(st.sampled_from("abcd"), column_types()), unique_by=lambda f: f[0], max_size=4)


def test_an_event_schema_starts_with_the_three_columns_and_says_where_rows_come_from() -> None:
    schema = event_schema(
        [("x", pa.int8()), pa.field("y", pa.utf8(), nullable=False)], source="a", format="f", units="m"
    )
    assert schema.names == ["ts_event", "ts_recv", "seq", "x", "y"]
    assert [schema.field(i) for i in range(3)] == list(EVENT_FIELDS)
    assert not any(field.nullable for field in EVENT_FIELDS)
    assert schema.metadata == {
        b"penstock.source": b"a",
        b"penstock.format": b"f",
        b"penstock.clock": b"utc",
        b"penstock.units": b"m",
    }
    assert check_event_schema(schema) is None


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ([], "column 0 must be 'ts_event'"),
        ([("ts_recv", TIMESTAMP)], "column 0 must be 'ts_event'"),
        ([("ts_event", pa.int64())], "'ts_event' must be timestamp[ns, tz=UTC], not int64"),
        ([("ts_event", pa.timestamp("us", "UTC"))], "not timestamp[us, tz=UTC]"),
        ([("ts_event", TIMESTAMP), ("ts_recv", TIMESTAMP)], "column 2 must be 'seq'"),
        ([("ts_event", TIMESTAMP), ("ts_recv", TIMESTAMP), ("seq", pa.int64())], "'seq' must be uint64"),
    ],
)
def test_what_is_wrong_with_a_schema_is_said(fields: list[tuple[str, pa.DataType]], message: str) -> None:
    assert message in (check_event_schema(pa.schema(fields)) or "")


@settings(max_examples=150, deadline=None)
@given(FIELDS, FIELDS)
def test_a_difference_is_found_exactly_when_there_is_one(
    left: list[tuple[str, pa.DataType]], right: list[tuple[str, pa.DataType]]
) -> None:
    found = difference(pa.schema(left), pa.schema(right))
    assert (found is None) == (left == right)


@pytest.mark.parametrize(
    ("got", "message"),
    [
        ([("a", pa.int8())], "column 'b' (string) is missing"),
        ([("a", pa.int8()), ("b", pa.int8())], "column 'b' is int8, not string"),
        ([("a", pa.int8()), ("b", pa.utf8()), ("c", pa.int8())], "unexpected column 'c'"),
        ([("b", pa.utf8()), ("a", pa.int8())], "column order is ['b', 'a'], not ['a', 'b']"),
    ],
)
def test_the_first_difference_is_named(got: list[tuple[str, pa.DataType]], message: str) -> None:
    assert difference(pa.schema([("a", pa.int8()), ("b", pa.utf8())]), pa.schema(got)) == message


def test_descriptions_are_short() -> None:
    schema = event_schema([("image", tensor_type(pa.uint8(), (4, 5, 3))), ("s", pa.dictionary(pa.int8(), pa.utf8()))])
    assert describe(schema) == (
        "ts_event timestamp[ns], ts_recv timestamp[ns], seq uint64, image uint8[4,5,3], s dict<string>"
    )


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_rows_of_fixed_types_are_as_large_as_counted(data: st.DataObject) -> None:
    plain = column_types(nested=False, dictionaries=False)
    inner = data.draw(plain.filter(lambda kind: pa.types.is_primitive(kind) and not pa.types.is_boolean(kind)))
    size = data.draw(st.integers(1, 3))
    for kind, values in ((inner, 8), (pa.list_(inner, size), 8 * size), (pa.struct([("a", inner), ("b", inner)]), 16)):
        array = tidy(inner, data.draw(rows_of(inner, values, nulls=False)))
        assert row_bytes(pa.schema([("x", kind)])) * 8 == array.buffers()[1].size


def test_sizes_of_variable_columns_are_the_default_or_what_is_known() -> None:
    schema = pa.schema(
        [("n", pa.int32()), ("b", pa.binary()), ("l", pa.list_(pa.int8())), ("t", tensor_type(pa.float32(), (2, 3)))]
    )
    assert row_bytes(schema, variable=100) == 4 + 100 + 100 + 24
    assert row_bytes(schema, variable=100, known={"b": 7, "absent": 9}) == 4 + 7 + 100 + 24


@settings(max_examples=100, deadline=None)
@given(column_types(exotic=True))
def test_every_type_has_a_size_and_a_name(kind: pa.DataType) -> None:
    schema = pa.schema([("x", kind)])
    assert row_bytes(schema) >= 0
    assert describe(schema).startswith("x ")
