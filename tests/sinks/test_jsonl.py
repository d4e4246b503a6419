"""`JsonLines`: each type in its documented form, read back by Python's own json module."""

from __future__ import annotations

import base64
import gzip
import json
import math
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from arrow_rows import column_types, cuts, messy, rows_of
from hypothesis import given, settings
from hypothesis import strategies as st
from penstock.pipeline.context import Context
from penstock.pipeline.errors import GraphError
from penstock.sinks.jsonl import JsonLines


def written(spec: JsonLines, schema: pa.Schema, *batches: pa.RecordBatch) -> bytes:
    spec.check(schema)
    sink = spec.open(Context("write"), schema)
    for batch in batches:
        sink.write(batch)
    sink.commit()
    return Path(spec.path).read_bytes()


def lines_of(column: pa.Array, folder: Path) -> list[str]:
    batch = pa.record_batch([column], names=["x"])
    text = written(JsonLines(folder / "x.jsonl", overwrite=True), batch.schema, batch).decode()
    return [line.removeprefix('{"x":').removesuffix("}") for line in text.splitlines()]


def expected(kind: pa.DataType, value: Any) -> Any:
    """The documented form of a row, written without a look at the sink."""
    types = pa.types
    if value is None:
        return None
    if isinstance(kind, pa.FixedShapeTensorType):
        flat, shape = [expected(kind.value_type, item) for item in value], list(kind.shape)
        return [flat[i : i + shape[1]] for i in range(0, len(flat), shape[1])] if len(shape) == 2 else flat
    if isinstance(kind, pa.DictionaryType):
        return expected(kind.value_type, value)
    if isinstance(kind, pa.StructType):
        return {
            kind.field(i).name: expected(kind.field(i).type, value[kind.field(i).name]) for i in range(kind.num_fields)
        }
    if isinstance(kind, pa.MapType):
        return {key: expected(kind.item_type, item) for key, item in value}
    if isinstance(kind, pa.ListType | pa.LargeListType | pa.FixedSizeListType):
        return [expected(kind.value_type, item) for item in value]
    if types.is_timestamp(kind) or types.is_time(kind):
        seconds, rest = divmod(value, 10**9)
        clock = f"{seconds // 3600 % 24:02}:{seconds // 60 % 60:02}:{seconds % 60:02}.{rest:09}"
        return clock if types.is_time(kind) else f"{date.fromordinal(719163 + seconds // 86400)}T{clock}Z"
    if types.is_date(kind):
        return str(date.fromordinal(719163 + value))
    if types.is_decimal(kind):
        return str(Decimal(value).quantize(Decimal("0.01")))
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


@settings(max_examples=50, deadline=None)
@given(st.data(), st.randoms(use_true_random=False))
def test_every_value_has_its_documented_form(tmp_path_factory: pytest.TempPathFactory, data: Any, random: Any) -> None:
    kinds = data.draw(st.lists(column_types(exotic=True), min_size=1, max_size=3))
    rows = data.draw(st.integers(0, 15))
    pairs = [(kind, data.draw(rows_of(kind, rows))) for kind in kinds]
    schema = pa.schema([(f"c{i}", kind) for i, kind in enumerate(kinds)])
    parts = [
        pa.record_batch([messy(kind, values[start:stop], random) for kind, values in pairs], schema=schema)
        for start, stop in data.draw(cuts(rows))
    ]
    text = written(JsonLines(tmp_path_factory.mktemp("out") / "x.jsonl"), schema, *parts)
    found = [json.loads(line) for line in text.splitlines()]
    assert found == [
        {f"c{i}": expected(kind, values[row]) for i, (kind, values) in enumerate(pairs)} for row in range(rows)
    ]


def test_times_keep_every_nanosecond_and_say_they_are_utc(tmp_path: Path) -> None:
    stamps = [0, 1, -1, 1_700_000_000_123_456_789, None]
    assert lines_of(pa.array(stamps, pa.timestamp("ns", "UTC")), tmp_path) == [
        '"1970-01-01T00:00:00.000000000Z"',
        '"1970-01-01T00:00:00.000000001Z"',
        '"1969-12-31T23:59:59.999999999Z"',
        '"2023-11-14T22:13:20.123456789Z"',
        "null",
    ]
    assert lines_of(pa.array([1500], pa.timestamp("ms")), tmp_path) == ['"1970-01-01T00:00:01.500"']
    assert lines_of(pa.array([0], pa.timestamp("s", "Europe/Berlin")), tmp_path) == ['"1970-01-01T00:00:00Z"']


def test_numbers_that_json_lacks_become_null_and_others_are_exact(tmp_path: Path) -> None:
    assert lines_of(pa.array([float("nan"), float("inf"), -float("inf"), 0.1, -0.0]), tmp_path) == [
        "null",
        "null",
        "null",
        "0.1",
        "-0.0",
    ]
    assert lines_of(pa.array([2**64 - 1], pa.uint64()), tmp_path) == ["18446744073709551615"]


def test_maps_are_objects_only_if_their_keys_are_text(tmp_path: Path) -> None:
    assert lines_of(pa.array([[("a", 1)]], pa.map_(pa.utf8(), pa.int8())), tmp_path) == ['{"a":1}']
    assert lines_of(pa.array([[(7, 1)]], pa.map_(pa.int8(), pa.int8())), tmp_path) == ['[{"key":7,"value":1}]']


def test_gzip_holds_the_same_text_and_no_time_stamp(tmp_path: Path) -> None:
    batch = pa.record_batch({"n": pa.array(range(200_000))})
    plain = written(JsonLines(tmp_path / "x.jsonl"), batch.schema, batch)
    packed = written(JsonLines(tmp_path / "x.jsonl.gz"), batch.schema, batch)
    assert gzip.decompress(packed) == plain
    assert packed[4:8] == b"\0\0\0\0"
    sizes = [batch.slice(start, 777) for start in range(0, 200_000, 777)]
    assert written(JsonLines(tmp_path / "y.jsonl.gz"), batch.schema, *sizes) == packed


def test_no_rows_give_an_empty_file(tmp_path: Path) -> None:
    schema = pa.schema([("n", pa.int64())])
    assert written(JsonLines(tmp_path / "x.jsonl"), schema) == b""
    assert gzip.decompress(written(JsonLines(tmp_path / "x.jsonl.gz"), schema)) == b""


def test_wide_rows_are_written_a_few_at_a_time(tmp_path: Path) -> None:
    kind = pa.fixed_shape_tensor(pa.uint8(), [1000, 1000])
    schema = pa.schema([("image", kind)])
    pixels = pa.Array.from_buffers(pa.uint8(), 3_000_000, [None, pa.py_buffer(bytes(3_000_000))])
    storage = pa.FixedSizeListArray.from_arrays(pixels, 1_000_000)
    batch = pa.record_batch([pa.ExtensionArray.from_storage(kind, storage)], schema=schema)
    text = written(JsonLines(tmp_path / "x.jsonl"), schema, batch)
    assert [len(json.loads(line)["image"]) for line in text.splitlines()] == [1000] * 3


def test_a_folder_is_not_a_file(tmp_path: Path) -> None:
    with pytest.raises(GraphError, match="a folder"):
        JsonLines(tmp_path, overwrite=True).check_target()
