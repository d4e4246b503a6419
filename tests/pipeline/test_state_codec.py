"""States as bytes and back: everything a step may hold comes back the same; nothing damaged comes back at all."""

from __future__ import annotations

import itertools
import json
import math
import struct
from random import Random
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import xxhash
from arrow_rows import column_types, messy, rows_of
from hypothesis import given, settings
from hypothesis import strategies as st
from penstock.pipeline.errors import CheckpointError
from penstock.pipeline.state_codec import decode_state, encode_state

DTYPES = ["?", "i1", "<u2", ">i4", "<i8", "<u8", "<f2", "<f4", ">f8", "<c16", "<M8[ns]", "<m8[us]", "S3", "<U2"]
TYPES = column_types(exotic=True)
DICTIONARY = pa.dictionary(pa.int32(), pa.utf8())


@st.composite
def _numpy(draw: st.DrawFn) -> Any:
    dtype = np.dtype(draw(st.sampled_from(DTYPES)))
    shape = draw(st.lists(st.integers(0, 3), max_size=3))
    count = math.prod(shape)
    raw = draw(st.binary(min_size=count * dtype.itemsize, max_size=count * dtype.itemsize))
    if dtype.kind == "?":
        raw = bytes(byte & 1 for byte in raw)
    if dtype.kind == "U":
        raw = b"".join(struct.pack("<i", byte) for byte in raw[: count * 2])
    array = np.ndarray(tuple(shape), dtype, raw)
    return draw(st.sampled_from([array, array.T, array[::-1] if shape else array]))


@st.composite
def _arrow(draw: st.DrawFn) -> Any:
    random = draw(st.randoms(use_true_random=False))
    kind = draw(TYPES)
    sizes = draw(st.lists(st.integers(0, 4), min_size=1, max_size=3))
    arrays = [messy(kind, draw(rows_of(kind, size)), random) for size in sizes]
    schema = pa.schema([pa.field("x", kind, metadata={"of": "field"}), ("y", kind)], metadata={"of": "schema"})
    batches = [pa.record_batch([array, array], schema=schema) for array in arrays]
    found = [arrays[0], batches[0], batches, batches[0].slice(1), schema, kind]
    if not isinstance(kind, pa.BaseExtensionType):
        found += [pa.chunked_array(arrays, kind), pa.Table.from_batches(batches)]
    return draw(st.sampled_from(found))


EDGES = [(1 << 63) - 1, 1 << 63, 1 << 64, -(1 << 63) - 1]
INTEGERS = st.integers() | st.integers(-(1 << 80), 1 << 80) | st.sampled_from(EDGES)
FLOATS = st.floats() | st.binary(min_size=8, max_size=8).map(lambda raw: struct.unpack("<d", raw)[0])
TEXT = st.text(st.characters(codec=None), max_size=5)
PLAIN = st.none() | st.booleans() | INTEGERS | FLOATS | TEXT | st.binary(max_size=9)
VALUES = st.recursive(
    PLAIN | _numpy() | _arrow(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=6,
)
STATES = st.dictionaries(TEXT, VALUES, max_size=4)


def same(left: Any, right: Any) -> bool:
    """Equal in type and value, floats bit by bit."""
    if type(left) is not type(right):
        return False
    if isinstance(left, dict):
        return list(left) == list(right) and all(same(left[key], right[key]) for key in left)
    if isinstance(left, list):
        return len(left) == len(right) and all(map(same, left, right))
    if isinstance(left, float):
        return struct.pack("<d", left) == struct.pack("<d", right)
    if isinstance(left, np.ndarray):
        return left.dtype == right.dtype and left.shape == right.shape and left.tobytes() == right.tobytes()
    if isinstance(left, pa.Schema | pa.RecordBatch | pa.Table):
        return bool(left.equals(right, check_metadata=True))
    if isinstance(left, pa.Array | pa.ChunkedArray | pa.DataType | pa.Scalar):
        return bool(left.equals(right))
    return bool(left == right)


@settings(max_examples=300)
@given(STATES)
def test_every_state_comes_back_the_same_and_encodes_to_the_same_bytes(state: dict[str, Any]) -> None:
    data = encode_state(state)
    back = decode_state(data)
    assert same(back, state)
    assert encode_state(back) == data


def test_tuples_and_numpy_scalars_come_back_as_python_values() -> None:
    state = {"t": (1, (2, [])), "i": np.int32(-5), "u": np.uint64(1 << 63), "f": np.float32(0.5), "b": np.bool_(True)}
    state |= {"s": np.str_("x"), "c": np.complex64(1 + 2j), "raw": np.bytes_(b"\0a"), "array": bytearray(b"q")}
    expected = {"t": [1, [2, []]], "i": -5, "u": 1 << 63, "f": 0.5, "b": True, "s": "x", "c": 1 + 2j}
    assert same(decode_state(encode_state(state)), {**expected, "raw": b"\0a", "array": b"q"})


def test_scalars_and_chunks_of_extension_types_come_back() -> None:
    tensors = pa.FixedShapeTensorArray.from_numpy_ndarray(np.arange(12, dtype=np.float32).reshape(3, 2, 2))
    state = {
        "scalars": [
            pa.scalar(3, pa.timestamp("ns", "UTC")),
            pa.scalar(None, pa.int8()),
            pa.array(["a"], DICTIONARY)[0],
        ],
        "tensor": tensors[1],
        "table": pa.table({"t": pa.chunked_array([tensors, tensors.slice(1)])}),
        "rows without columns": pa.record_batch({"a": [1, 2, 3]}).select([]),
    }
    back = decode_state(encode_state(state))
    assert same(back["scalars"], state["scalars"]) and back["tensor"].equals(state["tensor"])
    assert same(back["table"], state["table"]) and back["rows without columns"].num_rows == 3


def test_restored_arrays_may_be_written_to_and_are_aligned() -> None:
    back = decode_state(encode_state({"odd": b"x", "a": np.arange(5), "n": np.zeros((2, 0))}))
    back["a"][:] = 7
    assert back["a"].flags.aligned and back["a"].flags.writeable and back["a"].sum() == 35


@pytest.mark.parametrize(
    "whole",
    [
        pa.array(range(100_000)),
        pa.array([str(n) for n in range(50_000)]),
        pa.array([[n, n] for n in range(50_000)]),
        pa.array([{"a": n} for n in range(50_000)]),
        pa.FixedShapeTensorArray.from_numpy_ndarray(np.zeros((20_000, 3))),
    ],
    ids=lambda array: str(array.type)[:20],
)
def test_only_the_rows_of_a_slice_are_written(whole: pa.Array) -> None:
    batch = pa.record_batch([whole], names=["x"])
    state = {"array": whole.slice(1000, 3), "batch": batch.slice(1000, 3), "table": pa.table(batch).slice(1000, 3)}
    data = encode_state(state)
    assert len(data) < 6_000 < whole.nbytes
    assert decode_state(data)["array"].equals(whole.slice(1000, 3))


def test_a_dictionary_shared_by_batches_in_a_list_is_written_once() -> None:
    names = pa.array([f"symbol {n}" for n in range(10_000)])
    batches = [
        pa.record_batch([pa.DictionaryArray.from_arrays(pa.array([n, None], pa.int32()), names)], names=["s"])
        for n in range(20)
    ]
    data = encode_state({"batches": batches})
    assert len(data) < 2 * names.nbytes
    assert same(decode_state(data)["batches"], batches)


class Custom(pa.ExtensionType):  # type: ignore[misc]
    def __init__(self) -> None:
        super().__init__(pa.int8(), "tests.custom")

    def __arrow_ext_serialize__(self) -> bytes:
        return b""


DEEP: list[Any] = []
for _ in range(500):
    DEEP = [DEEP]


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (object(), r"state\['a'\]\[1\] is a object"),
        ({1: 2}, r"state\['a'\]\[1\] has the key 1"),
        ({3}, "is a set"),
        (np.array([None]), "array of object"),
        (np.zeros(1, [("x", "i4")]), "array of"),
        (np.datetime64("2020"), "no Python value"),
        (pa.field("x", pa.int8()), "Field"),
        (Random(1), "is a Random"),
        (pa.ExtensionArray.from_storage(Custom(), pa.array([1], pa.int8())), "register it"),
        (DEEP, "deep"),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_what_is_no_state_is_refused_with_its_path(value: Any, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        encode_state({"a": [0, value]})


def test_a_state_is_a_dict() -> None:
    with pytest.raises(TypeError, match="dict"):
        encode_state([1])  # type: ignore[arg-type]
    with pytest.raises(CheckpointError, match="dict"):
        decode_state(sealed({"tree": [1], "sizes": []}))


STATE = {
    "n": 1,
    "list": [1.5, float("nan"), {"b": b"bytes"}],
    "array": np.arange(12).reshape(3, 4),
    "batches": [pa.record_batch({"s": pa.array(["a", None], DICTIONARY), "l": [[1], []]})] * 2,
    "table": pa.table({"t": pa.array([1, None, 3])}),
}


def test_a_state_cut_anywhere_is_refused() -> None:
    data = encode_state(STATE)
    for end in range(len(data)):
        with pytest.raises(CheckpointError):
            decode_state(data[:end])
    with pytest.raises(CheckpointError):
        decode_state(data + b"\0")


@settings(max_examples=200)
@given(st.data())
def test_changed_bytes_are_refused(data: st.DataObject) -> None:
    encoded = bytearray(encode_state(STATE))
    place = data.draw(st.integers(0, len(encoded) - 1))
    encoded[place] ^= data.draw(st.integers(1, 255))
    with pytest.raises(CheckpointError):
        decode_state(bytes(encoded))


@settings(max_examples=400)
@given(st.data())
def test_bytes_changed_under_a_true_checksum_are_read_or_refused(data: st.DataObject) -> None:
    encoded = bytearray(encode_state(STATE)[:-16])
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.integers(0, len(encoded) - 1))
        encoded[place] = data.draw(st.integers(0, 255))
    try:
        back = decode_state(bytes(encoded) + xxhash.xxh3_128_digest(bytes(encoded)))
    except CheckpointError:
        return
    assert isinstance(back, dict)


@settings(max_examples=100)
@given(st.binary(max_size=80))
def test_noise_is_refused(data: bytes) -> None:
    with pytest.raises(CheckpointError):
        decode_state(data)


def sealed(head: Any, *sections: bytes, version: int = 1, claim: int | None = None) -> bytes:
    """A state with any head and a true checksum."""
    text = head if isinstance(head, bytes) else json.dumps(head).encode()
    body = struct.pack("<8sIQ", b"PENSTATE", version, len(text) if claim is None else claim) + text + b"".join(sections)
    return body + xxhash.xxh3_128_digest(body)


def stream(*batches: pa.RecordBatch) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batches[0].schema) as writer:
        for batch in batches:
            writer.write(batch)
    return bytes(sink.getvalue())


ROW = stream(pa.record_batch({"": [1]}))


@pytest.mark.parametrize(
    "data",
    [
        sealed({"tree": {"dict": {}}, "sizes": []}, version=2),
        sealed({"tree": {"dict": {}}, "sizes": []}, claim=1 << 62),
        sealed(b"[" * 100_000),
        sealed(b"\xff\xff"),
        sealed([]),
        sealed({"tree": {"dict": {}}}),
        sealed({"tree": {"dict": {}}, "sizes": [-1, 1]}),
        sealed({"tree": {"dict": {}}, "sizes": [1 << 70]}),
        sealed({"tree": {"dict": {}}, "sizes": [True]}, b"x"),
        sealed({"tree": {"dict": {}}, "sizes": [1]}, b"x"),
        sealed({"tree": {"dict": {"a": {"bytes": None}}}, "sizes": []}),
        sealed({"tree": {"dict": []}, "sizes": []}),
        sealed({"tree": {"dict": {"a": {}}}, "sizes": []}),
        sealed({"tree": {"dict": {"a": {"x": 1, "y": 2}}}, "sizes": []}),
        sealed({"tree": {"dict": {"a": {"pickle": None}}}, "sizes": [len(ROW)]}, ROW),
        sealed({"tree": {"dict": {"a": {"int": 3}}}, "sizes": []}),
        sealed({"tree": {"dict": {"a": {"float": "00"}}}, "sizes": []}),
        sealed({"tree": {"dict": {"a": {"numpy": ["<i8", [1 << 62, 0]]}}}, "sizes": [8]}, b"12345678"),
        sealed({"tree": {"dict": {"a": {"numpy": ["<i8", [0, 1 << 63]]}}}, "sizes": [0]}),
        sealed({"tree": {"dict": {"a": {"numpy": ["<i8", [-1, -1]]}}}, "sizes": [8]}, b"12345678"),
        sealed({"tree": {"dict": {"a": {"numpy": ["|O", [1]]}}}, "sizes": [8]}, b"12345678"),
        sealed({"tree": {"dict": {"a": {"numpy": ["i8,O", [1]]}}}, "sizes": [8]}, b"12345678"),
        sealed({"tree": {"dict": {"a": {"numpy": [["<i8"], [1]]}}}, "sizes": [8]}, b"12345678"),
        sealed({"tree": {"dict": {"a": {"numpy": ["<i8"]}}}, "sizes": [8]}, b"12345678"),
        sealed({"tree": {"dict": {"a": {"batches": 1 << 40}}}, "sizes": [len(ROW)]}, ROW),
        sealed({"tree": {"dict": {"a": {"batch": None}}}, "sizes": [len(ROW) - 20]}, ROW[:-20]),
        sealed({"tree": {"dict": {"a": {"array": None}}}, "sizes": [0]}),
        sealed({"tree": {"dict": {"a": {"type": None}}}, "sizes": [3]}, b"abc"),
    ],
    ids=itertools.count(),
)
def test_a_head_that_lies_is_refused(data: bytes) -> None:
    with pytest.raises(CheckpointError):
        decode_state(data)
