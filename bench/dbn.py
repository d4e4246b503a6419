"""Orders: a Databento DBN file of order records (MBO), packed with zstd, to Arrow columns."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from .dbn_recordings import RECORD, orders
from .harness import Case, Contender

__all__ = ["case"]

_RULES = (
    "Wall time of a file in the page cache, packed by zstd, to Arrow columns of all fields with symbols, nulls and "
    "the number of each record: reading, unpacking, finding records and damage, and every batch given to a Python "
    "loop. `one thread` does all of that in the caller's thread; `all cores` has threads of its own for it. `zstd "
    "alone` unpacks the same file with the same library, streaming, in one thread into a buffer that is used again, "
    "and does nothing with it: the target for one thread is to take at most 1.15 times as long, 0.87x of its rate. "
    "`np.frombuffer` unpacks and copies each field to a column, without symbols, nulls and checks. databento-dbn "
    "makes a Python object a record and gets a shorter file of the same kind. The records come from simulated order "
    "books (`bench/dbn_recordings.py`); "
)
_PIECE = 1 << 20


def case(scratch: Path, *, quick: bool) -> Case:
    long, short = (400_000, 50_000) if quick else (8_000_000, 400_000)
    plain, file = orders(scratch, long, "long")
    _, part = orders(scratch, short, "short")
    packs = f"zstd makes {plain.stat().st_size / file.stat().st_size:.2f} times less of them."
    contenders = [
        Contender("penstock, one thread", lambda: penstock_orders(file, long, threads=1), ours=True),
        Contender("penstock, all cores", lambda: penstock_orders(file, long, threads=None), ours=True),
        Contender("penstock, one thread, not packed", lambda: penstock_orders(plain, long, threads=1), ours=True),
        Contender("zstd alone", lambda: unpacked(file, long), needs=("zstandard",)),
        Contender("np.frombuffer", lambda: from_buffer(file, long), needs=("zstandard",)),
        Contender(
            "databento-dbn",
            lambda: objects(part, short),
            needs=("databento_dbn", "zstandard"),
            install="pip install databento-dbn",
        ),
    ]
    return Case("dbn", "DBN order records (zstd) to Arrow", "record", _RULES + packs, contenders)


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
    return _whole(total // RECORD.itemsize, records)


def from_buffer(file: Path, records: int) -> int:
    """The records where they lie, and a copy of each column."""
    import zstandard

    with file.open("rb") as stream:
        reader: Any = zstandard.ZstdDecompressor().stream_reader(stream)
        start = 8 + int.from_bytes(reader.read(8)[4:], "little")
        reader.read(start - 8)
        rows, whole = 0, _PIECE // RECORD.itemsize * RECORD.itemsize
        for data in iter(partial(reader.read, whole), b""):
            found = np.frombuffer(data, RECORD)
            for name in RECORD.names or ():
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
