"""Damaged, cut and lying DBN files: a bad record costs one record, with its place, and every byte is accounted for."""

from __future__ import annotations

import itertools
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zstandard
from dbn_reference import DAY, mapping, metadata, orders, plain, read, system
from hypothesis import given, settings
from hypothesis import strategies as st
from penstock.pipeline.context import BadRecord, Context
from penstock.pipeline.errors import FormatError
from penstock.sources.market import _dbn_orders, _dbn_reader
from penstock.sources.market._dbn_decode import Decoder
from penstock.sources.market._dbn_file import open_records
from penstock.sources.market._dbn_metadata import parse_metadata
from penstock.sources.market._dbn_reader import DbnReader
from penstock.sources.market._dbn_symbols import _disjoint
from penstock.sources.market.dbn import Dbn, inspect_dbn

HEADER = metadata()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "hostile.dbn"


def framed(path: Path, **options: Any) -> DbnReader:
    """The reader of all other schemas, which frames orders first and then takes them column by column."""
    spec = Dbn(path, schema="mbo", **options)
    opened, name = spec._known()
    decoder = Decoder(name, opened.metadata, path.name)
    context = Context("dbn")
    return DbnReader(
        open_records(str(path), opened),
        path=str(path),
        metadata=opened.metadata,
        decoder=decoder,
        context=context,
        position={},
        end=None,
    )


def bytes_of(path: Path) -> tuple[int, int, int]:
    """Content bytes in rows, in quarantine and in records of other types, found by reading `path`."""
    reader = framed(path)
    sound = bad = end = 0
    for block in reader.blocks():
        piece = block.payload
        if piece.note is None:
            offsets = piece.offsets[: piece.count]
            starts = offsets[offsets != 0xFFFFFFFF].astype(np.int64)
            assert (np.diff(starts) >= 16).all()
            sound += int((piece.data[starts].astype(np.int64) * 4).sum())
            bad += int(piece.bad[:, 2].sum())
        end = int(block.after["offset"])
    reader.close()
    return sound, bad, end


def column_by_column(path: Path) -> tuple[list[dict[str, Any]], list[BadRecord], dict[str, int]]:
    """What `read` gives, read the other way."""
    reader = framed(path)
    decoded = [reader.decode(block) for block in reader.blocks()]
    reader.close()
    dropped: Counter[str] = Counter()
    for part in decoded:
        dropped.update(part.dropped)
    rows = [row for part in decoded for batch in part.batches for row in plain(batch)]
    return rows, [record for part in decoded for record in part.bad], dict(dropped)


def accounted(path: Path, data: bytes) -> None:
    """Read `data` whole; whatever is in it, all bytes behind the header are in records or in quarantine."""
    path.write_bytes(data)
    try:
        rows, bad, dropped = read(Dbn(path, schema="mbo"))
    except FormatError as error:
        assert str(path) in str(error)
        return
    assert (rows, bad, dropped) == column_by_column(path)
    assert sorted({row["seq"] for row in rows}) == [row["seq"] for row in rows]
    assert all(record.place.startswith(str(path)) and record.error for record in bad)
    start = 8 + int.from_bytes(data[4:8], "little")
    if len(data) > start:
        sound, wrong, end = bytes_of(path)
        assert end == len(data)
        assert sound + wrong == len(data) - start
    found = inspect_dbn(path)
    assert found["messages"] >= len(rows)


@pytest.mark.parametrize("cut", [1, 2, 15, 16, 55])
def test_a_file_cut_inside_its_last_record_loses_that_record_only(path: Path, cut: int) -> None:
    data = HEADER + orders(5).tobytes()
    path.write_bytes(data[: len(HEADER) + 4 * 56 + cut])
    rows, bad, _ = read(Dbn(path))
    assert [row["seq"] for row in rows] == [0, 1, 2, 3]
    assert [(record.seq, len(record.data)) for record in bad] == [(4, cut)]
    assert bad[0].place == f"{path}, offset {len(HEADER) + 4 * 56}"
    assert "ends inside a record" in bad[0].error


@pytest.mark.parametrize("claimed", [0, 1, 3, 4, 13, 15, 28, 255])
def test_a_wrong_length_costs_one_record(path: Path, claimed: int) -> None:
    data = bytearray(HEADER + orders(9).tobytes())
    data[len(HEADER) + 4 * 56] = claimed
    path.write_bytes(data)
    rows, bad, _ = read(Dbn(path))
    order_ids = orders(9)["order_id"].tolist()
    found = [row["order_id"] for row in rows]
    assert found[:4] == order_ids[:4]
    assert found[-3:] == order_ids[-3:]
    assert bad
    assert bad[0].place == f"{path}, offset {len(HEADER) + 4 * 56}"
    accounted(path, bytes(data))


def test_bytes_between_records_are_one_bad_record(path: Path) -> None:
    records = orders(8)
    noise = bytes(range(200, 255))
    path.write_bytes(HEADER + records[:4].tobytes() + noise + records[4:].tobytes())
    rows, bad, _ = read(Dbn(path))
    assert [row["order_id"] for row in rows] == records["order_id"].tolist()
    assert [(record.seq, record.data, record.operation) for record in bad] == [(4, noise, "dbn.frame")]
    assert [row["seq"] for row in rows] == [0, 1, 2, 3, 5, 6, 7, 8]


def test_records_of_types_from_the_future_are_stepped_over_and_counted(path: Path) -> None:
    records = orders(4)
    later = bytes([10, 0x77]) + bytes(38)
    path.write_bytes(HEADER + records[:2].tobytes() + later + records[2:].tobytes() + later)
    rows, bad, dropped = read(Dbn(path))
    assert (len(rows), bad, dropped) == (4, [], {"not in mbo: rtype 0x77": 2})


def test_a_side_that_is_none_and_a_time_that_is_none_are_bad_records(path: Path) -> None:
    records = orders(4)
    records["side"][1] = b"x"
    records["ts_event"][2] = 2**63 + 5
    path.write_bytes(HEADER + records.tobytes())
    rows, bad, _ = read(Dbn(path))
    assert [row["seq"] for row in rows] == [0, 3]
    assert [(record.seq, record.data) for record in bad] == [(1, records[1].tobytes()), (2, records[2].tobytes())]
    assert "the side is 'x'" in bad[0].error
    assert "event time" in bad[1].error
    spec = Dbn(path)
    again = [spec.retry(record) for record in bad]
    assert all(found is not None and len(found.bad) == 1 and not found.batches for found in again)


def test_a_damaged_packed_stream_gives_what_came_before_it(path: Path) -> None:
    data = HEADER + orders(40_000).tobytes()
    packed = zstandard.ZstdCompressor(level=1).compress(data)
    path.write_bytes(packed[: len(packed) // 2])
    rows, bad, _ = read(Dbn(path))
    assert 0 < len(rows) < 40_000
    assert "ends early" in bad[-1].error


def test_symbol_mappings_without_end_do_not_grow_a_block(path: Path) -> None:
    path.write_bytes(metadata(None, mapped={}) + mapping(5, "A") * 20_000 + orders(2, instrument=5).tobytes())
    rows, _, dropped = read(Dbn(path, schema="mbo"))
    assert [row["symbol"] for row in rows] == ["A", "A"]
    assert dropped == {"not in mbo: symbol-mapping": 20_000}


@settings(max_examples=200)
@given(st.data())
def test_no_header_makes_the_parser_read_past_its_end(data: st.DataObject) -> None:
    body = bytearray(HEADER[8:])
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(body) - 1))
        body[at] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(body)))
    version = data.draw(st.integers(1, 3))
    try:
        found = parse_metadata(bytes(body[:cut]) if data.draw(st.booleans()) else bytes(body), version, "x.dbn")
    except FormatError as error:
        assert "x.dbn" in str(error)
    else:
        assert all(0 <= instrument < 2**32 and begin < end for instrument, (begin, end, _) in found.intervals)


@settings(max_examples=200)
@given(st.lists(st.tuples(st.integers(0, 30), st.integers(0, 30), st.sampled_from("abc")), max_size=8))
def test_where_intervals_overlap_the_later_one_counts(intervals: list[tuple[int, int, str]]) -> None:
    sound = [interval for interval in intervals if interval[0] < interval[1]]
    naive = {time: name for begin, end, name in sound for time in range(begin, end)}
    found = _disjoint(sound) if sound else []
    assert {time: name for begin, end, name in found for time in range(begin, end)} == naive
    assert all(left[1] <= right[0] for left, right in itertools.pairwise(found))


def mutated(data: bytes, rng: np.random.Generator) -> bytes:
    """`data` with bits flipped, bytes cut out, pieces spliced or lengths that lie."""
    out = bytearray(data)
    for _ in range(rng.integers(1, 5)):
        at, other = (int(i) for i in rng.integers(0, len(out), 2))
        what = rng.integers(0, 6)
        if what == 0:
            out[at] ^= 1 << int(rng.integers(0, 8))
        elif what == 1:
            del out[at : at + int(rng.integers(1, 300))]
        elif what == 2:
            out[at:at] = out[other : other + int(rng.integers(1, 200))]
        elif what == 3:
            out[at] = int(rng.choice([0, 1, 14, 255]))
        elif what == 4:
            out[at : at + 4] = int(rng.integers(0, 2**32)).to_bytes(4, "little")
        else:
            del out[at:]
        if len(out) < 30:
            return bytes(out) + bytes(30)
    return bytes(out)


def fuzz(path: Path, cases: int, seed: int) -> None:
    rng = np.random.Generator(np.random.Philox(seed))
    sound = HEADER + mapping(5, "A") + orders(20).tobytes() + system("x") + mapping(6, "B") + orders(20).tobytes()
    longer = metadata(None, mapped={}) + orders(1500).tobytes()
    for case in range(cases):
        accounted(path, mutated(longer if case % 20 == 0 else sound, rng))


def test_whatever_is_done_to_a_file_its_bytes_are_accounted_for(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_dbn_reader, "READ", 1 << 17)
    monkeypatch.setattr(_dbn_orders, "READ", 1 << 17)
    monkeypatch.setattr(_dbn_orders, "ROWS", 1 << 10)
    fuzz(path, 300, 1)


@pytest.mark.nightly
def test_whatever_is_done_to_a_file_its_bytes_are_accounted_for_10_000_times(path: Path) -> None:
    fuzz(path, 10_000, 2)


@pytest.mark.parametrize("schema", ["mbo", "trades", "mbp-10", "definition", "statistics", "system", "symbol-mapping"])
def test_random_records_of_every_kind_do_no_harm(path: Path, schema: str) -> None:
    rng = np.random.Generator(np.random.Philox(3))
    for size in (1, 17, 4096, 100_000):
        path.write_bytes(rng.bytes(size))
        for version in (1, 3):
            rows, bad, dropped = read(Dbn(path, schema=schema, version=version))
            assert len(rows) + len(bad) + sum(dropped.values()) > 0


def test_the_verdict_on_damage_does_not_depend_on_where_buffers_end(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.Generator(np.random.Philox(4))
    data = bytearray(HEADER + orders(12_000, start=DAY).tobytes())
    for at in rng.integers(len(HEADER), len(data), 12).tolist():
        data[at : at + 200] = rng.bytes(200)
    path.write_bytes(data)
    found = []
    for size in ((1 << 16) + 3000, 1 << 17, 3 << 19):
        monkeypatch.setattr(_dbn_reader, "READ", size)
        monkeypatch.setattr(_dbn_orders, "READ", size)
        monkeypatch.setattr(_dbn_orders, "ROWS", 1 << 10)
        rows, bad, _ = read(Dbn(path))
        found.append((rows, [(record.seq, record.place, record.data) for record in bad]))
    assert found[0] == found[1] == found[2]
    assert len(found[0][1]) > 10
