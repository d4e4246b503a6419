"""An independent reader of raw Binance recordings (json and Decimal, one line at a time), and a maker of such lines."""

from __future__ import annotations

import json
from collections.abc import Iterable
from decimal import Decimal
from functools import cache
from math import copysign
from pathlib import Path
from typing import Any

import pyarrow as pa
from penstock.pipeline.context import BadRecord, Context
from penstock.sources.market.crypto import CryptoRaw

UNIT = Decimal(10) ** 9


def reference(lines: Iterable[str], table: str, symbol: str = "BTCUSDT") -> list[tuple[Any, ...]]:
    """The rows of a table, as the schema says, from well-formed lines."""
    rows: list[tuple[Any, ...]] = []
    for seq, line in enumerate(lines):
        recv, message = _parsed(line)
        kind = message.get("e", "snapshot" if "lastUpdateId" in message else "bookTicker")
        event = message.get("T", message.get("E"))
        head = (recv if event is None else event * 1_000_000, recv, seq, message.get("s", symbol))
        if table == "bbo" and kind == "bookTicker":
            rows.append(
                (*head, px(message["b"]), float(message["B"]), px(message["a"]), float(message["A"]), message["u"])
            )
        elif table == "trade" and kind == "trade":
            rows.append((*head, px(message["p"]), float(message["q"]), -1 if message["m"] else 1, message["t"]))
        elif table == "agg_trade" and kind == "aggTrade":
            rows.append((*head, px(message["p"]), float(message["q"]), -1 if message["m"] else 1, message["a"]))
        elif table == "l2" and kind in ("depthUpdate", "snapshot"):
            whole = kind == "snapshot"
            ids = (message["lastUpdateId"],) * 2 if whole else (message["U"], message["u"])
            sides = [(1, *level) for level in message["bids" if whole else "b"]]
            sides += [(-1, *level) for level in message["asks" if whole else "a"]]
            for place, (side, price, size) in enumerate(sides):
                numbers = (*ids, message.get("pu", 0), whole, place == len(sides) - 1)
                rows.append((*head, side, px(price), float(size), *numbers))
    return rows


@cache
def _parsed(line: str) -> tuple[int, Any]:
    stamp, text = line.split(" ", 1)
    message = json.loads(text)
    return int(stamp), message.get("data", message)


@cache
def px(text: str) -> int:
    scaled = Decimal(text) * UNIT
    assert scaled == int(scaled)
    return int(scaled)


def rows_of(batches: Iterable[pa.RecordBatch]) -> list[tuple[Any, ...]]:
    """Batches as tuples, times as ns."""
    rows: list[tuple[Any, ...]] = []
    for batch in batches:
        columns = [
            batch[name].cast(pa.int64()).to_pylist() if name.startswith("ts_") else batch[name].to_pylist()
            for name in batch.schema.names
        ]
        rows += zip(*columns, strict=True)
    return rows


class Read:
    """A recording read to its end: rows, bad records, drops and blocks, with every line accounted for."""

    def __init__(self, spec: CryptoRaw, position: Any = None, *, tuples: bool = True) -> None:
        reader = spec.open(Context("crypto"), None, position)
        self.batches: list[pa.RecordBatch] = []
        self.bad: list[BadRecord] = []
        self.dropped: dict[str, int] = {}
        self.after: list[Any] = []
        self.rows_after: list[int] = []
        self.records = 0
        first: int | None = None
        for block in reader.blocks():
            first = block.first_seq if first is None else first
            assert block.first_seq == first + self.records
            decoded = reader.decode(block)
            self.records += block.records
            self.batches += decoded.batches
            self.bad += decoded.bad
            for reason, count in decoded.dropped.items():
                self.dropped[reason] = self.dropped.get(reason, 0) + count
            self.after.append(json.loads(json.dumps(block.after)))
            self.rows_after.append(sum(batch.num_rows for batch in self.batches))
        reader.close()
        for batch in self.batches:
            assert batch.schema.equals(spec.schema, check_metadata=True)
            batch.validate()
        self.rows = rows_of(self.batches) if tuples else []
        numbers = [number for batch in self.batches for number in batch["seq"].to_pylist()]
        assert numbers == sorted(numbers)
        undecoded = [record for record in self.bad if record.operation in ("crypto.decode", "crypto.frame")]
        assert len(set(numbers)) + len(undecoded) + sum(self.dropped.values()) == self.records
        assert not {record.seq for record in undecoded} & set(numbers)

    @property
    def gaps(self) -> list[BadRecord]:
        return [record for record in self.bad if record.operation == "crypto.book"]


def read(path: Path, data: bytes | None = None, **options: Any) -> Read:
    if data is not None:
        path.write_bytes(data)
    return Read(CryptoRaw(path, **options))


def change(first: int, last: int, prev: int | None = None, symbol: str = "BTCUSDT", **more: Any) -> dict[str, Any]:
    """A depthUpdate."""
    message = {"e": "depthUpdate", "E": 1723161256299, "T": 1723161256298, "s": symbol, "U": first, "u": last}
    if prev is not None:
        message["pu"] = prev
    return {**message, "b": [["61800.20", "0.5"]], "a": [["61800.30", "1.25"], ["61801.00", "0"]], **more}


def best(number: int, symbol: str = "BTCUSDT") -> dict[str, Any]:
    return {"u": number, "s": symbol, "b": "61800.20", "B": "2.5", "a": "61800.30", "A": "0.75"}


def snapshot(number: int) -> dict[str, Any]:
    return {"lastUpdateId": number, "bids": [["61800.20", "0.5"]], "asks": [["61800.30", "1.25"]]}


def lines(*messages: Any, start: int = 1723161255030314667) -> bytes:
    """Recorder lines, one ms apart."""
    texts = [m if isinstance(m, str) else json.dumps(m, separators=(",", ":")) for m in messages]
    return b"".join(f"{start + at * 1_000_000} {text}\n".encode() for at, text in enumerate(texts))


def same_floats(one: list[tuple[Any, ...]], other: list[tuple[Any, ...]]) -> bool:
    """Equal to the bit, so that 0.0 is not -0.0."""
    return one == other and all(map(_signs_agree, one, other))


def _signs_agree(one: tuple[Any, ...], other: tuple[Any, ...]) -> bool:
    return all(a or copysign(1, a) == copysign(1, b) for a, b in zip(one, other, strict=True) if type(a) is float)
