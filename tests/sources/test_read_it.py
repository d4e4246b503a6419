"""What ``penstock inspect`` says last runs as it stands, for every real recording and a made one of every other format."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from blf_files import can_message, container, file_head, thing
from packets import ethernet, ipv4, pcapng, udp
from penstock import event_schema, sources
from penstock.pipeline.context import Context
from penstock.pipeline.source import SourceSpec
from penstock.sources.formats import FOLDERS, FORMATS, format_of
from penstock.sources.inspection import inspect, summary
from penstock.sources.live.arrival import Arrival
from penstock.sources.live.slippi_events import SlippiEvents
from penstock.sources.replay.recorder import Recorder

REAL = (
    "driving/comma2k19_example1",
    "driving/dashcam_h264/*.mp4",
    "driving/derived_drive/drive_mcap",
    "driving/derived_drive/*/*.mcap",
    "driving/nebula_radar_ros2/*/*.db3",
    "driving/rosbag1/*.bag",
    "driving/rosbag2_conformance/*/*.mcap",
    "driving/rosbag2_conformance/*/*.db3",
    "games/derived_sc2_events/*.gz",
    "games/osu_replays/*.osr",
    "games/sc2replay/*.SC2Replay",
    "games/slippi_melee/*.slp",
    "market/binance_ws_raw/*.gz",
    "market/dbn_conformance/*",
    "market/itch50/ex*",
)
SECOND = 1_700_000_000
STAMPED = 1_500_000_000 * 10**9


def rows_of_first_block(told: str) -> int:
    """Evaluate the call behind "read it:" and read up to the first block that has rows."""
    (call,) = re.findall(r"^  read it: (sources\.open\(.*?\))(?:; .*)?$", told, re.MULTILINE)
    spec = eval(call, {"sources": sources})
    assert isinstance(spec, SourceSpec)
    reader = spec.open(Context("read it"))
    count = 0
    try:
        for block in reader.blocks():
            batches = reader.decode(block).batches
            assert all(batch.schema.equals(spec.schema) for batch in batches)
            count = sum(batch.num_rows for batch in batches)
            if count:
                break
    finally:
        reader.close()
    return count


@pytest.mark.parametrize("pattern", REAL)
def test_the_line_of_a_real_recording_runs(recordings: Callable[[str], Path], pattern: str) -> None:
    root = recordings("/".join(pattern.split("/")[:2])).parent.parent
    there = [path for path in sorted(root.glob(pattern)) if ".frag" not in path.name and path.suffix != ".txt"]
    assert there
    for path in there:
        found = inspect(path)
        told = summary(found)
        if path.name == "no-messages.bag":
            assert told.endswith("it has no topics, and so nothing to read")
        else:
            assert bool(rows_of_first_block(told)) == bool(found["messages"]) or found["problem"], path


def recorded(path: Path, codec: SlippiEvents | None) -> None:
    recorder = Recorder(str(path), feed="tcp://127.0.0.1:9001", codec=codec)
    recorder.write([Arrival(SECOND * 10**9, b"", 0, 0, "connected")])
    recorder.write([Arrival(STAMPED + n, b"x" * n) for n in range(1, 4)])
    recorder.write([Arrival(SECOND * 10**9 + 9, b"", 0, 0, "lost")])
    recorder.close()


def ticks(path: Path) -> None:
    schema = event_schema([("price", pa.float64())], source="made")
    at = pa.array([SECOND * 10**9], pa.timestamp("ns", tz="UTC"))
    table = pa.Table.from_arrays([at, at, pa.array([0], pa.uint64()), pa.array([1.5])], schema=schema)
    pq.write_table(table, path)


def kitti(path: Path) -> None:
    for folder, name in (("oxts", "0000000000.txt"), ("velodyne_points", "0000000000.bin")):
        (path / folder / "data").mkdir(parents=True)
        (path / folder / "timestamps.txt").write_text("2011-09-26 13:02:25.964389445\n")
        (path / folder / "data" / name).write_bytes(b"0.5 " * 30 if folder == "oxts" else bytes(16))


def nuscenes(path: Path) -> None:
    (path / "samples" / "LIDAR_TOP").mkdir(parents=True)
    name = f"n015-2018-07-24-11-22-45+0800__LIDAR_TOP__{SECOND}000000.pcd.bin"
    (path / "samples" / "LIDAR_TOP" / name).write_bytes(bytes(40))


TICK = f"{SECOND}000000,{SECOND}000000"
TEXTS = {
    "Tardis CSV": f"exchange,symbol,timestamp,local_timestamp,id,side,price,amount\nokx,BTC,{TICK},1,buy,1.5,2\n",
    "Binance CSV": f"id,price,qty,quote_qty,time,is_buyer_maker\n7,42000.01,0.5,21000,{SECOND}000,true\n",
    "LOBSTER": "34200.017,1,16113575,18,5853300,1\n34200.018,3,16113575,18,5853300,1\n",
    "Vector ASC": "date Wed Apr 16 11:21:13.159 am 2014\nbase hex  timestamps absolute\n0.5 1 1 Rx d 1 0A\n",
    "PEAK TRC": ";$FILEVERSION=1.1\n;$STARTTIME=43000.5\n;\n;---+--   ----+----\n     1)  1.5  Rx  0100  1  0A \n",
    "candump": f"({SECOND}.000001) can0 123#0A\n",
    "NDJSON": f'{{"ts_ns": {SECOND}000000000, "event": "e"}}\n',
    "JSON array": f'[{{"ts_ns": {SECOND}000000000, "event": "e"}}]',
}
NAMES = {"LOBSTER": "AAPL_2012-06-21_34200000_57600000_message_10.csv", "Binance CSV": "BTCUSDT-trades-2023-11-14.csv"}
WRITERS: dict[str, Callable[[Path], None]] = {
    "recording": lambda path: recorded(path, None),
    "recording of a codec": lambda path: recorded(path, SlippiEvents()),
    "pcap": lambda path: path.write_bytes(pcapng([(SECOND * 10**9, ethernet(ipv4(udp(b"abc"))))])) and None,
    "Parquet": ticks,
    "Vector BLF": lambda path: path.write_bytes(file_head() + container(thing(1, can_message(1, 5, b"a")))) and None,
    "KITTI": kitti,
    "nuScenes": nuscenes,
}


@pytest.mark.parametrize("kind", [*TEXTS, *WRITERS])
def test_the_line_of_a_made_one_runs(tmp_path: Path, kind: str) -> None:
    path = tmp_path / NAMES.get(kind, "it's made")
    if kind in TEXTS:
        path.write_text(TEXTS[kind])
    else:
        WRITERS[kind](path)
    assert format_of(path).name == kind.removesuffix(" of a codec")
    found = inspect(path)
    rows = rows_of_first_block(summary(found))
    assert rows or kind == "recording of a codec", found  # of no Slippi events


def test_every_format_is_among_them() -> None:
    driving, games = (
        {"comma2k19", "video", "rosbag2", "MCAP", "ROS 1 bag"},
        {"osu! replay", "StarCraft II replay", "Slippi"},
    )
    real = driving | games | {"DBN", "NASDAQ ITCH 5.0", "crypto"}
    assert {known.name for known in (*FORMATS, *FOLDERS)} == real | {*TEXTS, *WRITERS} - {"recording of a codec"}


def test_messages_of_a_recording_are_counted_and_dated_without_the_events_of_its_connection(tmp_path: Path) -> None:
    path = tmp_path / "rec.mcap"
    recorded(path, None)
    found = inspect(path)
    assert (found["messages"], found["counts"], found["details"]["events"]) == (3, {"/line/0": 3}, 2)
    assert found["time"]["start_ns"] == STAMPED + 1 and found["time"]["end_ns"] == STAMPED + 3
    told = summary(found)
    assert "2017-07-14" in told and "2023" not in told
    assert "codec=sources.SlippiEvents()" in told and "sources.JsonMessages" in told
    assert sources.open(path, codec=sources.SlippiEvents()).schema.names[:3] == ["ts_event", "ts_recv", "seq"]
    recorded(tmp_path / "typed.mcap", SlippiEvents())
    assert "codec=" not in summary(inspect(tmp_path / "typed.mcap"))
