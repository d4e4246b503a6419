"""Damaged ITCH files read as side tables: nothing crashes, and every message and byte is accounted for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from itch_reference import directory, lengths, message, pack
from penstock.demos.market_recording import write_market
from penstock.pipeline.context import BadRecord, Context
from penstock.pipeline.errors import FormatError
from penstock.pipeline.memory import BufferPool
from penstock.sources.market import _itch_reader
from penstock.sources.market._itch_messages import ItchMessages
from penstock.sources.market._itch_tables import TABLES
from penstock.sources.market.itch import Itch, inspect_itch

HOUR = 3600 * 10**9
ABC = b"ABC     "
POOL = BufferPool()
EXAMPLES = [
    directory(1, "ABC"),
    directory(2, "XYZ"),
    message("S", 0, 1, b"O"),
    message("H", 1, 2, ABC, b"T", b" ", b"    "),
    message("Y", 1, 2, ABC, b"1"),
    message("L", 1, HOUR, b"MPID", ABC, b"Y", b"N", b"A"),
    message("V", 0, HOUR, 2 * 10**11, 3 * 10**11, 4 * 10**11),
    message("K", 1, HOUR, ABC, 34_200, b"A", 12_345),
    message("J", 1, HOUR, ABC, 10_000, 11_000, 9_000, 3),
    message("O", 1, HOUR, ABC, b"Y", 1, 2, 3, 9 * HOUR, 4, 5),
    message("I", 1, HOUR, 2, 1, b"P", ABC, 1, 2, 3, b"A", b"L"),
    *(message("A", 1, HOUR + i, i, b"BS"[i % 2 :][:1], 100, ABC, 10_000 + i) for i in range(4)),
    message("F", 2, HOUR, 9, b"S", 300, b"XYZ     ", 10_100, b"PSTK"),
    message("E", 1, HOUR, 1, 50, 77),
    message("E", 2, HOUR, 9, 50, 77),
    message("C", 1, HOUR, 1, 50, 78, b"Y", 10_050),
    message("X", 1, HOUR, 2, 10),
    message("D", 1, HOUR, 2),
    message("U", 1, HOUR, 0, 256, 65_535, 10_000),
    message("P", 1, HOUR, 0, b"B", 5, ABC, 10_000, 79),
    message("Q", 1, HOUR, 5_000, ABC, 10_000, 80, b"O"),
    message("B", 1, HOUR, 79),
]


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """A file with bytes changed, cut out, put in or moved, a length that lies, or a number as large as it can be."""
    data = bytearray(pack(draw(st.lists(st.sampled_from(EXAMPLES), min_size=3, max_size=25)), draw(st.booleans())))
    for _ in range(draw(st.integers(1, 6))):
        at = draw(st.integers(0, len(data) - 1))
        how = draw(st.sampled_from(["change", "cut", "insert", "splice", "lie", "most", "end"]))
        if how == "change":
            data[at] = draw(st.integers(0, 255))
        elif how == "cut":
            del data[at : at + draw(st.integers(1, 40))]
        elif how == "insert":
            data[at:at] = draw(st.binary(max_size=40))
        elif how == "splice":
            data[at:at] = data[draw(st.integers(0, len(data) - 1)) :][: draw(st.integers(1, 60))]
        elif how == "lie":
            data[at : at + 2] = draw(st.sampled_from([0, 1, 2, 11, 12, 36, 50, 300, 65535])).to_bytes(2, "big")
        elif how == "most":
            size = draw(st.integers(1, 8))
            data[at : at + size] = b"\xff" * size
        else:
            del data[at + 1 :]
        if not data:
            data = bytearray(b"\x00")
    return bytes(data)


def read(path: Path, table: str) -> tuple[list[dict[str, Any]], list[BadRecord], dict[str, int], int]:
    spec = Itch(path, date="2019-01-30", table=table)
    reader = spec.open(Context("itch", pool=POOL))
    rows: list[dict[str, Any]] = []
    bad: list[BadRecord] = []
    dropped: dict[str, int] = {}
    records = 0
    for block in reader.blocks():
        assert block.first_seq == records
        records += block.records
        decoded = reader.decode(block)
        for batch in decoded.batches:
            batch.validate(full=True)
            kinds, seqs = batch.column("msg_type").to_pylist(), batch.column("seq").to_pylist()
            rows += [{"kind": kind, "seq": seq} for kind, seq in zip(kinds, seqs, strict=True)]
        bad += decoded.bad
        for reason, count in decoded.dropped.items():
            dropped[reason] = dropped.get(reason, 0) + count
    reader.close()
    numbers = [row["seq"] for row in rows] + [record.seq for record in bad if record.seq is not None]
    assert len(set(numbers)) == len(numbers)
    assert len(numbers) + sum(dropped.values()) == records
    assert [record.seq for record in bad] == sorted(record.seq or 0 for record in bad)
    return rows, bad, dropped, records


def check_accounts(path: Path, data: bytes, table: str) -> None:
    path.write_bytes(data)
    try:
        rows, bad, dropped, records = read(path, table)
    except FormatError as error:
        assert "hostile.itch" in str(error)
        return
    assert inspect_itch(path)["messages"] == records
    spec = Itch(path, date="2019-01-30", table=table)
    for record in bad[:2]:
        again = spec.retry(record)
        if record.operation.startswith("itch.decode") and again is not None:
            assert [wrong.error for wrong in again.bad] == [record.error]
    known = {f"not in market.{table}: {kind}": length + 2 for kind, length in lengths.items()}
    if set(dropped) <= set(known):
        spent = sum(lengths[chr(row["kind"])] + 2 for row in rows)
        spent += sum(known[reason] * count for reason, count in dropped.items())
        spent += sum(len(record.data) + 2 * (record.operation != "itch.frame") for record in bad)
        left = len(data) - spent
        assert left >= 0  # what is left are ends of session
        assert left % 2 == 0
        assert left <= data.count(0)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "hostile.itch"


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=damaged(), table=st.sampled_from(["status", "noii", "trades"]))
def test_damage_is_never_a_crash_and_every_byte_is_accounted_for(path: Path, data: bytes, table: str) -> None:
    check_accounts(path, data, table)


@pytest.mark.nightly
@settings(max_examples=10_000, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=damaged(), table=st.sampled_from(["status", "noii", "trades"]))
def test_much_damage(path: Path, data: bytes, table: str) -> None:
    check_accounts(path, data, table)


@st.composite
def packets(draw: st.DrawFn) -> tuple[bytes, list[int], list[int]]:
    """Bytes, and messages in them that a packet claims to hold: anywhere, of any size, also overlapping."""
    data = draw(damaged())
    places = st.integers(0, len(data)).flatmap(lambda at: st.tuples(st.just(at), st.integers(0, len(data) - at)))
    found = draw(st.lists(places, min_size=1, max_size=12))
    return data, [at for at, _ in found], [size for _, size in found]


@settings(max_examples=300, deadline=None)
@given(claimed=packets(), table=st.sampled_from(list(TABLES)))
def test_any_messages_of_packets_are_rows_bad_or_counted(
    claimed: tuple[bytes, list[int], list[int]], table: str
) -> None:
    check_packets(claimed, table)


@pytest.mark.nightly
@settings(max_examples=10_000, deadline=None)
@given(claimed=packets(), table=st.sampled_from(list(TABLES)))
def test_many_messages_of_packets(claimed: tuple[bytes, list[int], list[int]], table: str) -> None:
    check_packets(claimed, table)


def check_packets(claimed: tuple[bytes, list[int], list[int]], table: str) -> None:
    raw, starts, sizes = claimed
    data = np.frombuffer(raw + bytes(64), np.uint8)
    messages = ItchMessages(table, source="feed", midnight=0, pool=POOL)
    parts = messages.take(
        data, np.array(starts, np.uint32), np.array(sizes, np.int64), len(starts), first_seq=5, place=str
    )
    count = 0
    for part in parts:
        decoded = messages.decode(part)
        for batch in decoded.batches:
            batch.validate(full=True)
            count += batch.num_rows
        count += len(decoded.bad) + sum(decoded.dropped.values())
    assert count == len(starts)


@pytest.mark.parametrize("table", ["status", "noii", "trades"])
def test_what_damage_costs_does_not_depend_on_blocks(path: Path, table: str, monkeypatch: pytest.MonkeyPatch) -> None:
    write_market(path, messages=20_000, symbols=3)
    data = bytearray(path.read_bytes())
    for offset in range(5_000, len(data) - 200, 997):
        data[offset : offset + 3] = b"\x13\x37\xff"
    path.write_bytes(data)
    expected = read(path, table)
    assert len(expected[1]) > 20
    monkeypatch.setattr(_itch_reader, "READ", (1 << 17) + 100)
    monkeypatch.setattr(_itch_reader, "MESSAGES", 333)
    assert read(path, table) == expected


def test_damage_before_a_position_does_not_change_trades_behind_it(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_market(path, messages=20_000, symbols=3)
    data = bytearray(path.read_bytes())
    for offset in range(5_000, len(data) - 200, 9_973):
        data[offset : offset + 30] = b"\x00\x24A" * 10
    path.write_bytes(data)
    monkeypatch.setattr(_itch_reader, "READ", (1 << 17) + 100)
    monkeypatch.setattr(_itch_reader, "MESSAGES", 1000)
    spec = Itch(path, date="2019-01-30", table="trades")
    reader = spec.open(Context("itch", pool=POOL))
    blocks = [(block.after, reader.decode(block)) for block in reader.blocks()]
    reader.close()
    assert sum(len(decoded.bad) for _, decoded in blocks) > 20
    for index in range(0, len(blocks) - 1, 4):
        again = spec.open(Context("itch", pool=POOL), None, blocks[index][0])
        rest = [again.decode(block) for block in again.blocks()]
        again.close()
        expected = [decoded for _, decoded in blocks[index + 1 :]]
        assert [r for d in rest for b in d.batches for r in b.to_pylist()] == [
            r for d in expected for b in d.batches for r in b.to_pylist()
        ]
        assert [r for d in rest for r in d.bad] == [r for d in expected for r in d.bad]
