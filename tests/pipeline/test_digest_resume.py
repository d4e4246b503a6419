"""A digest put down at any row and taken up elsewhere: the same as one that went through, with state that stays small."""

from __future__ import annotations

import json
from random import Random
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import xxhash
from arrow_rows import column_types, cuts, messy, rows_of
from hypothesis import given, settings
from hypothesis import strategies as st
from penstock.pipeline._stream_hash import SEGMENT, StreamHash
from penstock.pipeline.digest import RowDigest

TYPES = column_types(exotic=True)
RNG = np.random.Generator(np.random.Philox(5))
NOISE = RNG.integers(0, 256, 70 * SEGMENT, dtype=np.uint8).tobytes()


def resumed(total: RowDigest, schema: pa.Schema) -> RowDigest:
    fresh = RowDigest(schema)
    fresh.restore(total.snapshot())
    return fresh


def naive(data: bytes) -> bytes:
    """The definition, without streaming: segments hashed one by one, 64 hashes folded into the first of the next 64."""
    full = len(data) // SEGMENT
    hashes: list[bytes] = []
    for index in range(full):
        hashes.append(xxhash.xxh3_128_digest(data[index * SEGMENT : (index + 1) * SEGMENT]))
        if len(hashes) == 64:
            hashes = [xxhash.xxh3_128_digest(b"".join(hashes))]
    return xxhash.xxh3_128_digest(len(data).to_bytes(16, "little") + b"".join(hashes) + data[full * SEGMENT :])


@settings(max_examples=200)
@given(st.data(), st.randoms(use_true_random=False))
def test_a_digest_restored_at_any_row_equals_one_that_went_through(data: st.DataObject, random: Random) -> None:
    kinds = data.draw(st.lists(TYPES, min_size=1, max_size=3))
    rows = data.draw(st.integers(0, 25))
    columns = [data.draw(rows_of(kind, rows)) for kind in kinds]
    schema = pa.schema([(f"c{i}", kind) for i, kind in enumerate(kinds)])
    through, broken = RowDigest(schema), RowDigest(schema)
    for start, stop in data.draw(cuts(rows)):
        arrays = [messy(kind, values[start:stop], random) for kind, values in zip(kinds, columns, strict=True)]
        batch = pa.record_batch(arrays, schema=schema)
        through.update(batch)
        broken.update(batch)
        broken = resumed(broken, schema)
        assert broken.rows == through.rows
    assert broken.hexdigest() == through.hexdigest()


@settings(max_examples=30)
@given(st.lists(st.tuples(st.integers(1, 90_000), st.booleans()), min_size=1, max_size=8))
def test_long_columns_restored_between_batches_equal_one_that_went_through(steps: list[tuple[int, bool]]) -> None:
    kind = pa.dictionary(pa.int8(), pa.utf8())
    fields: list[tuple[str, Any]] = [("n", pa.int64()), ("f", pa.float32()), ("s", pa.utf8()), ("d", kind)]
    schema = pa.schema([*fields, ("b", pa.bool_()), ("t", pa.fixed_shape_tensor(pa.uint8(), [3]))])
    through, broken = RowDigest(schema), RowDigest(schema)
    at = 0
    for rows, restart in steps:
        numbers = np.arange(at, at + rows)
        at += rows
        text = pa.array((numbers % 977).astype(str), pa.utf8())
        codes = pa.DictionaryArray.from_arrays(pa.array((numbers % 3).astype(np.int8)), pa.array(["a", "b", None]))
        arrays = [
            pa.array(numbers, mask=numbers % 5 == 0),
            pa.array(numbers.astype(np.float32)),
            text,
            codes,
            pa.array(numbers % 7 == 0),
            pa.FixedShapeTensorArray.from_numpy_ndarray((numbers[:, None] + np.arange(3)).astype(np.uint8)),
        ]
        batch = pa.record_batch(arrays, schema=schema)
        through.update(batch)
        for piece in (batch.slice(0, rows // 3), batch.slice(rows // 3)):
            broken.update(piece)
        if restart:
            broken = resumed(broken, schema)
    assert broken.hexdigest() == through.hexdigest()


@settings(max_examples=60)
@given(st.lists(st.tuples(st.integers(0, 3 * SEGMENT), st.booleans()), max_size=6), st.integers(0, SEGMENT))
def test_a_stream_cut_anywhere_has_the_hash_of_its_definition(pieces: list[tuple[int, bool]], first: int) -> None:
    stream, at = StreamHash(), first
    for size, restart in pieces:
        stream.update(memoryview(NOISE)[at : at + size])
        at += size
        if restart:
            saved = stream.snapshot()
            stream = StreamHash()
            stream.restore(saved)
    assert stream.digest() == naive(NOISE[first:at])


@pytest.mark.parametrize("segments", [0, 1, 63, 64, 65, 69])
@pytest.mark.parametrize("over", [0, 1, SEGMENT - 1])
def test_many_segments_fold_at_fixed_places_and_the_state_stays_short(segments: int, over: int) -> None:
    data = memoryview(NOISE)[: segments * SEGMENT + over]
    whole, pieces = StreamHash(), StreamHash()
    whole.update(data)
    for start in range(0, len(data), 100_003):
        pieces.update(data[start : start + 100_003])
    assert whole.snapshot() == pieces.snapshot()
    restored = StreamHash()
    restored.restore(whole.snapshot())
    assert whole.digest() == pieces.digest() == restored.digest() == naive(bytes(data))
    count, hashes, begun = whole.snapshot()
    assert count == segments
    assert len(hashes) < 1024
    assert len(begun) == over


def test_the_state_is_plain_values_and_later_rows_do_not_change_it() -> None:
    batch = pa.record_batch({"a": pa.array(range(20_000)), "s": pa.array(["x", None] * 10_000)})
    total = RowDigest(batch.schema)
    total.update(batch)
    state = total.snapshot()
    text = json.dumps(state, default=lambda value: value.hex() if isinstance(value, bytes) else 1 / 0, sort_keys=True)
    expected = total.hexdigest()
    total.update(batch)
    total.snapshot()
    assert json.dumps(state, default=bytes.hex, sort_keys=True) == text
    fresh = RowDigest(batch.schema)
    fresh.restore(state)
    assert fresh.hexdigest() == expected


def test_restoring_drops_what_the_digest_had_taken_before() -> None:
    batch = pa.record_batch({"a": pa.array([1, 2, 3])})
    state = RowDigest(batch.schema).snapshot()
    total = RowDigest(batch.schema)
    total.update(batch)
    total.restore(state)
    assert total.rows == 0
    assert total.hexdigest() == RowDigest(batch.schema).hexdigest()


def test_a_state_of_other_columns_is_refused() -> None:
    state = RowDigest(pa.schema([("a", pa.int64())])).snapshot()
    for other in (pa.schema([("b", pa.int64())]), pa.schema([("a", pa.int32())]), pa.schema([])):
        with pytest.raises(ValueError, match="cannot go on"):
            RowDigest(other).restore(state)


@pytest.mark.parametrize(
    "bad", [None, [], [1], [1, [], []], [0, [[0, b"", b""], [1, b"", b""]], []], [0, [[0], [0]], []]]
)
def test_a_damaged_state_is_refused_naming_the_column(bad: Any) -> None:
    schema = pa.schema([("a", pa.int64())])
    state = {**RowDigest(schema).snapshot(), "columns": [bad]}
    with pytest.raises(ValueError, match="'a'"):
        RowDigest(schema).restore(state)
