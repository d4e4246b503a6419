"""CAN signals against cantools' own decoder, on random DBC files, and on the real drive against its authors' decoding."""

from __future__ import annotations

import math
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cantools
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from operator_harness import assert_boundaries_do_not_matter, assert_restorable, events, run_operator
from penstock.ops._can_dbc import messages_of
from penstock.ops.can_signals import CanSignals
from penstock.pipeline.errors import GraphError

HEAD = 'VERSION ""\nNS_ :\nBS_:\nBU_: ECU\n'


def frames(
    rows: list[tuple[int, bytes]], *, ext: bool = False, width: int = 8, bus: int = 0, fill: int = 0
) -> pa.RecordBatch:
    """``can.frame`` rows of ``(identifier, data)``; `fill` is what stands behind the data."""
    count = len(rows)
    return events(
        [10 * i for i in range(count)],
        bus=pa.array([bus] * count, pa.uint8()),
        can_id=pa.array([can_id for can_id, _ in rows], pa.uint32()),
        ext=pa.array([ext] * count, pa.bool_()),
        fd=pa.array([width > 8] * count, pa.bool_()),
        len=pa.array([len(data) for _, data in rows], pa.uint8()),
        data=pa.array([data.ljust(width, bytes([fill])) for _, data in rows], pa.binary(width)),
    )


def decoded(spec: CanSignals, batch: pa.RecordBatch, **how: Any) -> Any:
    return run_operator(spec, batch, **how)


def signal_line(
    name: str, start: int, length: int, little: bool, signed: bool, scale: str, offset: str, mux: str = ""
) -> str:
    order, sign = ("1" if little else "0"), ("-" if signed else "+")
    return f' SG_ {name}{mux} : {start}|{length}@{order}{sign} ({scale},{offset}) [0|0] "" ECU\n'


def big_start(linear: int) -> int:
    """DBC's number of the bit that is `linear` bits behind the first one, counted from the highest bit of byte 0."""
    return linear // 8 * 8 + 7 - linear % 8


numbers = st.sampled_from(["1", "2", "-1", "0.5", "0.1", "-0.001", "1E-05", "1000", "0.017453292519943295"])
offsets = st.sampled_from(["0", "0", "1", "-40", "0.25", "-273.15", "1E+06"])


@st.composite
def plain_messages(draw: Any) -> tuple[str, int]:
    """DBC text of a message 100 and its length: signals of both byte orders anywhere, some of them IEEE floats. They may
    overlap, which cantools cannot decode, so each is in a message of its own too, 200 and up."""
    length = draw(st.sampled_from([1, 2, 3, 7, 8, 8, 12, 64]))
    lines, alone, floats = [], "", []
    for i in range(draw(st.integers(1, 6))):
        bits = draw(
            st.integers(1, min(64, 8 * length)) | st.sampled_from([b for b in (8, 16, 32, 64) if b <= 8 * length])
        )
        at = draw(st.integers(0, 8 * length - bits))
        little, signed = draw(st.booleans()), draw(st.booleans())
        lines.append(
            signal_line(f"S{i}", at if little else big_start(at), bits, little, signed, draw(numbers), draw(offsets))
        )
        if bits in (32, 64) and draw(st.booleans()):
            floats += [f"SIG_VALTYPE_ {m} S{i} : {1 if bits == 32 else 2};\n" for m in (100, 200 + i)]
        alone += f"BO_ {200 + i} M{i}: {length} ECU\n{lines[-1]}\n"
    return f"{HEAD}BO_ 100 M: {length} ECU\n{''.join(lines)}\n{alone}{''.join(floats)}", length


def expected(message: Any, data: bytes) -> dict[str, float]:
    """cantools' raw values, scaled in float64 as the definition of a DBC signal says."""
    raw = message.decode(data, decode_choices=False, scaling=False)
    scaled = message.decode(data, decode_choices=False)
    found = {}
    for name, value in raw.items():
        signal = message.get_signal_by_name(name)
        with np.errstate(all="ignore"):
            found[name] = float(np.float64(value) * float(signal.scale) + float(signal.offset))
        assert math.isclose(found[name], float(scaled[name]), rel_tol=1e-12, abs_tol=1e-9) or not math.isfinite(
            found[name]
        )
    return found


def same(got: float | None, wanted: float | None) -> bool:
    if got is None or wanted is None:
        return got is wanted
    return got == wanted or (math.isnan(got) and math.isnan(wanted))


@settings(max_examples=60)
@given(case=plain_messages(), data=st.data())
def test_signals_are_those_of_cantools(case: tuple[str, int], data: st.DataObject) -> None:
    text, length = case
    alone = cantools.database.load_string(text, "dbc", strict=False).messages[1:]
    payloads = data.draw(st.lists(st.binary(min_size=length, max_size=length), min_size=1, max_size=6))
    payloads.append(b"\xff" * length)
    width = 8 if length <= 8 else 64
    result = decoded(CanSignals(text, "M"), frames([(100, p) for p in payloads], width=width, fill=0xA5))
    rows = result.rows.to_pylist()
    assert len(rows) == len(payloads)
    for row, payload in zip(rows, payloads, strict=True):
        for message in alone:
            ((name, value),) = expected(message, payload).items()
            assert same(row[name], value), (name, row[name], value)


@st.composite
def multiplexed(draw: Any) -> str:
    """A message with a selector, signals it selects, and one of them that selects others (extended multiplexing)."""
    nested = draw(st.booleans())
    ids = draw(st.lists(st.integers(0, 15), min_size=2, max_size=5, unique=True))
    text = signal_line("Mux", 0, 4, True, False, "1", "0", " M")
    text += signal_line("Always", 8, 5, True, True, "0.5", "1")
    extended = ""
    for i, value in enumerate(ids):
        kind = f" m{value}" + ("M" if nested and i == 0 else "")
        text += signal_line(f"S{i}", 16 + i, 6, True, draw(st.booleans()), "1", "0", kind)
        high = draw(st.integers(value, min(15, value + 2)))
        if nested:
            extended += f"SG_MUL_VAL_ 100 S{i} Mux {value}-{high};\n"
    if nested:
        text += signal_line("Deep", big_start(40), 9, False, True, "2", "-1", " m3")
        extended += f"SG_MUL_VAL_ 100 Deep S0 3-{draw(st.integers(3, 20))}, 30-31;\n"
    return f"{HEAD}BO_ 100 M: 8 ECU\n{text}\n{extended}"


@settings(max_examples=100)
@given(text=multiplexed(), payloads=st.lists(st.binary(min_size=8, max_size=8), min_size=1, max_size=8))
def test_multiplexed_signals_are_there_where_cantools_finds_them(text: str, payloads: list[bytes]) -> None:
    message = cantools.database.load_string(text, "dbc", strict=False).messages[0]
    rows = decoded(CanSignals(text, "M"), frames([(100, p) for p in payloads])).rows.to_pylist()
    checked = 0
    for row, payload in zip(rows, payloads, strict=True):
        try:
            wanted = message.decode(payload, decode_choices=False)
        except cantools.database.DecodeError:  # a selector's value that nothing is for: cantools gives up on the frame
            assert row["Always"] is not None
            continue
        for signal in message.signals:
            value = wanted.get(signal.name)
            assert same(row[signal.name], None if value is None else float(value)), signal.name
        checked += 1
    assume(checked)


def test_a_selector_without_a_signal_for_its_value_leaves_the_others() -> None:
    text = HEAD + "BO_ 5 M: 2 ECU\n" + signal_line("Mux", 0, 8, True, False, "1", "0", " M")
    text += signal_line("A", 8, 8, True, False, "1", "0", " m1") + signal_line("B", 8, 8, True, False, "1", "0", " m2")
    rows = decoded(CanSignals(text, "M"), frames([(5, b"\x01\x07"), (5, b"\x02\x08"), (5, b"\x03\x09")])).rows
    assert rows["Mux"].to_pylist() == [1.0, 2.0, 3.0]
    assert rows["A"].to_pylist() == [7.0, None, None]
    assert rows["B"].to_pylist() == [None, 8.0, None]


SPEED = HEAD + "BO_ 180 SPEED: 8 ECU\n" + ' SG_ V : 7|16@0+ (0.01,0) [0|250] "km/h" ECU\n' + (
    ' SG_ seq : 23|8@0+ (1,0) [0|0] "" ECU\n SG_ GEAR : 24|4@1- (1,0) [0|0] "" ECU\n'
    'BO_ 2565865982 ENGINE: 8 ECU\n SG_ RPM : 24|16@1+ (0.125,0) [0|0] "rpm" ECU\n'
    'BO_ 3 EMPTY: 0 ECU\n'
    'VAL_ 180 GEAR 0 "park" 1 "drive" -1 "reverse" ;\n'
)  # fmt: skip


def test_other_frames_are_counted_by_reason() -> None:
    rows = [(180, bytes(8)), (181, bytes(8)), (180 | 0x40000000, bytes(8)), (180, b"\x27\x10" + bytes(6))]
    result = decoded(CanSignals(SPEED, "SPEED"), frames(rows))
    assert result.rows["V"].to_pylist() == [0.0, 100.0]
    assert result.rows["seq"].to_pylist() == [0, 3]
    assert result.dropped == {"other CAN id": 1, "remote or error CAN frame": 1}
    assert decoded(CanSignals(SPEED, "SPEED"), frames(rows, ext=True)).dropped == {"other CAN id": 4}
    bus = decoded(CanSignals(SPEED, 180, bus=2), frames(rows[:1], bus=1))
    assert bus.dropped == {"other CAN bus": 1}
    assert bus.rows.num_rows == 0


def test_a_column_is_never_named_like_an_event_column_and_units_are_told() -> None:
    schema = CanSignals(SPEED, "SPEED").output_schema(frames([]).schema)
    assert schema.names == ["ts_event", "ts_recv", "seq", "V", "SPEED_seq", "GEAR"]
    assert schema.metadata[b"penstock.units"] == b"V: km/h"
    assert schema.metadata[b"penstock.table"] == b"can.SPEED"


def test_labels_are_those_of_the_value_table() -> None:
    payloads = [bytes([0, 0, 0, gear & 15]) + bytes(4) for gear in (0, 1, -1, 5)]
    rows = decoded(CanSignals(SPEED, "SPEED", labels=True), frames([(180, p) for p in payloads])).rows
    assert rows["GEAR"].to_pylist() == [0.0, 1.0, -1.0, 5.0]
    assert rows["GEAR_label"].to_pylist() == ["park", "drive", "reverse", None]


@pytest.mark.parametrize(("size", "good"), [(8, True), (5, True), (4, True), (3, False), (0, False)])
def test_a_frame_too_short_for_its_signals_is_put_aside(size: int, good: bool) -> None:
    result = decoded(CanSignals(SPEED, "SPEED"), frames([(180, bytes(size)), (180, bytes(8))]))
    assert result.rows.num_rows == 1 + good
    assert [record.operation for record in result.bad] == ([] if good else ["can.decode"])
    if not good:
        assert f"{size} bytes" in result.bad[0].error
        assert result.bad[0].data == bytes(size)
        assert result.bad[0].seq == 0


def test_a_short_frame_is_fine_where_it_holds_all_that_its_selector_selects() -> None:
    text = HEAD + "BO_ 5 M: 8 ECU\n" + signal_line("Mux", 0, 8, True, False, "1", "0", " M")
    text += signal_line("A", 8, 8, True, False, "1", "0", " m1") + signal_line("B", 32, 8, True, False, "1", "0", " m2")
    result = decoded(CanSignals(text, "M"), frames([(5, b"\x01\x07"), (5, b"\x02\x08")]))
    assert result.rows["A"].to_pylist() == [7.0]
    assert len(result.bad) == 1


def test_a_length_beyond_the_data_is_no_length() -> None:
    batch = frames([(180, bytes(8))])
    batch = batch.set_column(batch.schema.get_field_index("len"), "len", pa.array([200], pa.uint8()))
    assert len(decoded(CanSignals(SPEED, "SPEED"), batch).bad) == 1


def test_j1939_compares_the_parameter_group_alone() -> None:
    rpm = bytes([0, 0, 0, 0x40, 0x1F, 0, 0, 0])
    own = 2565865982 & 0x1FFFFFFF
    ids = [own, (own & ~0x1C0000FF) | 0x0C000003, own ^ 0x100, own ^ 0x10000]
    spec = CanSignals(SPEED, "ENGINE", j1939=True)
    assert decoded(spec, frames([(i, rpm) for i in ids], ext=True)).rows["RPM"].to_pylist() == [1000.0, 1000.0]
    assert decoded(CanSignals(SPEED, "ENGINE"), frames([(i, rpm) for i in ids], ext=True)).rows.num_rows == 1
    assert (
        decoded(CanSignals(SPEED, "ENGINE", id_mask=0xFF), frames([(i, rpm) for i in ids], ext=True)).rows.num_rows == 3
    )


@settings(max_examples=20)
@given(data=st.data())
def test_batches_threads_and_layouts_do_not_matter(data: st.DataObject) -> None:
    rng = np.random.default_rng(3)
    rows = [(int(rng.choice([180, 181])), rng.bytes(int(rng.integers(0, 9)))) for _ in range(160)]
    spec = CanSignals(SPEED, "SPEED", labels=True)
    assert_boundaries_do_not_matter(spec, frames(rows), data=data)
    assert_restorable(spec, frames(rows[:40]), sizes=7)
    assert decoded(spec, frames(rows)).digest == decoded(spec, frames(rows), parallelism=4).digest
    part = frames(rows).slice(100, 50)
    whole = decoded(spec, frames(rows)).rows.to_pylist()
    assert decoded(spec, part).rows.to_pylist() == [row for row in whole if 100 <= row["seq"] < 150]


def test_rows_without_a_frame_are_no_frames() -> None:
    batch = frames([(180, bytes(8)), (180, bytes(8))])
    index = batch.schema.get_field_index("data")
    batch = batch.set_column(index, "data", pa.array([None, bytes(8)], pa.binary(8)))
    result = decoded(CanSignals(SPEED, "SPEED"), batch)
    assert result.rows["seq"].to_pylist() == [1]


def test_all_gives_one_operator_a_message_with_signals() -> None:
    found = CanSignals.all(SPEED, bus=1)
    assert sorted(found) == ["ENGINE", "SPEED"]
    assert found["SPEED"] == CanSignals(SPEED, "SPEED", bus=1)


def test_a_message_longer_than_a_frame_does_not_spoil_the_others() -> None:
    text = SPEED + "BO_ 7 LONG: 100 ECU\n" + signal_line("S", 700, 8, True, False, "1", "0")
    assert sorted(CanSignals.all(text)) == ["ENGINE", "SPEED"]
    with pytest.raises(GraphError, match=r"LONG\.S goes beyond the 64 bytes"):
        CanSignals(text, "LONG")


SLOPPY = """VERSION ""
BU_ ECU
CM_ "no semicolon"
BO_ 275 2017_5: 8 XXX
 SG_ 0_COUNTER : 35|4@0+ (.25,-0) [0|255] "n" XXX

BO_ 103637043 WIDE : 2 XXX
 SG_ MODE M : 0|8@1+ (1,0) [0|3] "" XXX
 SG_ LEVEL m1 : 8|8@1- (2,0) [0|3] "" XXX
BO_ 1075054137 GATEWAY: 8 XXX
 SG_ ID : 7|8@0+ (1,0) [0|0] "" XXX
BO_ 9 REAL: 4 XXX
 SG_ VALUE : 0|32@1- (1,0) [0|0] "" XXX
CM_ 145 "of what?";
VAL_ 275 0_COUNTER 1 "one" 2 "two" ;
VAL_ 275 2_GONE 1 "one";
VAL_ 103637043 MODE 1 "on"
  0 "off" ;
SIG_VALTYPE_ 9 VALUE : 1;
SG_MUL_VAL_ 103637043 LEVEL MODE 1-1, 4-5;
"""


def test_a_dbc_that_is_wrong_beside_its_bits_is_read() -> None:
    with pytest.raises(cantools.database.UnsupportedDatabaseFormatError):
        cantools.database.load_string(SLOPPY, "dbc", strict=False)
    assert sorted(CanSignals.all(SLOPPY)) == ["2017_5", "REAL", "WIDE"]
    counter = decoded(CanSignals(SLOPPY, "2017_5", labels=True), frames([(275, bytes([0, 0, 0, 0, 1, 0, 0, 0]))])).rows
    assert counter["0_COUNTER"].to_pylist() == [0.25]
    assert counter["0_COUNTER_label"].to_pylist() == ["one"]
    real = CanSignals(SLOPPY, "REAL")
    assert decoded(real, frames([(9, np.float32(1.5).tobytes())])).rows["VALUE"].to_pylist() == [1.5]
    wide = CanSignals(SLOPPY, "WIDE", labels=True)
    assert (wide.layout.can_id, wide.layout.ext) == (103637043, True)
    assert wide.layout.signals[1].ranges == ((1, 1), (4, 5))
    assert wide.layout.signals[0].labels == ((0, "off"), (1, "on"))
    with pytest.raises(GraphError, match=r"'GATEWAY' has the identifier 0x40140639, which no CAN frame has"):
        CanSignals(SLOPPY, "GATEWAY")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("BO_ 1 M: 8 X\n SG_ A : 0|x@1+ (1,0) [0|0] X\n", "line 2 is no signal"),
        (" SG_ A : 0|8@1+ (1,0) [0|0] X\n", "line 1 is a signal of no message"),
        ("BO_ 1 M 8 X\n", "line 1 is no message"),
        ("hello\n", "no line begins with BO_"),
    ],
)
def test_a_line_that_says_nothing_of_bits_is_named(text: str, told: str) -> None:
    with pytest.raises(GraphError, match=told):
        CanSignals(text, "M")


KCD = """<NetworkDefinition xmlns="http://kayak.2codeornot2code.org/1.0">
 <Document name="n"/><Bus name="b"><Message id="0xB4" length="2" name="SPEED">
 <Signal name="V" offset="0" length="16"><Value slope="0.01" unit="m/s"/></Signal>
 </Message></Bus></NetworkDefinition>
"""
SYM = """FormatVersion=6.0 // Do not edit this line!
Title="t"
{SENDRECEIVE}
[SPEED]
ID=0B4h
Len=2
Var=V unsigned 0,16 /u:m/s /f:0.01
"""


@pytest.mark.parametrize(("kind", "text"), [("kcd", KCD), ("sym", SYM), ("sym", "// a comment\n" + SYM)])
def test_other_databases_are_told_by_their_content(kind: str, text: str) -> None:
    database = cantools.database.load_string(text, kind)
    [message] = database.messages
    spec = CanSignals(text, "SPEED")
    payload = b"\x27\x10"
    assert decoded(spec, frames([(180, payload)])).rows["V"].to_pylist() == [message.decode(payload)["V"]]


def test_specs_carry_the_layout_and_need_no_file_later(tmp_path: Path) -> None:
    path = tmp_path / "car.dbc"
    path.write_text(SPEED, encoding="cp1252")
    spec = pickle.loads(pickle.dumps(CanSignals(path, "SPEED")))
    path.unlink()
    assert decoded(spec, frames([(180, b"\x27\x10" + bytes(6))])).rows["V"].to_pylist() == [100.0]


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda: CanSignals(SPEED, "SPED"), "no message 'SPED'; it has SPEED, ENGINE"),
        (lambda: CanSignals(SPEED, "EMPTY"), "no signals"),
        (lambda: CanSignals("BO_ nonsense\n", "M"), "cannot be parsed"),
        (lambda: CanSignals("/nowhere/car.dbc", "M"), "cannot be read"),
        (lambda: CanSignals(SPEED, "SPEED", bus=256), "bus"),
        (lambda: CanSignals(SPEED, "SPEED", j1939=True), "not J1939"),
        (lambda: CanSignals(SPEED, "ENGINE", j1939=True, id_mask=1), "not both"),
        (lambda: CanSignals(SPEED, "SPEED").output_schema(events([]).schema), "no column 'can_id'"),
        (
            lambda: CanSignals(
                HEAD + "BO_ 1 M: 64 E\n" + signal_line("S", 400, 8, True, False, "1", "0"), 1
            ).output_schema(frames([]).schema),
            "needs 51 bytes",
        ),
    ],
)
def test_what_does_not_fit_is_said_when_built(make: Any, told: str) -> None:
    with pytest.raises(GraphError, match=told):
        make()


def test_half_precision_floats() -> None:
    from dataclasses import replace

    spec = CanSignals(HEAD + "BO_ 1 M: 2 E\n" + signal_line("S", 0, 16, True, False, "1", "0"), "M")
    layout = replace(spec.layout, signals=(replace(spec.layout.signals[0], kind="f"),))
    object.__setattr__(spec, "layout", layout)
    values = [1.5, -0.0, 65504.0, float("inf"), 6e-8]
    rows = decoded(spec, frames([(1, np.float16(v).tobytes()) for v in values])).rows
    assert rows["S"].to_pylist() == [float(np.float16(v)) for v in values]


def test_a_dbc_is_parsed_once() -> None:
    assert messages_of(SPEED) is messages_of(SPEED)


TOYOTA = HEAD + (
    "BO_ 37 STEER: 8 ECU\n"
    ' SG_ ANGLE : 3|12@0- (1.5,0) [0|0] "deg" ECU\n'
    ' SG_ FRACTION : 39|4@0- (0.1,0) [0|0] "deg" ECU\n'
)


def test_the_steering_angle_of_a_real_drive_is_what_its_authors_decoded(recordings: Callable[[str], Path]) -> None:
    from penstock.sources.driving.comma2k19 import Comma2k19
    from source_reading import read_whole

    segment = recordings("driving/comma2k19_example1")
    batches = read_whole(Comma2k19(segment).table("can")).table.to_batches()
    rows = run_operator(CanSignals(TOYOTA, "STEER", bus=0), batches).rows
    angle = rows["ANGLE"].to_numpy() + rows["FRACTION"].to_numpy()
    wanted = np.load(segment / "processed_log/CAN/steering_angle/value", allow_pickle=False)
    assert len(angle) == 4974
    assert np.array_equal(angle, wanted.ravel())
