"""A generated Databento file of order records, from simulated books.

How well a file packs decides what zstd takes for it, so it holds what a real one does. Orders come, are moved, filled and
cancelled in the books of six futures of very different activity: an order keeps its id, side and price over its life, most
lives are short and near the touch, and a trade is a record of its own before the fills of those that it met and their
cancels. Records of one packet share times and a sequence, and the last one of an event is flagged. Packets come in bursts,
a few microseconds apart, with quiet in between; the way to the capture server takes about 270 µs with noise of a few (as in
the public fragments of databento/dbn). The file is packed as Databento's are: level 3, with a checksum, without its length.
"""

from __future__ import annotations

import struct
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

__all__ = ["RECORD", "header", "orders"]

_START = 1_609_160_400_000_000_000
_INSTRUMENTS = np.array([5482, 5602, 118, 206, 23, 7889], np.uint32)
_LIVE = 4096
#: What may follow one another in an event: an add, a cancel, a move, or a trade with its fill and what the fill ends.
_STEPS = np.frombuffer(b"ACMTFC", np.uint8)
RECORD = np.dtype(
    {
        "names": [
            *("length", "rtype", "publisher_id", "instrument_id", "ts_event", "order_id", "price", "size", "flags"),
            *("channel_id", "action", "side", "ts_recv", "ts_in_delta", "sequence"),
        ],
        "formats": [
            *("u1", "u1", "<u2", "<u4", "<u8", "<u8", "<i8", "<u4", "u1", "u1", "u1", "u1", "<u8", "<i4", "<u4"),
        ],
    }
)


def orders(scratch: Path, count: int, name: str) -> tuple[Path, Path]:
    """The file, plain and packed."""
    import zstandard

    records = np.zeros(count, RECORD)
    _compiled()(records, _INSTRUMENTS, _STEPS, _LIVE, _START, 7)
    plain, packed = scratch / f"{name}.dbn", scratch / f"{name}.dbn.zst"
    plain.write_bytes(header({f"SYM{i}": int(i) for i in _INSTRUMENTS}) + records.tobytes())
    packer = zstandard.ZstdCompressor(level=3, write_checksum=True, write_content_size=False)
    with plain.open("rb") as source, packed.open("wb") as target:
        packer.copy_stream(source, target)
    return plain, packed


@cache
def _compiled() -> Any:
    from numba import njit

    return njit(_simulate)


def _simulate(records: Any, instruments: Any, letters: Any, room: int, start: int, seed: int) -> None:
    """Fill `records`. Compiled, so that it takes seconds."""
    np.random.seed(seed)
    books = len(instruments)
    ids, prices = np.zeros((books, room), np.uint64), np.zeros((books, room), np.int64)
    sizes, sides = np.zeros((books, room), np.uint32), np.zeros((books, room), np.int64)
    live, middle = np.zeros(books, np.int64), 14_891 + 500 * np.arange(books)
    now, delay, sequence, last_id, at = start, 270_000, 1_170_352, 647_784_000_000, 0
    while at < len(records):
        now += int(np.random.exponential(4_000.0 if np.random.random() < 0.75 else 400_000.0)) + 200
        delay = max(200_000, delay + int(np.random.normal(0.0, 300.0)))
        received, spent = now + delay + np.random.randint(0, 6_000), 12_000 + np.random.randint(0, 12_000)
        sequence += 1
        # the busiest book has half of all events
        book = min(books - 1, np.random.geometric(0.5) - 1)
        middle[book] += np.random.randint(-1, 2) if np.random.random() < 0.05 else 0
        for _ in range(np.random.geometric(0.6)):
            draw, count = np.random.random(), live[book]
            if count < 16 or (draw < 0.47 and count < room):
                side = np.random.randint(0, 2)
                distance = min(np.random.geometric(0.2), 40)
                last_id += np.random.randint(1, 6)
                ids[book, count], sides[book, count] = last_id, side
                prices[book, count] = 250_000_000 * (middle[book] + (-distance if side else distance))
                sizes[book, count] = 1 if np.random.random() < 0.6 else np.random.geometric(0.2)
                live[book] += 1
                which, step, end = count, 0, 1
            else:
                near = np.random.random() < 0.7
                which = count - 1 - (np.random.randint(0, 16) if near else np.random.randint(0, count))
                step, end = (1, 2) if draw < 0.88 else (2, 3) if draw < 0.97 else (3, 6)
                if step == 2:
                    prices[book, which] += 250_000_000 * np.random.randint(-1, 2)
                    sizes[book, which] = max(1, sizes[book, which] + np.random.randint(-2, 3))
            for letter in letters[step:end]:
                if at == len(records):
                    return
                record = records[at]
                record["length"], record["rtype"], record["publisher_id"], record["action"] = 14, 0xA0, 1, letter
                record["instrument_id"], record["ts_event"], record["ts_recv"] = instruments[book], now, received
                record["order_id"] = 0 if letter == 84 else ids[book, which]
                record["price"], record["size"] = prices[book, which], sizes[book, which]
                record["side"] = ord("B") if (sides[book, which] == 1) != (letter == 84) else ord("A")
                record["ts_in_delta"], record["sequence"] = spent, sequence
                at += 1
            records[at - 1]["flags"] = 128
            if letters[end - 1] == 67:
                final = live[book] - 1
                ids[book, which], prices[book, which] = ids[book, final], prices[book, final]
                sizes[book, which], sides[book, which] = sizes[book, final], sides[book, final]
                live[book] = final


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
