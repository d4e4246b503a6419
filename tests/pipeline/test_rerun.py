"""`penstock quarantine rerun`: what was mended decodes, what was not says so again, and the rows can be kept."""

from __future__ import annotations

import json
import struct
import textwrap
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import simplejpeg
from itch_reference import message, pack
from mcap_files import CAN_TOPIC, can_message, plain_rows, write_file
from penstock import Flow, ops, read, sinks, sources
from penstock.cli import main
from penstock.pipeline.context import BadRecord, Context
from penstock.pipeline.quarantine import Quarantine, read_quarantine
from penstock.pipeline.rerun import Attempt, rerun
from penstock.pipeline.sink import Sink
from streams import recording, source

HOUR = 3600 * 10**9
ALONE = "this kind of record cannot be re-run alone"


def put_aside(folder: Path, *records: tuple[str, BadRecord]) -> None:
    collector = Quarantine(folder)
    for step, record in records:
        collector.add(step, record)
    collector.close()


def attempts(folder: Path, flow: Flow) -> list[Attempt]:
    return list(rerun(read_quarantine(folder), flow))


def whole(size: np.ndarray) -> np.ndarray:
    return size


def picky(size: np.ndarray) -> np.ndarray:
    if (size % 50 == 0).any():
        raise ValueError("a multiple\nof fifty")
    return size


def mapped(function: Callable[[np.ndarray], np.ndarray]) -> Flow:
    table = source(recording(1, 500), 50)
    return table.map(function, inputs=["size"], outputs={"size": pa.int64()}, name="pick").write(sinks.Null())


def test_rows_that_a_function_failed_on_run_when_the_function_is_mended(tmp_path: Path) -> None:
    table = recording(1, 500)
    bad = [seq for seq, size in enumerate(table["size"].to_pylist()) if size % 50 == 0]
    assert bad
    mapped(picky).run(runner="inline", quarantine=tmp_path / "bad")
    failing = attempts(tmp_path / "bad", mapped(picky))
    assert [(a.step, a.rows, a.error) for a in failing] == [("pick", 0, "ValueError: a multiple of fifty")] * len(bad)
    mended = attempts(tmp_path / "bad", mapped(whole))
    assert [(a.rows, a.error) for a in mended] == [(1, None)] * len(bad)
    assert str(mended[0]) == "00000:0  pick  now decodes: 1 rows"


FLOW = """
import sys
sys.path[:0] = {paths!r}
import pyarrow as pa
from penstock import sinks
from streams import recording, source

def pick(size):
    if (size % {step} == 0).any():
        raise ValueError("not this one")
    return size * 2

mine = source(recording(1, 500), 50).map(pick, inputs=["size"], outputs={{"size": pa.int64()}}, name="a/b")
mine = mine.write(sinks.Null())
"""


def test_the_command_lists_counts_keeps_the_rows_and_says_so_with_its_status(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, bad, out = tmp_path / "flow.py", tmp_path / "bad", tmp_path / "rows.arrow"
    command = ["quarantine", "rerun", str(bad), str(file), "--flow", "mine", "--out", str(out)]
    sizes = recording(1, 500)["size"].to_pylist()

    def write(step: int) -> None:
        file.write_text(textwrap.dedent(FLOW.format(paths=[str(Path(__file__).parent.parent)], step=step)))

    write(50)
    assert main(["run", str(file), "--flow", "mine", "--quarantine", str(bad), "--quiet"]) == 0
    capsys.readouterr()
    put = [size for size in sizes if size % 50 == 0]
    assert main(command) == 1
    printed = capsys.readouterr().out.splitlines()
    assert printed[:-1] == [f"00000:{i}  a/b  ValueError: not this one" for i in range(len(put))]
    assert printed[-1] == f"0 of {len(put)} records decode now"
    assert not list(tmp_path.glob("*.arrow*"))

    write(100)
    some = [size for size in put if size % 100]
    assert main(command) == 1
    printed = capsys.readouterr().out.splitlines()
    assert sum("now decodes: 1 rows" in line for line in printed) == len(some)
    kept = tmp_path / "rows-a%2Fb.arrow"
    assert printed[-2:] == [f"wrote {kept}", f"{len(some)} of {len(put)} records decode now"]
    with pa.ipc.open_file(str(kept)) as reader:
        assert reader.read_all()["size"].to_pylist() == [2 * size for size in some]
    assert main(command) == 1, "a file that exists is not replaced"
    assert "rows-a%2Fb.arrow" in capsys.readouterr().err

    kept.unlink()
    write(1001)
    assert main(command) == 0
    assert capsys.readouterr().out.splitlines()[-1] == f"{len(put)} of {len(put)} records decode now"


def test_an_empty_folder_is_no_failure_and_a_missing_one_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "flow.py"
    file.write_text(textwrap.dedent(FLOW.format(paths=[str(Path(__file__).parent.parent)], step=50)))
    (tmp_path / "bad").mkdir()
    assert main(["quarantine", "rerun", str(tmp_path / "bad"), str(file), "--flow", "mine"]) == 0
    assert capsys.readouterr().out == "0 of 0 records decode now\n"
    assert main(["quarantine", "rerun", str(tmp_path / "none"), str(file), "--flow", "mine"]) == 1
    assert "No such file" in capsys.readouterr().err


def test_records_of_another_flow_say_what_does_not_fit(tmp_path: Path) -> None:
    mapped(picky).run(runner="inline", quarantine=tmp_path)
    flow = source(recording(1, 500), 50).map(whole, inputs=["size"], outputs={"size": pa.int64()}).write(sinks.Null())
    assert {a.error for a in attempts(tmp_path, flow)} == {"the flow has no step of that name"}
    other = source(recording(1, 500).drop_columns(["price"]), 50)
    flow = other.map(whole, inputs=["size"], outputs={"size": pa.int64()}, name="pick").write(sinks.Null())
    assert {a.error for a in attempts(tmp_path, flow)} == {"it is not a row of this flow: unexpected column 'price'"}


def test_damaged_and_strange_records_fail_alone(tmp_path: Path) -> None:
    stream = b"\xff\xff\xff\xff" + bytes(20)
    put_aside(
        tmp_path,
        ("pick", BadRecord("row seq=1", "pick", "x", stream, 1)),
        ("pick", BadRecord("row seq=2", "pick", "x", b"text", 2)),
        ("read", BadRecord("somewhere", "read", "x", b"text", 3)),
        ("write", BadRecord("somewhere", "write", "x", b"text", 3)),
    )
    errors = [a.error or "" for a in attempts(tmp_path, mapped(whole))]
    assert errors[0].startswith("its bytes are no row: ") and errors[1:] == [ALONE] * 3
    blobs = tmp_path / "run-00000.blobs"
    blobs.write_bytes(b"z" * blobs.stat().st_size)
    assert "are not those of row seq=1" in (attempts(tmp_path, mapped(whole))[0].error or "")


def camera(path: Path, **options: int) -> Flow:
    schema = sources.Rows(recording(1, 1)).schema
    fields = [*list(schema)[:3], pa.field("codec", pa.utf8()), pa.field("data", pa.large_binary())]
    rows = [{"ts_event": i, "ts_recv": i, "seq": i, "codec": "jpeg", "data": b"\xff\xd8 no picture"} for i in range(2)]
    table = pa.Table.from_pylist(rows, pa.schema(fields))
    images = read(sources.Rows(table)).map(ops.DecodeImage(8, 8, **options), name="decode")
    return images.write(sinks.ArrowIpc(path, overwrite=True))


@pytest.mark.parametrize("runner", ["inline", "local"])
def test_pictures_are_tried_again_from_their_bytes_alone(tmp_path: Path, runner: str) -> None:
    flow = camera(tmp_path / "out.arrow")
    assert flow.run(runner=runner, quarantine=tmp_path / "bad")["quarantined"] == 2
    jpeg = simplejpeg.encode_jpeg(np.full((16, 16, 3), 77, np.uint8), quality=95)
    put_aside(tmp_path / "bad", ("decode", BadRecord("seq 9", "image.decode", "too large", jpeg, 9)))
    found = attempts(tmp_path / "bad", flow)
    assert [a.rows for a in found] == [0, 0, 1]
    assert all("JPEG" in (a.error or "") for a in found[:2])
    kept: list[Path] = []

    def keep(step: str, schema: pa.Schema) -> Sink:
        kept.append(tmp_path / f"kept-{step}.arrow")
        return sinks.ArrowIpc(kept[-1]).open(Context(step), schema)

    assert sum(a.error is None for a in rerun(read_quarantine(tmp_path / "bad"), flow, keep)) == 1
    with pa.ipc.open_file(str(kept[0])) as reader:
        table = reader.read_all()
    assert table.drop_columns(["image"]).to_pylist() == [{"ts_event": None, "ts_recv": None, "seq": 9, "codec": None}]
    image = table["image"].chunk(0).to_numpy_ndarray()
    assert image.shape == (1, 8, 8, 3) and abs(image.astype(int) - 77).max() <= 2
    tight = attempts(tmp_path / "bad", camera(tmp_path / "out.arrow", max_pixels=100))
    assert "max_pixels=100" in (tight[2].error or "")


def test_lines_are_tried_again_as_the_source_reads_them_now(tmp_path: Path) -> None:
    file = tmp_path / "game.ndjson"
    lines = ['{"ts_ns":1,"pid":1}', '{"ts_ns":2,"pid":70000}', '{"ts_ns":3,', json.dumps({"ts_ns": 4, "n": "x" * 90})]
    file.write_text("\n".join([*lines, '{"ts_ns":5,"pid":70001}']))

    def flow(pid: str, max_line: int) -> Flow:
        return read(sources.Ndjson(file, columns={"pid": pid}, max_line=max_line)).write(sinks.Null())

    report = flow("pid:int16", 64).run(runner="inline", quarantine=tmp_path / "bad")
    assert (report.rows, report["quarantined"]) == (1, 4)
    assert [a.error is None for a in attempts(tmp_path / "bad", flow("pid:int16", 64))] == [False] * 4
    again = attempts(tmp_path / "bad", flow("pid:int32", 4096))
    assert [(a.rows, a.error is None) for a in again] == [(1, True), (0, False), (1, True), (1, True)]
    put_aside(tmp_path / "more", ("read", BadRecord("x", "ndjson.gunzip", "cut", b"")))
    put_aside(tmp_path / "more", ("read", BadRecord("x", "ndjson.frame", "long", b" " * 65_536, 1)))
    assert [a.error for a in attempts(tmp_path / "more", flow("pid:int32", 4096))] == [ALONE] * 2


def test_rows_of_lines_keep_their_number(tmp_path: Path) -> None:
    file = tmp_path / "game.ndjson"
    file.write_text('{"ts_ns":1,"pid":1}\n{"ts_ns":2,"pid":70000}\n')
    spec = sources.Ndjson(file, columns={"pid": "pid:int32"})
    found = spec.retry(BadRecord("line 2", "ndjson.decode", "x", b'{"ts_ns":2,"pid":70000}', 41))
    assert found is not None and not found.bad
    assert [(r["seq"], r["pid"]) for r in plain_rows(found.batches[0])] == [(41, 70000)]


@pytest.mark.parametrize("prefixed", [True, False])
def test_itch_messages_are_tried_again(tmp_path: Path, prefixed: bool) -> None:
    good = [message("A", 7, HOUR + i, i, b"B", 100, b"ABC     ", 10_000 + i) for i in range(4)]
    odd = message("A", 7, HOUR, 9, b"X", 100, b"ABC     ", 10_000)
    file = tmp_path / "day.itch"
    file.write_bytes(pack([*good, odd, *good], prefixed) + pack(good[:1], prefixed)[:20])
    spec = sources.Itch(file, date="2019-01-30")
    flow = read(spec).write(sinks.Null())
    assert flow.run(runner="inline", quarantine=tmp_path / "bad")["quarantined"] == 2
    side, cut = (a.error or "" for a in attempts(tmp_path / "bad", flow))
    assert "the side is b'X'" in side and "ends inside a message of type 'A'" in cut
    found = spec.retry(BadRecord("offset 9", "itch.decode add order", "x", good[2], 5))
    assert found is not None and not found.bad
    (row,) = plain_rows(found.batches[0])
    assert (row["seq"], row["order_id"], row["symbol"], row["price"]) == (5, 2, "?7", 1_000_200_000)
    twice = BadRecord("offset 9", "itch.frame", "second name", pack([message_r(7)], prefixed), 3)
    assert spec.retry(twice) is None, "alone, a directory message is sound"
    assert spec.retry(BadRecord("offset 9", "itch.read", "the gzip stream ends early", b"")) is None


def message_r(locate: int) -> bytes:
    return b"R" + struct.pack(">HH", locate, 0) + bytes(6) + b"ABC     " + bytes(20)


def test_messages_of_a_bag_are_tried_again_without_their_log_time(tmp_path: Path) -> None:
    file = tmp_path / "drive.mcap"
    file.write_bytes(write_file(3))
    spec = sources.Mcap(file).topic(CAN_TOPIC)
    message = can_message(77, stamp_ns=5_000_000_123)
    found = spec.retry(BadRecord("chunk", "mcap.decode", "x", message, 6))
    assert found is not None and not found.bad
    (batch,) = found.batches
    assert batch.column("ts_event")[0].value == 5_000_000_123
    assert (batch.column("ts_recv")[0].as_py(), batch.column("seq")[0].as_py()) == (None, 6)
    assert batch.column("can_id")[0].as_py() == 77
    cut = spec.retry(BadRecord("chunk", "mcap.decode", "x", message[:20], 6))
    assert cut is not None and len(cut.bad) == 1
    assert spec.retry(BadRecord("chunk", "mcap.decode", "x", can_message(1), 6)) is None, "no time of its own"
    assert spec.retry(BadRecord("chunk", "mcap.read", "CRC", bytes(100), 6)) is None
