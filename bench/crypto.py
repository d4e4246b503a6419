"""Crypto: a raw recording of Binance USD-M messages to Arrow columns, on one core."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from .harness import Case, Contender
from .recordings import real

__all__ = ["case"]

_REAL = "market/binance_ws_raw/usdm_btcusdt_20240808.gz"
_RULES = (
    "A recorder file (receive time, blank, JSON), unpacked and in the page cache, of best prices, trades and changes of the "
    "book, to Arrow columns with one row per best price, trade or level: times, symbol, prices, sizes, side and numbers; "
    "prices become int64 in units of 1e-9. One thread each. The rate counts all messages of the file. 'Three tables' "
    "makes all of them: Penstock reads the file once for each, the others decode it once. 'Levels alone' makes the levels "
    "of the book only, and the others skip, unparsed, what they can tell by a search for the event's name."
)
_Decode = Callable[[bytes], Any]


def case(scratch: Path, *, quick: bool) -> Case:
    file, messages = recording(scratch, 1 if quick else 8)
    contenders = [
        Contender("penstock, three tables", lambda: penstock(file, messages, ("bbo", "trade", "l2")), ours=True),
        Contender("penstock, levels alone", lambda: penstock(file, messages, ("l2",)), ours=True),
        Contender("msgspec structs, three tables", lambda: with_structs(file, messages, b""), needs=("msgspec",)),
        Contender(
            "msgspec structs, levels alone", lambda: with_structs(file, messages, b'depthUpdate"'), needs=("msgspec",)
        ),
        Contender("orjson, three tables", lambda: with_orjson(file, messages, b""), needs=("orjson",)),
        Contender("orjson, levels alone", lambda: with_orjson(file, messages, b'depthUpdate"'), needs=("orjson",)),
    ]
    return Case("crypto", "Raw Binance recording to Arrow", "message", _RULES, contenders)


def recording(scratch: Path, times: int) -> tuple[Path, int]:
    """The real recording, or a generated one, `times` over, unpacked: the file and its messages."""
    found = real(_REAL)
    text = gzip.decompress(found.read_bytes()) if found is not None else _generated()
    file = scratch / "recording"
    with file.open("wb") as stream:
        for _ in range(times):
            stream.write(text)
    return file, text.count(b"\n") * times


def _generated(messages: int = 90_000) -> bytes:
    lines, last = [], 10**12
    for at in range(messages):
        head = {"E": 1723161256299 + at, "T": 1723161256298 + at, "s": "BTCUSDT"}
        price = f"{61800 + at % 100}.{at % 10}0"
        data: dict[str, Any]
        if at % 14 == 0:
            sides = {side: [[f"{61000 + i}.50", f"{at % 9}.{i:03}"] for i in range(34)] for side in "ba"}
            data = {"e": "depthUpdate", **head, "U": last + 1, "u": last + 9, "pu": last, **sides}
            last += 9
        elif at % 4 == 0:
            data = {"e": "trade", **head, "t": at, "p": price, "q": "0.006", "X": "MARKET", "m": at % 8 == 0}
        else:
            data = {
                "e": "bookTicker",
                "u": at,
                "s": "BTCUSDT",
                "b": price,
                "B": "2.507",
                "a": price,
                "A": "2.510",
                **head,
            }
        message = json.dumps({"stream": f"btcusdt@{data['e']}", "data": data}, separators=(",", ":"))
        lines.append(f"{1723161255030314667 + at * 1_000_000} {message}\n")
    return "".join(lines).encode()


def penstock(file: Path, messages: int, tables: tuple[str, ...]) -> int:
    """The file through the source, once for each table."""
    from penstock.pipeline.context import Context
    from penstock.sources.market.crypto import CryptoRaw

    for table in tables:
        reader = CryptoRaw(file, table=table).open(Context("bench"))
        rows = read = 0
        for block in reader.blocks():
            decoded = reader.decode(block)
            rows += sum(batch.num_rows for batch in decoded.batches)
            read += block.records
        reader.close()
        if read != messages or rows < messages // 20:
            raise ValueError(f"{rows} rows of {table} from {read} of {messages} messages: part of the file was skipped")
    return messages


class _Tables:
    """Columns as lists, made Arrow every so many messages."""

    def __init__(self) -> None:
        self.rows = {"bbo": 0, "trade": 0, "l2": 0}
        self._clear()

    def _clear(self) -> None:
        self.bbo: list[tuple[Any, ...]] = []
        self.trade: list[tuple[Any, ...]] = []
        self.l2: list[tuple[Any, ...]] = []
        self.prices: list[str] = []
        self.sizes: list[str] = []

    def flush(self) -> None:
        """Turn what was gathered into tables."""
        for name, kinds in (("bbo", "ttspqpqi"), ("trade", "ttspqbi"), ("l2", "ttsbiiin")):
            rows = getattr(self, name)
            if not rows:
                continue
            columns = [_column(kind, list(values)) for kind, values in zip(kinds, zip(*rows, strict=True), strict=True)]
            if name == "l2":
                counts = columns.pop().to_numpy()
                places = np.repeat(np.arange(len(counts)), counts)
                columns = [column.take(pa.array(places)) for column in columns]
                columns += [_column("p", self.prices), _column("q", self.sizes)]
            table = pa.table({str(place): column for place, column in enumerate(columns)})
            self.rows[name] += table.num_rows
        self._clear()

    def whole(self, messages: int, wanted: bytes) -> int:
        """`messages`, if there are rows enough."""
        self.flush()
        if self.rows["l2"] < messages // 20 or (not wanted and min(self.rows.values()) < messages // 20):
            raise ValueError(f"{self.rows} from {messages} messages: part of the file was skipped")
        return messages


def _column(kind: str, values: list[Any]) -> pa.Array:
    if kind == "s":
        return pa.array(values).dictionary_encode()
    if kind == "p":  # from text by way of float64, which costs less than an exact decimal
        return pa.array(np.rint(pa.array(values).cast(pa.float64()).to_numpy() * 1e9).astype(np.int64))
    if kind == "q":
        return pa.array(values).cast(pa.float64())
    return pa.array(values, {"t": pa.int64(), "b": pa.int8(), "i": pa.uint64(), "n": pa.int64()}[kind])


def _each(file: Path, wanted: bytes, take: Callable[[_Tables, int, bytes], None]) -> _Tables:
    """Every line of the file with `wanted` in it: its receive time and its JSON."""
    tables = _Tables()
    with file.open("rb") as stream:
        for number, line in enumerate(stream):
            if wanted in line[:100]:
                take(tables, int(line[:19]), line[20:])
            if number % 50_000 == 49_999:
                tables.flush()
    return tables


def with_structs(file: Path, messages: int, wanted: bytes) -> int:
    """msgspec, each kind of message a typed struct."""
    import msgspec

    def struct(tag: str, **fields: Any) -> Any:
        return msgspec.defstruct(tag, list(fields.items()), tag_field="e", tag=tag, gc=False)

    levels = list[tuple[str, str]]
    best = struct("bookTicker", u=int, s=str, b=str, B=str, a=str, A=str, T=int)
    trade = struct("trade", s=str, t=int, p=str, q=str, m=bool, T=int)
    change = struct("depthUpdate", s=str, U=int, u=int, pu=int, b=levels, a=levels, T=int)
    envelope: Any = msgspec.defstruct("Envelope", [("data", best | trade | change)], gc=False)
    decode = msgspec.json.Decoder(envelope).decode

    def take(tables: _Tables, recv: int, text: bytes) -> None:
        if text.startswith(b'{"last'):
            return
        data = decode(text).data
        kind = type(data)
        if kind is best:
            tables.bbo.append((data.T * 1_000_000, recv, data.s, data.b, data.B, data.a, data.A, data.u))
        elif kind is trade:
            side = -1 if data.m else 1
            tables.trade.append((data.T * 1_000_000, recv, data.s, data.p, data.q, side, data.t))
        else:
            for side, found in ((1, data.b), (-1, data.a)):
                tables.l2.append((data.T * 1_000_000, recv, data.s, side, data.U, data.u, data.pu, len(found)))
                tables.prices += [level[0] for level in found]
                tables.sizes += [level[1] for level in found]

    return _each(file, wanted, take).whole(messages, wanted)


def with_orjson(file: Path, messages: int, wanted: bytes) -> int:
    """orjson, each message a dict."""
    import orjson

    decode: _Decode = orjson.loads

    def take(tables: _Tables, recv: int, text: bytes) -> None:
        data = decode(text).get("data")
        if data is None:
            return
        kind, time = data["e"], data["T"] * 1_000_000
        if kind == "bookTicker":
            row = (time, recv, data["s"], data["b"], data["B"], data["a"], data["A"], data["u"])
            tables.bbo.append(row)
        elif kind == "trade":
            tables.trade.append((time, recv, data["s"], data["p"], data["q"], -1 if data["m"] else 1, data["t"]))
        else:
            for side, found in ((1, data["b"]), (-1, data["a"])):
                tables.l2.append((time, recv, data["s"], side, data["U"], data["u"], data["pu"], len(found)))
                tables.prices += [level[0] for level in found]
                tables.sizes += [level[1] for level in found]

    return _each(file, wanted, take).whole(messages, wanted)
