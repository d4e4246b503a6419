"""Files and URLs read at random: the same bytes wherever they are."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import fsspec
import pyarrow as pa
import pytest
from penstock import read, sources
from penstock.pipeline.errors import FormatError
from penstock.sources.storage.stored import (
    base_name,
    is_url,
    location,
    open_stored,
    stamp_of,
    stored_size,
    within,
)
from penstock.sources.storage.unpack import open_feed

CONTENT = bytes(range(256)) * 5000


@pytest.fixture
def places(tmp_path: Path) -> dict[str, str]:
    local = tmp_path / "content.bin"
    local.write_bytes(CONTENT)
    memory = fsspec.filesystem("memory")
    memory.pipe_file("/stored/content.bin", CONTENT)
    return {"path": str(local), "file url": f"file://{local}", "memory": "memory://stored/content.bin"}


@pytest.mark.parametrize("kind", ["path", "file url", "memory"])
def test_any_range_of_a_file_is_the_same_wherever_it_is(places: dict[str, str], kind: str) -> None:
    with open_stored(places[kind]) as stored:
        assert stored.size == len(CONTENT) == stored_size(places[kind])
        for start, length in ((0, 10), (1000, 100_000), (len(CONTENT) - 3, 10), (len(CONTENT), 5), (5, 0)):
            assert stored.read(start, length) == CONTENT[start : start + length]
    feed = open_feed(places[kind])
    view = memoryview(bytearray(len(CONTENT) + 7))
    assert bytes(view[: feed.fill(view)]) == CONTENT
    feed.close()


def test_a_stamp_changes_with_the_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"one")
    before = stamp_of(path)
    assert stamp_of(f"file://{path}") == before
    path.write_bytes(b"three")
    assert stamp_of(path) != before


def test_names_are_taken_apart_and_put_together() -> None:
    assert base_name("s3://bucket/day/a.itch.gz?version=3") == "a.itch.gz" == base_name("/x/a.itch.gz")
    assert within("s3://bucket/day/", "a/b") == "s3://bucket/day/a/b"
    assert within("/x", "a/b") == "/x/a/b"
    assert location("file:///x/y") == "/x/y"
    assert is_url("http://h/x") and not is_url("file:///x") and not is_url("/x")


def test_a_folder_a_missing_file_and_an_unknown_protocol_are_errors_that_name_it(tmp_path: Path) -> None:
    with pytest.raises(IsADirectoryError, match=str(tmp_path)):
        open_stored(tmp_path)
    with pytest.raises(FileNotFoundError, match="nothing"):
        open_stored(tmp_path / "nothing")
    with pytest.raises(FileNotFoundError, match="nothing"):
        open_stored("memory://nothing")
    with pytest.raises(FormatError, match="nosuch"):
        open_stored("nosuch://a/b")


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_: Any) -> None:
            pass

    served = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(tmp_path)))
    thread = threading.Thread(target=served.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{served.server_address[1]}"
    served.shutdown()
    served.server_close()


def test_a_server_that_cannot_give_a_part_of_a_file_is_not_believed(tmp_path: Path, server: str) -> None:
    (tmp_path / "content.bin").write_bytes(CONTENT)
    with open_stored(f"{server}/content.bin") as stored:
        assert stored.read(0, len(CONTENT)) == CONTENT
        with pytest.raises(FormatError, match="download it"):
            stored.read(100, 10)


def test_sources_read_urls_as_they_read_files(tmp_path: Path) -> None:
    lines = b"".join(b'{"ts_ns": %d, "v": %d}\n' % (1000 + n, n) for n in range(5000))
    memory = fsspec.filesystem("memory")
    memory.pipe_file("/urls/lines.ndjson", lines)
    (tmp_path / "lines.ndjson").write_bytes(lines)
    here = sources.Ndjson(tmp_path / "lines.ndjson", columns={"v": "v:int64"}, block_bytes=4096)
    there = sources.Ndjson("memory://urls/lines.ndjson", columns={"v": "v:int64"}, block_bytes=4096)
    assert there.name == "lines.ndjson"
    tables = [pa.Table.from_batches(list(read(spec))) for spec in (here, there)]
    assert tables[0].equals(tables[1]) and tables[0].num_rows == 5000
    assert [split.detail for split in there.splits(4)] == [split.detail for split in here.splits(4)]
