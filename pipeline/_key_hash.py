"""A hash of keys by value, the same in every process and version: it says where the state of a key lives.

Whoever changes a number here makes every snapshot of a divided run unreadable to parts that run by the old one, so the
results are pinned by tests. Integers are mixed as they are (the finalizer of MurmurHash3), text and binary go through
FNV-1a of their bytes first, and the columns of a key are folded into one another.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from .columns import as_numpy

__all__ = ["key_hashes"]

Hashes = npt.NDArray[np.uint64]

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_NULL = np.uint64(0x2545F4914F6CDD1D)
_SHIFT = np.uint64(33)
_MIX = (np.uint64(0xFF51AFD7ED558CCD), np.uint64(0xC4CEB9FE1A85EC53))


def key_hashes(columns: Sequence[pa.Array]) -> Hashes:
    """A hash of each row's values, uint64 ``(rows,)``. Raises TypeError for types that cannot be hashed."""
    total = _column(columns[0])
    for column in columns[1:]:
        total = _mixed(total ^ (_column(column) * _GOLDEN))
    return total


def _column(array: pa.Array) -> Hashes:
    kind = array.type
    if pa.types.is_dictionary(kind):
        return _dictionary(array)
    if pa.types.is_floating(kind):
        hashes = _mixed(_float_bits(array) + _GOLDEN)
    elif (plain := _integers(array)) is not None:
        hashes = _mixed(plain + _GOLDEN)
    else:
        hashes = _mixed(_text(array))
    if array.null_count:
        hashes[array.is_null().to_numpy(zero_copy_only=False)] = _NULL
    return hashes


def _dictionary(array: pa.DictionaryArray) -> Hashes:
    """Through the hash of each entry; of the entries in use where there are more entries than rows."""
    values, indices = array.dictionary, array.indices
    places = as_numpy(indices.fill_null(0) if indices.null_count else indices)
    if places.size and not 0 <= int(places.min()) <= int(places.max()) < max(1, len(values)):
        raise ValueError(f"a dictionary index is outside its dictionary of {len(values)} values")
    if not len(values):
        return np.full(len(array), _NULL)
    if len(values) > len(array):
        used, places = np.unique(places, return_inverse=True)
        values = values.take(pa.array(used))
    hashes: Hashes = _column(values)[places]
    if indices.null_count:
        hashes[indices.is_null().to_numpy(zero_copy_only=False)] = _NULL
    return hashes


def _integers(array: pa.Array) -> Hashes | None:
    """Integers, booleans and times as 64 bits, widened with their sign; None for other types."""
    kind = array.type
    if pa.types.is_boolean(kind):
        array = array.cast(pa.uint8())
    elif pa.types.is_temporal(kind) and not pa.types.is_interval(kind):
        array = array.view(pa.int32() if kind.bit_width == 32 else pa.int64())
    elif not pa.types.is_integer(kind):
        return None
    values = as_numpy(array.fill_null(0) if array.null_count else array)
    return values if values.dtype == np.uint64 else values.astype(np.int64, copy=False).view(np.uint64)


def _float_bits(array: pa.Array) -> Hashes:
    wide = array.cast(pa.float64())
    values = as_numpy(wide.fill_null(0) if wide.null_count else wide) + 0.0  # -0.0 becomes 0.0
    values[np.isnan(values)] = np.nan
    return values.view(np.uint64)


def _text(array: pa.Array) -> Hashes:
    from ._key_hash_kernels import fnv1a

    kind, rows = array.type, len(array)
    if pa.types.is_fixed_size_binary(kind):
        width = int(kind.byte_width)
        offsets = (np.arange(rows + 1, dtype=np.int64) + array.offset) * width
        data = array.buffers()[1]
    else:
        narrow = pa.types.is_string(kind) or pa.types.is_binary(kind)
        if not (narrow or pa.types.is_large_string(kind) or pa.types.is_large_binary(kind)):
            raise TypeError(
                f"rows cannot be divided by a column of {kind}; use integers, floats, booleans, times, text, binary or a "
                "dictionary of them"
            )
        where, data = array.buffers()[1:]
        unit = np.dtype(np.int32 if narrow else np.int64)
        if where is None or not rows:
            offsets = np.zeros(rows + 1, np.int64)
        else:
            offsets = np.frombuffer(where, unit, rows + 1, array.offset * unit.itemsize).astype(np.int64, copy=False)
    out = np.empty(rows, np.uint64)
    if (row := fnv1a(_frozen(np.frombuffer(data or b"", np.uint8)), _frozen(offsets), out)) < rows:
        raise ValueError(f"the text of row {row} lies outside its buffer")
    return out


def _frozen(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Read-only, so that the kernel has one signature for views and copies."""
    view = values.view()
    view.flags.writeable = False
    return view


def _mixed(bits: Hashes) -> Hashes:
    """Every bit of `bits` spread over all bits, one to one."""
    out = bits ^ (bits >> _SHIFT)
    for factor in _MIX:
        out *= factor
        out ^= out >> _SHIFT
    return out
