"""The state of an operator as bytes and back, without pickle: what a checkpoint may hold and nothing else."""

from __future__ import annotations

import io
import itertools
import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa

__all__ = ["decode_state", "empty_batch", "encode_state"]


def encode_state(state: Mapping[str, Any]) -> bytes:
    """`state` as bytes, without pickle; TypeError, with the path, for anything that the contract does not allow."""
    blobs: list[bytes] = []
    tree = _pack(dict(state), "state", blobs)
    head = json.dumps({"tree": tree, "sizes": [len(blob) for blob in blobs]}).encode()
    return b"".join([len(head).to_bytes(8, "little"), head, *blobs])


def decode_state(data: bytes) -> dict[str, Any]:
    """The state that `encode_state` wrote, in new memory."""
    size = int.from_bytes(data[:8], "little")
    head = json.loads(data[8 : 8 + size])
    bounds = np.cumsum([8 + size, *head["sizes"]])
    blobs = [data[start:stop] for start, stop in itertools.pairwise(bounds)]
    state: dict[str, Any] = _unpack(head["tree"], blobs)
    return state


def empty_batch(schema: pa.Schema) -> pa.RecordBatch:
    """A batch of no rows, also where a column is of an extension type."""
    return pa.RecordBatch.from_arrays([column.combine_chunks() for column in schema.empty_table()], schema=schema)


def _pack(value: Any, path: str, blobs: list[bytes]) -> Any:
    if value is None or type(value) in (bool, int, float, str):
        return value
    if type(value) is list:
        return {"list": [_pack(item, f"{path}[{i}]", blobs) for i, item in enumerate(value)]}
    if type(value) is dict:
        if odd := [key for key in value if type(key) is not str]:
            raise TypeError(f"{path} has the key {odd[0]!r}; keys of a state are str")
        return {"dict": {key: _pack(item, f"{path}[{key!r}]", blobs) for key, item in value.items()}}
    sink = io.BytesIO()
    if type(value) is bytes:
        kind = "bytes"
        sink.write(value)
    elif type(value) is np.ndarray:
        kind = "ndarray"
        np.save(sink, value, allow_pickle=False)
    elif isinstance(value, pa.Schema):
        kind = "schema"
        sink.write(value.serialize())
    elif isinstance(value, pa.Table | pa.RecordBatch | pa.ChunkedArray | pa.Array):
        kind = {pa.Table: "table", pa.RecordBatch: "batch", pa.ChunkedArray: "chunked"}.get(type(value), "array")
        column = pa.chunked_array([value]) if isinstance(value, pa.Array) else value
        table = value if isinstance(value, pa.Table | pa.RecordBatch) else pa.table({"": column})
        with pa.ipc.new_stream(sink, table.schema) as writer:
            writer.write(table)
    else:
        raise TypeError(
            f"{path} is a {type(value).__name__}; a state holds dict, list, str, int, float, bool, None, bytes, "
            "numpy arrays and Arrow data (turn numpy scalars into int or float, tuples into lists)"
        )
    blobs.append(sink.getvalue())
    return {kind: len(blobs) - 1}


def _unpack(tree: Any, blobs: list[bytes]) -> Any:
    if not isinstance(tree, dict):
        return tree
    ((kind, value),) = tree.items()
    if kind == "list":
        return [_unpack(item, blobs) for item in value]
    if kind == "dict":
        return {key: _unpack(item, blobs) for key, item in value.items()}
    blob = blobs[value]
    if kind == "bytes":
        return blob
    if kind == "ndarray":
        return np.load(io.BytesIO(blob), allow_pickle=False)
    if kind == "schema":
        return pa.ipc.read_schema(pa.py_buffer(blob))
    table = pa.ipc.open_stream(blob).read_all()
    if kind == "table":
        return table
    if kind == "batch":
        found = table.combine_chunks().to_batches()
        return found[0] if found else empty_batch(table.schema)
    return table.column(0) if kind == "chunked" else table.column(0).combine_chunks()
