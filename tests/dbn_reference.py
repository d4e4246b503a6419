"""DBN records and headers made by databento-dbn, what it decodes them to, and our rows in the same terms."""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import zstandard
from penstock.pipeline.context import BadRecord, Context
from penstock.sources.market.dbn import Dbn

oracle = pytest.importorskip("databento_dbn")

UNDEF_PRICE, UNDEF_TIME = 2**63 - 1, 2**64 - 1
SIDES = {b"B": 1, b"A": -1, b"N": 0, b"": 0}
#: Our columns that are called otherwise.
NAMES = {
    "msg_type": "action",
    "update_id": "sequence",
    **{f"{s}_{w}": f"{s}_{w}_00" for s in ("bid", "ask") for w in ("px", "sz", "ct", "pb")},
}
TIMES = {"expiration", "activation", "auction_time", "ts_ref", "start_ts", "end_ts", "ts_out"}
NEVER_NULL = {"ts_event", "ts_recv"}
DAY = 1_609_160_400_000_000_000


def read(
    spec: Dbn, position: Any = None, split: Any = None
) -> tuple[list[dict[str, Any]], list[BadRecord], dict[str, int]]:
    """Rows, bad records and drops; checks schema, numbering and that every record is accounted for."""
    reader = spec.open(Context("dbn"), split, position)
    rows: list[dict[str, Any]] = []
    bad: list[BadRecord] = []
    dropped: dict[str, int] = {}
    records, first = 0, None
    for block in reader.blocks():
        first = block.first_seq if first is None else first
        assert block.first_seq == first + records
        records += block.records
        decoded = reader.decode(block)
        for batch in decoded.batches:
            batch.validate(full=True)
            assert batch.schema.equals(spec.schema, check_metadata=True)
            rows += plain(batch)
        bad += decoded.bad
        for reason, count in decoded.dropped.items():
            dropped[reason] = dropped.get(reason, 0) + count
    reader.close()
    assert len(rows) + sum(b.seq is not None for b in bad) + sum(dropped.values()) == records
    return rows, bad, dropped


def plain(batch: pa.RecordBatch) -> list[dict[str, Any]]:
    """Rows with times as int64."""
    columns = {}
    for name, column in zip(batch.schema.names, batch.columns, strict=True):
        columns[name] = (column.cast(pa.int64()) if pa.types.is_timestamp(column.type) else column).to_pylist()
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def decoded_by_oracle(data: bytes, *, version: int | None = None) -> list[Any]:
    """Records upgraded to the newest version."""
    options = {} if version is None else {"has_metadata": False, "input_version": version}
    decoder = oracle.DBNDecoder(**options)
    decoder.write(data)
    return [record for record in decoder.decode() if not isinstance(record, oracle.Metadata)]


def expected(record: Any, columns: list[str], seq: int) -> dict[str, Any]:
    """A row from the oracle's own layout of its upgraded record."""
    layout = np.dtype(type(record)._dtypes)
    fields = np.frombuffer(bytes(record)[: layout.itemsize], layout)[0]
    prices = set(type(record)._price_fields) | {"quantity"}
    row: dict[str, Any] = {"seq": seq}
    event = int(fields["ts_event"])
    recv = int(fields["ts_recv"]) if "ts_recv" in layout.names else event
    row["ts_event"] = recv if event == UNDEF_TIME else event
    row["ts_recv"] = event if recv == UNDEF_TIME else recv
    for name in columns:
        source = NAMES.get(name, name)
        if name in row or name == "symbol":
            continue
        if name == "levels":
            keys = [f"{side}_{what}" for what in ("px", "sz", "ct") for side in ("bid", "ask")]
            row[name] = [{k: no_price(int(fields[f"{k}_{i:02}"]), "px" in k) for k in keys} for i in range(10)]
        elif source not in layout.names:
            row[name] = 0
        elif name in TIMES:
            row[name] = None if int(fields[source]) == UNDEF_TIME else int(fields[source])
        elif name == "side":
            row[name] = SIDES[bytes(fields[source])]
        elif layout[source].kind == "S":
            text = bytes(fields[source])
            row[name] = (text[0] if text else 0) if layout[source].itemsize == 1 else text.decode()
        else:
            row[name] = no_price(int(fields[source]), source in prices)
    return row


def no_price(value: int, is_price: bool) -> int | None:
    return None if is_price and value == UNDEF_PRICE else value


def unpacked(path: Path) -> bytes:
    data = path.read_bytes()
    if path.suffix == ".dbz":
        data = data[8 + int.from_bytes(data[4:8], "little") :]
    elif path.suffix != ".zst":
        return data
    with zstandard.ZstdDecompressor().stream_reader(data, read_across_frames=True) as reader:
        return bytes(reader.read())


def metadata(
    schema: str | None = "mbo", *, mapped: dict[str, list[tuple[dt.date, dt.date, str]]] | None = None
) -> bytes:
    """A header made by the oracle."""
    mapped = {"ESH1": [(dt.date(2020, 12, 28), dt.date(2021, 1, 28), "5482")]} if mapped is None else mapped
    mappings = [
        SimpleNamespace(
            raw_symbol=name,
            intervals=[SimpleNamespace(start_date=a, end_date=b, symbol=symbol) for a, b, symbol in intervals],
        )
        for name, intervals in mapped.items()
    ]
    header = oracle.Metadata(
        "GLBX.MDP3",
        DAY,
        oracle.SType.RAW_SYMBOL,
        oracle.SType.INSTRUMENT_ID,
        None if schema is None else oracle.Schema.from_str(schema),
        symbols=list(mapped),
        mappings=mappings,
    )
    return bytes(header.encode())


def orders(count: int, *, instrument: int = 5482, start: int = DAY, price: int | None = None) -> np.ndarray[Any, Any]:
    """Order records in the oracle's layout."""
    rng = np.random.Generator(np.random.Philox(count))
    records = np.zeros(count, np.dtype(oracle.MBOMsg._dtypes))
    records["length"], records["rtype"], records["publisher_id"], records["instrument_id"] = 14, 160, 1, instrument
    records["ts_event"] = start + np.arange(count) * 1000
    records["ts_recv"] = records["ts_event"] + 500
    records["order_id"] = rng.integers(0, 2**63, count)
    records["price"] = rng.integers(-(2**40), 2**40, count) if price is None else price
    records["size"] = rng.integers(0, 2**32, count)
    records["action"] = rng.choice(np.array([b"A", b"C", b"M", b"R", b"T", b"F"]), count)
    records["side"] = rng.choice(np.array([b"A", b"B", b"N"]), count)
    records["sequence"] = np.arange(count)
    return records


def mapping(instrument: int, symbol: str) -> bytes:
    return bytes(
        oracle.SymbolMappingMsg(
            1, instrument, DAY, oracle.SType.RAW_SYMBOL, symbol, oracle.SType.RAW_SYMBOL, symbol, UNDEF_TIME, UNDEF_TIME
        )
    )[:176]


def system(text: str) -> bytes:
    return bytes(oracle.SystemMsg(DAY, text))[:320]
