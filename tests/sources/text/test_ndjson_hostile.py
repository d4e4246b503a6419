"""Broken, cut and hostile files of JSON lines: one record lost at most for each thing wrong, and never in silence."""

from __future__ import annotations

import gzip
import json
import random
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from penstock.pipeline.context import BadRecord, Context
from penstock.pipeline.errors import FormatError
from penstock.sources.text._ndjson_slow import BadLine, read_line
from penstock.sources.text.ndjson import PERSONAL_KEYS, Ndjson, inspect_ndjson

QUICK = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
COLUMNS = {
    "event": "event:dict",
    "pid": "pid:int16=-1",
    "x": "pos.x:float32",
    "v": "v:float64",
    "w": "w:utf8",
    "b": "b:bool",
}
GOOD = b'{"ts_ns":7,"event":"Move","pid":1,"pos":{"x":1.5},"w":"text"}'


def spec_of(path: Path, **options: int) -> Ndjson:
    return Ndjson(path, columns=COLUMNS, rest="rest", **options)  # type: ignore[arg-type]


def read(spec: Ndjson) -> tuple[list[dict[str, object]], list[BadRecord]]:
    reader = spec.open(Context("read"))
    decoded = [reader.decode(block) for block in reader.blocks()]
    reader.close()
    table = pa.Table.from_batches([batch for one in decoded for batch in one.batches], spec.schema)
    table.validate(full=True)
    for name in ("ts_event", "ts_recv"):
        place = table.schema.get_field_index(name)
        table = table.set_column(place, name, table[name].cast(pa.int64()))
    return table.to_pylist(), [record for one in decoded for record in one.bad]


def line_by_line(spec: Ndjson, text: bytes) -> tuple[list[dict[str, object]], list[tuple[int, bytes]]]:
    """What the file must give: every line through msgspec alone."""
    rows, bad, seq = [], [], 0
    for line in text.split(b"\n"):
        if not line.strip(b" \t\r"):
            continue
        try:
            found, rest = read_line(line, spec._all_columns, rest=True, drop=PERSONAL_KEYS)
        except BadLine:
            bad.append((seq, line))
        else:
            row = {"ts_event": found["ts_event"], "ts_recv": found["ts_event"], "seq": seq}
            row |= {column.name: found.get(column.name, column.default) for column in spec._user_columns}
            if row["x"] is not None:
                row["x"] = pa.scalar(row["x"], pa.float32()).as_py()
            rows.append(row | {"rest": rest})
        seq += 1
    return rows, bad


# --- the scanner and the slow path agree on anything ---------------------------------------------------------------

SEEDS = [
    GOOD,
    b'{"ts_ns":1445914841000000000,"frame":0,"event":"UnitBornEvent","pid":1,"a":[1,-2.5e-3,[{"b":null}],"z\\u00e9\\n"]}',
    b'{ "ts_ns" : 12 , "pos" : { "y" : [ ] , "x" : -0.25E+2 , "name" : { "a" : [1] } } , "b" : true , "v" : 1e-7 }\r',
    '{"ts_ns":3,"w":"é😀","event":"\\ud83d\\ude00","chat":{"text":"hi"},"pos":null,"v":123456789.123456789}'.encode(),
    b'{"ts_ns":3,"ts_ns":4,"pos":{"x":1},"pos":{"y":2},"b":false,"w":null,"deep":{"deep":{"deep":{}}}}',
]
PIECES = [
    *(
        b'"',
        b"\\",
        b"{",
        b"}",
        b"[",
        b"]",
        b",",
        b":",
        b"0",
        b"-",
        b".",
        b"e",
        b"1" * 20,
        b"null",
        b"true",
        b" ",
        b"\t",
        b"\r",
    ),
    *(b"\n", b"\x00", b"\x1f", b"\x7f", b"\xff", b"\xc3", b"\xed\xa0\x80", b"\\u12", b"\\ud800", b"\\/", b"NaN", b"{}"),
    *(
        b"e-" + b"7" * 21,
        b'"pid":70000',
        b'"pid":1.0',
        b'"v":1e999',
        b'"event":5',
        b'"x":1',
        b'"pos":[1]',
        b'"a":{"b":1}',
    ),
]


def mutate(line: bytes, chance: random.Random) -> bytes:
    text = bytearray(line)
    for _ in range(chance.randint(1, 3)):
        at, stop = sorted((chance.randrange(len(text) + 1), chance.randrange(len(text) + 1)))
        match chance.randrange(6):
            case 0 if at < len(text):
                text[at] ^= 1 << chance.randrange(8)
            case 1:
                del text[at : min(stop, at + chance.randrange(1, 6))]
            case 2:
                text[at:at] = chance.choice(PIECES)
            case 3:
                text[at : at + 1] = chance.choice(PIECES)
            case 4:
                text[at:at] = text[at:stop]
            case _:
                other = chance.choice(SEEDS)
                text[at:] = other[chance.randrange(len(other)) :]
    return bytes(text)


@QUICK
@given(st.randoms(use_true_random=False), st.sampled_from([64, 200, 1 << 20]))
def test_mutated_lines_decode_as_line_by_line(tmp_path: Path, chance: random.Random, block: int) -> None:
    lines = [GOOD, *(mutate(chance.choice(SEEDS), chance) for _ in range(30))]
    chance.shuffle(lines)
    text = b"\n".join(lines)
    path = tmp_path / "mutated.ndjson"
    path.write_bytes(text)
    spec = spec_of(path, block_bytes=block)
    rows, bad = read(spec)
    want, lost = line_by_line(spec, text)
    assert [repr(row) for row in rows] == [repr(row) for row in want]
    assert [(record.seq, record.data) for record in bad] == lost


@pytest.mark.nightly
@settings(max_examples=10_000, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.randoms(use_true_random=False))
def test_mutated_lines_decode_as_line_by_line_for_long(tmp_path: Path, chance: random.Random) -> None:
    text = b"\n".join([GOOD, *(mutate(chance.choice(SEEDS), chance) for _ in range(200))])
    path = tmp_path / "mutated.ndjson"
    path.write_bytes(text)
    rows, bad = read(spec_of(path))
    want, lost = line_by_line(spec_of(path), text)
    assert [repr(row) for row in rows] == [repr(row) for row in want]
    assert [(record.seq, record.data) for record in bad] == lost


@pytest.mark.parametrize("number", ["1e-7" + "1" * 21, "0e7" + "1" * 21, "-0.0e-" + "9" * 40, "3e-999"])
def test_a_time_with_an_exponent_beyond_all_numbers_is_zero(tmp_path: Path, number: str) -> None:
    path = tmp_path / "tiny.ndjson"
    path.write_text(f'{{"ts_ns":{number}}}\n')
    rows, bad = read(spec_of(path))
    assert ([row["ts_event"] for row in rows], bad) == ([0], [])


@QUICK
@given(st.lists(st.sampled_from(PIECES) | st.binary(max_size=6), max_size=60).map(b"".join))
def test_any_bytes_between_good_lines_cost_only_themselves(tmp_path: Path, noise: bytes) -> None:
    text = GOOD + b"\n" + noise + b"\n" + GOOD
    path = tmp_path / "noise.ndjson"
    path.write_bytes(text)
    spec = spec_of(path)
    rows, bad = read(spec)
    want, lost = line_by_line(spec, text)
    assert rows == want
    assert [(record.seq, record.data) for record in bad] == lost
    assert rows[0]["w"] == rows[-1]["w"] == "text"


@QUICK
@given(st.integers(0, 5 * len(GOOD)), st.booleans())
def test_a_file_cut_anywhere_gives_its_whole_lines_and_one_bad_record(tmp_path: Path, cut: int, packed: bool) -> None:
    text = b"".join([GOOD + b"\n"] * 6)[: len(GOOD) + 1 + cut]
    path = tmp_path / "cut.ndjson"
    path.write_bytes(gzip.compress(text) if packed else text)
    rows, bad = read(spec_of(path))
    whole, left = divmod(len(text), len(GOOD) + 1)
    whole, left = (whole + 1, 0) if left == len(GOOD) else (whole, left)
    assert len(rows) == whole
    assert len(bad) == (left > 0)
    if left:
        assert "the file ends inside this line" in bad[0].error
        assert bad[0].data == GOOD[:left]


@QUICK
@given(st.data())
def test_damaged_gzip_keeps_what_came_before_and_says_where(tmp_path: Path, data: st.DataObject) -> None:
    lines = [json.dumps({"ts_ns": n, "v": (n * 7919) % 1013}).encode() for n in range(400)]
    packed = bytearray(gzip.compress(b"\n".join(lines) + b"\n", mtime=0))
    at = data.draw(st.integers(20, len(packed) - 1))
    if data.draw(st.booleans()):
        del packed[at:]
    else:
        packed[at] ^= data.draw(st.integers(1, 255))
    path = tmp_path / "damaged.ndjson.gz"
    path.write_bytes(bytes(packed))
    try:
        rows, bad = read(spec_of(path))
    except FormatError as error:  # nothing readable was left
        assert str(path) in str(error)
        return
    assert bad
    assert "gzip stream" in bad[-1].error
    assert bad[-1].operation == "ndjson.unpack"
    assert len(rows) <= 400


# --- what is wrong is named ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "error"),
    [
        (b'{"ts_ns":1,"pid":2', "not JSON"),
        (b'{"ts_ns":1} x', "not JSON"),
        (b"[1]", "a JSON array, not an object"),
        (b"5", "a JSON integer 5, not an object"),
        (b'{"event":"a"}', "column 'ts_event': no value at 'ts_ns'"),
        (b'{"ts_ns":null}', "column 'ts_event': no value at 'ts_ns'"),
        (b'{"ts_ns":"1"}', "column 'ts_event' (ts_ns): expected timestamp[ns], got string"),
        (b'{"ts_ns":1,"pid":"two"}', "column 'pid' (pid): expected int16, got string"),
        (b'{"ts_ns":1,"pid":40000}', "column 'pid' (pid): expected int16, got integer 40000"),
        (b'{"ts_ns":1,"pid":1.0}', "column 'pid' (pid): expected int16, got number 1.0"),
        (b'{"ts_ns":1,"pid":true}', "column 'pid' (pid): expected int16, got true"),
        (b'{"ts_ns":1,"pos":{"x":1e39}}', "column 'x' (pos.x): expected float32, got number 1e39"),
        (b'{"ts_ns":1,"v":1e999}', "the number 1e999 is out of range"),
        (b'{"ts_ns":1,"q":-1e999}', "the number -1e999 is out of range"),
        (b'{"ts_ns":1,"pos":[1]}', "column 'x' (pos.x): 'pos' is a array, not an object"),
        (b'{"ts_ns":1,"event":["a"]}', "column 'event' (event): expected dict, got array"),
        (b'{"ts_ns":1,"w":{}}', "column 'w' (w): expected utf8, got object"),
        (b'{"ts_ns":1,"b":1}', "column 'b' (b): expected bool, got integer 1"),
        (b'{"ts_ns":99999999999999999999}', "column 'ts_event' (ts_ns): expected timestamp[ns]"),
        (b'{"ts_ns":1,"w":"\xff"}', "utf-8"),
        (b'{"ts_ns":1,"q":"\xed\xa0\x80"}', "utf-8"),
        (b'{"ts_ns":1,"q":' + b"[" * 200 + b"]" * 200 + b"}", "more than 128 objects and arrays inside each other"),
        (b'{"ts_ns":1,"q":' + b"[" * 100_000, "not JSON"),
    ],
)
def test_a_broken_line_is_quarantined_with_its_place_and_reason_alone(tmp_path: Path, line: bytes, error: str) -> None:
    path = tmp_path / "broken.ndjson"
    path.write_bytes(b"\n\n" + GOOD + b"\n" + line + b"\n" + GOOD + b"\n")
    rows, bad = read(spec_of(path))
    assert [row["seq"] for row in rows] == [0, 2]
    assert len(bad) == 1
    assert error in bad[0].error
    assert bad[0].place == f"broken.ndjson, line 4, byte {len(GOOD) + 3}"
    assert (bad[0].data, bad[0].seq, bad[0].operation) == (line, 1, "ndjson.decode")


def test_values_and_texts_are_not_repeated_in_errors(tmp_path: Path) -> None:
    path = tmp_path / "secret.ndjson"
    path.write_bytes(GOOD + b'\n{"ts_ns":1,"pid":"Ann Example"}\n')
    assert "Ann" not in read(spec_of(path))[1][0].error


@pytest.mark.parametrize("block", [64, 1 << 20])
def test_byte_order_mark_carriage_returns_and_blank_lines_are_no_records(tmp_path: Path, block: int) -> None:
    path = tmp_path / "windows.ndjson"
    path.write_bytes(b"\xef\xbb\xbf\r\n" + GOOD + b"\r\n \t\r\n\n" + GOOD + b"\r\n\xef\xbb\xbf" + GOOD + b"\r\n  ")
    rows, bad = read(spec_of(path, block_bytes=block))
    assert [row["seq"] for row in rows] == [0, 1]
    assert [(record.seq, record.place) for record in bad] == [
        (2, f"windows.ndjson, line 6, byte {path.read_bytes().rindex(GOOD) - 3}")
    ]


@pytest.mark.parametrize(
    "text", [b"", b"\n\r\n  \n", b"\xef\xbb\xbf", gzip.compress(b"", mtime=0), gzip.compress(b"\n", mtime=0)]
)
def test_an_empty_file_is_an_error(tmp_path: Path, text: bytes) -> None:
    path = tmp_path / "empty.ndjson"
    path.write_bytes(text)
    with pytest.raises(FormatError, match=r"empty\.ndjson is empty"):
        read(spec_of(path))
    with pytest.raises(FormatError, match="is empty"):
        inspect_ndjson(path)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (b'[{"ts_ns":1},\n{"ts_ns":2}]', "one JSON array"),
        (b'{\n "ts_ns": 1\n}\n', "over several lines"),
        ('{"ts_ns":1}\n'.encode("utf-16"), "UTF-16"),
        (b"ts_ns,event\n1,a\n", "no line is a JSON object"),
        (b"\x89MCAP0\r\n" + bytes(100), "no line is a JSON object"),
        (gzip.compress(b"ts_ns,event\n1,a\n", mtime=0), "no line is a JSON object"),
    ],
)
def test_a_file_of_another_format_is_named(tmp_path: Path, text: bytes, says: str) -> None:
    path = tmp_path / "other.ndjson"
    path.write_bytes(text)
    with pytest.raises(FormatError, match=says):
        read(spec_of(path))


@pytest.mark.parametrize("block", [64, 1000, 1 << 20])
@pytest.mark.parametrize("packed", [False, True])
def test_lines_up_to_the_limit_are_read_and_longer_ones_quarantined(tmp_path: Path, block: int, packed: bool) -> None:
    def padded(size: int) -> bytes:
        return GOOD[:-2] + b"x" * (size - len(GOOD)) + b'"}'

    lines = [GOOD, padded(5_000), padded(5_001), GOOD, padded(200_000), GOOD, padded(6_000)]
    text = b"\n".join(lines)
    path = tmp_path / "long.ndjson"
    path.write_bytes(gzip.compress(text) if packed else text)
    rows, bad = read(spec_of(path, block_bytes=block, max_line=5_000))
    assert [row["seq"] for row in rows] == [0, 1, 3, 5]
    assert [(record.seq, record.data) for record in bad] == [(n, lines[n][:65_536]) for n in (2, 4, 6)]
    starts = [text.index(lines[2]), text.index(lines[4]), text.rindex(b"\n") + 1]
    for record, start, number in zip(bad, starts, (2, 4, 6), strict=True):
        assert record.place == f"long.ndjson, line {number + 1}, byte {start}"
        assert f"a line of {len(lines[number])} bytes, more than max_line=5000" in record.error


def test_gzip_members_in_a_row_are_one_text(tmp_path: Path) -> None:
    path = tmp_path / "members.gz"
    first = gzip.compress(GOOD + b"\n" + GOOD[:20])
    path.write_bytes(first + gzip.compress(GOOD[20:] + b"\n") + bytes(512))
    rows, bad = read(spec_of(path))
    assert (len(rows), bad) == (2, [])


def test_garbage_behind_a_gzip_member_is_named(tmp_path: Path) -> None:
    path = tmp_path / "garbage.gz"
    path.write_bytes(gzip.compress(GOOD + b"\n") + b"garbage")
    rows, bad = read(spec_of(path))
    assert len(rows) == 1
    assert "damaged" in bad[0].error


def test_a_text_that_unpacks_to_much_more_is_read_in_bounded_blocks(tmp_path: Path) -> None:
    path = tmp_path / "bomb.gz"
    path.write_bytes(gzip.compress(GOOD + b"\n" + b"x" * (8 << 20) + b"\n" + GOOD))
    spec = spec_of(path, block_bytes=4096, max_line=10_000)
    context = Context("bomb")
    reader = spec.open(context)
    decoded = [reader.decode(block) for block in reader.blocks()]
    reader.close()
    assert [len(one.bad) for one in decoded] == [0, 1, 0]
    assert f"a line of {8 << 20} bytes" in decoded[1].bad[0].error
    assert context.pool.peak_bytes < spec.block_bound
