"""One JSON document streamed as rows: the same as its elements written one a line."""

from __future__ import annotations

import gzip
import json
import random

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from penstock.pipeline.context import Context
from penstock.pipeline.errors import FormatError, GraphError
from penstock.sources.games._json_array_feed import ArrayFeed
from penstock.sources.games.json_array import (
    JsonArray,
    array_events,
    inspect_json_array,
    is_json_array,
    open_json_array,
)
from penstock.sources.storage.unpack import BytesFeed
from penstock.sources.text.ndjson import game_events


def rows_of(spec, position=None):
    reader = spec.open(Context("test"), None, position)
    blocks = [(block, reader.decode(block)) for block in reader.blocks()]
    reader.close()
    batches = [batch for _, decoded in blocks for batch in decoded.batches]
    return pa.Table.from_batches(batches, spec.schema), [bad for _, decoded in blocks for bad in decoded.bad], blocks


EVENTS = [
    {
        "_T": "LogPlayerPosition",
        "_D": f"2023-01-02T12:00:{i % 60:02d}.125Z",
        "x": i / 2,
        "note": 'a "]}, [{ \\ b' * (i % 3),
        "in": {"a": [i, [i]]},
    }
    for i in range(500)
]
PUBG = {"type": "_T", "time": "_D", "time_unit": "iso", "match_id": "m"}


@pytest.mark.parametrize("indent", [None, 0, 2])
def test_an_array_gives_the_rows_of_the_same_lines(tmp_path, indent):
    lines, array, packed = tmp_path / "a.ndjson", tmp_path / "a.json", tmp_path / "a.json.gz"
    lines.write_text("\n".join(json.dumps(event) for event in EVENTS))
    array.write_text(json.dumps(EVENTS, indent=indent))
    packed.write_bytes(gzip.compress(array.read_bytes()))
    wanted, _, _ = rows_of(game_events(lines, **PUBG))
    for path in (array, packed):
        found, bad, _ = rows_of(array_events(path, **PUBG, block_bytes=4096))
        assert not bad
        assert found.num_rows == 500
        assert found.drop_columns(["attrs"]).to_pylist() == wanted.drop_columns(["attrs"]).to_pylist()
        assert [json.loads(text) for text in found["attrs"].to_pylist()] == [
            json.loads(t) for t in wanted["attrs"].to_pylist()
        ]
    assert is_json_array(array.read_bytes()[:65536])
    assert open_json_array(array).time == "_D"
    found = inspect_json_array(array)
    assert (found["messages"], found["types"], found["bad"]) == (500, {"LogPlayerPosition": 500}, 0)
    assert found["time"]["start"].startswith("2023-01-02T12:00:00")


def test_the_time_of_elements_is_found_and_must_be_there(tmp_path):
    path = tmp_path / "candles.json"
    path.write_text(json.dumps([{"open": 1.5, "closeTime": 1_700_000_000_000 + i, "type": "k"} for i in range(9)]))
    rows, bad, _ = rows_of(open_json_array(path))
    assert not bad
    assert rows["ts_event"].cast(pa.int64()).to_pylist() == [(1_700_000_000_000 + i) * 10**6 for i in range(9)]
    assert rows["type"].to_pylist() == ["k"] * 9
    path.write_text('[{"open": 1.5}]')
    with pytest.raises(GraphError, match=r"nothing in the records .* looks like their time"):
        open_json_array(path)


def test_arrays_inside_objects_inside_arrays_are_walked_through(tmp_path):
    frames = [
        {"events": [{"type": "E", "timestamp": 10 * i + j, "participantId": j} for j in range(3)], "x": [1]}
        for i in range(4)
    ]
    document = {"metadata": {"events": [{"no": 1}]}, "events": [5], "info": {"gameId": 7, "frames": frames, "more": []}}
    path = tmp_path / "timeline.json"
    path.write_text(json.dumps(document, indent=1))
    spec = array_events(
        path,
        at="info.frames.events",
        type="type",
        player="participantId",
        time="timestamp",
        time_unit="ms",
        time_start_ns=10**18,
    )
    rows, bad, _ = rows_of(spec)
    assert not bad
    assert rows["ts_event"].cast(pa.int64()).to_pylist() == [
        10**18 + (10 * i + j) * 10**6 for i in range(4) for j in range(3)
    ]
    assert rows["player"].to_pylist() == [0, 1, 2] * 4


def test_the_sc2_events_as_an_array_equal_the_lines(recordings, tmp_path):
    source = next(iter(sorted(recordings("games/derived_sc2_events").glob("*.gz"))))
    text = gzip.decompress(source.read_bytes()).rstrip(b"\n")
    path = tmp_path / "events.json"
    path.write_bytes(b"[" + text.replace(b"\n", b",\n") + b"]\n")
    wanted, _, _ = rows_of(game_events(source, match_id="m"))
    found, bad, _ = rows_of(array_events(path, match_id="m"))
    assert not bad
    assert found.to_pylist() == wanted.to_pylist()


def test_resume_behind_any_block_and_a_broken_element(tmp_path):
    path = tmp_path / "a.json"
    text = json.dumps(EVENTS)
    path.write_text(text.replace('"x": 50.0', '"x": 50.0.0'))
    spec = array_events(path, **PUBG, block_bytes=4096)
    whole, bad, blocks = rows_of(spec)
    assert whole.num_rows == 499
    assert [record.seq for record in bad] == [100]
    for number in range(0, len(blocks), 4):
        later, later_bad, _ = rows_of(spec, blocks[number][0].after)
        before = sum(batch.num_rows for _, decoded in blocks[: number + 1] for batch in decoded.batches)
        assert later.to_pylist() == whole.slice(before).to_pylist()
        assert later_bad == [record for _, decoded in blocks[number + 1 :] for record in decoded.bad]


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ('[{"a": 1}', "cut at"),
        ('[{"a": 1}] x', "follows"),
        ('{"a": {}}', "no array"),
        ("[" * 300, ""),
        ('{"a":' * 300, "nested"),
    ],
)
def test_a_document_that_does_not_end_well_is_a_bad_record(tmp_path, text, what):
    path = tmp_path / "a.json"
    path.write_text(text)
    _, bad, _ = rows_of(JsonArray(path, columns={}, time="a"))
    assert bad
    assert what in bad[-1].error


def test_other_files_and_paths_are_refused(tmp_path):
    path = tmp_path / "a.json"
    for text in ("", "  \n", "hello"):
        path.write_text(text)
        with pytest.raises(FormatError):
            rows_of(JsonArray(path, columns={}))
    with pytest.raises(GraphError):
        JsonArray(path, columns={}, at="a..b")
    for head in (b"", b"[1,2]", b"{}", b'{"a":[{}]}', b"[section]\n", b"[{oops"):
        assert not is_json_array(head)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=6),
    lambda s: st.lists(s, max_size=3) | st.dictionaries(st.text(max_size=3), s, max_size=3),
)


@given(st.lists(JSON, max_size=8), st.sampled_from([None, 1]), st.integers(1, 40))
@settings(max_examples=100)
def test_any_elements_come_out_one_a_line(elements, indent, step):
    feed = ArrayFeed(
        BytesFeed(json.dumps({"x": [0], "a": {"b": elements}}, indent=indent, ensure_ascii=False).encode()), ("a", "b")
    )
    out, view = b"", memoryview(bytearray(step))
    while count := feed.fill(view):
        out += bytes(view[:count])
    assert feed.error is None
    assert [json.loads(line) for line in out.splitlines() if line.strip()] == elements


def test_damaged_documents_do_no_harm(tmp_path):
    data = json.dumps(EVENTS[:40]).encode()
    for seed in range(150):
        rng = random.Random(seed)
        hurt = bytearray(data)
        for _ in range(3):
            at = rng.randrange(len(hurt))
            hurt[at : at + rng.randrange(3)] = rng.choice([b"", b'"', b"]", b"}", b"[", b"{", b"\\", b"\n", b"\xff"])
        path = tmp_path / "a.json"
        path.write_bytes(hurt)
        is_json_array(bytes(hurt))
        try:
            rows, bad, blocks = rows_of(array_events(path, **PUBG))
        except FormatError:
            continue
        assert rows.num_rows + sum(record.seq is not None for record in bad) == sum(
            block.records for block, _ in blocks
        )
