"""DBN files against databento-dbn: every value of every record, symbols, positions, splits, live captures, arguments."""

from __future__ import annotations

import datetime as dt
import json
import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import zstandard
from dbn_reference import (
    DAY,
    UNDEF_PRICE,
    UNDEF_TIME,
    decoded_by_oracle,
    expected,
    mapping,
    metadata,
    orders,
    read,
    system,
    unpacked,
)
from penstock.pipeline.context import Context
from penstock.pipeline.errors import FormatError, GraphError
from penstock.pipeline.schema import check_event_schema
from penstock.sources.market import _dbn_orders, _dbn_reader
from penstock.sources.market.dbn import Dbn, inspect_dbn, is_dbn, open_dbn

FRAGMENT_VERSIONS = {
    "multi-frame.definition.v1.dbn.frag.zst": 1,
    "test_data.definition.dbn.frag.zst": 2,
    "test_data.definition.v1.dbn.frag": 1,
    "test_data.definition.v1.dbn.frag.zst": 1,
    "test_data.definition.v2.dbn.frag": 2,
    "test_data.definition.v3.dbn.frag": 3,
    "test_data.definition.v3.dbn.frag.zst": 3,
}


def test_every_value_of_every_conformance_file_is_that_of_databento_dbn(recordings: Callable[[str], Path]) -> None:
    folder = recordings("market/dbn_conformance")
    seen = 0
    for path in sorted(folder.iterdir()):
        if path.name == "SOURCE.txt" or path.suffix == ".dbz":
            continue
        version = FRAGMENT_VERSIONS.get(path.name)
        spec = Dbn(path) if version is None else Dbn(path, schema="definition", version=version)
        assert check_event_schema(spec.schema) is None
        rows, bad, dropped = read(spec)
        assert (bad, dropped) == ([], {}), path.name
        records = decoded_by_oracle(unpacked(path), version=version)
        want = [expected(record, spec.schema.names, seq) for seq, record in enumerate(records)]
        symbols = [row.pop("symbol") for row in rows]
        assert rows == want, path.name
        names = {"ESH1", "MSFT", "SPOT"}
        assert all(name in names or name.startswith("?") for name in symbols)
        if version is None:
            assert inspect_dbn(path)["messages"] == len(records)
        seen += 1
    assert seen == 71


def test_legacy_dbz_files_hold_what_the_oracle_finds_in_their_records(recordings: Callable[[str], Path]) -> None:
    paths = sorted(recordings("market/dbn_conformance").glob("*.dbz"))
    assert len(paths) == 10
    for path in paths:
        assert is_dbn(path.read_bytes()[:64])
        spec = Dbn(path)
        rows, bad, dropped = read(spec)
        assert (bad, dropped) == ([], {}), path.name
        names = [row.pop("symbol") for row in rows]
        assert set(names) <= {"ESH1", "MSFT"}
        records = decoded_by_oracle(unpacked(path), version=1)
        assert rows == [expected(record, spec.schema.names, seq) for seq, record in enumerate(records)], path.name
        assert inspect_dbn(path)["format"] == "Databento DBZ"


def test_headers_are_recognised_and_fragments_ask_for_what_they_need(recordings: Callable[[str], Path]) -> None:
    folder = recordings("market/dbn_conformance")
    for path in sorted(folder.iterdir()):
        if path.name != "SOURCE.txt" and path.suffix != ".dbz":
            assert is_dbn(unpacked(path)[:65536]) == (path.name not in FRAGMENT_VERSIONS), path.name
    with pytest.raises(FormatError, match=r"no DBN header.*schema=\.\.\., version=\.\.\."):
        open_dbn(folder / "test_data.definition.v1.dbn.frag")


@pytest.mark.parametrize(
    "head", [b"", b"DBN", b"DBN\x03" + bytes(60), b"PAR1" + bytes(60), b"\x89MCAP0\r\n" + bytes(60)]
)
def test_other_content_is_not_claimed(head: bytes) -> None:
    assert not is_dbn(head)


def test_wrong_arguments_say_what_to_give(tmp_path: Path) -> None:
    with pytest.raises(GraphError, match="mbo"):
        Dbn("x.dbn", schema="l3")
    with pytest.raises(GraphError, match="1 to 3"):
        Dbn("x.dbn", schema="mbo", version=4)
    with pytest.raises(GraphError, match="schema="):
        Dbn("x.dbn", version=1)
    path = tmp_path / "capture.dbn"
    path.write_bytes(metadata(None) + orders(3).tobytes())
    with pytest.raises(FormatError, match="schema='mbo'"):
        _ = Dbn(path).schema
    path.write_bytes(b"")
    with pytest.raises(FormatError, match="is empty"):
        open_dbn(path)
    path.write_bytes(b"DBN\x09" + metadata()[4:])
    with pytest.raises(FormatError, match="version 9; versions 1 to 3"):
        open_dbn(path)


def test_a_spec_pickles_and_compares() -> None:
    spec = Dbn("x.dbn", schema="mbo")
    assert pickle.loads(pickle.dumps(spec)) == spec
    assert spec != Dbn("x.dbn", schema="trades")
    assert spec.name == "x.dbn:mbo"


def test_symbols_follow_the_days_of_the_header(tmp_path: Path) -> None:
    first, second, third = dt.date(2020, 12, 28), dt.date(2020, 12, 29), dt.date(2020, 12, 31)
    mapped = {
        "OLD": [(first, second, "7")],
        "NEW": [(second, third, "7")],
        "OTHER": [(first, third, "8")],
        "OVER": [(second, third, "8")],
        "NONE": [(first, third, "")],
    }
    day = 86_400 * 10**9
    midnight = DAY // day * day
    times = [midnight - 501, midnight - 500, midnight + day - 501, midnight + day - 500, midnight + 3 * day - 500]
    records = np.concatenate([orders(1, instrument=i, start=time) for time in times for i in (7, 8, 9)])
    path = tmp_path / "days.dbn"
    path.write_bytes(metadata(mapped=mapped) + records.tobytes())
    rows, _, _ = read(Dbn(path))
    found = [row["symbol"] for row in rows]
    assert found[0:3] == ["?7", "?8", "?9"]
    assert found[3:6] == ["OLD", "OTHER", "?9"]
    assert found[6:9] == ["OLD", "OTHER", "?9"]
    assert found[9:12] == ["NEW", "OVER", "?9"]
    assert found[12:15] == ["?7", "?8", "?9"]


@pytest.mark.parametrize("read_bytes", [1 << 16, 3 << 19])
def test_a_live_capture_gives_one_schema_and_learns_symbols_on_the_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, read_bytes: int
) -> None:
    monkeypatch.setattr(_dbn_reader, "READ", read_bytes)
    monkeypatch.setattr(_dbn_orders, "READ", read_bytes)
    monkeypatch.setattr(_dbn_orders, "ROWS", 1 << 10)
    path = tmp_path / "live.dbn"
    parts = [
        metadata(None, mapped={}),
        orders(2, instrument=5).tobytes(),
        mapping(5, "ESH1") + mapping(6, "NQH1") + system("Heartbeat"),
        orders(3000, instrument=5).tobytes() + orders(2, instrument=6).tobytes(),
        mapping(5, "ESM1"),
        orders(2, instrument=5).tobytes(),
    ]
    path.write_bytes(b"".join(parts))
    rows, bad, dropped = read(Dbn(path, schema="mbo"))
    assert bad == []
    assert dropped == {"not in mbo: symbol-mapping": 3, "not in mbo: system": 1}
    assert [row["symbol"] for row in rows] == ["?5"] * 2 + ["ESH1"] * 3000 + ["NQH1"] * 2 + ["ESM1"] * 2
    assert [row["seq"] for row in rows] == [0, 1, *range(5, 3007), 3008, 3009]
    texts, _, dropped = read(Dbn(path, schema="system"))
    assert [(row["seq"], row["msg"], row["code"]) for row in texts] == [(4, "Heartbeat", 255)]
    names, _, _ = read(Dbn(path, schema="symbol-mapping"))
    assert [row["stype_out_symbol"] for row in names] == ["ESH1", "NQH1", "ESM1"]
    found = inspect_dbn(path)
    assert {name: kind["messages"] for name, kind in found["types"].items()} == {
        "mbo": 3006,
        "symbol-mapping": 3,
        "system": 1,
    }


@pytest.mark.parametrize("packed", [False, True])
def test_reading_goes_on_from_the_position_of_every_block(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, packed: bool
) -> None:
    monkeypatch.setattr(_dbn_reader, "READ", 1 << 17)
    monkeypatch.setattr(_dbn_orders, "READ", 1 << 17)
    monkeypatch.setattr(_dbn_orders, "ROWS", 1 << 10)
    data = metadata(None, mapped={}) + mapping(5, "A") + orders(4000, instrument=5).tobytes()
    data += mapping(5, "B") + orders(5000, instrument=5).tobytes() + system("x") + orders(10, instrument=5).tobytes()
    path = tmp_path / ("live.dbn.zst" if packed else "live.dbn")
    path.write_bytes(zstandard.ZstdCompressor().compress(data) if packed else data)
    spec = Dbn(path, schema="mbo")
    whole, _, _ = read(spec)
    reader = spec.open(Context("dbn"))
    positions = [json.loads(json.dumps(block.after)) for block in reader.blocks()]
    reader.close()
    assert len(positions) > 4
    for position in positions:
        rest, _, _ = read(spec, position=position)
        assert rest == [row for row in whole if row["seq"] >= position["seq"]]


def test_splits_together_are_the_whole_file(tmp_path: Path) -> None:
    data = metadata(None, mapped={}) + orders(2000, instrument=5).tobytes() + mapping(5, "A")
    data += orders(6000, instrument=5).tobytes() + mapping(5, "B") + orders(100, instrument=5).tobytes()
    path = tmp_path / "split.dbn"
    path.write_bytes(data)
    spec = Dbn(path, schema="mbo")
    whole, _, _ = read(spec)
    for wanted in (2, 3, 7):
        splits = spec.splits(wanted)
        assert len(splits) == wanted
        assert [row for split in splits for row in read(spec, split=split)[0]] == whole


def test_undefined_prices_and_times(tmp_path: Path) -> None:
    records = orders(4)
    records["price"][1] = UNDEF_PRICE
    records["ts_event"][2] = UNDEF_TIME
    records["ts_recv"][3] = UNDEF_TIME
    path = tmp_path / "undefined.dbn"
    path.write_bytes(metadata() + records.tobytes())
    rows, bad, _ = read(Dbn(path))
    assert bad == []
    assert [row["price"] is None for row in rows] == [False, True, False, False]
    assert rows[2]["ts_event"] == rows[2]["ts_recv"] == int(records["ts_recv"][2])
    assert rows[3]["ts_recv"] == rows[3]["ts_event"] == int(records["ts_event"][3])


def test_records_that_end_in_the_time_of_sending_have_it_as_a_column(tmp_path: Path) -> None:
    plain_records = orders(5)
    longer = np.zeros(5, np.dtype([("record", "V56"), ("ts_out", "<u8")]))
    longer["record"] = plain_records.view("V56")
    longer["ts_out"] = [DAY, DAY + 1, UNDEF_TIME, DAY + 3, DAY + 4]
    data = bytearray(longer.tobytes())
    data[0::64] = bytes([16]) * 5
    path = tmp_path / "sent.dbn.frag"
    path.write_bytes(data)
    spec = Dbn(path, schema="mbo", version=3, ts_out=True)
    rows, bad, _ = read(spec)
    assert bad == []
    assert [row["ts_out"] for row in rows] == [DAY, DAY + 1, None, DAY + 3, DAY + 4]
    assert [row["order_id"] for row in rows] == plain_records["order_id"].tolist()


@pytest.mark.parametrize(
    ("text", "code"),
    [("Heartbeat", 0), ("Subscription request 3 succeeded", 1), ("Finished mbo replay", 3), ("anything", 255)],
)
def test_messages_of_version_1_get_the_code_that_the_oracle_gives_them(tmp_path: Path, text: str, code: int) -> None:
    record = bytes([20, 0x17]) + bytes(6) + DAY.to_bytes(8, "little") + text.encode().ljust(64, b"\0")
    (theirs,) = decoded_by_oracle(record, version=1)
    path = tmp_path / "old.frag"
    path.write_bytes(record)
    rows, _, _ = read(Dbn(path, schema="system", version=1))
    assert (rows[0]["msg"], rows[0]["code"]) == (theirs.msg, code)
    assert bytes(theirs)[319] == code
