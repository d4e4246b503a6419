"""The header of a DBN file: dataset, schema, and which symbol an instrument id stood for on which days.

Every length and count in it is checked against the bytes that are there before anything is read or made.
Spec: databento/dbn, `decode/dbn/fsm.rs`.
"""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from typing import Any

from ...pipeline.errors import FormatError
from ..storage.feed import Feed
from ._dbn_layout import LATEST, SCHEMA_CODES

__all__ = ["MOST_METADATA", "Interval", "Metadata", "parse_metadata", "plain", "read_metadata"]

#: A longer header is taken for damage: 1.5 million option symbols make one of about 250 MB.
MOST_METADATA = 1 << 29
#: Symbol mappings of a header at most, since each costs more memory than bytes.
_MOST_INTERVALS = 1 << 22
_STEP = 1 << 20
_INSTRUMENT_ID = 0
_STYPES = (
    *("instrument_id", "raw_symbol", "smart", "continuous", "parent", "nasdaq_symbol", "cms_symbol", "isin", "us_code"),
    *("bbg_comp_id", "bbg_comp_ticker", "figi", "figi_ticker"),
)

#: First and last ns (exclusive) of what is mapped, and the symbol.
Interval = tuple[int, int, str]


@dataclass(frozen=True)
class Metadata:
    """What the header says. `size` is its length in bytes: records begin there. `schema` is None for a live capture."""

    version: int
    size: int
    dataset: str = ""
    schema: str | None = None
    start: int | None = None
    end: int | None = None
    limit: int | None = None
    stype_in: str | None = None
    stype_out: str | None = None
    ts_out: bool = False
    symbols: int = 0
    partial: int = 0
    not_found: int = 0
    intervals: tuple[tuple[int, Interval], ...] = ()

    @property
    def mapped(self) -> dict[int, list[Interval]]:
        """Intervals by instrument id, in the order in which the header has them."""
        found: dict[int, list[Interval]] = {}
        for instrument, interval in self.intervals:
            found.setdefault(instrument, []).append(interval)
        return found


class _Bytes:
    """A cursor that never leaves its bytes."""

    def __init__(self, data: bytes, path: str, base: int) -> None:
        self._data, self._path, self._base, self.at = data, path, base, 0

    def error(self, what: str) -> FormatError:
        return FormatError(f"{self._path}: the DBN header is damaged at offset {self._base + self.at}: {what}")

    def take(self, size: int, what: str) -> bytes:
        left = len(self._data) - self.at
        if size > left:
            raise self.error(f"{what} takes {size} bytes, but {left} are left of the header")
        piece = self._data[self.at : self.at + size]
        self.at += size
        return piece

    def number(self, size: int, what: str) -> int:
        return int.from_bytes(self.take(size, what), "little")

    def text(self, size: int, what: str) -> str:
        return self.take(size, what).rstrip(b"\0").decode("utf-8", "replace")

    def count(self, each: int, what: str) -> int:
        """A count of things that take at least `each` bytes."""
        count = self.number(4, what)
        left = len(self._data) - self.at
        if count * each > left:
            raise self.error(f"it counts {count} {what}, but {left} bytes are left of the header")
        return count


def read_metadata(feed: Feed, path: str) -> Metadata:
    """Read the header from the beginning of a feed. Raises FormatError if there is none that can be read."""
    prelude = _read(feed, 8)
    if len(prelude) < 8 or prelude[:3] != b"DBN":
        raise FormatError(
            f"{path} has no DBN header: it begins with {prelude.hex(' ') or 'nothing'}. For a fragment of records without "
            "a header give Dbn(path, schema=..., version=...), the version being that of the file it was cut from"
        )
    version, length = prelude[3], int.from_bytes(prelude[4:], "little")
    if not 1 <= version <= LATEST:
        raise FormatError(f"{path} is DBN version {version}; versions 1 to {LATEST} can be read")
    if not 100 <= length <= MOST_METADATA:
        raise FormatError(f"{path}: the DBN header says at offset 4 that it has {length} bytes, which cannot be")
    data = _read(feed, length)
    if len(data) < length:
        why = feed.error or "the file ends there"
        raise FormatError(f"{path}: the DBN header has {length} bytes, but {len(data)} could be read: {why}")
    return parse_metadata(data, version, path)


def _read(feed: Feed, length: int) -> bytes:
    data = bytearray()
    while len(data) < length:
        piece = memoryview(bytearray(min(_STEP, length - len(data))))
        count = feed.fill(piece)
        data += piece[:count]
        if count < len(piece):
            break
    return bytes(data)


def parse_metadata(data: bytes, version: int, path: str) -> Metadata:
    """Parse the header behind its first 8 bytes."""
    cursor = _Bytes(data, path, 8)
    dataset = cursor.text(16, "the dataset")
    code = cursor.number(2, "the schema")
    if code != 0xFFFF and code >= len(SCHEMA_CODES):
        raise FormatError(f"{path}: the DBN header names schema {code} at offset 24, which is not known")
    start, end, limit = (cursor.number(8, what) for what in ("the start", "the end", "the limit"))
    if version == 1:
        cursor.take(8, "the record count")
    stype_in, stype_out = cursor.number(1, "stype_in"), cursor.number(1, "stype_out")
    ts_out = cursor.number(1, "ts_out") != 0
    width = 22 if version == 1 else cursor.number(2, "the length of symbols")
    if not width:
        raise FormatError(f"{path}: the DBN header gives symbols a length of 0")
    cursor.take(47 if version == 1 else 53, "reserved bytes")
    definition = cursor.number(4, "the length of the schema definition")
    cursor.take(definition, "the schema definition")
    counts = []
    for what in ("symbols", "partial symbols", "symbols not found"):
        count = cursor.count(width, what)
        cursor.take(count * width, what)
        counts.append(count)
    forward, inverse = stype_out == _INSTRUMENT_ID, stype_in == _INSTRUMENT_ID
    return Metadata(
        version=version,
        size=8 + len(data),
        dataset=dataset,
        schema=None if code == 0xFFFF else SCHEMA_CODES[code],
        start=_some(start),
        end=_some(end),
        limit=limit or None,
        stype_in=_stype(stype_in),
        stype_out=_stype(stype_out),
        ts_out=ts_out,
        symbols=counts[0],
        partial=counts[1],
        not_found=counts[2],
        intervals=_intervals(cursor, width, forward=forward, inverse=inverse),
    )


def _intervals(cursor: _Bytes, width: int, *, forward: bool, inverse: bool) -> tuple[tuple[int, Interval], ...]:
    found: list[tuple[int, Interval]] = []
    days: dict[int, int | None] = {}
    for _ in range(cursor.count(width + 4, "symbol mappings")):
        symbol = cursor.text(width, "a symbol")
        for _ in range(cursor.count(width + 8, "intervals of a symbol")):
            first, last = (cursor.number(4, "a date") for _ in range(2))
            other = cursor.text(width, "a symbol")
            if len(found) == _MOST_INTERVALS:
                raise cursor.error(f"more than {_MOST_INTERVALS} symbol mappings")
            for day in (first, last):
                if day not in days:
                    days[day] = _day_ns(day)
            begin, until = days[first], days[last]
            instrument = (other if forward else symbol) if forward or inverse else ""
            if begin is None or until is None or begin >= until or not (instrument.isascii() and instrument.isdigit()):
                continue
            if len(instrument) <= 10 and int(instrument) < 1 << 32 and (name := symbol if forward else other):
                found.append((int(instrument), (begin, until, name)))
    return tuple(found)


def _day_ns(day: int) -> int | None:
    """Midnight UTC of a date like 20240131, None if there is no such day."""
    try:
        date = dt.date(day // 10_000, day // 100 % 100, day % 100)
    except ValueError:
        return None
    ns: int = (date - dt.date(1970, 1, 1)).days * 86_400 * 10**9
    return max(-(1 << 63), min(ns, (1 << 63) - 1))


def _some(time: int) -> int | None:
    return time if 0 < time < 1 << 63 else None


def _stype(code: int) -> str | None:
    return _STYPES[code] if code < len(_STYPES) else None


def plain(found: Metadata) -> dict[str, Any]:
    """The header's values for `penstock inspect`."""
    names = ("version", "dataset", "schema", "start", "end", "limit", "stype_in", "stype_out", "ts_out")
    counts = {"symbols": found.symbols, "partial": found.partial, "not_found": found.not_found}
    return {**{name: getattr(found, name) for name in names}, **counts, "intervals": len(found.intervals)}
