"""Slippi games over connections: the rows of the file, games one after the other, and what was lost."""

from __future__ import annotations

import itertools
import json
import threading
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from live_feeds import beside, follow, tcp_server
from penstock.pipeline.clock import RealClock
from penstock.pipeline.context import Context
from penstock.pipeline.errors import GraphError
from penstock.sources.games.slippi import Slippi
from penstock.sources.live.arrival import Arrival
from penstock.sources.live.slippi_events import SlippiEvents, live_slippi
from penstock.sources.replay.formats import playable_of
from penstock.sources.replay.formats_slippi import slippi_playable
from penstock.sources.replay.message import Playable
from penstock.sources.replay.outlet import outlet_to
from penstock.sources.replay.recording import Recording
from slippi_naive import Game, write_container

START = 1_672_662_896 * 10**9  # what write_container says


def plain(table: pa.Table) -> pa.Table:
    """Without the names of sources, and with each dictionary in one."""
    return table.unify_dictionaries().combine_chunks().replace_schema_metadata(None)


def received(playable: Playable, url: str, spec_of: Any, *, stamped: bool = True) -> Any:
    """What a feed gives that is served at `url`, and closed at its end."""
    outlet = outlet_to(url, playable, RealClock(), threading.Event(), stamped=stamped)

    def send() -> None:
        try:
            outlet.ready(1)
            for message in playable.messages():
                outlet.send(message)
        finally:
            outlet.close()

    with beside(send):
        return follow(spec_of(outlet.address))


@pytest.mark.parametrize(
    ("file", "url", "table"),
    [("buttons_abxy.slp", "tcp", "input"), ("joystick_udlr.slp", "ws", "state")],
)
def test_a_real_game_served_frame_by_frame_gives_the_rows_of_the_file(
    recordings: Any, file: str, url: str, table: str
) -> None:
    path = recordings("games/slippi_melee") / file
    want, want_bad, want_dropped = follow(Slippi(path, table))
    got, bad, dropped = received(
        slippi_playable(str(path)), f"{url}://127.0.0.1:0", lambda at: live_slippi(at, table=table, reconnect="0s")
    )
    assert bad == want_bad == [] and dropped == want_dropped
    assert got.num_rows > 500
    assert plain(got).equals(plain(want))


@pytest.mark.parametrize(("file", "table"), [("game.slp", "input"), ("v2.0.slp", "state")])
def test_a_long_real_game_taken_frame_by_frame_gives_the_rows_of_the_file(
    recordings: Any, file: str, table: str
) -> None:
    path = recordings("games/slippi_melee") / file
    arrivals = [Arrival(message.ts_ns, message.data) for message in playable_of(str(path)).messages()]
    session = SlippiEvents(table).open(Context("slippi"), "feed", None)
    framed = [session.take(arrivals[at : at + 500], 0) for at in range(0, len(arrivals), 500)]
    last = session.finish(0)
    batches = [batch for part in [*framed, last] if part for batch in session.decode(part.payload, 0).batches]
    assert plain(pa.Table.from_batches(batches)).equals(plain(follow(Slippi(path, table))[0]))


def test_a_real_game_is_replayed_at_its_own_pace(recordings: Any) -> None:
    path = str(recordings("games/slippi_melee") / "buttons_abxy.slp")
    messages = list(playable_of(path).messages())
    times = [message.ts_ns for message in messages]
    assert len(messages) == follow(Slippi(path))[0]["frame"].to_pylist()[-1] + 124
    assert {later - earlier for earlier, later in itertools.pairwise(times)} == {16_683_333}


def frames_of(game: Game, frames: Any, **options: Any) -> bytes:
    return b"".join(game.frame(frame, **options) for frame in frames)


def taken(
    pieces: list[bytes | str], *, table: str = "input", **options: Any
) -> tuple[pa.Table, list[str], dict[str, int]]:
    """Rows, what was told, and drops of a session that gets these pieces; a text is an event of the connection."""
    codec = SlippiEvents(table, **options)
    context = Context("slippi")
    session = codec.open(context, "feed", None)
    arrivals = [
        Arrival(1000 + n, piece) if isinstance(piece, bytes) else Arrival(1000 + n, b"", 0, 0, piece)
        for n, piece in enumerate(pieces)
    ]
    batches, told, dropped, seq = [], [], {}, 0
    framed = [session.take([arrival], 0) for arrival in arrivals]
    last = session.finish(0)
    for part in [*framed, *([] if last is None else [last])]:
        decoded = session.decode(part.payload, seq)
        seq += part.records
        batches += decoded.batches
        told += [record.error for record in [*part.noticed, *decoded.bad]]
        for reason, count in part.dropped.items():
            dropped[reason] = dropped.get(reason, 0) + count
    rows = pa.Table.from_batches(batches, codec.schema("feed"))
    assert rows["seq"].to_pylist() == sorted(rows["seq"].to_pylist()) and seq >= rows.num_rows
    return rows, told, dropped | {f"noted: {what}": n for what, n in context.metrics.noted.items()}


@settings(max_examples=25, deadline=None)
@given(
    version=st.sampled_from([(1, 0), (3, 0), (3, 9)]),
    back=st.lists(st.integers(0, 6), min_size=5, max_size=30),
    cuts=st.lists(st.integers(1, 900), max_size=30),
    ends=st.booleans(),
)
def test_rollbacks_and_any_cut_of_the_stream_give_the_rows_of_the_file(
    tmp_path_factory: Any, version: tuple[int, int], back: list[int], cuts: list[int], ends: bool
) -> None:
    game = Game(version)
    events, newest = game.head, -124
    for turn, rollback in enumerate(back):
        for frame in range(max(-123, newest + 1 - rollback), newest + 2):
            events += game.frame(frame, turn=turn, final=max(-124, newest - 7))
        newest += 1
    events += game.end() if ends else b""
    path = tmp_path_factory.mktemp("game") / "game.slp"
    path.write_bytes(write_container(events))
    want, want_bad, _ = follow(Slippi(path))
    messages = list(slippi_playable(str(path)).messages())
    assert b"".join(m.data for m in messages) == events
    session = SlippiEvents().open(Context("slippi"), "feed", None)
    framed = [session.take([Arrival(m.ts_ns, m.data)], 0) for m in messages]
    framed.append(session.finish(0))
    batches = [batch for part in framed for batch in session.decode(part.payload, 0).batches]
    assert want_bad == [] == [record for part in framed for record in part.noticed]
    assert plain(pa.Table.from_batches(batches)).equals(plain(want))
    pieces, at = [], 0
    for cut in [*cuts, len(events)]:
        pieces.append(events[at : at + cut])
        at += cut
    rows, told, _ = taken(pieces, start_at=START)
    assert told == []
    assert plain(rows).drop_columns("ts_recv").equals(plain(want).drop_columns("ts_recv"))


@pytest.mark.parametrize("ends", [True, False])
@pytest.mark.parametrize("whole", [True, False])
def test_the_next_game_begins_with_its_table_of_sizes(ends: bool, whole: bool) -> None:
    first, second = Game((3, 9)), Game((2, 0))
    stream = first.head + frames_of(first, range(-123, -100)) + (first.end() if ends else b"")
    stream += second.head + frames_of(second, range(-123, -90)) + second.end()
    pieces = [stream] if whole else [stream[at : at + 7] for at in range(0, len(stream), 7)]
    rows, told, _ = taken(pieces)
    assert told == []
    assert rows["frame"].to_pylist() == [f for last in (-100, -90) for f in range(-123, last) for _ in range(2)]
    assert len(set(rows["match_id"].to_pylist())) == 2
    assert rows["seq"].to_pylist() == list(range(rows.num_rows))


def test_a_game_that_began_before_is_skipped_counted_and_told_once() -> None:
    game = Game((3, 9))
    pieces = [frames_of(game, [5]), frames_of(game, [6]), game.head + frames_of(game, [-123]), game.end()]
    rows, told, dropped = taken(pieces)
    assert rows["frame"].to_pylist() == [-123, -123]
    assert len(told) == 1 and "no game begins here" in told[0]
    assert dropped["bytes that came before the start of a game"] == len(pieces[0]) + len(pieces[1])


def test_a_lost_connection_leaves_out_the_broken_event_and_says_which_frames_are_missing() -> None:
    game = Game((3, 9))
    before = game.head + frames_of(game, range(-123, -110))
    pieces = ["connected", before + game.frame(-110)[:30], "lost: reset", "connected", frames_of(game, range(700, 720))]
    rows, told, dropped = taken([*pieces, game.end()])
    assert rows["frame"].to_pylist() == [f for f in [*range(-123, -110), *range(700, 720)] for _ in range(2)]
    assert [error for error in told if "lost (reset" in error and "broke off" in error] == told[:1]
    assert told[1:] == ["frames -110 to 699 of the game had not come since the connection was lost when frame 700 did"]
    assert dropped["noted: missing frames"] == 810


def test_a_game_that_is_sent_again_from_its_beginning_gives_no_row_twice() -> None:
    game = Game((3, 9))
    start = game.head + frames_of(game, range(-123, 100))
    again = start + frames_of(game, range(100, 120)) + game.end()
    rows, told, dropped = taken(
        ["connected", start, "lost: reset", "connected", *(again[at : at + 999] for at in range(0, len(again), 999))]
    )
    assert rows["frame"].to_pylist() == [f for f in range(-123, 120) for _ in range(2)]
    assert len(told) == 1
    assert dropped["sent again after the frame was final"] == 2 * 223


def test_a_connection_that_is_not_made_again_inside_a_game_is_told() -> None:
    game = Game((3, 9))
    inside = ["connected", game.head + frames_of(game, range(-123, -110)), "lost: closed by the sender"]
    assert "inside a game and not made again" in taken(inside)[1][0]
    assert taken([*inside[:2], game.end(), inside[2]])[1] == []


def test_a_run_goes_on_inside_a_game() -> None:
    game = Game((3, 9))
    codec = SlippiEvents()
    first = codec.open(Context("slippi"), "feed", None)
    before = first.take([Arrival(START, game.head + frames_of(game, range(-123, -100), final=-110))], 0)
    position: Any = json.loads(json.dumps(first.position()))
    again = codec.open(Context("slippi"), "feed", position)
    arrivals = [
        Arrival(0, b"", 0, 0, "lost: away"),
        Arrival(0, b"", 0, 0, "connected"),
        Arrival(START + 10, frames_of(game, range(-95, -80)) + game.end()),
    ]
    rest = again.take(arrivals, before.records)
    rows = pa.Table.from_batches(again.decode(rest.payload, before.records).batches)
    assert rows["frame"].to_pylist()[-2:] == [-81, -81] and rows["frame"].to_pylist()[0] == -109
    assert rows["seq"].to_pylist()[0] == before.records
    assert rows["ts_event"].cast(pa.int64()).to_pylist()[0] == START + 14 * 16_683_333
    assert any("frames -100 to -96" in record.error for record in rest.noticed)


def test_a_recorded_feed_reads_again_to_the_same_rows(tmp_path: Path) -> None:
    game = Game((3, 9))
    stream = game.head + frames_of(game, range(-123, 50)) + game.end()
    path = str(tmp_path / "feed.mcap")
    with tcp_server([stream[:3000], stream[3000:]]) as port:
        live, bad, _ = follow(live_slippi(f"tcp://127.0.0.1:{port}", reconnect="0s", record=path))
    again, _, _ = follow(Recording(path))
    assert bad == [] and live.num_rows == 2 * 173
    assert plain(again).equals(plain(live))


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_hostile_streams_end_and_account_for_their_rows(data: st.DataObject) -> None:
    damaged_game(data)


@pytest.mark.nightly
@settings(max_examples=10_000, deadline=None)
@given(data=st.data())
def test_hostile_streams_end_and_account_for_their_rows_for_long(data: st.DataObject) -> None:
    damaged_game(data)


def damaged_game(data: st.DataObject) -> None:
    """Bytes changed, spliced and cut; the connection lost."""
    game = Game((3, 9))
    stream = bytearray(game.head + frames_of(game, range(-123, -110)) + game.end() + game.head + game.frame(-123))
    for _ in range(data.draw(st.integers(1, 6))):
        stream[data.draw(st.integers(0, len(stream) - 1))] = data.draw(st.integers(0, 255))
    if data.draw(st.booleans()):
        at, size = data.draw(st.integers(0, len(stream) - 1)), data.draw(st.integers(0, 300))
        stream[at : at + size] = stream[:size] if data.draw(st.booleans()) else b""
    cut = data.draw(st.integers(40, 500))
    events = ["lost: x", "connected"] if data.draw(st.booleans()) else []
    pieces = [bytes(stream[at : at + cut]) for at in range(0, len(stream), cut)]
    at = data.draw(st.integers(0, len(pieces)))
    rows, _, _ = taken([*pieces[:at], *events, *pieces[at:]])
    assert rows.num_rows <= 2 * 30


def test_a_table_of_sizes_that_names_no_frames_is_skipped_and_nothing_piles_up() -> None:
    game = Game((3, 9))
    lie = b"\x35\x04\x36\x00\x02" + b"\x36" * 1000
    session = SlippiEvents().open(Context("slippi"), "feed", None)
    parts = [session.take([Arrival(0, piece)], 0) for piece in [lie, lie, b"5" * 100_000, game.head, game.frame(-123)]]
    last = session.finish(0)
    assert last is not None
    assert sum(part.dropped.get("bytes that came before the start of a game", 0) for part in parts) == 102_010
    assert sum(part.records for part in [*parts, last]) == 2
    session = SlippiEvents().open(Context("slippi"), "feed", None)
    inside = [session.take([Arrival(0, piece)], 0) for piece in [game.head + game.frame(-123), lie, game.frame(-122)]]
    assert [part.records for part in inside] == [2, 0, 0]
    assert [len(part.noticed) for part in inside] == [0, 1, 0]  # the game ended there, and no other one began


def test_wrong_arguments_are_refused_when_the_pipeline_is_built() -> None:
    with pytest.raises(GraphError, match="no table"):
        live_slippi("tcp://127.0.0.1:1", table="nope")
    with pytest.raises(GraphError, match="no time"):
        SlippiEvents(start_at="yesterday")
