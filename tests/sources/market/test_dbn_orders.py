"""DBN orders, which are decoded eight at a time where they are alike, against a plain reading of each record."""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zstandard
from dbn_reference import DAY, UNDEF_PRICE, UNDEF_TIME, metadata, orders, read, system
from penstock.sources.market import _dbn_orders, _dbn_reader
from penstock.sources.market.dbn import Dbn

NS_A_DAY = 86_400 * 10**9
MIDNIGHT = DAY // NS_A_DAY * NS_A_DAY
DATES = [dt.date(2020, 12, 28) + dt.timedelta(days) for days in range(4)]
MAPPED = {
    "A": [(DATES[0], DATES[3], "7")],
    "B": [(DATES[0], DATES[1], "8"), (DATES[2], DATES[3], "8")],
    "C": [(DATES[1], DATES[2], "8")],
    "D": [(DATES[1], DATES[2], "1024")],
}


def name_at(instrument: int, time: int) -> str:
    day = dt.date(1970, 1, 1) + dt.timedelta(time // NS_A_DAY)
    for name, intervals in MAPPED.items():
        for begin, end, number in intervals:
            if int(number) == instrument and begin <= day < end:
                return name
    return f"?{instrument}"


def naive(records: np.ndarray[Any, Any], seqs: list[int]) -> tuple[list[dict[str, Any]], list[int]]:
    """Rows, and the numbers of records that cannot be."""
    rows, odd = [], []
    for record, seq in zip(records, seqs, strict=True):
        event, recv = int(record["ts_event"]), int(record["ts_recv"])
        event, recv = (recv if event == UNDEF_TIME else event), (event if recv == UNDEF_TIME else recv)
        side = {b"A": -1, b"B": 1, b"N": 0, b"": 0}.get(bytes(record["side"]))
        if event >= 1 << 63 or recv >= 1 << 63 or side is None:
            odd.append(seq)
            continue
        price, same = int(record["price"]), ("order_id", "size", "flags", "instrument_id", "publisher_id", "channel_id")
        rows.append(
            {
                "ts_event": event,
                "ts_recv": recv,
                "seq": seq,
                "side": side,
                "msg_type": ord(record["action"]),
                **{name: int(record[name]) for name in (*same, "ts_in_delta", "sequence")},
                "price": None if price == UNDEF_PRICE else price,
                "locate": 0,
                "new_order_id": 0,
                "match_id": 0,
                "symbol": name_at(int(record["instrument_id"]), recv),
            }
        )
    return rows, odd


def mixed(count: int, rate: float, seed: int) -> np.ndarray[Any, Any]:
    """Random orders of three days; about `rate` of them are not like the others in one way or another."""
    rng = np.random.Generator(np.random.Philox(seed))
    records = orders(count)
    days = np.sort(rng.integers(0, 3, count))
    records["ts_recv"] = MIDNIGHT + days * NS_A_DAY + np.arange(count)
    records["ts_event"] = records["ts_recv"] - rng.integers(0, 10**9, count).astype(np.uint64)
    records["instrument_id"] = rng.choice(np.array([7, 8, 1024, 99], np.uint32), count)
    for name in ("order_id", "size", "flags", "channel_id", "publisher_id", "ts_in_delta", "sequence"):
        kind = records.dtype[name]
        records[name] = np.frombuffer(rng.bytes(count * kind.itemsize), kind)
    records["side"] = rng.choice(np.array([b"A", b"B", b"N", b"\0"]), count)
    changes = (
        *(("side", b"x"), ("ts_event", UNDEF_TIME), ("ts_recv", UNDEF_TIME), ("ts_event", (1 << 63) + 5)),
        *(("price", UNDEF_PRICE), ("price", -(1 << 63)), ("ts_recv", MIDNIGHT - 1), ("instrument_id", 7 + 1024)),
    )
    for name, value in changes:
        records[name][rng.random(count) < rate / len(changes)] = value
    return records


@pytest.mark.parametrize("rate", [0.0, 0.01, 0.5])
@pytest.mark.parametrize("packed", [False, True])
def test_every_column_is_that_of_a_plain_reading(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rate: float, packed: bool
) -> None:
    monkeypatch.setattr(_dbn_reader, "READ", 1 << 16)
    monkeypatch.setattr(_dbn_orders, "READ", 1 << 16)
    monkeypatch.setattr(_dbn_orders, "ROWS", 1 << 10)
    path = tmp_path / "orders.dbn"
    # records of other types move the ones behind them away from multiples of eight
    parts = [mixed(count, rate, seed) for seed, count in enumerate((3, 8, 61, 900, 1200))]
    between = system("Heartbeat")
    data = metadata(mapped=MAPPED) + between.join(part.tobytes() for part in parts)
    path.write_bytes(zstandard.ZstdCompressor().compress(data) if packed else data)
    gaps = [index for index, part in enumerate(parts) for _ in part]
    want, odd = naive(np.concatenate(parts), [number + gap for number, gap in enumerate(gaps)])
    rows, bad, dropped = read(Dbn(path))
    assert [{name: row[name] for name in sorted(row)} for row in rows] == [
        {name: row[name] for name in sorted(row)} for row in want
    ]
    assert [record.seq for record in bad] == odd
    assert dropped == {"not in mbo: system": len(parts) - 1}


def test_a_last_record_that_is_cut_is_not_one_of_eight(tmp_path: Path) -> None:
    path = tmp_path / "cut.dbn"
    records = orders(16)
    for cut in (1, 8, 40, 55):
        path.write_bytes(metadata() + records.tobytes()[:-cut])
        rows, bad, _ = read(Dbn(path))
        assert [row["order_id"] for row in rows] == records["order_id"][:15].tolist()
        assert [(record.seq, len(record.data)) for record in bad] == [(15, 56 - cut)]
