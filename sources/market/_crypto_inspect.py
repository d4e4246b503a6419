"""What a raw recording holds: kinds, symbols, both clocks and their difference, gaps."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import numpy.typing as npt

from ...pipeline.columns import as_numpy
from ...pipeline.context import Context
from ...pipeline.schema import describe
from ...pipeline.source import Decoded
from ..storage.unpack import head_of
from ._crypto_tables import TABLES, crypto_schema
from .crypto import CryptoRaw, open_crypto_raw

__all__ = ["describe_file"]

_MS = 1_000_000


def describe_file(path: str) -> dict[str, Any]:
    """See `crypto.inspect_crypto_raw`."""
    venue = str(CryptoRaw(path).schema.metadata[b"penstock.venue"].decode())
    found = _Found()
    readers = [CryptoRaw(path, venue=venue, table=table).open(Context("inspect")) for table in TABLES]
    try:  # framing does not depend on the table, so the blocks of all tables hold the same lines
        for blocks in zip(*(reader.blocks() for reader in readers), strict=True):
            found.add([reader.decode(block) for reader, block in zip(readers, blocks, strict=True)], blocks[0].records)
    finally:
        for reader in readers:
            reader.close()
    types = found.types
    table = open_crypto_raw(path).table
    return {
        "format": "crypto exchange messages, raw",
        "compression": head_of(path, 1)[1],
        "venue": venue,
        "messages": found.messages,
        "types": dict(sorted(types.items(), key=lambda item: (-item[1], item[0]))),
        "bad": found.bad,
        "symbols": dict(sorted(found.symbols.items())),
        "time": _range(found.recv),
        "event_time": _range(found.event),
        "clock_difference_ns": found.difference(),
        "out_of_order": found.out_of_order,
        "gaps": dict(sorted(found.gaps.items())),
        "schema": describe(crypto_schema(table, "", venue, 9)),
        "hint": f"these are rows of {table=}; others are " + ", ".join(repr(name) for name in TABLES if name != table),
        "error": found.error,
    }


class _Found:
    """What blocks held, added up."""

    def __init__(self) -> None:
        self.messages = self.bad = self.out_of_order = 0
        self.error: str | None = None
        self.types: Counter[str] = Counter()
        self.symbols: Counter[str] = Counter()
        self.gaps: Counter[str] = Counter()
        self.event: tuple[int, int] | None = None
        self.recv: tuple[int, int] | None = None
        self._least, self._most = 0, 0
        self._differences: Counter[int] = Counter()
        self._latest: int | None = None

    def add(self, tables: Sequence[Decoded], records: int) -> None:
        """One block, decoded to each of the tables."""
        self.messages += records
        for wrong in tables[0].bad:
            self.error = wrong.error if wrong.operation == "crypto.unpack" else self.error
            self.bad += wrong.operation != "crypto.unpack"
        for decoded in tables:
            for wrong in decoded.bad:
                if wrong.operation == "crypto.book" and wrong.error.startswith("gap in depth of "):
                    self.gaps[wrong.error[16:].split(": ")[0]] += 1
        kinds: Counter[str] = Counter()
        for decoded in tables:  # what is no row of one table is counted by the others
            kinds |= Counter({reason.split(": ", 1)[1]: count for reason, count in decoded.dropped.items()})
        self.types.update(kinds)
        batches = [batch for decoded in tables for batch in decoded.batches]
        for batch in batches:
            symbol = batch["symbol"]
            counts = np.bincount(as_numpy(symbol)[_starts(batch)], minlength=len(symbol.dictionary))
            for name, count in zip(symbol.dictionary.to_pylist(), counts.tolist(), strict=True):
                if count:
                    self.symbols[name] += count
        if batches:
            self._clocks(np.concatenate([_first_rows(batch) for batch in batches], axis=1))

    def _clocks(self, rows: npt.NDArray[np.int64]) -> None:
        event, recv, _, asked = rows[:, np.argsort(rows[2], kind="stable")]
        self.out_of_order += int((np.diff(recv) < 0).sum()) + int(self._latest is not None and recv[0] < self._latest)
        self._latest = int(recv[-1])
        self.recv = _wider(self.recv, recv)
        timed = (asked == 0) & (event != recv)  # a snapshot that was asked for has been under way both ways
        if not timed.any():
            return
        event, difference = event[timed], (event - recv)[timed]
        fresh = self.event is None
        self._least = int(difference.min()) if fresh else min(self._least, int(difference.min()))
        self._most = int(difference.max()) if fresh else max(self._most, int(difference.max()))
        self.event = _wider(self.event, event)
        values, counts = np.unique(difference // _MS, return_counts=True)
        self._differences.update(dict(zip(values.tolist(), counts.tolist(), strict=True)))

    def difference(self) -> dict[str, int] | None:
        """Event time minus receive time: the least, the median (in whole ms) and the most."""
        if self.event is None:
            return None
        left = sum(self._differences.values()) // 2
        middle = 0
        for middle in sorted(self._differences):
            left -= self._differences[middle]
            if left < 0:
                break
        return {"least": self._least, "median": middle * _MS, "most": self._most}


def _wider(span: tuple[int, int] | None, times: npt.NDArray[np.int64]) -> tuple[int, int]:
    low, high = int(times.min()), int(times.max())
    return (low, high) if span is None else (min(low, span[0]), max(high, span[1]))


def _starts(batch: Any) -> npt.NDArray[np.bool_]:
    """Where another message begins (messages of several events count once for each run of rows)."""
    seq = as_numpy(batch["seq"])
    starts: npt.NDArray[np.bool_] = np.concatenate([[True], seq[1:] != seq[:-1]])
    return starts


def _first_rows(batch: Any) -> npt.NDArray[np.int64]:
    """Event time, receive time and number of each message of a batch, and whether it is a snapshot."""
    starts = _starts(batch)
    columns = [as_numpy(batch[name])[starts].astype(np.int64) for name in ("ts_event", "ts_recv", "seq")]
    snapshot = np.zeros(len(columns[0]), np.int64)
    if "is_snapshot" in batch.schema.names:
        snapshot[:] = batch["is_snapshot"].to_numpy(zero_copy_only=False)[starts]
    return np.stack([*columns, snapshot])


def _range(span: tuple[int, int] | None) -> dict[str, Any] | None:
    if span is None:
        return None
    start, end = span
    epoch = datetime(1970, 1, 1, tzinfo=UTC)
    iso = [(epoch + timedelta(microseconds=ns // 1_000)).isoformat() for ns in (start, end)]
    return {"start": iso[0], "end": iso[1], "start_ns": start, "end_ns": end, "seconds": (end - start) / 1e9}
