"""Values of a table as ours: times of every kind as ns, fixed-point binaries as int64 of 1e-9 or as float64."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute

from .parquet_ticks import UNITS

__all__ = ["as_ns", "fixed_point", "is_number", "is_size", "is_text", "is_time", "parsed", "without_overflow"]

_SIZES = ("size", "qty", "quantity", "volume", "amount")


def is_number(kind: pa.DataType) -> bool:
    """Whether it can count units of time."""
    return bool(pa.types.is_integer(kind) or pa.types.is_float32(kind) or pa.types.is_float64(kind))


def is_text(kind: pa.DataType) -> bool:
    """Whether it is text of any layout."""
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def is_time(kind: pa.DataType) -> bool:
    """Whether values of it may be times."""
    return bool(pa.types.is_timestamp(kind) or pa.types.is_date(kind) or is_number(kind) or is_text(kind))


def is_size(name: str) -> bool:
    """Whether a column of this name holds sizes."""
    return any(word in name.lower() for word in _SIZES)


def as_ns(column: pa.Array, scale: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_]]:
    """Times as int64 ns, and where there is none."""
    kind = column.type
    if is_text(kind):
        column, kind = parsed(column), pa.timestamp("ns", "UTC")
    if pa.types.is_float32(kind) or pa.types.is_float64(kind):
        numbers = column.fill_null(float("nan")).to_numpy(zero_copy_only=False).astype(np.float64)
        absent = ~(np.abs(numbers) < ((1 << 63) - 1) // scale)  # not a number is absent too
        whole, rest = np.divmod(np.where(absent, 0.0, numbers), 1.0)
        return whole.astype(np.int64) * scale + np.rint(rest * scale).astype(np.int64), absent
    if pa.types.is_date(kind):
        column, kind = column.cast(pa.timestamp("ms")), pa.timestamp("ms")
    if pa.types.is_timestamp(kind):
        scale = UNITS[kind.unit]
        column = column.view(pa.int64())
    missing = np.asarray(column.is_null())
    values = column.fill_null(0).to_numpy(zero_copy_only=False)
    if values.dtype == np.uint64:
        missing |= values > np.uint64((1 << 63) - 1)
        values = values.view(np.int64)
    values = values.astype(np.int64)
    missing |= (np.abs(values) > ((1 << 63) - 1) // scale) | (values == np.iinfo(np.int64).min)
    return np.where(missing, 0, values) * scale, missing


def parsed(column: pa.Array) -> pa.Array:
    """Text as times, null where it is none. Text without a zone counts as UTC."""
    for zone in ("UTC", None):
        try:
            return column.cast(pa.timestamp("ns", zone)).cast(pa.timestamp("ns", "UTC"))
        except pa.ArrowInvalid:
            continue
    if len(column) == 1:
        return pa.nulls(1, pa.timestamp("ns", "UTC"))
    half = len(column) // 2
    return pa.concat_arrays([parsed(column[:half]), parsed(column[half:])])


def fixed_point(column: pa.Array, places: int, *, as_float: bool) -> tuple[pa.Array, npt.NDArray[np.bool_]]:
    """int64 of 1e-9 (or float64), null for the greatest value, and where a value does not fit."""
    width, rows = column.type.byte_width, len(column)
    null = np.asarray(column.is_null())
    raw = np.frombuffer(column.buffers()[1] or b"", np.uint8)[column.offset * width : (column.offset + rows) * width]
    words = raw.view("<i8").reshape(rows, width // 8) if rows else np.empty((0, width // 8), np.int64)
    low = words[:, 0]
    high = words[:, 1] if width == 16 else low >> 63
    undefined = (high == np.iinfo(np.int64).max) & (low == -1) if width == 16 else low == np.iinfo(np.int64).max
    null |= undefined
    small = high == low >> 63  # fits an int64 as it is
    values = np.where(small & ~null, low, 0)
    wide = [(int(i), (int(high[i]) << 64) + (int(low[i]) & ((1 << 64) - 1))) for i in np.flatnonzero(~small & ~null)]
    if as_float:
        numbers = values / 10.0**places
        for i, value in wide:
            numbers[i] = value / 10**places
        return pa.array(numbers, mask=null), np.zeros(rows, np.bool_)
    wrong = np.zeros(rows, np.bool_)
    shift = 9 - places
    if shift >= 0:
        wrong |= np.abs(values) > ((1 << 63) - 1) // 10**shift
        fixed = np.where(wrong, 0, values) * 10**shift
    else:
        unit = 10**-shift
        wrong |= values % unit != 0 if unit < 1 << 63 else values != 0
        fixed = values // unit if unit < 1 << 63 else values * 0
    for i, value in wide:
        whole, rest = divmod(value * 10 ** max(0, shift), 10 ** max(0, -shift))
        if rest or abs(whole) >= 1 << 63:
            wrong[i] = True
        else:
            fixed[i] = whole
    return pa.array(fixed, pa.int64(), mask=null), wrong


def without_overflow(batch: pa.RecordBatch, seconds: pa.RecordBatch) -> pa.RecordBatch:
    """`batch` with null for the times (of Parquet's INT96) that ns do not hold, by the same `seconds`.

    Arrow lets them wrap around: the 31st of December 9999, which stands for "never", would be a day in 1816.
    """
    for name in seconds.schema.names:
        place = batch.schema.get_field_index(name)
        column = batch.column(place)
        ns = column.view(pa.int64()).fill_null(0).to_numpy(zero_copy_only=False)
        right = seconds.column(name).view(pa.int64()).fill_null(0).to_numpy(zero_copy_only=False)
        wrapped = ns // 10**9 != right
        if wrapped.any():
            none = pa.array(wrapped | np.asarray(column.is_null()))
            kept = pa.compute.if_else(none, pa.scalar(None, column.type), column)
            batch = batch.set_column(place, batch.schema.field(place), kept)
    return batch
