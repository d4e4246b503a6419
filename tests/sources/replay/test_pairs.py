"""Replays into what takes them on the same address: recorders and live sources, with no option that says how."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from live_feeds import beside, follow, lines_of, write_lines
from penstock import sources
from penstock.pipeline.clock import RealClock
from penstock.pipeline.source import SourceSpec
from penstock.sources.live.feed import Live
from penstock.sources.live.raw_messages import RawMessages
from penstock.sources.replay.message import Message, Playable
from penstock.sources.replay.outlet import outlet_to
from penstock.sources.replay.schedule import Schedule
from penstock.sources.replay.serving import replay, serve


def served(path: Path, to: str, spec_of: Callable[[str], SourceSpec], **options: Any) -> tuple[Any, Any]:
    """What a source makes of the replay of `path`, which is served: rows and bad records."""
    opened, where = threading.Event(), list[str]()

    def at(address: str) -> None:
        where.append(address)
        opened.set()

    with beside(lambda: replay(str(path), to, speed=0, opened=at, **options)):
        assert opened.wait(10.0)
        table, bad, _ = follow(spec_of(where[0]))
    return table, bad


def test_a_recorder_takes_the_lines_of_a_replay_without_being_told_of_them(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "lines.ndjson", 50)
    recorded = tmp_path / "rx.mcap"
    table, bad = served(
        path, "tcp://127.0.0.1:0", lambda url: Live(url, RawMessages(), record=str(recorded), reconnect="0s")
    )
    assert bad == []
    assert table["data"].to_pylist() == lines_of(50)
    assert table["ts_recv"].cast("int64").to_pylist() == [10**18 + n * 1_000_000 for n in range(50)]
    again = follow(sources.Recording(recorded))[0]
    assert again["data"].to_pylist() == lines_of(50)


@pytest.mark.parametrize("scheme", ["tcp", "ws"])
def test_an_itch_file_served_comes_back_with_its_rows_and_its_date(
    recordings: Any, tmp_path: Path, scheme: str
) -> None:
    path = recordings("market/itch50") / "ex20101224.TEST_ITCH_50.prefixed.itch"
    want = follow(sources.Itch(path))[0]
    recorded = tmp_path / "day.mcap"
    got, bad = served(
        path, f"{scheme}://127.0.0.1:0", lambda url: sources.live_itch(url, record=str(recorded), reconnect="0s")
    )
    again = follow(sources.Recording(recorded, sources.MoldPackets()))[0]
    assert bad == [] and got.num_rows == want.num_rows > 1000
    for column in want.schema.names:
        expected = want[column].combine_chunks()
        assert got[column].combine_chunks().equals(expected), column
        assert again[column].combine_chunks().equals(expected), column


@pytest.mark.parametrize("kind", ["tcp", "ws"])
def test_a_replay_says_that_its_receiver_has_left_and_goes_on_with_the_next(kind: str) -> None:
    left, told, stop = threading.Event(), list[str](), threading.Event()

    def messages() -> Iterator[Message]:
        for n in range(64):
            yield Message(n, b"x" * 100)
        assert left.wait(10)
        for n in range(640):
            yield Message(64 + n, b"y" * 4096)

    playable = Playable(messages)
    outlet = outlet_to(f"{kind}://127.0.0.1:0", playable, RealClock(), stop, stamped=True)
    outlet.told = told.append

    def send() -> Any:
        outlet.ready(1)
        try:
            return serve(playable, outlet, Schedule(RealClock(), stop, speed=0), RealClock(), stop, speed=0)
        finally:
            outlet.close()

    with beside(send) as sent:
        assert follow(Live(outlet.address, RawMessages(), most=64))[0].num_rows == 64
        left.set()
        table = follow(Live(outlet.address, RawMessages(), reconnect="0s"))[0]
    assert sent[0].messages == 704 and not sent[0].stopped
    assert set(table["data"].to_pylist()) == {b"y" * 4096}
    (line,) = told
    assert re.fullmatch(r"the receiver left after \d+ messages; waiting for another", line)
