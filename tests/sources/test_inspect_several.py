"""``penstock inspect`` of URLs, wildcards and folders, and what is said of folders and files that are no recordings."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import fsspec
import pytest
from penstock import read, sources
from penstock.cli import main
from penstock.pipeline.errors import FormatError, GraphError
from penstock.sources.replay.serving import replay


@pytest.fixture
def day(tmp_path: Path) -> Path:
    folder = tmp_path / "day"
    folder.mkdir()
    for n in (2, 1):
        (folder / f"part{n}.ndjson").write_text(f'{{"ts_ns": {n}, "event": "e"}}\n' * n)
    return folder


@pytest.fixture
def mixed(day: Path) -> Path:
    (day / "SOURCE.txt").write_text("where these are from\n")
    return day


def test_a_folder_and_wildcards_are_a_line_a_file_and_a_total(day: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for given in (str(day), f"{day}/*.ndjson"):
        assert main(["inspect", given]) == 0
        first, second, total, *more = capsys.readouterr().out.splitlines()
        assert "part1.ndjson: NDJSON, 1 messages" in first and "part2.ndjson: NDJSON, 2 messages" in second
        assert total.startswith(f"{given}: 2 files (2 NDJSON), 3 messages, ")
        (call,) = re.findall(r"read them: (.*)", more[-1])
        assert sum(batch.num_rows for batch in read(eval(call, {"sources": sources}))) == 3
    assert main(["inspect", "--json", str(day)]) == 0
    assert [json.loads(line)["messages"] for line in capsys.readouterr().out.splitlines()] == [1, 2]


def test_what_is_no_recording_is_named_and_left_out_of_the_call(
    mixed: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["inspect", str(mixed)]) == 0
    told = capsys.readouterr()
    assert "SOURCE.txt is text in no format known" in told.err
    assert "beside them 1 that are no recordings: SOURCE.txt" in told.out
    assert told.out.endswith(f"read them: sources.files('{mixed}/*.ndjson')\n")
    assert main(["inspect", f"{mixed}/*"]) == 1  # named by the user, not found beside the others


def test_a_url_is_inspected_as_a_file_is(capsys: pytest.CaptureFixture[str]) -> None:
    memory = fsspec.filesystem("memory")
    for n in (1, 2):
        memory.pipe_file(f"/inspected/{n}.ndjson", b'{"ts_ns": 1, "event": "e"}\n' * n)
    assert main(["inspect", "memory://inspected/2.ndjson"]) == 0
    assert capsys.readouterr().out.startswith("memory://inspected/2.ndjson: NDJSON, 2 messages, ")
    for given in ("memory://inspected", "memory://inspected/*"):
        assert main(["inspect", given]) == 0
        assert f"{given}: 2 files (2 NDJSON), 3 messages" in capsys.readouterr().out
    with pytest.raises(FormatError, match=r"is a folder: sources\.files\('memory://inspected'\) reads its files"):
        sources.open("memory://inspected")


def test_a_folder_of_files_says_how_to_read_it(mixed: Path, tmp_path: Path) -> None:
    with pytest.raises(FormatError, match=re.escape(f"sources.files('{mixed}') reads its files as one")):
        sources.open(mixed)
    for attempt in (lambda: sources.files(mixed), lambda: replay(mixed, "udp://127.0.0.1:9")):
        with pytest.raises(FormatError, match=rf"SOURCE\.txt is text .* such as '{mixed}/\*\.ndjson'"):
            attempt()
    assert sum(batch.num_rows for batch in read(sources.files(f"{mixed}/*.ndjson"))) == 3
    (tmp_path / "nothing").mkdir()
    for attempt in (
        lambda: sources.open(tmp_path),
        lambda: sources.files(tmp_path),
        lambda: replay(tmp_path, "udp://h:9"),
    ):
        with pytest.raises(FormatError, match=r"holds no files, but folders \(day, nothing\): name one of them"):
            attempt()
    with pytest.raises(FormatError, match="nothing is an empty folder"):
        sources.files(tmp_path / "nothing")


def test_recordings_of_one_topic_need_no_topic(recordings: Callable[[str], Path], tmp_path: Path) -> None:
    folder = recordings("driving/rosbag2_conformance/mcap")
    parts = sources.files(f"{folder}/multiple_files_*.mcap")
    assert sum(part.topic == "/chatter" for part in parts.parts) == 3  # type: ignore[attr-defined]
    shutil.copy(folder / "wbag_0.mcap", tmp_path / "a.mcap")
    with pytest.raises(GraphError, match=r"several topics: say which with topic= .*--topic\); expected AAA, BBB"):
        sources.files(tmp_path)
