"""The order of numbered packets, against sets of numbers."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from penstock.sources.market._mold_sequence import MOST_SESSIONS, MoldSequence

Packet = tuple[int, int, int]  # session, first number, count


class Feed:
    """A sequence that is fed, and all that it said."""

    def __init__(self, **options: int) -> None:
        self.sequence = MoldSequence(**options)  # type: ignore[arg-type]
        self.runs: list[list[int]] = []
        self.verdicts: list[int] = []

    def take(self, packets: Iterable[Packet], times: list[int] | None = None) -> None:
        rows = list(packets)
        sessions = [self.sequence.session(f"S{session}") for session, _, _ in rows]
        ordered = self.sequence.feed(sessions, [row[1] for row in rows], [row[2] for row in rows], times)
        self.runs += ordered.runs.tolist()
        self.verdicts += ordered.verdicts.tolist()

    def finish(self) -> None:
        self.runs += self.sequence.flush().runs.tolist()

    def numbers(self, kind: int, session: int = 0) -> list[int]:
        """Messages delivered or lost, in the order in which it was said."""
        runs = [run for run in self.runs if run[:2] == [kind, session]]
        return [run[5] + k for run in runs for k in range(run[4])]


def delivered(feed: Feed, session: int = 0) -> list[int]:
    return feed.numbers(MoldSequence.DELIVER, session)


def lost(feed: Feed, session: int = 0) -> list[int]:
    return feed.numbers(MoldSequence.LOST, session)


def packets_of(sessions: int = 1) -> st.SearchStrategy[list[Packet]]:
    one = st.tuples(st.integers(0, sessions - 1), st.integers(0, 60), st.integers(0, 5) | st.just(0xFFFF))
    return st.lists(one, min_size=1, max_size=40)


def size(count: int) -> int:
    return 0 if count == 0xFFFF else count


@given(packets_of(3))
@settings(max_examples=200)
def test_with_room_to_wait_exactly_what_never_came_is_lost(packets: list[Packet]) -> None:
    feed = Feed(window=100)
    feed.take(packets)
    feed.finish()
    for session in range(3):
        own = [(first, size(count)) for which, first, count in packets if which == session]
        if not own:
            continue
        begin = own[0][0]
        came = {number for first, count in own for number in range(first, first + count) if number >= begin}
        end = max([first + count for first, count in own] + [begin])
        number = feed.sequence.session(f"S{session}")
        assert delivered(feed, number) == sorted(came)
        assert lost(feed, number) == sorted(set(range(begin, end)) - came)
        assert feed.sequence.expected(number) == end
        assert feed.sequence.ended(number) == any(which == session and count == 0xFFFF for which, _, count in packets)


@given(packets_of(2), st.integers(1, 8))
@settings(max_examples=200)
def test_every_message_fed_is_delivered_once_or_counted(packets: list[Packet], window: int) -> None:
    feed = Feed(window=window)
    feed.take(packets)
    feed.finish()
    counts = feed.sequence.counts
    everything = 0
    for session in range(2):
        own = [(first, size(count)) for which, first, count in packets if which == session]
        if not own:
            continue
        number = feed.sequence.session(f"S{session}")
        got, gone = delivered(feed, number), lost(feed, number)
        assert got == sorted(set(got))
        assert sorted(got + gone) == list(range(own[0][0], feed.sequence.expected(number)))
        everything += len(got)
    assert everything + counts["duplicates"] + counts["late"] == sum(size(count) for _, _, count in packets)
    assert counts["lost"] == sum(run[4] for run in feed.runs if run[0] == MoldSequence.LOST)
    for kind, session, packet, skip, take, number in feed.runs:
        if kind == MoldSequence.DELIVER:
            which, first, count = packets[packet]
            assert feed.sequence.session(f"S{which}") == session
            assert first + skip == number
            assert skip + take <= size(count)


@given(packets_of(2), st.integers(1, 8), st.lists(st.integers(0, 40), max_size=4))
def test_what_is_said_does_not_depend_on_how_packets_are_handed_over(
    packets: list[Packet], window: int, cuts: list[int]
) -> None:
    whole, parts = Feed(window=window), Feed(window=window)
    whole.take(packets)
    edges = [0, *sorted(min(cut, len(packets)) for cut in cuts), len(packets)]
    for start, stop in pairwise(edges):
        parts.take(packets[start:stop])
    whole.finish()
    parts.finish()
    assert parts.runs == whole.runs
    assert parts.verdicts == whole.verdicts
    assert parts.sequence.counts == whole.sequence.counts


@given(st.data())
def test_two_lines_that_each_lose_and_mix_up_packets_make_one_whole_feed(data: st.DataObject) -> None:
    sizes = data.draw(st.lists(st.integers(1, 4), min_size=3, max_size=25))
    starts = np.cumsum([1, *sizes[:-1]]).tolist()
    packets = [(0, start, count) for start, count in zip(starts, sizes, strict=True)]
    gone = data.draw(st.lists(st.sampled_from(["a", "b", ""]), min_size=len(packets), max_size=len(packets)))
    arrivals = []
    for at, (packet, without) in enumerate(zip(packets, gone, strict=True)):
        for line in "ab":
            if line != without or at == 0:
                arrivals.append((at + data.draw(st.integers(0, 5)) * (at > 0), packet))
    arrivals.sort(key=lambda arrival: arrival[0])
    feed = Feed(window=64)
    feed.take(packet for _, packet in arrivals)
    feed.finish()
    assert delivered(feed) == list(range(1, 1 + sum(sizes)))
    assert lost(feed) == []


def test_a_gap_is_noticed_with_the_next_packet_and_reported_after_the_window() -> None:
    feed = Feed(window=3)
    feed.take([(0, 1, 2), (0, 5, 1)])
    assert feed.verdicts == [MoldSequence.NEW, MoldSequence.HELD]
    assert feed.sequence.counts["gaps"] == 1
    feed.take([(0, 6, 1), (0, 7, 1)])
    assert delivered(feed) == [1, 2]
    feed.take([(0, 8, 1)])
    assert lost(feed) == [3, 4]
    assert delivered(feed) == [1, 2, 5, 6, 7, 8]
    assert [run[:2] + run[2:3] for run in feed.runs if run[0] == MoldSequence.LOST] == [[MoldSequence.LOST, 0, 1]]


def test_a_gap_is_filled_within_the_window_by_the_other_line() -> None:
    feed = Feed(window=3)
    feed.take([(0, 1, 2), (0, 5, 1), (0, 3, 2), (0, 6, 1)])
    assert delivered(feed) == [1, 2, 3, 4, 5, 6]
    assert feed.sequence.counts == {"duplicates": 0, "late": 0, "lost": 0, "gaps": 1, "filled": 1}


def test_what_comes_after_it_was_given_up_is_late_and_not_a_duplicate() -> None:
    feed = Feed(window=1)
    feed.take([(0, 1, 1), (0, 4, 1), (0, 5, 1), (0, 2, 2), (0, 1, 3)])
    assert feed.verdicts[-2:] == [MoldSequence.LATE, MoldSequence.LATE]
    assert feed.sequence.counts["late"] == 4
    assert feed.sequence.counts["duplicates"] == 1


def test_a_heartbeat_shows_what_is_missing_at_the_end() -> None:
    feed = Feed(window=2)
    feed.take([(0, 1, 1), (0, 4, 0), (0, 4, 0), (0, 4, 0xFFFF)])
    assert lost(feed) == [2, 3]
    assert feed.sequence.ended(0)


def test_a_gap_is_given_up_after_a_time_between_arrivals_or_when_told() -> None:
    feed = Feed(window=1000, window_ns=50)
    feed.take([(0, 1, 1), (0, 3, 1), (0, 4, 1)], [0, 100, 149])
    assert lost(feed) == []
    feed.take([(0, 5, 1)], [150])
    assert lost(feed) == [2]
    feed.take([(0, 9, 1)], [200])
    assert feed.sequence.expire(249).runs.tolist() == []
    assert feed.sequence.oldest == 4
    feed.runs += feed.sequence.expire(250).runs.tolist()
    assert lost(feed) == [2, 6, 7, 8]
    assert feed.sequence.oldest == 5


def test_a_number_far_ahead_is_wrong_if_the_feed_goes_on_without_it() -> None:
    feed = Feed(window=2)
    feed.take([(0, 1, 1), (0, 1 << 40, 1), (0, 2, 1), (0, 3, 1), (0, 4, 1)])
    assert delivered(feed) == [1, 2, 3, 4]
    assert lost(feed) == []
    assert [run for run in feed.runs if run[0] == MoldSequence.REJECT] == [[MoldSequence.REJECT, 0, 1, 0, 0, 1 << 40]]


def test_a_number_far_ahead_is_right_if_the_feed_goes_on_from_it() -> None:
    feed = Feed(window=2)
    feed.take([(0, 1, 1), (0, 1 << 40, 1), (0, (1 << 40) + 1, 1), (0, (1 << 40) + 2, 1)])
    runs = [run for run in feed.runs if run[0] == MoldSequence.LOST]
    assert [run[4:] for run in runs] == [[(1 << 40) - 2, 2]]


@pytest.mark.parametrize("number", [-1, 1 << 62, (1 << 63) - 1])
def test_a_number_that_cannot_be_has_no_effect(number: int) -> None:
    feed = Feed(window=2)
    feed.take([(0, number, 1), (0, 1, 1), (0, number, 3), (0, 2, 1)])
    assert feed.verdicts[0] == MoldSequence.IMPLAUSIBLE
    assert delivered(feed) == [1, 2]


def test_what_is_missing_before_the_first_packet_counts_where_the_first_number_is_known() -> None:
    feed = Feed(window=2, first=1)
    feed.take([(0, 1_000_000_001, 1)])
    feed.finish()
    assert [run[4:] for run in feed.runs if run[0] == MoldSequence.LOST] == [[1_000_000_000, 1]]
    assert delivered(feed) == [1_000_000_001]


def test_too_many_sessions_are_refused() -> None:
    sequence = MoldSequence(window=1)
    for session in range(MOST_SESSIONS):
        sequence.session(session)
    assert sequence.session(3) == 3
    with pytest.raises(ValueError, match="more than 256 sessions"):
        sequence.session(MOST_SESSIONS)


@pytest.mark.parametrize("options", [{"window": 0}, {"window_ns": -1}, {"first": -1}, {"first": 1 << 62}])
def test_windows_that_cannot_be_waited_for_are_refused(options: dict[str, int]) -> None:
    with pytest.raises(ValueError):
        MoldSequence(**options)  # type: ignore[arg-type]
