"""Several files as one source: in time order, numbered through, and gone on with from any block."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from penstock.pipeline.context import BadRecord, Context
from penstock.pipeline.errors import FormatError, GraphError
from penstock.pipeline.source import Block, Decoded, Position, SourceReader, SourceSpec
from penstock.sources.file_sets import Files, files
from penstock.sources.storage.listing import expand, list_folder
from penstock.sources.text.ndjson import Ndjson

QUICK = settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def lines(path: Path, times: list[int | None], tag: int) -> Ndjson:
    """A file with a line a time; None is a line that is no JSON."""
    texts = [json.dumps({"ts_ns": t, "v": tag * 1000 + n}) if t is not None else "oops" for n, t in enumerate(times)]
    path.write_text("\n".join(texts) + "\n")
    return Ndjson(path, columns={"v": "v:int64"}, block_bytes=64)


Rows = list[tuple[int, int, int]]


def read(spec: SourceSpec, position: Position | None = None) -> tuple[Rows, list[BadRecord], list[Any]]:
    reader = spec.open(Context("files"), position=position)
    rows: Rows = []
    bad: list[BadRecord] = []
    blocks: list[Any] = []
    seq: int | None = None
    for block in reader.blocks():
        decoded = reader.decode(block)
        for batch in decoded.batches:
            assert batch.schema.equals(spec.schema)
            rows += [(row["ts_recv"].value, row["seq"], row["v"]) for row in batch.to_pylist()]
        bad += decoded.bad
        blocks.append((block.after, len(rows), len(bad)))
        assert seq is None or block.first_seq == seq
        seq = block.first_seq + block.records
    reader.close()
    return rows, bad, blocks


parts = st.lists(
    st.lists(st.one_of(st.integers(0, 300), st.just(None)), min_size=1, max_size=30).filter(lambda p: any(p)),
    min_size=1,
    max_size=4,
)


@QUICK
@given(parts=parts)
def test_files_follow_one_another_by_their_first_time_numbered_through(
    tmp_path: Path, parts: list[list[int | None]]
) -> None:
    specs = [lines(tmp_path / f"{n}.ndjson", times, n) for n, times in enumerate(parts)]
    spec = Files(tuple(specs))
    rows, bad, blocks = read(spec)
    order = sorted(range(len(parts)), key=lambda n: (next(t for t in parts[n] if t is not None), n))
    want, wrong, seq = [], [], 0
    for number in order:
        for n, t in enumerate(parts[number]):
            if t is None:
                wrong.append(seq)
            else:
                want.append((t, seq, number * 1000 + n))
            seq += 1
    assert rows == want
    assert [record.seq for record in bad] == wrong
    for after, count, bad_count in blocks:
        assert read(spec, json.loads(json.dumps(after)))[:2] == (rows[count:], bad[bad_count:])


@QUICK
@given(parts=parts)
def test_overlapping_files_are_merged_by_time_and_keep_their_own_order(
    tmp_path: Path, parts: list[list[int | None]]
) -> None:
    specs = [lines(tmp_path / f"{n}.ndjson", times, n) for n, times in enumerate(parts)]
    spec = Files(tuple(specs), overlapping=True)
    rows, bad, blocks = read(spec)
    order = sorted(range(len(parts)), key=lambda n: (next(t for t in parts[n] if t is not None), n))
    keyed = []
    for rank, number in enumerate(order):
        latest = -1
        for n, t in enumerate(parts[number]):
            if t is not None:
                latest = max(latest, t)
                keyed.append((latest, rank, n, t, number * 1000 + n))
    assert [(t, v) for t, _, v in rows] == [(t, v) for _, _, _, t, v in sorted(keyed)]
    total = sum(len(times) for times in parts)
    assert sorted([seq for _, seq, _ in rows] + [record.seq or 0 for record in bad]) == list(range(total))
    assert [seq for _, seq, _ in rows] == sorted(seq for _, seq, _ in rows)
    for after, count, bad_count in blocks:
        assert read(spec, json.loads(json.dumps(after)))[:2] == (rows[count:], bad[bad_count:])


@pytest.mark.parametrize("overlapping", [False, True])
def test_a_file_is_open_only_while_its_rows_are_read(tmp_path: Path, overlapping: bool) -> None:
    at_once = 0

    class Watched(SourceReader):
        def __init__(self, inner: SourceReader) -> None:
            nonlocal at_once
            self.inner = inner
            opened.append(self)
            at_once = max(at_once, len(opened))

        def blocks(self) -> Iterator[Block]:
            return self.inner.blocks()

        def decode(self, block: Block) -> Decoded:
            return self.inner.decode(block)

        def close(self) -> None:
            opened.remove(self)
            self.inner.close()

    class Part(Ndjson):
        def open(self, *args: Any, **options: Any) -> SourceReader:
            return Watched(super().open(*args, **options))

    opened: list[Watched] = []
    times = [[n, n + 15] for n in range(0, 400, 10)]  # each overlaps the next
    for number, each in enumerate(times):
        lines(tmp_path / f"{number}.ndjson", list(each), number)
    parts = [Part(tmp_path / f"{n}.ndjson", columns={"v": "v:int64"}, block_bytes=64) for n in range(len(times))]
    rows, bad, _ = read(Files(tuple(parts), overlapping=overlapping))
    assert (len(rows), bad, opened) == (2 * len(times), [], [])
    assert at_once == (2 if overlapping else 1)


def test_names_with_numbers_are_in_their_order_and_folders_and_urls_are_listed(tmp_path: Path) -> None:
    for name in ("part10.x", "part9.x", "part1.x", ".hidden", "other.y"):
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "part2.x").write_bytes(b"x")
    names = [Path(path).name for path in expand(tmp_path / "part*.x")]
    assert names == ["part1.x", "part9.x", "part10.x"]
    assert [Path(path).name for path in list_folder(tmp_path)] == ["other.y", *names]
    assert [Path(path).name for path in expand(f"{tmp_path}/**/*.x")] == [*names, "part2.x"]
    assert expand(tmp_path / "other.y") == [str(tmp_path / "other.y")]
    memory = fsspec.filesystem("memory")
    for name in ("a10", "a9"):
        memory.pipe_file(f"/listing/{name}", b"x")
    assert expand("memory://listing/a*") == ["memory:///listing/a9", "memory:///listing/a10"]
    assert expand("memory://listing") == ["memory:///listing/a9", "memory:///listing/a10"]


def test_no_files_other_columns_and_containers_are_refused_with_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match="no file is called"):
        files(tmp_path / "*.none", Ndjson, columns={})
    first = lines(tmp_path / "a.ndjson", [1], 0)
    other = Ndjson(tmp_path / "a.ndjson", columns={"v": "v:float64"})
    with pytest.raises(GraphError, match="other columns"):
        _ = Files((first, other)).schema
    with pytest.raises(GraphError, match="no files"):
        Files(())


def test_a_glob_reads_what_the_files_hold(tmp_path: Path) -> None:
    lines(tmp_path / "b.ndjson", [1, 2], 1)
    lines(tmp_path / "a.ndjson", [5, 6], 2)
    rows, _, _ = read(files(tmp_path / "*.ndjson", Ndjson, columns={"v": "v:int64"}))
    assert rows == [(1, 0, 1000), (2, 1, 1001), (5, 2, 2000), (6, 3, 2001)]
