"""Messages without length prefixes, as packets carry them: the same rows as from a file, each with its time of receipt."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from itch_reference import any_message, directory, message, pack
from penstock.pipeline.context import Context
from penstock.pipeline.memory import BufferPool
from penstock.sources.market._itch_messages import ItchMessages
from penstock.sources.market._itch_tables import TABLES
from penstock.sources.market.itch import Itch

MIDNIGHT = 1548824400 * 10**9  # 2019-01-30 00:00 in New York, UTC-5
HOUR = 3600 * 10**9
POOL = BufferPool()


def buffer(parts: Sequence[bytes]) -> tuple[Any, Any, Any, int]:
    """`parts` as packets hold them: with other bytes between, and 64 zeros behind."""
    data = b"".join(b"\xff\xee" + part for part in parts) + bytes(64)
    sizes = np.array([len(part) for part in parts], np.uint16)
    starts = np.cumsum(sizes.astype(np.int64) + 2) - sizes
    return np.frombuffer(data, np.uint8).copy(), starts.astype(np.uint32), sizes, len(parts)


def decoder(table: str, **options: Any) -> ItchMessages:
    return ItchMessages(table, source="feed", midnight=MIDNIGHT, pool=POOL, **options)


def take(
    messages: ItchMessages, parts: Sequence[bytes], first_seq: int, received: Any = None
) -> tuple[list[pa.RecordBatch], list[Any], dict[str, int]]:
    batches: list[pa.RecordBatch] = []
    bad: list[Any] = []
    dropped: dict[str, int] = {}
    expected = first_seq
    for part in messages.take(*buffer(parts), first_seq=first_seq, ts_recv=received, place=lambda i: f"packet {i}"):
        assert part.first_seq == expected
        expected += part.count
        decoded = messages.decode(part)
        batches += decoded.batches
        bad += decoded.bad
        for reason, count in decoded.dropped.items():
            dropped[reason] = dropped.get(reason, 0) + count
    assert expected == first_seq + len(parts)
    assert sum(batch.num_rows for batch in batches) + len(bad) + sum(dropped.values()) == len(parts)
    return batches, bad, dropped


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(parts=st.lists(any_message("SRHYLIAFECXDUPQB"), min_size=1, max_size=25), cut=st.integers(0, 25))
def test_packets_give_the_rows_of_the_file(tmp_path: Path, parts: list[bytes], cut: int) -> None:
    path = tmp_path / "20190130.itch"
    path.write_bytes(pack(parts))
    for table in TABLES:
        reader = Itch(path, table=table).open(Context("itch", pool=POOL))
        decoded = [reader.decode(block) for block in reader.blocks()]
        reader.close()
        messages = decoder(table)
        first = take(messages, parts[:cut], 0)
        second = take(messages, parts[cut:], min(cut, len(parts)))
        rows = [row for batch in first[0] + second[0] for row in batch.to_pylist()]
        assert rows == [row for part in decoded for batch in part.batches for row in batch.to_pylist()]
        assert [(record.seq, record.data) for record in first[1] + second[1]] == [
            (record.seq, record.data) for part in decoded for record in part.bad
        ]


@pytest.mark.parametrize("table", TABLES)
def test_each_row_has_the_time_its_message_was_received(table: str) -> None:
    parts = [
        message("S", 0, HOUR, b"O"),
        message("A", 1, HOUR, 7, b"B", 10, b"ABC     ", 1),
        message("I", 1, HOUR, 2, 3, b"B", b"ABC     ", 1, 2, 3, b"O", b"L"),
        message("E", 1, HOUR, 7, 5, 1),
        directory(1, "ABC"),
        message("E", 1, HOUR, 7, 5, 2),
    ]
    received = MIDNIGHT + np.arange(len(parts)) * 1000
    batches, bad, _ = take(decoder(table), parts, 40, received)
    assert bad == []
    rows = [row for batch in batches for row in batch.to_pylist()]
    assert {row["seq"] for row in rows} == {
        "l3": {41, 43, 45},
        "status": {40, 44},
        "noii": {42},
        "trades": {43, 45},
    }[table]
    for batch in batches:
        assert batch.schema.equals(decoder(table).schema, check_metadata=True)
        times = batch.column("ts_recv").cast(pa.int64()).to_pylist()
        assert times == [MIDNIGHT + (seq - 40) * 1000 for seq in batch.column("seq").to_pylist()]


@pytest.mark.parametrize("table", TABLES)
def test_messages_of_a_wrong_length_and_second_names_are_bad_records(table: str) -> None:
    sound = message("D", 1, HOUR, 1)
    parts = [sound, sound[:-1], b"", sound + b"!", directory(1, "ABC"), directory(1, "XYZ"), b"z", sound]
    _, bad, dropped = take(decoder(table), parts, 10)
    assert [record.seq for record in bad] == [11, 12, 13, 15]
    assert [record.data for record in bad] == [parts[i] for i in (1, 2, 3, 5)]
    assert {record.operation for record in bad} == {"itch.message"}
    assert dropped[f"not in market.{table}: z"] == 1
    assert "has 18 bytes, but type 'D' has 19" in bad[0].error
    assert "second name" in bad[3].error


def test_places_count_on_where_a_name_divides_the_messages() -> None:
    parts = [message("D", 5, HOUR, 1), b"", directory(5, "ABC"), message("A", 5, HOUR, 1, b"?", 1, b"ABC     ", 1), b""]
    _, bad, _ = take(decoder("l3"), parts, 0)
    assert [record.place for record in bad] == ["packet 1", "packet 3", "packet 4"]


def test_a_name_holds_for_later_buffers() -> None:
    messages = decoder("l3")
    take(messages, [directory(5, "ABC")], 0)
    (batch,), _, _ = take(messages, [message("D", 5, HOUR, 1)], 1)
    assert batch.column("symbol").to_pylist() == ["ABC"]


def test_more_bad_messages_than_a_part_keeps_come_in_the_next() -> None:
    sound = message("D", 1, HOUR, 1)
    batches, bad, _ = take(decoder("l3"), [sound, *[b""] * 3000, sound], 0)
    assert [record.seq for record in bad] == list(range(1, 3001))
    assert sum(batch.num_rows for batch in batches) == 2


@pytest.mark.parametrize("size", [0, 63])
def test_messages_need_zeros_behind_them(size: int) -> None:
    data, starts, sizes, count = buffer([message("D", 1, HOUR, 1)])
    with pytest.raises(ValueError, match="must be zero"):
        list(decoder("l3").take(data[: len(data) - 64 + size], starts, sizes, count, first_seq=0, place=str))
