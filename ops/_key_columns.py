"""How the distinct values of one key column are kept: integers in a table of arrays, text in a dict.

Dictionary columns go through the entries of their dictionary: each entry is looked up once per dictionary object, when a
row first refers to it, so that numbers follow the rows and not the order of the dictionary.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from ..pipeline.columns import as_numpy
from ..pipeline.errors import RunError

__all__ = ["Column", "IntMap", "is_bytes", "is_integral"]

Ints = npt.NDArray[np.int64]

_NO_MASK = np.frombuffer(b"", np.bool_)
_CACHED_DICTIONARIES = 8
#: What a Python string and its place in a dict take beside its characters, roughly.
_ENTRY_BYTES = 160


class Column:
    """One key column: its distinct values, and the entries of recently seen dictionaries."""

    __slots__ = ("_seen", "kind", "values")

    def __init__(self, kind: pa.DataType) -> None:
        self.kind = kind
        value = kind.value_type if pa.types.is_dictionary(kind) else kind
        self.values: _Integral | _Bytes = _Integral(value) if is_integral(value) else _Bytes(value)
        self._seen: dict[tuple[int, ...], tuple[pa.Array, Ints]] = {}

    def encode(self, array: pa.Array) -> Ints:
        if pa.types.is_dictionary(self.kind):
            return self._through(array, self._known(array.dictionary))
        if isinstance(self.values, _Bytes):
            encoded = array.dictionary_encode()
            return self._through(encoded, np.full(len(encoded.dictionary) + 1, -1, np.int64))
        return self.values.encode(array)

    def decode(self, codes: Ints) -> pa.Array:
        if not pa.types.is_dictionary(self.kind):
            return self.values.decode(codes)
        dtype = np.dtype(self.kind.index_type.to_pandas_dtype())
        null = self.values.null
        present = codes != null
        values = self.values.all()
        if null >= 0:
            values = pa.concat_arrays([values.slice(0, null), values.slice(null + 1)])
            codes = codes - (codes > null)
        if len(values) > np.iinfo(dtype).max:
            used, codes = np.unique(np.where(present, codes, codes.min(initial=0, where=present)), return_inverse=True)
            if len(used) > np.iinfo(dtype).max:
                raise RunError(
                    f"{len(used)} distinct keys do not fit {self.kind}; cast the key column to a dictionary with a "
                    "wider index type, or to its value type"
                )
            values = values.take(pa.array(used))
        indices = np.where(present, codes, 0).astype(dtype)
        mask = None if null < 0 else ~present
        return pa.DictionaryArray.from_arrays(
            pa.array(indices, type=self.kind.index_type, mask=mask), values, ordered=self.kind.ordered
        )

    def _known(self, dictionary: pa.Array) -> Ints:
        """Codes by dictionary index, -1 where unknown; the last entry stands for null. Kept per dictionary object."""
        buffers = (b for b in dictionary.buffers() if b is not None)
        identity = (len(dictionary), dictionary.offset, *(part for b in buffers for part in (b.address, b.size)))
        held = self._seen.get(identity)
        if held is None:
            if len(self._seen) == _CACHED_DICTIONARIES:
                del self._seen[next(iter(self._seen))]
            held = self._seen[identity] = (dictionary, np.full(len(dictionary) + 1, -1, np.int64))
        return held[1]

    def _through(self, array: pa.DictionaryArray, codes: Ints) -> Ints:
        from ._key_kernels import through

        null = codes.size - 1
        indices = array.indices
        if indices.null_count:
            indices = indices.fill_null(0)
            positions = _frozen(np.where(_mask(array.indices), as_numpy(indices), null), np.int64)
        else:
            positions = _frozen(as_numpy(indices), np.int64)
        out = np.empty(len(array), np.int64)
        missing = np.empty(min(len(array), codes.size), np.int64)
        found = through(positions, codes, out, missing)
        if found < 0:
            codes[codes == -2] = -1
            raise RunError(f"a dictionary index at row {-1 - found} is outside its dictionary of {null} values")
        if found:
            wanted = missing[:found]
            new = self.values.encode(array.dictionary.take(pa.array(wanted, mask=wanted == null)))
            codes[wanted] = new
            out = codes[positions]
        return out


class _Integral:
    """Distinct integers, booleans or times of one column."""

    __slots__ = ("_map", "_ranks", "kind")

    def __init__(self, kind: pa.DataType) -> None:
        self.kind = kind
        self._map = IntMap()
        self._ranks = np.empty(0, np.int64)

    @property
    def count(self) -> int:
        return self._map.count

    @property
    def null(self) -> int:
        return self._map.null

    @property
    def nbytes(self) -> int:
        return self._map.nbytes

    def encode(self, array: pa.Array) -> Ints:
        valid = _mask(array) if array.null_count else _NO_MASK
        if pa.types.is_boolean(self.kind):
            plain = array.cast(pa.uint8())
        elif pa.types.is_integer(self.kind):
            plain = array
        else:
            plain = array.view(pa.int32() if self.kind.bit_width == 32 else pa.int64())
        if plain.null_count:
            plain = plain.fill_null(0)
        values = as_numpy(plain)
        return self._map.ids(values.view(np.int64) if values.dtype == np.uint64 else values, valid)

    def decode(self, codes: Ints) -> pa.Array:
        values = self._map.keys[codes]
        mask = codes == self.null if self.null >= 0 else None
        if pa.types.is_boolean(self.kind):
            return pa.array(values.astype(np.bool_), mask=mask)
        if pa.types.is_integer(self.kind):
            return pa.array(values.astype(self.kind.to_pandas_dtype()), mask=mask)
        width = np.int32 if self.kind.bit_width == 32 else np.int64
        return pa.array(values.astype(width), mask=mask).view(self.kind)

    def all(self) -> pa.Array:
        return self.decode(np.arange(self.count, dtype=np.int64))

    def rank(self, codes: Ints) -> Ints:
        self._ranks, ranks = _ranked(self, codes, self._ranks)
        return ranks


class _Bytes:
    """Distinct strings or binaries of one column."""

    __slots__ = ("_array", "_fresh", "_numbers", "_ranks", "_size", "kind")

    def __init__(self, kind: pa.DataType) -> None:
        self.kind = kind
        self._numbers: dict[str | bytes | None, int] = {}
        self._array = pa.array([], kind)
        self._fresh: list[str | bytes | None] = []
        self._size = 0
        self._ranks = np.empty(0, np.int64)

    @property
    def count(self) -> int:
        return len(self._numbers)

    @property
    def null(self) -> int:
        return self._numbers.get(None, -1)

    @property
    def nbytes(self) -> int:
        return self._size

    def encode(self, array: pa.Array) -> Ints:
        numbers = self._numbers
        out = np.empty(len(array), np.int64)
        for row, value in enumerate(array.to_pylist()):
            number = numbers.get(value)
            if number is None:
                number = numbers[value] = len(numbers)
                self._fresh.append(value)
                self._size += _ENTRY_BYTES + (2 * len(value) if value is not None else 0)
            out[row] = number
        return out

    def decode(self, codes: Ints) -> pa.Array:
        return self.all().take(pa.array(codes))

    def all(self) -> pa.Array:
        if self._fresh:
            self._array = pa.concat_arrays([self._array, pa.array(self._fresh, self.kind)])
            self._fresh = []
        return self._array

    def rank(self, codes: Ints) -> Ints:
        self._ranks, ranks = _ranked(self, codes, self._ranks)
        return ranks


class IntMap:
    """Distinct int64 values, numbered as they appear, in an open-addressing table."""

    __slots__ = ("_counters", "_table", "keys")

    def __init__(self) -> None:
        self._table = np.full(64, -1, np.int64)
        self.keys = np.empty(32, np.int64)
        self._counters = np.array([0, -1], np.int64)

    @property
    def count(self) -> int:
        return int(self._counters[0])

    @property
    def null(self) -> int:
        return int(self._counters[1])

    @property
    def nbytes(self) -> int:
        return self._table.nbytes + self.keys.nbytes

    def ids(self, values: npt.NDArray[Any], valid: npt.NDArray[np.bool_] = _NO_MASK) -> Ints:
        from ._key_kernels import assign, rehash

        values = _frozen(values, np.int64)
        out = np.empty(values.size, np.int64)
        row = 0
        while (row := assign(values, valid, row, self._table, self.keys, self._counters, out)) < values.size:
            if self.count > 1 << 30:
                raise RunError("more than 2**30 distinct keys; key by something coarser")
            self.keys = np.concatenate([self.keys, np.empty_like(self.keys)])
            self._table = np.full(2 * self._table.size, -1, np.int64)
            rehash(self._table, self.keys, self.count, self.null)
        return out


def _ranked(values: _Integral | _Bytes, codes: Ints, known: Ints) -> tuple[Ints, Ints]:
    """Ranks of all values (kept while no value is added) and those of `codes`; few codes are ranked on their own."""
    if known.size == values.count:
        return known, known[codes]
    if codes.size * 8 < values.count:
        distinct, place = np.unique(codes, return_inverse=True)
        return known, _ranks(values.decode(distinct))[place]
    known = _ranks(values.all())
    return known, known[codes]


def _ranks(array: pa.Array) -> Ints:
    ranks = np.empty(len(array), np.int64)
    ranks[as_numpy(pc.sort_indices(array))] = np.arange(len(array), dtype=np.int64)
    return ranks


def _frozen(values: npt.NDArray[Any], dtype: npt.DTypeLike) -> npt.NDArray[Any]:
    """`values` as a read-only contiguous array of `dtype`: one kernel signature for views and copies alike."""
    out = np.ascontiguousarray(values, dtype)
    if out.flags.writeable:
        out = out.view()
        out.flags.writeable = False
    return out


def _mask(array: pa.Array) -> npt.NDArray[np.bool_]:
    return _frozen(array.is_valid().to_numpy(zero_copy_only=False), np.bool_)


def is_integral(kind: pa.DataType) -> bool:
    return (
        pa.types.is_integer(kind)
        or pa.types.is_boolean(kind)
        or (pa.types.is_temporal(kind) and not pa.types.is_interval(kind))
    )


def is_bytes(kind: pa.DataType) -> bool:
    return any(
        test(kind)
        for test in (
            pa.types.is_string,
            pa.types.is_large_string,
            pa.types.is_binary,
            pa.types.is_large_binary,
            pa.types.is_fixed_size_binary,
        )
    )
