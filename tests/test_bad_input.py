"""Bad input, end to end on both runners: a clear error or quarantined records with their place, and every other row."""

from __future__ import annotations

import gzip
import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import simplejpeg
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mcap.reader import make_reader
from mcap.records import Channel, Chunk, Message
from mcap.stream_reader import StreamReader, breakup_chunk
from mcap_files import CAN_TOPIC, SHAPES, TEXT_TOPIC, write_file
from penstock import Flow, Stream, event_schema, models, ops, read, sinks, sources
from penstock.cli import main
from penstock.demos.drive_recording import CAMERA, RADAR, write_drive
from penstock.demos.game_recording import write_game
from penstock.demos.market_recording import write_market
from penstock.pipeline.errors import DecodeError, PenstockError
from penstock.pipeline.report import Report
from streams import identity

RUNNERS = ("inline", "local")
#: A run that takes longer hangs; the longest here takes about a second.
HANGS = 60.0


def outcome(flow: Flow, runner: str, **options: Any) -> Report | PenstockError | OSError:
    """The report of a run or the error it ended with, which is one line. Anything else fails the test, as does a hang."""
    ended: list[Report | BaseException] = []

    def work() -> None:
        try:
            ended.append(flow.run(runner=runner, **options))
        except BaseException as error:
            ended.append(error)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join(HANGS)
    assert not thread.is_alive(), f"the {runner} runner hangs"
    (result,) = ended
    if isinstance(result, (PenstockError, OSError)):
        assert "\n" not in str(result)
        return result
    if isinstance(result, BaseException):
        raise result
    return result


def on_both(make: Callable[[], Stream], **options: Any) -> tuple[Report, list[int]]:
    """The report and the `seq` of the rows, the same from both runners."""
    found = []
    for runner in RUNNERS:
        kept = sinks.Collect()
        report = outcome(make().write(kept), runner, parallelism=None if runner == "inline" else 3, **options)
        assert isinstance(report, Report), report
        found.append((report, kept.table()["seq"].to_pylist()))
    (first, rows), (second, others) = found
    assert rows == others
    for key in ("quarantined", "quarantine", "dropped"):
        assert first[key] == second[key]
    assert first.digests == second.digests
    return first, rows


def refused(make: Callable[[], Stream], path: Path) -> str:
    """The one-line error that building or running the stream ends with on both runners; it names the file."""
    errors = []
    for runner in RUNNERS:
        try:
            error = outcome(make().write(sinks.Null()), runner)
        except PenstockError as refusal:
            error = refusal
        assert isinstance(error, PenstockError), error
        assert str(path) in str(error) and "\n" not in str(error)
        errors.append((type(error), str(error)))
    assert errors[0] == errors[1]
    return errors[0][1]


FLOW = """
import sys
sys.path[:0] = {paths!r}
from test_bad_input import READERS
from pathlib import Path
from penstock import sinks

flow = READERS[{reader!r}](Path({path!r})).write(sinks.Null())
"""

READERS: dict[str, Callable[[Path], Stream]] = {
    "mcap": lambda path: read(sources.Mcap(path).topic(CAMERA)).map(ops.DecodeImage(24, 24)),
    "itch": lambda path: read(sources.Itch(path, date="2019-01-30")).map(identity),
    "ndjson": lambda path: read(sources.game_events(path)).map(identity),
}


def run_command(tmp_path: Path, reader: str, path: Path, *options: str) -> int:
    file = tmp_path / "flow.py"
    file.write_text(FLOW.format(paths=[str(Path(__file__).parent)], reader=reader, path=str(path)))
    return main(["run", str(file), "--quiet", *options])


@pytest.fixture(scope="module")
def drive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("drive") / "drive.mcap"
    write_drive(path, seconds=3.0, width=640, height=360)
    return path


def chunks(path: Path) -> list[tuple[int, int, Counter[str]]]:
    """Offset and size of each chunk, and its messages by topic, as the `mcap` package reads them."""
    with path.open("rb") as file:
        summary = make_reader(file).get_summary()
        file.seek(0)
        topics: dict[int, str] = {}
        counts = []
        for record in StreamReader(file, emit_chunks=True).records:
            if isinstance(record, Chunk):
                inner = breakup_chunk(record)
                topics |= {part.id: part.topic for part in inner if isinstance(part, Channel)}
                counts.append(Counter(topics[part.channel_id] for part in inner if isinstance(part, Message)))
    assert summary is not None and len(summary.chunk_indexes) == len(counts) > 2
    places = [(index.chunk_start_offset, index.chunk_length) for index in summary.chunk_indexes]
    return [(*place, count) for place, count in zip(places, counts, strict=True)]


def test_a_truncated_bag_gives_every_frame_before_the_cut(drive: Path, tmp_path: Path) -> None:
    offset, size, _ = chunks(drive)[-1]
    kept = sum(count[CAMERA] for _, _, count in chunks(drive)[:-1])
    path = tmp_path / "cut.mcap"
    path.write_bytes(drive.read_bytes()[: offset + size // 2])
    report, rows = on_both(lambda: READERS["mcap"](path))
    assert rows == list(range(kept)) and kept > 20
    assert report["quarantined"] == 1
    (record,) = report["quarantine"]
    assert record["step"] == "read" and f"{path}, byte {offset}" in record["place"]


def test_the_command_line_runs_a_truncated_bag_and_lists_what_was_lost(
    drive: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    offset, size, _ = chunks(drive)[-1]
    path, bad = tmp_path / "cut.mcap", tmp_path / "bad"
    path.write_bytes(drive.read_bytes()[: offset + size // 2])
    assert run_command(tmp_path, "mcap", path, "--quarantine", str(bad), "--report", str(tmp_path / "run.json")) == 0
    assert Report.load(tmp_path / "run.json")["quarantined"] == 1
    capsys.readouterr()
    assert main(["quarantine", "list", str(bad)]) == 0
    listed = capsys.readouterr().out.splitlines()
    assert len(listed) == 2 and f"byte {offset}" in listed[0]
    assert main(["inspect", str(path)]) == 0
    assert "problem: " in capsys.readouterr().out
    assert main(["quarantine", "rerun", str(bad), str(tmp_path / "flow.py")]) == 1
    assert capsys.readouterr().out.splitlines()[-1] == "0 of 1 records decode now"


def test_a_flipped_byte_costs_its_chunk_and_no_other(drive: Path, tmp_path: Path) -> None:
    table = chunks(drive)
    offset, size, lost = table[1]
    data = bytearray(drive.read_bytes())
    data[offset + size // 2] ^= 0x10
    path = tmp_path / "flipped.mcap"
    path.write_bytes(data)
    first = table[0][2][CAMERA]
    total = sum(count[CAMERA] for _, _, count in table)
    report, rows = on_both(lambda: READERS["mcap"](path))
    assert rows == [*range(first), *range(first + lost[CAMERA], total)]
    assert report["quarantined"] == 1 and lost[CAMERA] > 1
    assert f"{path}, byte {offset} ({size} bytes)" in report["quarantine"][0]["place"]
    assert report["dropped"]["read"] == {"in a damaged part of the file": lost[CAMERA] - 1}


@pytest.fixture(scope="module")
def corrupt(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("corrupt") / "drive.mcap"
    write_drive(path, seconds=1.0, width=96, height=64, corrupt_frame=7)
    return path


def test_a_corrupt_jpeg_costs_one_frame(corrupt: Path) -> None:
    report, rows = on_both(lambda: READERS["mcap"](corrupt))
    assert rows == [seq for seq in range(25) if seq != 7]
    (record,) = report["quarantine"]
    assert (record["step"], record["operation"], record["seq"]) == ("decode_image", "image.decode", 7)
    assert record["place"] == f"drive.mcap:{CAMERA}, topic {CAMERA}, seq 7" and "JPEG" in record["error"]


def test_a_corrupt_jpeg_before_a_model_costs_one_frame(corrupt: Path, tmp_path: Path) -> None:
    def aligned(path: Path) -> Stream:
        bag = sources.Mcap(path)
        radar = read(bag.topic(RADAR), name="radar").map(ops.PadRadar(max_points=16))
        camera = read(bag.topic(CAMERA), name="camera").map(ops.DecodeImage(24, 24))
        inputs = {"image": models.TensorSpec(pa.uint8(), (24, 24, 3))}
        aligned = camera.sync(radar, tolerance="50ms").batch(4)
        return aligned.infer(models.Simulator(service_time="0ms", inputs=inputs))

    good = tmp_path / "good.mcap"
    write_drive(good, seconds=1.0, width=96, height=64)
    whole, all_rows = on_both(lambda: aligned(good))
    report, rows = on_both(lambda: aligned(corrupt))
    assert rows == [seq for seq in all_rows if seq != 7] and len(all_rows) > 20
    assert (whole["quarantined"], report["quarantined"]) == (0, 1)
    assert report["dropped"] == whole["dropped"]


@pytest.mark.parametrize("rows", [1, 4])
def test_more_bad_frames_in_a_row_than_slots_neither_stall_nor_reach_the_model(rows: int) -> None:
    good = simplejpeg.encode_jpeg(np.full((32, 32, 3), 77, np.uint8))
    schema = event_schema([("data", pa.large_binary())], source="made up")
    frames = [{"ts_event": i, "ts_recv": i, "seq": i, "data": good if i % 20 == 0 else good[:50]} for i in range(60)]
    table = pa.Table.from_pylist(frames, schema)
    model = models.Simulator(service_time="0ms", inputs={"image": models.TensorSpec(pa.uint8(), (24, 24, 3))})

    def scores() -> Stream:
        images = read(sources.Rows(table, 10)).map(ops.DecodeImage(24, 24))
        return images.batch(rows).prefetch(depth=2).infer(model)

    report, seqs = on_both(scores)
    assert seqs == [0, 20, 40]
    assert report["quarantined"] == 57 == report["stages"]["decode_image"]["quarantined"]


@pytest.mark.parametrize("runner", RUNNERS)
def test_raise_stops_at_the_bad_frame_and_says_where(corrupt: Path, runner: str) -> None:
    error = outcome(READERS["mcap"](corrupt).write(sinks.Null()), runner, on_error="raise")
    assert isinstance(error, DecodeError)
    assert "step 'decode_image': image.decode: " in str(error) and "seq 7" in str(error)


@pytest.fixture(scope="module")
def market(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("market") / "01302019.NASDAQ_ITCH50"
    write_market(path, messages=3000, symbols=2)
    return path.read_bytes()


def messages(content: bytes) -> list[tuple[int, int, str]]:
    """Offset, number and type of each message of a prefixed file."""
    found, at = [], 0
    while at < len(content) - 2:
        found.append((at, len(found), chr(content[at + 2])))
        at += 2 + int.from_bytes(content[at : at + 2], "big")
    return found


ROWS = "AFECXDUPQB"


def test_a_cut_itch_file_loses_the_message_that_was_cut(market: bytes, tmp_path: Path) -> None:
    before = messages(market)[:1500]
    start, number, _ = messages(market)[1500]
    path = tmp_path / "cut.itch"
    path.write_bytes(market[: start + 9])
    report, rows = on_both(lambda: READERS["itch"](path))
    assert rows == [seq for _, seq, kind in before if kind in ROWS]
    (record,) = report["quarantine"]
    assert report["quarantined"] == 1
    assert (record["place"], record["seq"]) == (f"{path}, offset {start}", number)
    assert "the file ends inside a message" in record["error"]


@pytest.mark.parametrize("runner", RUNNERS)
def test_raise_stops_at_the_cut_message_and_says_where(market: bytes, tmp_path: Path, runner: str) -> None:
    path = tmp_path / "cut.itch"
    path.write_bytes(market[:-10])
    error = outcome(READERS["itch"](path).write(sinks.Null()), runner, on_error="raise")
    assert isinstance(error, DecodeError) and f"{path}, offset " in str(error)


@pytest.mark.parametrize("claimed", [1, 20, 300, 65_535])
def test_a_wrong_length_prefix_costs_one_message(market: bytes, tmp_path: Path, claimed: int) -> None:
    offset, number, _ = next(entry for entry in messages(market)[1000:] if entry[2] == "A")
    path = tmp_path / "lying.itch"
    path.write_bytes(market[:offset] + claimed.to_bytes(2, "big") + market[offset + 2 :])
    report, rows = on_both(lambda: READERS["itch"](path))
    assert rows == [seq for _, seq, kind in messages(market) if kind in ROWS and seq != number]
    (record,) = report["quarantine"]
    assert (record["place"], record["seq"]) == (f"{path}, offset {offset}", number)
    assert f"says {claimed}, but type 'A' has 36" in record["error"]


def test_the_command_line_shows_a_message_with_a_wrong_length(
    market: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    offset, _, _ = next(entry for entry in messages(market)[1000:] if entry[2] == "A")
    path, bad = tmp_path / "lying.itch", tmp_path / "bad"
    path.write_bytes(market[:offset] + b"\x01\x2c" + market[offset + 2 :])
    assert run_command(tmp_path, "itch", path, "--quarantine", str(bad), "--runner", "inline") == 0
    assert main(["quarantine", "show", str(bad), "00000:0"]) == 0
    assert "00000000  01 2c 41" in capsys.readouterr().out


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize(
    ("line", "error"),
    [
        (b'{"ts_ns":1700000000000000000,"frame":3,"event"', ""),
        (b'{"ts_ns":1700000000000000000,"event":"caf\xe9","pid":1}', ""),
        (b'{"event":"Move","pid":1}', "ts_ns"),
        (b"\x00\x01\x02 no JSON at all", ""),
    ],
)
def test_a_broken_line_costs_one_event(tmp_path: Path, line: bytes, error: str, packed: bool) -> None:
    path = tmp_path / "game.ndjson"
    write_game(path, events=300)
    lines = path.read_bytes().splitlines()
    lines[123] = line
    offset = sum(len(before) + 1 for before in lines[:123])
    content = b"\n".join(lines) + b"\n"
    path.write_bytes(gzip.compress(content, mtime=0) if packed else content)
    report, rows = on_both(lambda: READERS["ndjson"](path))
    assert rows == [seq for seq in range(300) if seq != 123]
    (record,) = report["quarantine"]
    assert (record["place"], record["seq"]) == (f"game.ndjson, line 124, byte {offset}", 123)
    assert error in record["error"]


def test_a_cut_gzip_file_gives_its_whole_lines_and_says_that_it_was_cut(tmp_path: Path) -> None:
    path = tmp_path / "game.ndjson.gz"
    write_game(path, events=2000, gz=True)
    whole = gzip.decompress(path.read_bytes())
    path.write_bytes(path.read_bytes()[:-5000])
    report, rows = on_both(lambda: READERS["ndjson"](path))
    assert rows == list(range(len(rows))) and 500 < len(rows) < whole.count(b"\n")
    assert any("ends early" in record["error"] for record in report["quarantine"])


def wrong_files(folder: Path) -> dict[str, Path]:
    folder.mkdir(exist_ok=True)
    write_market(folder / "itch", messages=200, symbols=2)
    write_game(folder / "ndjson", events=50)
    (folder / "mcap").write_bytes(write_file(6))
    (folder / "empty").write_bytes(b"")
    (folder / "nothing.gz").write_bytes(gzip.compress(b""))
    (folder / "noise").write_bytes(bytes(i * i * 7 % 251 for i in range(4000)))
    (folder / "text").write_text("time,price\n1,2\n" * 20)
    (folder / "parquet").write_bytes(b"PAR1" + bytes(500) + b"PAR1")
    return {path.name: path for path in folder.iterdir()}


#: What an error must say of each file, beside its name.
FOUND = {
    "empty": "empty",
    "noise": "",
    "text": "time,pr",
    "parquet": "PAR1",
    "mcap": "MCAP",
    "ndjson": "ts_n",
    "itch": "",
    "nothing.gz": "",
}


@pytest.mark.parametrize(
    ("reader", "kind"), [(reader, kind) for reader in sorted(READERS) for kind in sorted(FOUND) if kind != reader]
)
def test_an_empty_file_and_one_of_another_format_are_refused_by_name(
    reader: str, kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = wrong_files(tmp_path / "files")[kind]
    error = refused(lambda: READERS[reader](path), path)
    said = {("itch", "ndjson"): "JSON", ("itch", "parquet"): "a Parquet file"}.get((reader, kind), FOUND[kind])
    assert said in error
    assert run_command(tmp_path, reader, path) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("penstock: ") and str(path) in line


@pytest.mark.parametrize("kind", ["empty", "noise", "text", "parquet", "nothing.gz"])
def test_inspect_refuses_what_it_does_not_know_in_one_line(
    kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = wrong_files(tmp_path / "files")[kind]
    assert main(["inspect", str(path)]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("penstock: ") and str(path) in line


@pytest.mark.parametrize("reader", sorted(READERS))
@pytest.mark.parametrize("kind", ["missing", "a folder"])
def test_a_path_that_is_no_file_is_named(
    reader: str, kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "recording"
    if kind == "a folder":
        path.mkdir()
    assert run_command(tmp_path, reader, path) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("penstock: ") and str(path) in line


# --- any damage ----------------------------------------------------------------------------------------------------


def _small(write: Callable[..., object], **options: Any) -> Callable[[Path], bytes]:
    def make(folder: Path) -> bytes:
        write(folder / "small", **options)
        return (folder / "small").read_bytes()

    return make


SMALL: dict[str, Callable[[Path], bytes]] = {
    **{f"mcap {shape}": (lambda folder, o=options: write_file(9, **o)) for shape, options in SHAPES.items()},
    "itch": _small(write_market, messages=60, symbols=2),
    "itch unprefixed": _small(write_market, messages=60, symbols=2, prefixed=False),
    "itch gz": _small(write_market, messages=60, symbols=2, gz=True),
    "ndjson": _small(write_game, events=30),
    "ndjson gz": _small(write_game, events=30, gz=True),
}


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, bytes], Callable[[bytes], Path]]:
    """The recordings, and a way to put bytes into a file that nothing remembers."""
    folder, made = tmp_path_factory.mktemp("small"), [0]

    def put(content: bytes) -> Path:
        (folder / f"{made[0]}.bin").unlink(missing_ok=True)
        made[0] += 1
        path = folder / f"{made[0]}.bin"
        path.write_bytes(content)
        return path

    return {name: make(folder) for name, make in SMALL.items()}, put


def flow_of(kind: str, path: Path, topic: str) -> Flow:
    if kind.startswith("mcap"):
        stream = read(sources.Mcap(path).topic(topic), name="read")
    elif kind.startswith("itch"):
        stream = read(sources.Itch(path, date="2019-01-30"), name="read")
    else:
        stream = read(sources.Ndjson(path, columns={"pid": "pid:int16"}, rest="rest", block_bytes=512), name="read")
    return stream.map(identity).batch(5).write(sinks.Null())


def ending(kind: str, path: Path, topic: str, runner: str) -> tuple[Any, ...]:
    try:
        result = outcome(flow_of(kind, path, topic), runner, parallelism=None if runner == "inline" else 3)
    except PenstockError as error:
        result = error
    if isinstance(result, Report):
        stage = result["stages"]["read"]
        dropped = sum(stage["dropped"].values())
        assert stage["rows_out"] + result["quarantined"] + dropped >= stage["rows_in"], "a record that nobody counts"
        assert all(record["place"] and record["error"] for record in result["quarantine"])
        return (result.rows, result.digests, result["quarantined"], result["quarantine"], result["dropped"])
    assert isinstance(result, PenstockError), result
    assert str(path) in str(result) and "\n" not in str(result)
    return (type(result), str(result))


def damaged(content: bytes, kind: str, at: int, size: int, byte: int) -> bytes:
    """`content` after one accident at `at`."""
    at %= max(1, len(content))
    if kind == "flip":
        return content[:at] + bytes([content[at] ^ (byte or 1)]) + content[at + 1 :] if content else content
    if kind == "cut":
        return content[:at]
    if kind == "remove":
        return content[:at] + content[at + size :]
    if kind == "repeat":
        return content[: at + size] + content[at:]
    if kind == "fill":
        return content[:at] + bytes([byte]) * min(size, len(content) - at) + content[at + size :]
    source = byte * len(content) // 256
    return content[:at] + content[source : source + size] + content[at:]


accidents = st.tuples(
    st.sampled_from(["flip", "cut", "remove", "repeat", "fill", "splice"]),
    st.integers(0, 1 << 14),
    st.integers(1, 60) | st.sampled_from([200, 1000]),
    st.integers(0, 255),
)


@settings(max_examples=250, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.sampled_from(sorted(SMALL)),
    st.lists(accidents, min_size=1, max_size=4),
    st.sampled_from([CAN_TOPIC, TEXT_TOPIC]),
)
def test_any_damage_ends_the_same_on_both_runners(
    small: tuple[dict[str, bytes], Callable[[bytes], Path]],
    kind: str,
    done: list[tuple[str, int, int, int]],
    topic: str,
) -> None:
    recordings, put = small
    content = recordings[kind]
    for accident in done:
        content = damaged(content, *accident)
    path = put(content)
    assert ending(kind, path, topic, "inline") == ending(kind, path, topic, "local")
