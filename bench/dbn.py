"""Orders: a Databento DBN file of order records (MBO), packed with zstd, to Arrow columns."""

from __future__ import annotations

import struct
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from .harness import Case, Contender

__all__ = ["case"]

_RULES = (
    "Order records of a zstd file in the page cache, to Arrow columns with symbols, nulls and the number of each record. "
    "`zstd alone` unpacks the same file into a buffer that is used again and does nothing with it: the target is to take at "
    "most 1.15 times as long. `np.frombuffer` unpacks and looks at the records where they are, column by column. "
    "databento-dbn makes a Python object a record and gets a shorter file with the same records."
)
_PIECE = 1 << 20
_START = 1_609_160_400_000_000_000
_RECORD = np.dtype(
    {
        "names": [
            *("length", "rtype", "publisher_id", "instrument_id", "ts_event", "order_id", "price", "size", "flags"),
            *("channel_id", "action", "side", "ts_recv", "ts_in_delta", "sequence"),
        ],
        "formats": [
            *("u1", "u1", "<u2", "<u4", "<u8", "<u8", "<i8", "<u4", "u1", "u1", "S1", "S1", "<u8", "<i4", "<u4"),
        ],
    }
)


def case(scratch: Path, *, quick: bool) -> Case:
    long, short = (400_000, 50_000) if quick else (8_000_000, 400_000)
    plain, file = orders(scratch, long, "long")
    _, part = orders(scratch, short, "short")
    contenders = [
        Contender("penstock, inline", lambda: penstock_orders(file, long, threads=1), ours=True),
        Contender("penstock, all cores", lambda: penstock_orders(file, long, threads=None), ours=True),
        Contender("penstock, not packed", lambda: penstock_orders(plain, long, threads=1), ours=True),
        Contender("zstd alone", lambda: unpacked(file, long), needs=("zstandard",)),
        Contender("np.frombuffer", lambda: from_buffer(file, long), needs=("zstandard",)),
        Contender(
            "databento-dbn",
            lambda: objects(part, short),
            needs=("databento_dbn", "zstandard"),
            install="pip install databento-dbn",
        ),
    ]
    return Case("dbn", "DBN order records (zstd) to Arrow", "record", _RULES, contenders)


def orders(scratch: Path, count: int, name: str) -> tuple[Path, Path]:
    """A generated file, plain and packed.

    What matters for zstd is as in a real one: an order is added and later cancelled, modified or filled under the same id,
    side and, mostly, price; prices lie near a quote that walks; bursts share a time and a sequence; six instruments.
    """
    import zstandard

    rng = np.random.Generator(np.random.Philox(7))
    instruments = np.array([5482, 5602, 118, 206, 23, 7889], np.uint32)
    records = np.zeros(count, _RECORD)
    records["length"], records["rtype"], records["publisher_id"], records["flags"] = 14, 0xA0, 1, 128
    # a record either adds an order or comes back to one that was added a while ago
    back = np.arange(count) - np.minimum(rng.geometric(1 / 400, count), np.arange(count))
    source = np.where(rng.random(count) < 0.5, np.arange(count), back)
    source = source[source]
    added = source == np.arange(count)
    which = rng.choice(6, count, p=[0.5, 0.2, 0.1, 0.1, 0.05, 0.05])
    walk = 14_891 + np.cumsum(rng.choice([-1, 0, 0, 0, 0, 0, 0, 1], count))
    offset = np.minimum(rng.geometric(0.25, count), 40)
    side = rng.integers(0, 2, count)
    records["instrument_id"] = instruments[which][source]
    records["order_id"] = (647_784_000_000 + np.cumsum(rng.integers(1, 6, count)))[source]
    records["price"] = 250_000_000 * (walk + np.where(side == 1, -offset, offset))[source]
    records["size"] = rng.choice([1, 1, 1, 1, 2, 3, 5, 10], count)[source]
    records["side"] = np.array([b"A", b"B"])[side][source]
    later = rng.choice(np.array([b"C", b"M", b"F", b"T"]), count, p=[0.86, 0.1, 0.02, 0.02])
    records["action"] = np.where(added, b"A", later)
    burst = np.cumsum(rng.random(count) < 0.5)
    records["ts_event"] = (_START + np.cumsum(rng.exponential(60_000, count).astype(np.int64) + 200))[burst]
    records["ts_recv"] = records["ts_event"] + (80_000 + rng.integers(0, 40_000, count)).astype(np.uint64)[burst]
    records["ts_in_delta"], records["sequence"] = rng.integers(12_000, 20_000, count)[burst], 1_170_352 + burst
    cleared = rng.random(count) < 1e-5
    records["action"][cleared], records["price"][cleared] = b"R", (1 << 63) - 1
    plain, packed = scratch / f"{name}.dbn", scratch / f"{name}.dbn.zst"
    data = header({f"SYM{i}": int(i) for i in instruments}) + records.tobytes()
    plain.write_bytes(data)
    packed.write_bytes(zstandard.ZstdCompressor(level=3).compress(data))
    return plain, packed


def header(instruments: dict[str, int]) -> bytes:
    """Metadata of version 3 that maps symbols to instruments for a month."""

    def text(value: str) -> bytes:
        return value.encode().ljust(71, b"\0")

    body = struct.pack("<16sHQQQBBBH53xI", b"GLBX.MDP3", 0, _START, (1 << 64) - 1, 0, 1, 0, 0, 71, 0)
    body += struct.pack("<I", len(instruments)) + b"".join(map(text, instruments)) + struct.pack("<II", 0, 0)
    body += struct.pack("<I", len(instruments))
    for symbol, number in instruments.items():
        body += text(symbol) + struct.pack("<III", 1, 20_201_228, 20_210_128) + text(str(number))
    return b"DBN\x03" + struct.pack("<I", len(body)) + body


def penstock_orders(file: Path, records: int, *, threads: int | None) -> int:
    """The whole file through the source, batch by batch."""
    from penstock.pipeline import read
    from penstock.sources.market.dbn import Dbn

    rows = 0
    options: dict[str, Any] = {"runner": "inline"} if threads == 1 else {"runner": "local", "parallelism": threads}
    for batch in read(Dbn(file)).iterate(**options):
        rows += batch.num_rows
    return _whole(rows, records)


def unpacked(file: Path, records: int) -> int:
    """zstd and nothing else."""
    import zstandard

    buffer, total = memoryview(bytearray(_PIECE)), 0
    with file.open("rb") as stream:
        reader: Any = zstandard.ZstdDecompressor().stream_reader(stream, read_size=1 << 18)
        while count := reader.readinto(buffer):
            total += count
    return _whole(total // _RECORD.itemsize, records)


def from_buffer(file: Path, records: int) -> int:
    """The records where they lie, and a copy of each column."""
    import zstandard

    with file.open("rb") as stream:
        reader: Any = zstandard.ZstdDecompressor().stream_reader(stream)
        start = 8 + int.from_bytes(reader.read(8)[4:], "little")
        reader.read(start - 8)
        rows, whole = 0, _PIECE // _RECORD.itemsize * _RECORD.itemsize
        for data in iter(partial(reader.read, whole), b""):
            found = np.frombuffer(data, _RECORD)
            for name in _RECORD.names or ():
                np.ascontiguousarray(found[name])
            rows += len(found)
    return _whole(rows, records)


def objects(file: Path, records: int) -> int:
    """databento-dbn's objects, their fields collected into columns."""
    import databento_dbn
    import zstandard

    names = ("ts_event", "ts_recv", "instrument_id", "order_id", "price", "size", "flags", "sequence")
    decoder: Any = databento_dbn.DBNDecoder()
    rows = 0
    with file.open("rb") as stream:
        reader: Any = zstandard.ZstdDecompressor().stream_reader(stream)
        for data in iter(partial(reader.read, _PIECE), b""):
            decoder.write(data)
            found = [record for record in decoder.decode() if hasattr(record, "order_id")]
            for name in names:
                np.array([getattr(record, name) for record in found], np.int64)
            rows += len(found)
    return _whole(rows, records)


def _whole(rows: int, records: int) -> int:
    if not records <= rows <= records + 64:  # the header counts as a few records where only bytes are counted
        raise ValueError(f"{rows} rows from {records} records: part of the file was skipped")
    return records
