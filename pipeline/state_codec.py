"""The state of a step as bytes and back: what stands in a checkpoint.

The layout is our own, because a checkpoint is read by another process, maybe years later, and must run no code (so no
pickle). All numbers are little-endian::

    8 bytes   magic "PENSTATE"
    4 bytes   version of this layout
    8 bytes   length of the head
    head      JSON in UTF-8: {"tree": ..., "sizes": [...]}
    sections  binary data, end to end, of the sizes in the head
    16 bytes  XXH3 of all before

In the tree, null, booleans, text, 64-bit integers, finite floats and lists stand for themselves; an object has one member
that says what it is. Members that have binary data take the next section, in the order of the text. Arrow data is an
IPC stream, cut to what a slice shows; batches of one schema in a list share a stream, so that a dictionary is written once.
"""

from __future__ import annotations

import json
import math
import re
import struct
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, cast

import numpy as np
import pyarrow as pa
from xxhash import xxh3_128, xxh3_128_digest

from .errors import CheckpointError
from .operator import State

__all__ = ["decode_state", "encode_state"]

_MAGIC, _VERSION = b"PENSTATE", 1
_FIXED = struct.Struct("<8sIQ")
_CHECKSUM = 16
_DEPTH = 100
#: Kinds of numpy arrays whose bytes are their values, and how their types are written.
_KINDS = "biufcmMSU"
_DTYPE = re.compile(rf"[<>|][{_KINDS}]\d+(\[\w+\])?")
#: What parsing raises on data that no encoder wrote.
_UNREADABLE = (
    *(ValueError, TypeError, LookupError, ArithmeticError, RecursionError, MemoryError, OSError),
    *(struct.error, pa.ArrowException),
)

_Sections = list[Any]


def encode_state(state: State) -> bytes:
    """`state` as bytes; the same bytes for the same state.

    Takes nested mappings (keys are str), lists and tuples of str, int, float, bool, None, bytes, numpy arrays and scalars,
    and Arrow batches, tables, arrays, scalars, schemas and types. Raises TypeError, with the path, for anything else.
    """
    sections: _Sections = []
    tree = _pack(state, "state", sections, 0)
    if not isinstance(state, Mapping):
        raise TypeError(f"a state is a dict, not {type(state).__name__}")
    sizes = [memoryview(section).nbytes for section in sections]
    text = json.dumps({"tree": tree, "sizes": sizes}, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    head = text.encode("utf-8", "surrogatepass")
    parts = [_FIXED.pack(_MAGIC, _VERSION, len(head)), head, *sections]
    checksum = xxh3_128()
    for part in parts:
        checksum.update(part)
    return b"".join([*parts, checksum.digest()])


def decode_state(data: bytes) -> State:
    """The state that `encode_state` wrote, in new memory: tuples as lists, numpy scalars as Python values.

    Raises CheckpointError if `data` was cut, changed, is no state, or is of a later version.
    """
    view = memoryview(data)
    if view.nbytes < _FIXED.size + _CHECKSUM:
        raise CheckpointError(f"a state of {view.nbytes} bytes is cut short; the checkpoint is damaged")
    magic, version, length = _FIXED.unpack_from(view)
    if magic != _MAGIC:
        raise CheckpointError(f"a state begins with {_MAGIC!r}, not with {magic!r}; this is no part of a checkpoint")
    if version != _VERSION:
        raise CheckpointError(
            f"a state of version {version} was written by another Penstock; this one reads {_VERSION}"
        )
    body = view[:-_CHECKSUM]
    if xxh3_128_digest(body) != view[-_CHECKSUM:]:
        raise CheckpointError("a state does not have its checksum; the checkpoint is damaged")
    try:
        state = _read(body, length)
    except CheckpointError:
        raise
    except _UNREADABLE as e:
        raise CheckpointError(f"a state cannot be read: {e}") from e
    return state


def _read(body: memoryview, length: int) -> State:
    end = _FIXED.size + length
    if end > body.nbytes:
        raise CheckpointError(f"a state of {body.nbytes} bytes cannot have a head of {length}")
    head = json.loads(bytes(body[_FIXED.size : end]).decode("utf-8", "surrogatepass"))
    match head:
        case {"tree": tree, "sizes": list(sizes)} if len(head) == 2 and all(type(n) is int and n >= 0 for n in sizes):
            pass
        case _:
            raise CheckpointError("the head of a state has other members than a tree and sizes")
    if end + sum(sizes) != body.nbytes:
        raise CheckpointError(f"{body.nbytes - end} bytes of data in a state whose sections have {sum(sizes)}")
    sections = _cut(body[end:], sizes)
    state = _unpack(tree, sections, 0)
    if not isinstance(state, dict):
        raise CheckpointError(f"a state is a dict, not {type(state).__name__}")
    if next(sections, None) is not None:
        raise CheckpointError("a state has sections that nothing refers to")
    return state


def _cut(data: memoryview, sizes: Sequence[int]) -> Iterator[memoryview]:
    at = 0
    for size in sizes:
        yield data[at : at + size]
        at += size


def _pack(value: Any, path: str, sections: _Sections, depth: int) -> Any:
    if depth > _DEPTH:
        raise TypeError(f"{path} is nested more than {_DEPTH} deep")
    if isinstance(value, np.generic):
        if value.dtype.kind not in "biufcSU" or isinstance(value.item(), np.generic):
            raise TypeError(f"{path} is a {type(value).__name__} with no Python value; save it as an array or an int")
        value = value.item()
    kind = type(value)
    if value is None or kind is bool or kind is str:
        return value
    if kind is int:
        return value if -(1 << 63) <= value < 1 << 64 else {"int": hex(value)}
    if kind is float:
        return value if math.isfinite(value) else {"float": struct.pack("<d", value).hex()}
    if isinstance(value, Mapping):
        for key in value:
            if type(key) is not str:
                raise TypeError(f"{path} has the key {key!r}; keys of a state are str")
        return {"dict": {key: _pack(item, f"{path}[{key!r}]", sections, depth + 1) for key, item in value.items()}}
    if kind is list or kind is tuple:
        if _share_a_stream(value):
            sections.append(_stream(value[0].schema, value, path))
            return {"batches": len(value)}
        return [_pack(item, f"{path}[{index}]", sections, depth + 1) for index, item in enumerate(value)]
    return _pack_binary(value, path, sections)


def _pack_binary(value: Any, path: str, sections: _Sections) -> Any:
    if isinstance(value, bytes | bytearray):
        sections.append(bytes(value))
        return {"bytes": None}
    if type(value) is complex:
        return {"complex": struct.pack("<dd", value.real, value.imag).hex()}
    if type(value) is np.ndarray:
        if value.dtype.kind not in _KINDS or not value.dtype.itemsize:
            raise TypeError(f"{path} is an array of {value.dtype}; a state holds arrays of numbers, times and text")
        sections.append(value.ravel().view(np.uint8))
        return {"numpy": [value.dtype.str, list(value.shape)]}
    if isinstance(value, pa.RecordBatch):
        sections.append(_stream(value.schema, [value], path))
        return {"batch": None}
    if isinstance(value, pa.Table):
        sections.append(_stream(value.schema, [value], path))
        return {"table": None}
    if isinstance(value, pa.ChunkedArray):
        table = pa.table([value], names=[""])
        sections.append(_stream(table.schema, [table], path))
        return {"chunked": None}
    if isinstance(value, pa.Array | pa.Scalar):
        array = value if isinstance(value, pa.Array) else _single(value)
        batch = pa.record_batch([array], names=[""])
        sections.append(_stream(batch.schema, [batch], path))
        return {"array" if array is value else "scalar": None}
    if isinstance(value, pa.Schema | pa.DataType):
        schema = value if isinstance(value, pa.Schema) else pa.schema([("", value)])
        sections.append(_stream(schema, [], path))
        return {"schema" if schema is value else "type": None}
    raise TypeError(
        f"{path} is a {type(value).__name__}; a state holds dict, list, str, int, float, bool, None, bytes, numpy arrays "
        "and Arrow data"
    )


def _single(value: Any) -> pa.Array:
    if isinstance(value.type, pa.BaseExtensionType):
        return pa.ExtensionArray.from_storage(value.type, pa.array([value.value], value.type.storage_type))
    return pa.array([value], value.type)


def _share_a_stream(items: Sequence[Any]) -> bool:
    if len(items) < 2 or not all(isinstance(item, pa.RecordBatch) for item in items):
        return False
    return all(item.schema.equals(items[0].schema, check_metadata=True) for item in items[1:])


def _stream(schema: pa.Schema, parts: Sequence[Any], path: str) -> Any:
    if not pa.ipc.read_schema(schema.serialize()).equals(schema, check_metadata=True):
        raise TypeError(f"{path} has a type that another process would not know; register it with Arrow: {schema}")
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, schema) as writer:
        for part in parts:
            writer.write(part)
    return sink.getvalue()


def _unpack(tree: Any, sections: Iterator[memoryview], depth: int) -> Any:
    if depth > _DEPTH:
        raise CheckpointError(f"a state nested more than {_DEPTH} deep")
    if isinstance(tree, list):
        return [_unpack(item, sections, depth + 1) for item in tree]
    if not isinstance(tree, dict):
        return tree
    if len(tree) != 1:
        raise CheckpointError(f"a member of a state says {sorted(tree)} of itself")
    ((kind, value),) = tree.items()
    if kind == "dict":
        if not isinstance(value, dict):
            raise CheckpointError("a dict in a state has no members")
        return {key: _unpack(item, sections, depth + 1) for key, item in value.items()}
    if kind == "int":
        return int(value, 16)
    if kind == "float":
        return struct.unpack("<d", bytes.fromhex(value))[0]
    if kind == "complex":
        return complex(*struct.unpack("<dd", bytes.fromhex(value)))
    section = next(sections, None)
    if section is None:
        raise CheckpointError(f"a state has no section for its {kind}")
    if kind == "bytes":
        return bytes(section)
    if kind == "numpy":
        name, shape = value
        return _array(name, shape, section)
    return _arrow(kind, value, section)


def _array(name: str, shape: list[int], section: memoryview) -> np.ndarray[Any, Any]:
    if not _DTYPE.fullmatch(name) or (dtype := np.dtype(name)).str != name:
        raise CheckpointError(f"a state cannot hold an array of {name!r}")
    if not all(type(size) is int and size >= 0 for size in shape):
        raise CheckpointError(f"an array has no shape {shape}")
    if math.prod(shape) * dtype.itemsize != len(section):
        raise CheckpointError(f"an array of {dtype} and shape {shape} does not have {len(section)} bytes")
    return np.ndarray(tuple(shape), dtype, bytearray(section))


def _arrow(kind: str, value: Any, section: memoryview) -> Any:
    with pa.ipc.open_stream(bytes(section)) as reader:
        batches = list(reader)
        schema = reader.schema
    for batch in batches:
        batch.validate(full=True)
    if kind == "table":
        return pa.Table.from_batches(batches, schema)
    if kind == "batches":
        if value != len(batches):
            raise CheckpointError(f"a list of {value} batches in a state has {len(batches)}")
        return batches
    if kind == "schema":
        return schema
    if kind == "type":
        return schema.field(0).type
    if kind == "chunked":
        return pa.Table.from_batches(batches, schema).column(0)
    if kind not in ("batch", "array", "scalar"):
        raise CheckpointError(f"a state holds {kind!r}, which this version does not know")
    (batch,) = batches
    if kind == "batch":
        return batch
    array = batch.column(0)
    return array if kind == "array" else cast("Any", array)[0]
