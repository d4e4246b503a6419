"""A made-up NASDAQ ITCH 5.0 trading day: true format, full order lives, and books that never cross.

Each symbol's price is a random walk. Orders are added around it on the side that does not cross, replaced, cut, deleted,
and executed at the best price in time priority; opening and closing crosses, hidden trades and a few broken trades fill in.
Every order that is added is gone at the end of the day. The same arguments give the same bytes on any machine.
"""

from __future__ import annotations

import gzip
import struct
from collections import Counter
from os import PathLike, fspath
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

__all__ = ["symbol_name", "write_market"]

_MINUTE = 60 * 10**9
_CHUNK = 1 << 15
_LONGEST = 52
#: The hours that messages fall into, as minutes after midnight, and their share of the day's messages in percent.
_PHASES = ((240, 570, 4), (570, 960, 92), (960, 1200, 4))


def symbol_name(index: int) -> str:
    """The symbol of stock locate ``index + 1``: ``PAAA``, ``PAAB``, ..."""
    letters = [chr(65 + index // 26**place % 26) for place in (2, 1, 0)]
    return "P" + "".join(letters)


def write_market(
    path: str | PathLike[str],
    *,
    messages: int = 1_000_000,
    symbols: int = 8,
    seed: int = 0,
    prefixed: bool = True,
    gz: bool = False,
) -> dict[str, Any]:
    """Write a trading day of exactly `messages` messages on `symbols` symbols, and say what it holds.

    `prefixed` puts each message's length in front of it (big-endian, and a zero length at the end), else two zero bytes.
    The file appears under its name when it is complete. Put the session's date into the name, as in
    ``01302019.NASDAQ_ITCH50``: messages do not hold it.

    Returns ``path``, ``messages``, ``bytes`` (before compression), ``symbols``, ``counts`` (messages by type letter),
    ``orders`` added and ``shares`` executed from the book. Raises ValueError for too few messages, or symbols outside
    1 to 10000.
    """
    least = 6 + 8 * symbols
    if not 1 <= symbols <= 10_000:
        raise ValueError(f"{symbols=} is outside 1 to 10000")
    if messages < least:
        raise ValueError(f"{messages=} is too few: a day of {symbols} symbols opens and closes with {least}")
    target = Path(fspath(path))
    partial = target.with_name(target.name + ".partial")
    day = _Day(messages, symbols, seed, prefixed)
    try:
        with partial.open("wb") as file:
            if gz:
                with gzip.GzipFile(filename="", mode="wb", compresslevel=6, fileobj=file, mtime=0) as packed:
                    day.write(packed)
            else:
                day.write(file)
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)
    return {"path": str(target), "symbols": [symbol_name(i) for i in range(symbols)], **day.summary()}


class _Day:
    """The state of one day while it is written."""

    def __init__(self, messages: int, symbols: int, seed: int, prefixed: bool) -> None:
        from ._market_kernels import trade

        self._trade = trade
        self._messages, self._symbols, self._prefixed = messages, symbols, prefixed
        self._random = np.random.Philox(key=seed)
        self._counts: Counter[str] = Counter()
        self._bytes = 0
        self._tallies = np.zeros(256, np.int64)
        self._books = np.zeros((symbols, 4), np.int64)
        self._orders = np.zeros((symbols, 96, 4), np.int64)
        self._books[:, 0] = 100 * (2_000 + (self._random.random_raw(symbols) % np.uint64(48_000)).astype(np.int64))
        self._next = np.array([1, 1, 0, 0, 0], np.int64)

    def write(self, file: BinaryIO | gzip.GzipFile) -> None:
        names = [symbol_name(i).ljust(8).encode() for i in range(self._symbols)]
        body = self._messages - 6 - 6 * self._symbols
        self._system(file, 180, "O")
        for i, name in enumerate(names):
            at = 185 * _MINUTE + i
            self._put(file, "R", i + 1, at, name + b"QN" + struct.pack(">I", 100) + b"NCZ PNN1N" + bytes(4) + b"N")
            self._put(file, "H", i + 1, at, name + b"T " + b"    ")
            self._put(file, "Y", i + 1, at, name + b"0")
            self._put(file, "L", i + 1, at, b"PSTK" + name + b"YNA")
        self._system(file, 240, "S")
        given = 0
        for number, (begin, end, share) in enumerate(_PHASES):
            count = body - given if number == 2 else body * share // 100
            given += count
            if number == 1:
                self._system(file, begin, "Q")
                self._cross(file, begin, names, b"O")
            if number == 2:
                self._system(file, begin, "M")
                self._cross(file, begin, names, b"C")
            self._session(file, begin * _MINUTE + _MINUTE // 60, end * _MINUTE, count, body - given)
        self._system(file, 1205, "E")
        self._system(file, 1210, "C")
        if self._prefixed:
            self._bytes += file.write(b"\x00\x00")

    def summary(self) -> dict[str, Any]:
        counts = self._counts + Counter({chr(i): int(n) for i, n in enumerate(self._tallies) if n})
        return {
            "messages": sum(counts.values()),
            "bytes": self._bytes,
            "counts": dict(sorted(counts.items())),
            "orders": int(self._next[4]),
            "shares": int(self._next[3]),
        }

    def _session(self, file: BinaryIO | gzip.GzipFile, begin: int, end: int, count: int, later: int) -> None:
        out: npt.NDArray[np.uint8] = np.empty(_CHUNK * _LONGEST, np.uint8)
        for first in range(0, count, _CHUNK):
            part = min(_CHUNK, count - first)
            left = count - first + later
            random = self._random.random_raw(4 * part)
            size = self._trade(
                out, part, first, count, begin, end, left, random, self._prefixed, self._books, self._orders,
                self._next, self._tallies,
            )  # fmt: skip
            self._bytes += file.write(out[:size].data)

    def _cross(self, file: BinaryIO | gzip.GzipFile, minute: int, names: list[bytes], kind: bytes) -> None:
        shares = self._random.random_raw(self._symbols) % np.uint64(500)
        for i, name in enumerate(names):
            match = int(self._next[1])
            self._next[1] += 1
            fields = struct.pack(">Q8sIQc", int(shares[i]) * 100, name, int(self._books[i, 0]), match, kind)
            self._put(file, "Q", i + 1, minute * _MINUTE + 1 + i, fields)

    def _system(self, file: BinaryIO | gzip.GzipFile, minute: int, event: str) -> None:
        self._put(file, "S", 0, minute * _MINUTE, event.encode())

    def _put(self, file: BinaryIO | gzip.GzipFile, kind: str, locate: int, time: int, fields: bytes) -> None:
        message = kind.encode() + struct.pack(">HH", locate, 0) + time.to_bytes(6, "big") + fields
        prefix = len(message) if self._prefixed else 0
        self._bytes += file.write(prefix.to_bytes(2, "big") + message)
        self._counts[kind] += 1
