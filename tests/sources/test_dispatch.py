"""Any recording is opened by its content: the right source for every real file, whatever it is called."""

from __future__ import annotations

import gzip
import shutil
import tarfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from penstock import read, sources
from penstock.pipeline.errors import FormatError, GraphError
from penstock.sources.formats import FOLDERS, FORMATS, format_of
from penstock.sources.inspection import summary

#: Folders of the recordings, what their files are, and which are none by design.
REAL = {
    "driving/rosbag1": ("*.bag", "ROS 1 bag"),
    "driving/rosbag2_conformance/mcap": ("*.mcap", "MCAP"),
    "driving/rosbag2_conformance/sqlite3": ("*.db3", "rosbag2"),
    "driving/nebula_radar_ros2/ars548": ("*.db3", "rosbag2"),
    "driving/dashcam_h264": ("*.mp4", "video"),
    "games/slippi_melee": ("*.slp", "Slippi"),
    "games/osu_replays": ("*.osr", "osu! replay"),
    "games/sc2replay": ("*.SC2Replay", "StarCraft II replay"),
    "games/derived_sc2_events": ("*.gz", "NDJSON"),
    "market/binance_ws_raw": ("*.gz", "crypto"),
    "market/itch50": ("ex*", "NASDAQ ITCH 5.0"),
    "market/dbn_conformance": ("*.dbn*", "DBN"),
}


@pytest.mark.parametrize("folder", REAL)
def test_every_real_file_is_recognised_whatever_it_is_called(recordings: Any, tmp_path: Path, folder: str) -> None:
    pattern, name = REAL[folder]
    files = [path for path in sorted(recordings(folder).glob(pattern)) if ".frag" not in path.name]
    assert files
    for path in files:
        assert format_of(path).name == name
    disguised = tmp_path / "data.bin"
    shutil.copy(files[0], disguised)
    assert format_of(disguised).name == name


def test_a_format_is_recognised_by_no_other(recordings: Any) -> None:
    for folder, (pattern, name) in REAL.items():
        path = next(path for path in sorted(recordings(folder).glob(pattern)) if ".frag" not in path.name)
        from penstock.sources.storage.unpack import head_of

        head, _ = head_of(path)
        claims = [known.name for known in FORMATS if known.recognises(head, str(path))]
        assert claims == [name], path


@pytest.mark.parametrize("name", ["01302019.NASDAQ_ITCH50", "rows.ndjson", "drive"])
def test_sources_of_one_table_are_opened_ready_to_read(recordings: Any, tmp_path: Path, name: str) -> None:
    if "ITCH" in name:
        path = tmp_path / name
        shutil.copy(recordings("market/itch50") / "ex20101224.TEST_ITCH_50.prefixed.itch", path)
        assert sources.open(path) == sources.Itch(path)
    elif name == "drive":
        drive = recordings("driving/derived_drive") / "drive_mcap" / "drive_mcap.mcap"
        assert "/imu" in "".join(sources.open(drive).topics())
        topic = next(iter(sources.open(drive).topics()))
        assert sources.open(drive, topic=topic).topic == topic
    else:
        path = tmp_path / name
        path.write_text('{"timestamp": 1700000000000, "event": "a"}\n{"timestamp": 1700000000001, "event": "b"}\n')
        table = pa.Table.from_batches(list(read(sources.open(path))))
        assert table["type"].to_pylist() == ["a", "b"]
        assert table["ts_event"].cast(pa.int64()).to_pylist() == [1700000000000 * 10**6, 1700000000001 * 10**6]


def test_wildcards_and_lists_are_one_source(tmp_path: Path) -> None:
    for n in range(3):
        (tmp_path / f"part{n}.ndjson").write_text(f'{{"ts_ns": {10 * n}, "event": "e{n}"}}\n')
    whole = pa.Table.from_batches(list(read(sources.open(f"{tmp_path}/part*.ndjson"))))
    assert whole["type"].to_pylist() == ["e0", "e1", "e2"]
    assert sources.open([tmp_path / "part2.ndjson", tmp_path / "part0.ndjson"]).name == "2 files"


def test_what_is_no_recording_is_refused_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "empty").write_bytes(b"")
    (tmp_path / "noise").write_bytes(bytes(range(256)))
    with pytest.raises(FormatError, match="empty is empty"):
        sources.open(tmp_path / "empty")
    with pytest.raises(FormatError, match=r"noise begins with 00 01 02 .* none of recording, MCAP"):
        sources.open(tmp_path / "noise")
    with pytest.raises(FormatError, match=r"is a folder, and none of .*KITTI"):
        sources.open(tmp_path)
    with pytest.raises(FileNotFoundError, match="absent"):
        sources.open(tmp_path / "absent")
    (tmp_path / "x.ndjson").write_text('{"ts_ns": 1, "event": "e"}\n')
    with pytest.raises(GraphError, match="takes no option 'colour'"):
        sources.open(tmp_path / "x.ndjson", colour="red")


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (
            b"version https://git-lfs.github.com/spec/v1\noid sha256:00\n",
            "pointer that Git LFS leaves .* 'git lfs pull'",
        ),
        (b"\x64\x13\x01\0" + bytes(396), r"Databento definitions without the head .* version=2\)"),
        (b"\xff\xd8\xff\xe0" + bytes(99), "a single picture"),
        (b"\x89PNG\r\n\x1a\n" + bytes(99), "a single picture"),
        (b"\x93NUMPY\x01\0" + bytes(99), "a NumPy array: .* open the folder of the recording"),
        (b"\x89HDF\r\n\x1a\n" + bytes(99), "an HDF5 file: write it as Parquet"),
        (b"\x02\x21\x4c\x18" + bytes(99), "lz4's legacy format: unpack it with 'lz4 -d'"),
        (gzip.compress(gzip.compress(b"a", mtime=0), mtime=0), "packed twice .gzip inside gzip."),
        (b"\xff\xfet\0i\0m\0e\0", "UTF-16 text"),
        (b'{\n  "a": [\n {"ts_ns": 1}\n]}\n', "JSON document over several lines.*JsonArray"),
        (b'{"a": 1}{"a": 2}{"a": 3}', "JSON objects one behind the other: write one a line"),
        (b'{"a": 1},\n{"a": 2},\n', "each with a comma behind it"),
        (b"{'a': 1}\n{'a': 2}\n", "single quotes, as Python prints them"),
        (b'\x1e{"a": 1}\n\x1e{"a": 2}\n', "behind record separators"),
        (b"[1, 2]\n", "a JSON array, but not of objects"),
        (b'1700000000000000000 {"channel":"trades","data":[]}\n', "recording of JSON messages .* no venue known"),
        (
            b"5859400,200,5853300,18\n5859400,200,5853200,18\n",
            "an order book of LOBSTER, .* file of messages beside it",
        ),
        (b"5859400,200,9853300,18\n5859400,200,9853200,18\n", "numbers in fours, as an order book of LOBSTER has them"),
        (b"timestamp_utc;open;high\n2024-01-01;1;2\n", "a table of text that begins with 'timestamp_utc;open;high'"),
        (b"hello\nworld\n", "text in no format known here, which begins with 'hello'"),
    ],
)
def test_what_is_no_recording_is_named_with_what_to_do(tmp_path: Path, data: bytes, says: str) -> None:
    path = tmp_path / "given"
    path.write_bytes(data)
    with pytest.raises(FormatError, match=f"given is .*{says}") as caught:
        sources.open(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("packed", [False, True])
def test_a_tar_archive_is_not_taken_for_what_shows_in_it(tmp_path: Path, packed: bool) -> None:
    inside = tmp_path / "events.ndjson"
    inside.write_text('{"ts_ns": 1, "event": "e"}\n' * 100)
    path = tmp_path / "events.tar"
    with tarfile.open(path, "w:gz" if packed else "w") as archive:
        archive.add(inside, "events.ndjson")
    with pytest.raises(FormatError, match="is a tar archive: unpack it"):
        sources.inspect(path)


def test_every_format_offers_what_dispatch_needs() -> None:
    for known in (*FORMATS, *FOLDERS):
        for verb in ("is", "inspect", "open"):
            assert callable(known._function(verb)), known


def test_a_summary_says_how_to_read_a_file_and_what_would_be_left_out(tmp_path: Path) -> None:
    events = tmp_path / "events.ndjson"
    events.write_text('{"ts_ns": 1, "event": "e"}\nbroken\n')
    told = summary(sources.inspect(events))
    assert "\n  1 of them are bad: " in told
    assert told.splitlines()[-1].startswith(f"  read it: sources.open({str(events)!r}); columns=")
    events.write_text('{"a": 1}\n')
    assert f"sources.open({str(events)!r}, time='PATH', time_unit='ms')" in summary(sources.inspect(events))
