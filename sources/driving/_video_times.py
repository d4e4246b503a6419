"""Exact event times of video: start time + pts * time base in integers, or a side-car file of one stamp a frame."""

from __future__ import annotations

import datetime as dt
import io
import re
from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt

from ...pipeline.errors import FormatError
from ..storage.stored import open_stored

__all__ = ["iso_ns", "read_stamps", "scaled_ns", "time_range"]

_ISO = re.compile(r"(\d{4}-\d\d-\d\d)(?:[T ](\d\d:\d\d(?::\d\d)?)(?:[.,](\d{1,9}))?\s*(Z|[+-]\d\d:?\d\d)?)?")
_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
#: Side-car files beyond this are refused: 2^25 stamps are 15 days at 25 frames a second.
_STAMPS_LIMIT = 1 << 28
#: So that a time and what it is counted from stay below 2^63 ns together.
_MOST_SECONDS = 4_000_000_000


def iso_ns(text: str) -> int:
    """ISO 8601 (UTC where it names no zone) as ns since the epoch, with up to nine digits of a second. Raises ValueError.

    >>> iso_ns("1970-01-01T00:00:01.000000001Z")
    1000000001
    """
    match = _ISO.fullmatch(text.strip())
    if match is None:
        raise ValueError(f"{text!r} is not an ISO 8601 time such as 2026-01-31T12:00:00.123456789Z")
    day, clock, digits, zone = match.groups()
    zone = "+00:00" if zone in (None, "Z") else zone
    moment = dt.datetime.fromisoformat(f"{day}T{clock or '00:00'}{zone}")
    seconds = (moment - _EPOCH) // dt.timedelta(seconds=1)
    return seconds * 10**9 + int((digits or "0").ljust(9, "0"))


def scaled_ns(ticks: int, unit: Fraction) -> int:
    """``ticks * unit`` seconds in ns, the nearest (a half rounds up)."""
    over = 2 * ticks * unit.numerator * 10**9 + unit.denominator
    return over // (2 * unit.denominator)


def read_stamps(path: str, start_ns: int = 0) -> npt.NDArray[np.int64]:
    """The ns of a side-car file: ``.npy`` or text, one integer a line; floats in a ``.npy`` are seconds behind `start_ns`.

    Raises FormatError naming the line or the number.
    """
    with open_stored(path) as stored:
        if stored.size > _STAMPS_LIMIT:
            raise FormatError(f"{path}: {stored.size} bytes are too many for time stamps (limit {_STAMPS_LIMIT})")
        data = stored.read(0, stored.size)
    if data[:6] == b"\x93NUMPY":
        try:
            stamps = np.load(io.BytesIO(data), allow_pickle=False)
        except (ValueError, EOFError, OSError) as error:
            raise FormatError(f"{path}: not a readable .npy file: {error}") from None
        if stamps.ndim != 1 or stamps.dtype.kind not in "iuf":
            what = "integers (ns) or floats (s)"
            raise FormatError(f"{path}: time stamps are a row of {what}, not {stamps.dtype} of {stamps.shape}")
        if stamps.dtype.kind == "f":
            return _seconds(path, stamps.astype(np.float64), start_ns)
        return np.ascontiguousarray(stamps.astype(np.int64))
    stamps = []
    for number, line in enumerate(data.splitlines(), 1):
        text = line.strip()
        if not text or text.startswith(b"#"):
            continue
        if not re.fullmatch(rb"-?\d{1,19}", text) or not -(1 << 63) <= int(text) < 1 << 63:
            raise FormatError(f"{path}, line {number}: a time stamp is one integer in ns, not {text[:40]!r}")
        stamps.append(int(text))
    return np.array(stamps, np.int64)


def _seconds(path: str, seconds: npt.NDArray[np.float64], start_ns: int) -> npt.NDArray[np.int64]:
    sound = np.abs(seconds) <= _MOST_SECONDS
    if not sound.all():
        at = int(np.flatnonzero(~sound)[0])
        raise FormatError(f"{path}: number {at} is {seconds[at]}, which is no time in seconds")
    if abs(start_ns) > _MOST_SECONDS * 10**9:
        raise FormatError(f"{path}: its seconds behind start={start_ns} are times that no calendar has")
    return np.rint(seconds * 1e9).astype(np.int64) + start_ns


def time_range(start: int | None, end: int | None) -> dict[str, Any] | None:
    """The `time` of an inspection: both ends as ISO 8601 (None where no calendar has them) and ns, and seconds."""
    if start is None or end is None:
        return None
    texts = {"start": _iso_text(start), "end": _iso_text(end)}
    return {**texts, "start_ns": start, "end_ns": end, "seconds": (end - start) / 1e9}


def _iso_text(ns: int) -> str | None:
    try:
        whole = dt.datetime.fromtimestamp(ns // 10**9, dt.UTC)
    except (OverflowError, OSError, ValueError):
        return None
    return f"{whole:%Y-%m-%dT%H:%M:%S}.{ns % 10**9:09d}Z"
