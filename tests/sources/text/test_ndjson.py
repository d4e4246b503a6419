"""JSON lines against the json module, line by line: the same rows, exactly, however the file is cut."""

from __future__ import annotations

import gzip
import json
import math
import pickle
from collections import Counter
from collections.abc import Callable, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from penstock.pipeline.context import BadRecord, Context
from penstock.pipeline.errors import GraphError
from penstock.pipeline.source import Split
from penstock.sources.text.ndjson import PERSONAL_KEYS, Ndjson, game_events, inspect_ndjson, is_ndjson, open_ndjson

QUICK = settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])

COLUMNS = {
    "small": "a:int8",
    "whole": "player.state.health:int64",
    "big": "u:uint64=7",
    "real": "player.x:float64",
    "short": "player.y:float32",
    "flag": "ok:bool",
    "word": "player.word:utf8",
    "kind": "kind:dict",
}


def read(
    spec: Ndjson, *, split: Split | None = None, position: Mapping[str, Any] | None = None
) -> tuple[pa.Table, list[BadRecord]]:
    """All rows and all bad records, every batch checked against the schema."""
    reader = spec.open(Context("read"), split, position)
    batches: list[pa.RecordBatch] = []
    bad: list[BadRecord] = []
    following: int | None = None
    for block in reader.blocks():
        assert following in (None, block.first_seq)
        following = block.first_seq + block.records
        decoded = reader.decode(block)
        batches += decoded.batches
        bad += decoded.bad
    reader.close()
    table = pa.Table.from_batches(batches, spec.schema)
    table.validate(full=True)
    return table, bad


def plain(table: pa.Table) -> list[dict[str, Any]]:
    """Rows as Python values, times as integers."""
    for place, field in enumerate(table.schema):
        if pa.types.is_timestamp(field.type):
            table = table.set_column(place, field.name, table.column(place).cast(pa.int64()))
    rows: list[dict[str, Any]] = table.to_pylist()
    return rows


def same(one: Any, other: Any) -> bool:
    """Equal values of equal type; -0.0 is not 0.0."""
    return repr(one) == repr(other)


def write(path: Path, lines: list[bytes], *, packed: bool = False) -> Path:
    text = b"".join(line + b"\n" for line in lines)
    path.write_bytes(gzip.compress(text) if packed else text)
    return path


# --- the real recordings ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "events"), [("3.0.0.38749_1.ndjson.gz", 22_041), ("5.0.0.80949_Ocrucius_vs_Rairden.ndjson.gz", 18_233)]
)
def test_every_value_of_a_real_recording_agrees_with_json(
    recordings: Callable[[str], Path], name: str, events: int
) -> None:
    path = recordings("games/derived_sc2_events") / name
    spec = game_events(
        path, columns={"frame": "frame:int32", "ability": "ability_name:dict", "unit": "unit_type_name:utf8"}
    )
    table, bad = read(spec)
    assert not bad
    assert table.num_rows == events
    with gzip.open(path) as file:
        expected = [json.loads(line) for line in file]
    taken = {"ts_ns", "event", "pid", "x", "y", "frame", "ability_name", "unit_type_name"}
    for number, (row, event) in enumerate(zip(plain(table), expected, strict=True)):
        x, y = (None if event.get(key) is None else float(np.float32(event[key])) for key in ("x", "y"))
        want = {
            "ts_event": event["ts_ns"],
            "ts_recv": event["ts_ns"],
            "seq": number,
            "match_id": row["match_id"],
            "type": event["event"],
            "player": event.get("pid", -1),
            "target": -1,
            "x": x,
            "y": y,
            "z": None,
            "value": None,
            "frame": event["frame"],
            "ability": event.get("ability_name"),
            "unit": event.get("unit_type_name"),
        }
        attrs = json.loads(row.pop("attrs"))
        assert row == want
        assert list(attrs.items()) == [(key, value) for key, value in event.items() if key not in taken]


def test_a_real_recording_reads_the_same_plain_split_and_resumed(
    recordings: Callable[[str], Path], tmp_path: Path
) -> None:
    packed = recordings("games/derived_sc2_events") / "3.0.0.38749_1.ndjson.gz"
    whole, _ = read(game_events(packed, match_id="m"))
    path = tmp_path / "plain.ndjson"
    path.write_bytes(gzip.decompress(packed.read_bytes()))
    spec = game_events(path, match_id="m", block_bytes=50_000)
    assert plain(read(spec)[0]) == plain(whole)
    splits = spec.splits(3)
    assert len(splits) == 3
    pieces = [read(spec, split=split)[0] for split in splits]
    assert plain(pa.concat_tables(pieces)) == plain(whole)
    reader = spec.open(Context("first"))
    after = [block.after for block in reader.blocks()][20]
    reader.close()
    assert plain(read(spec, position=after)[0]) == plain(whole.slice(int(after["seq"])))


@pytest.mark.parametrize("packed", [False, True])
def test_reading_resumes_behind_every_block(tmp_path: Path, packed: bool) -> None:
    lines = [b'{"t":%d,"a":%d}' % (n, n % 100) if n % 7 else b"broken" * (n % 5) for n in range(400)]
    path = write(tmp_path / "r.ndjson", lines, packed=packed)
    spec = Ndjson(path, columns={"a": "a:int8"}, time="t", block_bytes=700)
    table, bad = read(spec)
    reader = spec.open(Context("first"))
    positions = [json.loads(json.dumps(block.after)) for block in reader.blocks()]
    reader.close()
    assert len(positions) > 5
    for position in positions:
        left, left_bad = read(spec, position=position)
        done = sum(int(row["seq"]) < position["seq"] for row in plain(table))
        assert plain(left) == plain(table.slice(done))
        assert left_bad == [record for record in bad if int(record.seq or 0) >= position["seq"]]


def test_inspect_counts_a_real_recording_by_event(recordings: Callable[[str], Path]) -> None:
    path = recordings("games/derived_sc2_events") / "3.0.0.38749_1.ndjson.gz"
    found = inspect_ndjson(path)
    with gzip.open(path) as file:
        events = [json.loads(line) for line in file]
    assert found["messages"] == 22_041
    assert found["types"] == dict(Counter(event["event"] for event in events))
    assert (found["time"]["start_ns"], found["time"]["end_ns"]) == (events[0]["ts_ns"], events[-1]["ts_ns"])
    assert found["columns"]["x"] == "float|int"


# --- any JSON object ----------------------------------------------------------------------------------------------

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=12) | st.sampled_from(
    ["", 'ab"c', "\\", "\n\t\x01", "\u2028", "a" * 70, "é" * 20, "😀", "name", "kind"]
)
NUMBERS = (
    st.integers(-200, 200)
    | st.integers(-(1 << 70), 1 << 70)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.sampled_from(
        [0, -0.0, 1 << 63, (1 << 63) - 1, -(1 << 63), (1 << 64) - 1, 127, 128, -128, -129, 3.5e38, 1e-320]
    )
)
KEYS = TEXTS | st.sampled_from(
    ["a", "player", "state", "health", "u", "x", "y", "ok", "word", "kind", "t", "name", "chat"]
)
VALUES = st.recursive(
    st.none() | st.booleans() | NUMBERS | TEXTS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner, max_size=4),
    max_leaves=12,
)
FITTING = st.fixed_dictionaries(
    {},
    optional={
        "a": st.integers(-128, 127) | st.none(),
        "player": st.none()
        | st.fixed_dictionaries(
            {},
            optional={
                "state": st.fixed_dictionaries(
                    {}, optional={"health": st.integers(-(1 << 63), (1 << 63) - 1), "z": VALUES}
                ),
                "x": NUMBERS,
                "y": st.floats(width=32, allow_nan=False, allow_infinity=False) | st.integers(-9, 9),
                "word": TEXTS,
                "name": VALUES,
            },
        ),
        "u": st.integers(0, (1 << 64) - 1),
        "ok": st.booleans(),
        "kind": TEXTS,
        "chat": VALUES,
        "other": VALUES,
    },
)
OBJECTS = FITTING | st.dictionaries(KEYS, VALUES, max_size=6)


@st.composite
def lines(draw: st.DrawFn) -> bytes:
    """A JSON object as somebody might write it: members in any order, blanks anywhere, escapes or UTF-8."""
    record = draw(OBJECTS)
    if draw(st.integers(0, 9)):
        record = {"t": draw(st.integers(-(1 << 62), 1 << 62)), **record}
    members = draw(st.permutations(list(record.items())))
    blanks = draw(st.sampled_from(["", "", " ", "\t ", "\r"]))
    dump = json.JSONEncoder(
        ensure_ascii=draw(st.booleans()), separators=(blanks + "," + blanks, blanks + ":" + blanks), allow_nan=False
    )
    parts = [dump.encode(key) + f"{blanks}:{blanks}" + dump.encode(value) for key, value in members]
    if parts and draw(st.integers(0, 9)) == 0:
        parts.append(draw(st.sampled_from(parts)))
    text = (blanks + "," + blanks).join(parts)
    return f"{blanks}{{{blanks}{text}{blanks}}}{blanks}".encode()


class Rejected(Exception):
    pass


def reference(line: bytes) -> dict[str, Any]:
    """What a line must become, by the json module and the documented rules."""
    try:
        text = line.decode()
        record = json.loads(text, parse_constant=lambda _: 1 / 0)
        json.dumps(record, ensure_ascii=False).encode()
        if "inf" in repr(record) and math.inf in _leaves(record):
            raise Rejected
    except (ValueError, ZeroDivisionError):
        raise Rejected from None
    if not isinstance(record, dict):
        raise Rejected
    row: dict[str, Any] = {}
    wanted = {"ts_event": ("t",), **{name: tuple(text.split(":")[0].split(".")) for name, text in COLUMNS.items()}}
    for name, path in wanted.items():
        value: Any = record
        for key in path:
            if value is not None and not isinstance(value, dict):
                raise Rejected
            value = None if value is None else value.get(key)
        row[name] = _typed(name, value)
    if row["ts_event"] is None:
        raise Rejected
    return row


def _leaves(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return [leaf for inner in value.values() for leaf in _leaves(inner)]
    if isinstance(value, list):
        return [leaf for inner in value for leaf in _leaves(inner)]
    return [abs(value)] if isinstance(value, float) else []


def _typed(name: str, value: Any) -> Any:
    ranges = {"small": (-128, 127), "whole": (-(1 << 63), (1 << 63) - 1), "big": (0, (1 << 64) - 1)}
    if value is None:
        return 7 if name == "big" else None
    if name in ranges:
        low, high = ranges[name]
        good = type(value) is int and low <= value <= high
    elif name == "ts_event":
        good = type(value) is int and abs(value) <= 1 << 62
    elif name in ("real", "short"):
        good = type(value) in (int, float) and abs(value) < 1 << 1024
        value = float(value) if good else value
        if good and name == "short":
            with np.errstate(over="ignore"):
                value = float(np.float32(value))
            good = not math.isinf(value)
    else:
        good = type(value) is (bool if name == "flag" else str)
    if not good:
        raise Rejected
    return value


def kept(pairs: list[tuple[str, Any]], path: tuple[str, ...] = (), muted: bool = False) -> list[tuple[str, Any]]:
    """The members that stay in the rest, by the documented rule, from pairs that keep duplicates."""
    taken = {("t",), *(tuple(text.split(":")[0].split(".")) for text in COLUMNS.values())}
    inner = {path[:size] for path in taken for size in range(1, len(path))}

    def value(item: Any, where: tuple[str, ...] | None) -> Any:
        if isinstance(item, Pairs):
            return Pairs(kept(item, where)) if where is not None else Pairs(kept(item, ("", "")))
        return [value(each, None) for each in item] if isinstance(item, list) else item

    result = []
    for key, item in pairs:
        here = (*path, key)
        if here in taken or (key in PERSONAL_KEYS and here not in inner):
            continue
        result.append((key, value(item, here if here in inner else None)))
    return result


class Pairs(list):  # type: ignore[type-arg]
    """Members of an object, duplicates and all."""


@QUICK
@given(
    st.lists(lines(), min_size=1, max_size=8), st.sampled_from([64, 100, 300, 1 << 20]), st.booleans(), st.booleans()
)
def test_any_objects_give_what_json_gives(
    tmp_path: Path, written: list[bytes], block: int, packed: bool, keep: bool
) -> None:
    written = [b'{"t":1,"a":1}', *written]
    path = write(tmp_path / "any.ndjson", written, packed=packed)
    spec = Ndjson(path, columns=COLUMNS, time="t", rest="rest", block_bytes=block, keep_personal=keep)
    table, bad = read(spec)
    rows = {row["seq"]: row for row in plain(table)}
    failed = {record.seq: record for record in bad}
    for number, line in enumerate(written):
        try:
            want = reference(line)
        except Rejected:
            assert number in failed, line
            assert failed[number].data == line
            assert f"any.ndjson, line {number + 1}, byte " in failed[number].place
            continue
        assert number in rows, (line, failed.get(number))
        row = rows[number]
        for name, value in want.items():
            assert same(row[name], value), (name, line)
        if not keep:
            left = json.loads(row["rest"], object_pairs_hook=Pairs)
            assert left == kept(json.loads(line, object_pairs_hook=Pairs)), line
    assert len(rows) + len(failed) == len(written)


@QUICK
@given(st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1, max_size=40))
def test_floats_are_correctly_rounded_however_they_are_written(tmp_path: Path, values: list[float]) -> None:
    forms = ["{!r}", "{:.17e}", "{:.20e}", "{:.15g}", "{:.3f}", "{:.19g}"]
    texts = [form.format(value) for value in values for form in forms]
    path = write(tmp_path / "floats.ndjson", [f'{{"t":0,"v":{text}}}'.encode() for text in texts])
    table, bad = read(Ndjson(path, columns={"v": "v:float64"}, time="t"))
    expected = [float(json.loads(text)) for text in texts]  # "-0" is the integer 0
    assert not [record for record in bad if not math.isinf(expected[int(record.seq or 0)])]
    assert [repr(v) for v in table["v"].to_pylist()] == [repr(v) for v in expected if not math.isinf(v)]


@pytest.mark.parametrize(
    "text",
    ["9007199254740993", "1.8446744073709551616", "18446744073709551616.0", "2.2250738585072011e-308", "5e-324",
     "1e23", "8.5e-15", "0." + "0" * 30 + "1", "123456789012345678e-18", "1" * 30, "9" * 19 + "e-19"],
)  # fmt: skip
def test_hard_numbers_are_correctly_rounded(tmp_path: Path, text: str) -> None:
    path = write(tmp_path / "hard.ndjson", [f'{{"t":0,"v":{sign}{text}}}'.encode() for sign in ("", "-")])
    table, bad = read(Ndjson(path, columns={"v": "v:float64"}, time="t"))
    assert not bad
    assert table["v"].to_pylist() == [float(text), -float(text)]


@pytest.mark.parametrize("kind", ["int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"])
def test_integers_are_exact_up_to_their_limits_and_refused_beyond(tmp_path: Path, kind: str) -> None:
    limits = np.iinfo(kind)
    good = [int(limits.min), int(limits.max), 0]
    wrong = [int(limits.min) - 1, int(limits.max) + 1]
    path = write(tmp_path / "int.ndjson", [f'{{"t":0,"v":{value}}}'.encode() for value in good + wrong])
    table, bad = read(Ndjson(path, columns={"v": f"v:{kind}"}, time="t"))
    assert table["v"].to_pylist() == good
    assert table["v"].type == getattr(pa, kind)()
    assert [f"column 'v' (v): expected {kind}, got integer {value}" for value in wrong] == [b.error for b in bad]


# --- times --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("unit", "text", "ns"),
    [
        ("ns", "1595991305000000001", 1595991305000000001),
        ("us", "1595991305000001", 1595991305000001000),
        ("ms", "1595991305001.5", 1595991305001500000),
        ("s", "1595991305.123456789", 1595991305123456789),
        ("s", "1e3", 1_000_000_000_000),
        ("s", "-0.5", -500_000_000),
        ("s", "0.0000000005", 0),
        ("s", "0.0000000015", 2),
        ("s", "1595991305.1234567891234567", 1595991305123456789),
        ("iso", '"2020-07-29T02:55:05.123Z"', 1595991305123000000),
        ("iso", '"2020-07-29 02:55:05"', 1595991305000000000),
        ("iso", '"2020-07-29T04:55:05.1234567+02:00"', 1595991305123456700),
        ("iso", '"2020-07-28T21:25:05-0530"', 1595991305000000000),
        ("iso", '"\\u0032020-07-29T02:55:05Z"', 1595991305000000000),
    ],
)
def test_times_in_every_unit(tmp_path: Path, unit: str, text: str, ns: int) -> None:
    path = write(tmp_path / "t.ndjson", [f'{{"when":{text},"got":{text}}}'.encode()])
    table, bad = read(Ndjson(path, columns={}, time="when", time_unit=unit, recv="got", time_start_ns=5))
    assert not bad
    ns += 5 if unit != "iso" else 0
    assert plain(table) == [{"ts_event": ns, "ts_recv": ns, "seq": 0}]


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.datetimes(datetime(1678, 1, 2), datetime(2261, 12, 30), allow_imaginary=False), st.sampled_from(["T", " "]))
def test_iso_times_agree_with_datetime(tmp_path: Path, stamp: datetime, middle: str) -> None:
    path = write(tmp_path / "iso.ndjson", [json.dumps({"t": stamp.isoformat(middle) + "Z"}).encode()])
    table, bad = read(Ndjson(path, columns={}, time="t", time_unit="iso"))
    assert not bad
    passed = stamp - datetime(1970, 1, 1)
    micros = (passed.days * 86_400 + passed.seconds) * 1_000_000 + passed.microseconds
    assert plain(table)[0]["ts_event"] == micros * 1_000


@pytest.mark.parametrize(
    "text", ["2021-02-29T00:00:00Z", "2020-13-01T00:00:00", "2020-01-01T24:00:00", "2020-01-01", "2020-01-01T00:00:60Z",
             "2020-01-01T00:00:00.Z", "2020-01-01T00:00:00.1234567890Z", "2020-01-01T00:00:00+1", "1600-01-01T00:00:00Z"],
)  # fmt: skip
def test_texts_that_are_no_time_are_bad_records(tmp_path: Path, text: str) -> None:
    path = write(tmp_path / "iso.ndjson", [json.dumps({"t": text}).encode()])
    table, bad = read(Ndjson(path, columns={}, time="t", time_unit="iso"))
    assert table.num_rows == 0
    assert "expected timestamp[iso], got string" in bad[0].error


# --- columns ------------------------------------------------------------------------------------------------------


def test_missing_values_are_null_or_the_default(tmp_path: Path) -> None:
    columns = {
        "a": "a:int16=-1",
        "b": "b:float32=0.5",
        "c": "c:dict=none",
        "d": "d:bool=true",
        "e": "e:dict",
        "f": "f:utf8",
    }
    path = write(tmp_path / "n.ndjson", [b'{"t":1}', b'{"t":2,"a":null,"b":null,"c":null,"d":null,"e":null,"f":null}'])
    table, bad = read(Ndjson(path, columns=columns, time="t"))
    assert not bad
    for row in plain(table):
        assert [row[name] for name in "abcdef"] == [-1, 0.5, "none", True, None, None]
    assert [field.nullable for field in table.schema][3:] == [False, False, False, False, True, True]


def test_of_two_equal_keys_the_last_counts(tmp_path: Path) -> None:
    doubled = b'{"t":1,"a":5,"w":"first","a":6,"w":"2nd","o":{"p":1},"o":{"q":2},"n":3,"n":null}'
    path = write(tmp_path / "d.ndjson", [doubled])
    columns = {"a": "a:int8", "w": "w:utf8", "p": "o.p:int8", "q": "o.q:int8", "n": "n:int8"}
    row = plain(read(Ndjson(path, columns=columns, time="t"))[0])[0]
    assert [row[name] for name in columns] == [6, "2nd", None, 2, None]


def test_what_is_left_is_the_text_without_the_columns_and_the_personal_keys(tmp_path: Path) -> None:
    line = b'{"name":"Ann", "t":1 ,"a": {"x" : 1.50,"accountId":"q", "y":[{"Nickname":1,"k":"\\u00e9"}] }, "hp":3,"z":null}'
    path = write(tmp_path / "r.ndjson", [line])
    columns = {"hp": "hp:int8", "x": "a.x:float32"}
    table, _ = read(Ndjson(path, columns=columns, time="t", rest="rest"))
    assert table["rest"].to_pylist() == ['{"a": { "y":[{"k":"\\u00e9"}] },"z":null}']
    table, _ = read(Ndjson(path, columns=columns, time="t", rest="rest", keep_personal=True))
    want = '{"name":"Ann" ,"a": {"accountId":"q", "y":[{"Nickname":1,"k":"\\u00e9"}] },"z":null}'
    assert table["rest"].to_pylist() == [want]


def test_more_values_than_an_index_can_name_go_into_further_batches(tmp_path: Path) -> None:
    values = [f"v{number}" for number in range(70_000)]
    text = b"".join(b'{"t":%d,"k":"%s"}\n' % (n, v.encode()) for n, v in enumerate(values))
    (tmp_path / "k.ndjson").write_bytes(text)
    spec = Ndjson(tmp_path / "k.ndjson", columns={"k": "k:dict"}, time="t", block_bytes=4 << 20)
    reader = spec.open(Context("k"))
    batches = [batch for block in reader.blocks() for batch in reader.decode(block).batches]
    assert max(len(batch["k"].dictionary) for batch in batches) == 32_768
    assert [value for batch in batches for value in batch["k"].to_pylist()] == values
    assert np.concatenate([batch["seq"].to_numpy() for batch in batches]).tolist() == list(range(70_000))


def test_splits_of_a_file_with_a_byte_order_mark_are_the_whole(tmp_path: Path) -> None:
    path = tmp_path / "bom.ndjson"
    path.write_bytes(b"\xef\xbb\xbf" + b"".join(b'{"t":%d}\n\n' % n for n in range(500)) + b'{"t":500}')
    spec = Ndjson(path, columns={}, time="t", block_bytes=128)
    splits = spec.splits(4)
    assert [split.count for split in splits] == [4] * 4
    read_all = [read(spec, split=split) for split in splits]
    assert not any(bad for _, bad in read_all)
    rows = [row for table, _ in read_all for row in plain(table)]
    assert [row["seq"] for row in rows] == [row["ts_event"] for row in rows] == list(range(501))


def test_dots_in_keys_can_be_escaped(tmp_path: Path) -> None:
    path = write(tmp_path / "dot.ndjson", [b'{"t":1,"a.b":{"c":4},"a":{"b":5}}'])
    table, _ = read(Ndjson(path, columns={"v": "a\\.b.c:int8", "w": "a.b:int8"}, time="t"))
    assert (table["v"].to_pylist(), table["w"].to_pylist()) == ([4], [5])


def test_a_match_can_come_from_the_lines(tmp_path: Path) -> None:
    path = write(tmp_path / "m.ndjson", [b'{"ts_ns":1,"m":{"id":"a"},"event":"e"}', b'{"ts_ns":1,"event":"e","pid":2}'])
    table, _ = read(game_events(path, match_path="m.id"))
    assert table["match_id"].to_pylist() == ["a", ""]
    assert table.schema.names == game_events(path).schema.names
    assert table["player"].to_pylist() == [-1, 2]


def test_the_default_match_id_does_not_show_the_file_name(tmp_path: Path) -> None:
    path = write(tmp_path / "Ann_vs_Bob.ndjson", [b'{"ts_ns":1,"event":"e"}'])
    table, _ = read(game_events(path))
    assert "Ann" not in table["match_id"].to_pylist()[0]
    assert read(game_events(path, match_id="final"))[0]["match_id"].to_pylist() == ["final"]


@pytest.mark.parametrize(
    ("columns", "says"),
    [
        ({"a": "a"}, "path:type"),
        ({"a": "a:int7"}, "unknown type 'int7'"),
        ({"a": "a..b:int8"}, "path"),
        ({"a": "x:int8", "b": "x.y:int8"}, "both read 'x'"),
        ({"a": "x:int8", "b": "x:int16"}, "both read 'x'"),
        ({"seq": "x:int8"}, "two columns are called 'seq'"),
        ({"a": "x:int8=300"}, "default"),
        ({"a": "x:utf8=text"}, "default"),
        ({f"c{n}": f"c{n}:int8" for n in range(70)}, "71 columns"),
        ({"a": "k" * 200 + ":int8"}, "1 to 128 bytes"),
    ],
)
def test_wrong_columns_are_refused_when_the_spec_is_made(columns: dict[str, str], says: str) -> None:
    with pytest.raises(GraphError, match=says):
        Ndjson("x.ndjson", columns=columns)


def test_a_spec_pickles_and_reads_the_same(tmp_path: Path) -> None:
    path = write(tmp_path / "p.ndjson", [b'{"ts_ns":1,"event":"e","pid":2,"x":1.5}'])
    spec = game_events(path)
    spec.schema  # noqa: B018  fills what is cached
    assert plain(read(pickle.loads(pickle.dumps(spec)))[0]) == plain(read(spec)[0])


# --- recognition --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("head", "good"),
    [
        (b'{"a":1}\n{"a":2}\n', True),
        (b'\xef\xbb\xbf\n {"a":1} \r\n', True),
        (b'broken\n{"a":1}\n', True),
        (b'{"a":' + b"1" * 70_000, True),
        (b'[{"a":1},\n{"a":2}]', False),
        (b"\x89MCAP0\r\n", False),
        (b'{\n  "a": 1\n}\n', False),
        (b'{"a": [\n{"b": 1},\n{"b": 2}\n]}\n', False),
        (b'[\n{"a": 1},\n{"a": 2}\n]\n', False),
        (b'{"a": 1}{"a": 2}{"a": 3}', False),
        (b'{"a": 1} {"a": 2}\n{"a": 3}\n', True),
        (b'{"a": 1, "b": {\n{"a": 2}\n{"a": 3}\n', True),
        (b"a,b\n1,2\n", False),
        (b"", False),
        (b"namespace clocks\n{\nNow::Now() : at_(0)\n{}\n}\n", False),
    ],
)
def test_json_lines_are_told_from_other_files(head: bytes, good: bool) -> None:
    assert is_ndjson(head) is good


def test_inspect_finds_times_types_and_columns(tmp_path: Path) -> None:
    rows = [{"_T": "Kill", "_D": f"2020-01-01T00:00:0{n}Z", "who": {"hp": n, "tag": None}} for n in range(5)]
    path = write(tmp_path / "p.json", [*(json.dumps(row).encode() for row in rows), b"broken"])
    found = inspect_ndjson(path)
    assert (found["messages"], found["bad"], found["types"]) == (6, 1, {"Kill": 5})
    assert found["time"]["seconds"] == 4.0
    assert found["columns"] == {"_T": "string", "_D": "string", "who.hp": "int", "who.tag": "null"}


def test_inspect_of_lines_without_a_time_still_counts(tmp_path: Path) -> None:
    found = inspect_ndjson(write(tmp_path / "n.json", [b'{"a":1}', b"", b'{"a":2}']))
    assert (found["messages"], found["time"]) == (2, None)


@pytest.mark.parametrize(
    ("record", "path", "unit"),
    [
        ({"op": "mcm", "clk": None, "pt": 1576840503572, "mc": []}, "pt", "ms"),
        ({"id": 5, "@timestamp": "2024-01-02T03:04:05.123Z"}, "@timestamp", "iso"),
        ({"id": 1_234_567, "meta": {"when": 1_700_000_000_000_000}, "n": 3}, "meta.when", "us"),
        ({"time": "soon", "logged": "2024-01-02 03:04:05+01:00"}, "logged", "iso"),
        ({"t": 12.5, "a": 1}, "t", "ms"),
        ({"timestamp": None, "ts": 1_700_000_000.25}, "ts", "s"),
    ],
)
def test_the_time_of_records_is_found_by_name_or_by_value(
    tmp_path: Path, record: dict[str, Any], path: str, unit: str
) -> None:
    lines = write(tmp_path / "log.jsonl", [json.dumps(record).encode()] * 20)
    spec = open_ndjson(lines)
    assert (spec.time, spec.time_unit) == (path, unit)
    table, bad = read(spec)
    assert (table.num_rows, bad) == (20, [])
    assert inspect_ndjson(lines)["time_key"] == path
    assert open_ndjson(lines, columns={"a": "a:int64"}).time == path


def test_records_without_any_time_are_refused_with_their_keys(tmp_path: Path) -> None:
    path = write(tmp_path / "n.json", [b'{"a": 1, "b": {"c": "x"}}'] * 3)
    with pytest.raises(GraphError, match=r"nothing in the records of n\.json looks like their time.*a, b\.c"):
        open_ndjson(path)
    assert open_ndjson(path, time="a", time_unit="s").time == "a"


def test_keys_called_like_a_column_but_of_another_type_stay_with_the_rest(tmp_path: Path) -> None:
    record = {
        "ts": 1_700_000_000,
        "event": {"id": 1},
        "target": "host",
        "pid": 70_000,
        "value": "12",
        "x": [1],
        "y": 2.5,
    }
    table, bad = read(open_ndjson(write(tmp_path / "n.json", [json.dumps(record).encode()] * 2)))
    assert (table.num_rows, bad) == (2, [])
    assert table["y"].to_pylist() == [2.5, 2.5]
    rest = {key: value for key, value in record.items() if key not in ("ts", "y")}
    assert [json.loads(text) for text in table["attrs"].to_pylist()] == [rest, rest]
