"""Slippi replays against a naive reader, against peppi, and while they grow."""

from __future__ import annotations

import gzip
import os
import struct
import subprocess
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from penstock.pipeline.clock import SyntheticClock
from penstock.pipeline.columns import as_numpy
from penstock.pipeline.context import Context
from penstock.pipeline.errors import FormatError, GraphError
from penstock.sources.games._slippi_format import FRAME_NS, parse_container, parse_metadata, parse_opening
from penstock.sources.games._slippi_frames import FrameResolver
from penstock.sources.games.slippi import Slippi, SlippiTail, inspect_slippi, is_slippi, open_slippi
from pyarrow import feather
from slippi_naive import PRE, Game, naive_rows, write_container

FILES = {
    "buttons_abxy.slp": (774, "1.0.0"),
    "joystick_udlr.slp": (684, "1.0.0"),
    "game.slp": (10418, "1.0.0"),
    "v2.0.slp": (21478, "2.0.1"),
}


def rows_of(spec, context=None, position=None):
    context = context or Context("test")
    reader = spec.open(context, None, position)
    batches, bad, dropped, blocks = [], [], {}, []
    for block in reader.blocks():
        decoded = reader.decode(block)
        batches += decoded.batches
        bad += decoded.bad
        blocks.append((block, list(decoded.batches), list(decoded.bad)))
        for name, count in decoded.dropped.items():
            dropped[name] = dropped.get(name, 0) + count
    reader.close()
    return pa.Table.from_batches(batches, spec.schema), bad, dropped, blocks


def plain(table):
    """Rows without what the naive reader does not know."""
    return table.drop_columns(["ts_event", "ts_recv", "seq", "match_id"]).to_pylist()


def same(found, wanted):
    assert len(found) == len(wanted)
    for a, b in zip(found, wanted, strict=True):
        for name, value in b.items():
            assert a[name] == value or (value != value and a[name] != a[name]), (name, a, b)


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("table", ["input", "state"])
def test_real_replays_read_completely_and_equal_the_naive_reader(recordings, name, table):
    path = recordings("games/slippi_melee") / name
    rows, bad, dropped, _ = rows_of(Slippi(path, table))
    assert not bad
    assert rows.num_rows == FILES[name][0]
    same(plain(rows), naive_rows(path.read_bytes(), table))
    rows.validate(full=True)
    assert rows["seq"].to_pylist() == list(range(rows.num_rows))
    assert sum(dropped.values()) == rows.num_rows + 2  # the other updates, start and end


@pytest.mark.parametrize("name", FILES)
def test_real_replays_equal_peppi(recordings, name, tmp_path):
    python = os.environ.get("PENSTOCK_PEPPI")
    if not python:
        pytest.skip("PENSTOCK_PEPPI names no python with peppi-py (its pyarrow pin wants an environment of its own)")
    path = recordings("games/slippi_melee") / name
    out = tmp_path / "peppi.arrow"
    subprocess.run([python, str(Path(__file__).parents[2] / "peppi_arrays.py"), str(path), str(out)], check=True)
    peppi = feather.read_table(out)
    for table in ("input", "state"):
        rows, *_ = rows_of(Slippi(path, table))
        compared = 0
        for index, player in enumerate(sorted(set(rows["player"].to_pylist()))):
            own = rows.filter(pa.compute.equal(rows["player"], player))
            assert np.array_equal(own["frame"].to_numpy(), peppi["frame"].to_numpy())
            for column in rows.column_names:
                key = f"{index}.0.{table + '.' if column == 'action_state' else ''}{column}"
                if column == "airborne" and key not in peppi.column_names:
                    assert own[column].null_count == own.num_rows
                if key in peppi.column_names:
                    found, wanted = own[column].to_numpy(), peppi[key].to_numpy()
                    assert np.array_equal(found, wanted.astype(found.dtype), equal_nan=found.dtype.kind == "f"), key
                    compared += 1
        assert compared >= (20 if table == "input" else 16)


def test_times_are_exact_integers_from_start_at(recordings):
    path = recordings("games/slippi_melee") / "game.slp"
    rows, *_ = rows_of(Slippi(path))
    times = as_numpy(rows["ts_event"].combine_chunks())
    frames = as_numpy(rows["frame"].combine_chunks()).astype(np.int64)
    assert times[0] == 1529653979 * 10**9  # 2018-06-22T07:52:59Z
    assert np.array_equal(times, 1529653979 * 10**9 + (frames + 123) * 16_683_333)
    assert rows["ts_recv"].equals(rows["ts_event"])


def test_inspect_says_what_the_game_was_and_no_names(recordings):
    found = inspect_slippi(recordings("games/slippi_melee") / "v2.0.slp")
    assert found["version"] == "2.0.1"
    assert found["types"]["0x37"] == {"name": "pre-frame update", "messages": 21478}
    assert found["frames"] == {"first": -123, "last": 10615, "rows": 21478, "missing": 0}
    assert found["game"]["stage"] == 8
    assert [p["character"] for p in found["game"]["players"]] == [15, 2]
    assert found["error"] is None
    assert "vgoot" not in str(found)


def game(frames=40, version=(3, 9), **options):
    made = Game(version)
    body = b"".join(made.frame(f, **options) for f in range(-123, -123 + frames))
    return made, made.head + body + made.end()


def write(tmp_path, data, name="game.slp"):
    path = tmp_path / name
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("version", [(0, 1), (1, 4), (2, 2), (3, 0), (3, 7), (3, 18)])
@pytest.mark.parametrize("table", ["input", "state"])
def test_versions_have_what_they_have_and_nulls_elsewhere(tmp_path, version, table):
    _, events = game(30, version, follower=True)
    path = write(tmp_path, write_container(events))
    rows, bad, *_ = rows_of(Slippi(path, table))
    assert not bad
    same(plain(rows), naive_rows(path.read_bytes(), table))
    assert rows.num_rows == 90
    if table == "state":
        assert rows["airborne"].null_count == (90 if version < (2, 0) else 0)


def test_a_field_that_the_size_cuts_off_is_null(tmp_path):
    made = Game((1, 0), short=6 + 8)
    events = made.head + b"".join(made.frame(f) for f in range(-123, -100)) + made.end()
    rows, bad, *_ = rows_of(Slippi(write(tmp_path, write_container(events))))
    assert not bad
    assert rows["trigger_r"].null_count == rows["trigger_l"].null_count == rows.num_rows == 46
    assert rows["buttons_phys"].null_count == 0


def rolled_back(version, latest=True):
    """A game in which each third frame is sent again from up to 6 frames before."""
    made = Game(version)
    body = b""
    for turn, newest in enumerate(range(-123, -60), 1):
        first = max(-123, newest - (newest % 7 if newest % 3 == 0 else 0))
        for f in range(first, newest + 1):
            final = max(-124, min(f, newest - 7)) if latest else None
            body += made.frame(f, turn=turn, final=final, follower=turn % 2 == 0)
    return made, made.head + body + made.end()


@pytest.mark.parametrize("version", [(3, 0), (3, 9)])
@pytest.mark.parametrize("table", ["input", "state"])
def test_of_a_frame_sent_again_the_last_counts(tmp_path, version, table):
    _, events = rolled_back(version)
    path = write(tmp_path, write_container(events))
    rows, bad, dropped, _ = rows_of(Slippi(path, table))
    assert not bad
    wanted = naive_rows(path.read_bytes(), table)
    same(plain(rows), wanted)
    assert dropped["superseded by rollback"] > 20
    assert "sent again after the frame was final" not in dropped


@given(cuts=st.lists(st.integers(1, 900), min_size=1, max_size=30), version=st.sampled_from([(2, 0), (3, 0), (3, 9)]))
@settings(max_examples=25)
def test_how_events_are_cut_changes_nothing(cuts, version):
    _, events = rolled_back(version)
    opening = parse_opening(events, parse_container(events, ""), "")
    body = events[opening.end :]
    body = body[:5000] + b"\x99" * 9 + body[5000:]

    def run(pieces):
        resolver = FrameResolver(opening.sizes, PRE)
        rows, seqs, bad = [], [], []
        for number, piece in enumerate(pieces):
            for part in resolver.feed(piece, final=number == len(pieces) - 1):
                rows.append(part.rows.tobytes())
                seqs += part.seqs.tolist()
                bad += [(e.offset, e.seq, e.data, e.error) for e in part.bad]
        return b"".join(rows), seqs, bad

    cuts = [*cuts, 4000]  # else a lone cut of one byte means thousands of calls
    pieces, at, number = [], 0, 0
    while at < len(body):
        step = cuts[number % len(cuts)]
        pieces.append(body[at : at + step])
        at, number = at + step, number + 1
    assert run(pieces) == run([body])


def test_a_final_frame_leaves_as_soon_as_a_bookend_says_so():
    made = Game((3, 9))
    opening = parse_opening(made.head, parse_container(made.head, ""), "")
    resolver = FrameResolver(opening.sizes, PRE)
    list(resolver.feed(made.head[opening.end :]))
    assert [len(part.rows) for part in resolver.feed(made.frame(-123))] == [2]
    assert sum(len(part.rows) for part in resolver.feed(made.frame(-122, final=-123))) == 0
    assert sum(len(part.rows) for part in resolver.feed(made.frame(-121, final=-122))) == 2


def test_resume_behind_any_block_gives_the_same_rows(tmp_path, monkeypatch):
    from penstock.sources.games import _slippi_reader

    monkeypatch.setattr(_slippi_reader, "READ", 3000)
    _, events = rolled_back((3, 9))
    events = events[:9000] + b"\x99" * 5 + events[9000:]
    path = write(tmp_path, write_container(events))
    whole, bad, _, blocks = rows_of(Slippi(path))
    assert len(blocks) > 10
    assert len(bad) >= 1
    for number, (block, *_) in enumerate(blocks):
        later, later_bad, *_ = rows_of(Slippi(path), position=block.after)
        before = sum(batch.num_rows for _, batches, _ in blocks[: number + 1] for batch in batches)
        assert later.equals(whole.slice(before))
        assert later_bad == [record for _, _, records in blocks[number + 1 :] for record in records]


def test_block_size_changes_no_row(tmp_path, monkeypatch):
    from penstock.sources.games import _slippi_reader

    _, events = rolled_back((3, 0))
    path = write(tmp_path, write_container(events))
    whole, *_ = rows_of(Slippi(path))
    monkeypatch.setattr(_slippi_reader, "READ", 777)
    parts, *_ = rows_of(Slippi(path))
    assert parts.equals(whole)


def test_gzip_reads_the_same(tmp_path):
    _, events = rolled_back((3, 9))
    data = write_container(events)
    plain_file, packed = write(tmp_path, data), tmp_path / "packed.slp"
    packed.write_bytes(gzip.compress(data))
    a, b = rows_of(Slippi(plain_file))[0], rows_of(Slippi(packed))[0]
    assert a.cast(b.schema).equals(b)
    assert inspect_slippi(packed)["compression"] == "gzip"


def test_an_alone_jump_of_frame_costs_one_record_and_a_gap_is_noted(tmp_path):
    made = Game((1, 0))
    odd = made._event(PRE, 1 << 30, 0, False, 0)
    body = b"".join(made.frame(f) for f in range(-123, -100)) + odd + b"".join(made.frame(f) for f in range(-100, -80))
    body += b"".join(made.frame(f) for f in range(-60, -50))
    path = write(tmp_path, write_container(made.head + body + made.end()))
    context = Context("test")
    rows, bad, *_ = rows_of(Slippi(path), context)
    assert [len(record.data) for record in bad] == [len(odd)] * 2  # the odd one, and the first behind the gap
    assert "frame 1073741824" in bad[0].error
    assert context.metrics.noted["missing frames"] == 20
    numbers = sorted(rows["seq"].to_pylist() + [record.seq for record in bad])
    assert numbers == list(range(rows.num_rows + 2))
    assert rows.num_rows == 2 * 53 - 1


def test_unknown_bytes_are_skipped_to_the_next_event(tmp_path):
    made, events = game(40)
    at = len(made.head) + 10 * len(made.frame(0))
    junk = bytes(range(128, 228))
    rows, bad, *_ = rows_of(Slippi(write(tmp_path, write_container(events[:at] + junk + events[at:]))))
    assert rows.num_rows == 80
    assert [record.data for record in bad] == [junk]
    assert f"offset {15 + at}" in bad[0].place


def test_a_player_that_cannot_be_is_a_bad_record(tmp_path):
    made, events = game(20)
    odd = made._event(PRE, -110, 9, False, 0)
    rows, bad, *_ = rows_of(Slippi(write(tmp_path, write_container(events[:-3] + odd + events[-3:]))))
    assert rows.num_rows == 40
    assert "player 9" in bad[0].error


def test_a_cut_file_gives_what_came_before(tmp_path):
    _, events = game(40)
    data = write_container(events)[: 15 + 4000]
    rows, bad, *_ = rows_of(Slippi(write(tmp_path, data)))
    assert rows.num_rows > 10
    assert len(bad) == 1
    assert "ends inside" in bad[0].error or "the file ends" in bad[0].error


def test_damaged_metadata_is_a_bad_record_and_times_count_from_1970(tmp_path):
    _, events = game(20)
    data = write_container(events)
    at = data.index(b"startAt") - 2
    data = data[:at] + b"\xfe" + data[at + 1 :]
    context = Context("test")
    rows, bad, *_ = rows_of(Slippi(write(tmp_path, data)), context)
    assert bad[0].operation == "slippi.metadata"
    assert as_numpy(rows["ts_event"].combine_chunks())[0] == 0
    assert any("startAt" in name for name in context.metrics.noted)


def test_a_file_still_being_written_reads_to_its_end(tmp_path):
    _, events = game(20)
    unfinished = write_container(events, length=0)
    cut = unfinished[: unfinished.index(b"U\x08metadata")]
    rows, bad, *_ = rows_of(Slippi(write(tmp_path, cut), start_at="2023-01-02T12:34:56Z"))
    whole, *_ = rows_of(Slippi(write(tmp_path, write_container(events))))
    assert not bad
    assert rows.equals(whole)
    crashed, bad, *_ = rows_of(Slippi(write(tmp_path, unfinished)))
    assert not bad
    assert crashed["frame"].equals(whole["frame"])


def test_bare_events_read_too(tmp_path):
    _, events = game(20)
    assert is_slippi(events)
    rows, bad, *_ = rows_of(Slippi(write(tmp_path, events), start_at=5 * 10**9))
    assert not bad
    assert rows.num_rows == 40
    assert as_numpy(rows["ts_event"].combine_chunks())[0] == 5 * 10**9


def test_match_id_is_slippis_own_where_there_is_one(tmp_path):
    made = Game((3, 14))
    size = 0x2F8
    head = bytearray(made.head)
    place = head.index(bytes([0x36]), 2)
    head[place + 1 : place + 3] = struct.pack(">H", size)
    start = bytearray(head[-made.sizes[0x36] - 1 :]).ljust(size + 1, b"\0")
    text = b"mode.ranked-2023-01-02T12:34:56.78-0"
    start[0x2BE : 0x2BE + len(text)] = text
    start[0x2F1:0x2F9] = struct.pack(">II", 2, 0)
    events = bytes(head[: -made.sizes[0x36] - 1] + start) + made.frame(-123) + made.end()
    path = write(tmp_path, write_container(events))
    rows, *_ = rows_of(Slippi(path))
    assert rows["match_id"].to_pylist() == ["mode.ranked-2023-01-02T12:34:56.78-0/2"] * 2
    assert set(rows_of(Slippi(path, match_id="mine"))[0]["match_id"].to_pylist()) == {"mine"}


def test_names_do_not_leave(tmp_path):
    _, events = game(20)
    path = write(tmp_path, write_container(events))
    rows, *_ = rows_of(Slippi(path))
    assert "SECR" not in str(inspect_slippi(path)) + str(rows.to_pylist()) + str(rows.schema)


class Growing(SyntheticClock):
    """A clock whose waits let the file grow."""

    def __init__(self, path, pieces):
        super().__init__(1_700_000_000 * 10**9)
        self.path, self.pieces, self.waits = path, list(pieces), 0

    def wait_ns(self, duration, stop):
        self.waits += 1
        if self.pieces:
            piece = self.pieces.pop(0)
            if callable(piece):
                piece(self.path)
            else:
                with self.path.open("ab") as file:
                    file.write(piece)
        elif self.waits > 10_000:
            stop.set()
        return super().wait_ns(duration, stop)


def finish(data, step):
    """What the writer does at the end: the length, then the metadata, here in pieces."""

    def work(path):
        with path.open("r+b") as file:
            file.seek(11)
            file.write(data[11:15])

    metadata = data[data.index(b"U\x08metadata") :]
    return [work, *(metadata[i : i + step] for i in range(0, len(metadata), step))]


@pytest.mark.parametrize("version", [(2, 0), (3, 0), (3, 9)])
@pytest.mark.parametrize("step", [97, 1501])
@pytest.mark.parametrize("ends", [True, False])
def test_the_tail_of_a_growing_file_gives_the_rows_of_the_whole_file(tmp_path, version, step, ends):
    _, events = rolled_back(version)
    events = events if ends else events[:-3]
    data = write_container(events)
    whole, bad, *_ = rows_of(Slippi(write(tmp_path, data)))
    assert not bad
    raw = write_container(events, length=0)[: 15 + len(events)]
    path = write(tmp_path, raw[:7])
    pieces = [raw[i : i + step] for i in range(7, len(raw), step)]
    clock = Growing(path, [*pieces, *finish(data, 7 if step < 100 else 2000)])
    spec = SlippiTail(path, start_at="2023-01-02T12:34:56Z", recv="event")
    tailed, bad, *_ = rows_of(spec, Context("test", clock=clock))
    assert not bad
    assert tailed.equals(whole)
    assert clock.waits < 10_000


def test_the_tail_counts_from_the_clock_and_says_when_it_read(tmp_path):
    _, events = game(30)
    raw = write_container(events, length=0)[: 15 + len(events)]
    path = write(tmp_path, raw[:1200])
    pieces = [raw[i : i + 300] for i in range(1200, len(raw), 300)]
    clock = Growing(path, pieces)
    rows, bad, _, blocks = rows_of(SlippiTail(path), Context("test", clock=clock))
    assert not bad
    events_ns, received = as_numpy(rows["ts_event"].combine_chunks()), as_numpy(rows["ts_recv"].combine_chunks())
    assert np.all(np.diff(received) >= 0)
    assert received[0] >= 1_700_000_000 * 10**9
    assert abs(int(events_ns[0]) - 1_700_000_000 * 10**9) < 3 * FRAME_NS
    assert rows["ts_event"].equals(rows["ts_event"])
    middle = blocks[len(blocks) // 2]
    later, *_ = rows_of(SlippiTail(path), Context("test", clock=Growing(path, [])), position=middle[0].after)
    before = sum(batch.num_rows for _, batches, _ in blocks[: len(blocks) // 2 + 1] for batch in batches)
    assert later["ts_event"].equals(rows["ts_event"].slice(before))
    assert later["seq"].equals(rows["seq"].slice(before))


def test_a_tail_resumes_behind_every_block(tmp_path, monkeypatch):
    from penstock.sources.games import _slippi_frames

    monkeypatch.setattr(_slippi_frames, "_MOST_ROWS", 20)
    _, events = rolled_back((3, 9))
    path = write(tmp_path, write_container(events))
    whole, _, _, blocks = rows_of(SlippiTail(path, recv="event"))
    assert len(blocks) > 5
    assert whole.equals(rows_of(Slippi(path))[0])
    for number, (block, *_) in enumerate(blocks):
        later, *_ = rows_of(SlippiTail(path, recv="event"), position=block.after)
        before = sum(batch.num_rows for _, batches, _ in blocks[: number + 1] for batch in batches)
        assert later.equals(whole.slice(before))


def test_the_tail_ends_when_stopped_and_when_it_does_not_grow(tmp_path):
    _, events = game(10)
    raw = write_container(events[:-3], length=0)[: 15 + len(events) - 3]
    path = write(tmp_path, raw)
    context = Context("test", clock=SyntheticClock())
    rows, bad, *_ = rows_of(SlippiTail(path, patience="1s"), context)
    assert not bad
    assert rows.num_rows == 20
    stopped = Context("test", clock=SyntheticClock())
    stopped.stop.set()
    rows, *_ = rows_of(SlippiTail(path), stopped)
    assert rows.num_rows == 20  # what the bookends made final before


def test_a_tail_whose_file_is_written_anew_says_so(tmp_path):
    _, events = game(10)
    raw = write_container(events[:-3], length=0)[: 15 + len(events) - 3]
    path = write(tmp_path, raw)
    clock = Growing(path, [lambda where: where.write_bytes(raw[:100])])
    rows, bad, *_ = rows_of(SlippiTail(path), Context("test", clock=clock))
    assert rows.num_rows == 20
    assert "shorter" in bad[0].error


def test_it_is_recognised_by_its_content(tmp_path):
    _, events = game(3)
    data = write_container(events)
    assert is_slippi(data)
    assert is_slippi(data[:17])
    for other in (b"", b"{", b'{"raw": 1}\n', b"\x35", b"5,6,7\n8,9,10\n", b"\x89MCAP0\r\n", b"{U\x03rawS"):
        assert not is_slippi(other)


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (b"", "empty"),
        (b"hello, this is text", "not a Slippi replay"),
        (b"{U\x03raw[$U#l\0\0\0\x09" + b"\x37" * 9, "table of event sizes"),
    ],
)
def test_other_files_are_refused_with_what_was_found(tmp_path, data, what):
    with pytest.raises(FormatError, match=what):
        rows_of(Slippi(write(tmp_path, data)))


def test_wrong_arguments_are_graph_errors(tmp_path):
    for wrong in ({"table": "items"}, {"start_at": "yesterday"}, {"start_at": -1}):
        with pytest.raises(GraphError):
            Slippi("x.slp", **wrong)
    with pytest.raises(GraphError, match="URL"):
        SlippiTail("s3://bucket/game.slp")
    with pytest.raises(GraphError):
        SlippiTail("x.slp", poll="0ms")
    assert open_slippi("x.slp", table="state") == Slippi("x.slp", "state")


def test_metadata_that_lies_about_its_sizes_allocates_nothing():
    for lie in (
        b"[$Z#l\x7f\xff\xff\xff",
        b"{#l\x7f\xff\xff\xff",
        b"Sl\x7f\xff\xff\xffabc",
        b"[" * 200,
        b"[$U#l\xff\xff\xff\xff",
        b"[$",
    ):
        found, used, problem = parse_metadata(b"U\x08metadata" + lie)
        assert found is None
        assert used == 0
        assert problem
