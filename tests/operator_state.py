"""The state of an operator as a checkpoint stores it, and stricter: nothing that would come back as something else.

The codec takes tuples and numpy scalars, which come back as lists and Python values; an operator that counts on either
would not be the same after a resume, so here they are refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
from penstock.pipeline import state_codec
from penstock.pipeline.state_codec import decode_state

__all__ = ["decode_state", "empty_batch", "encode_state"]


def encode_state(state: Mapping[str, Any]) -> bytes:
    """`state` as bytes; TypeError, with the path, for anything that the contract of operators does not allow."""
    _check(state, "state")
    return state_codec.encode_state(state)


def empty_batch(schema: pa.Schema) -> pa.RecordBatch:
    """A batch of no rows, also where a column is of an extension type."""
    return pa.RecordBatch.from_arrays([column.combine_chunks() for column in schema.empty_table()], schema=schema)


def _check(value: Any, path: str) -> None:
    if isinstance(value, Mapping):
        for key, item in value.items():
            _check(item, f"{path}[{key!r}]")
    elif type(value) is list:
        for index, item in enumerate(value):
            _check(item, f"{path}[{index}]")
    elif isinstance(value, tuple | np.generic):
        raise TypeError(f"{path} is a {type(value).__name__}; turn tuples into lists, numpy scalars into int or float")
