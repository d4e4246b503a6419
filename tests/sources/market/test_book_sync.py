"""Keeping a book in step: a model that knows which changes really came decides whether each verdict is right."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from penstock.sources.market._book_sync import SYNCED, WAITING_FOR_SNAPSHOT, BookSync, Step


def steps(book: BookSync, *changes: tuple[int, ...]) -> list[str]:
    return [book.diff(*change).step.value for change in changes]


def test_changes_wait_for_the_first_snapshot_and_those_behind_it_apply() -> None:
    book = BookSync()
    assert book.needs_snapshot
    assert steps(book, (5, 7), (8, 8), (9, 12)) == ["buffer"] * 3
    assert book.snapshot(8).step is Step.APPLY and book.state == SYNCED and not book.needs_snapshot
    assert [book.applies(last) for last in (7, 8, 12)] == [False, False, True]
    assert steps(book, (13, 13)) == ["apply"]


def test_a_snapshot_from_before_the_first_change_is_too_old() -> None:
    book = BookSync()
    book.diff(5, 7)
    assert book.snapshot(3).step is Step.TOO_OLD and book.state == WAITING_FOR_SNAPSHOT
    assert book.snapshot(4).step is Step.APPLY


def test_a_snapshot_newer_than_all_changes_makes_those_stale_that_it_holds() -> None:
    book = BookSync()
    book.diff(5, 7)
    assert book.snapshot(10).step is Step.APPLY
    assert steps(book, (8, 9), (10, 11), (12, 12)) == ["stale", "apply", "apply"]


@pytest.mark.parametrize(
    ("first", "expected"),
    [((8, 10), "stale"), ((9, 12), "apply"), ((11, 12), "apply"), ((12, 12), "gap")],
)
def test_the_first_change_behind_a_lone_snapshot_reaches_over_it(first: tuple[int, int], expected: str) -> None:
    book = BookSync()
    book.snapshot(10)
    assert steps(book, first) == [expected]


@pytest.mark.parametrize(
    ("first", "expected"),
    [
        ((7, 9, 5), "stale"),
        ((8, 12, 7), "apply"),
        ((10, 12, 9), "apply"),
        ((14, 15, 10), "apply"),
        ((14, 15, 12), "gap"),
    ],
)
def test_the_first_linked_change_behind_a_lone_snapshot(first: tuple[int, int, int], expected: str) -> None:
    book = BookSync()
    book.snapshot(10)
    assert steps(book, first) == [expected]


def test_a_linked_gap_tells_which_changes_are_missing_and_one_behind_it_follows() -> None:
    book = BookSync()
    book.snapshot(10)
    assert steps(book, (11, 15, 10)) == ["apply"]
    verdict = book.diff(22, 25, 20)
    assert verdict.step is Step.GAP and verdict.why == "the changes behind 15 up to 20 are missing"
    assert book.needs_snapshot and steps(book, (26, 26, 25)) == ["buffer"]
    assert book.snapshot(19).step is Step.TOO_OLD
    assert book.snapshot(24).step is Step.APPLY and steps(book, (27, 29, 26)) == ["apply"]


def test_okx_numbers_that_stand_still_or_begin_anew_are_no_gap() -> None:
    book = BookSync()
    book.restart(10)
    assert steps(book, (11, 15, 10), (15, 15, 15), (3, 3, 15), (4, 5, 3), (9, 9, 7)) == ["apply"] * 4 + ["gap"]


def test_bybit_counts_by_one_and_restarts_with_one() -> None:
    book = BookSync()
    book.restart(100)
    assert steps(book, (101, 101), (102, 102), (104, 104)) == ["apply", "apply", "gap"]
    book.restart(1)
    assert steps(book, (2, 2)) == ["apply"]


def test_after_a_lost_connection_a_snapshot_is_needed() -> None:
    book = BookSync()
    book.restart(100)
    book.lost()
    assert book.needs_snapshot and steps(book, (500, 501)) == ["buffer"]
    assert book.snapshot(500).step is Step.APPLY


faults = st.lists(
    st.sampled_from(["pass", "pass", "pass", "drop", "twice", "swap", "snapshot", "old snapshot"]), max_size=60
)


@given(faults, st.lists(st.integers(1, 4), min_size=61, max_size=61), st.booleans(), st.booleans())
def test_a_book_is_called_in_step_only_if_it_is(kinds: list[str], sizes: list[int], linked: bool, saved: bool) -> None:
    """The book is the set of update numbers that went into it; in step means all of them up to the last."""
    stream, at = [], 1
    for size in sizes:
        stream.append((at, at + size - 1, *([at - 1] if linked else [])))
        at += size
    sent: list[tuple[str, tuple[int, ...] | int]] = []
    for place, kind in enumerate(kinds):
        one = stream[place]
        if kind == "swap" and sent and sent[-1][0] == "diff":
            sent.insert(len(sent) - 1, ("diff", one))
        elif kind != "drop":
            sent += [("diff", one)] * (2 if kind == "twice" else 1)
        if kind.endswith("snapshot"):
            sent.append(("snapshot", stream[place][1] if kind == "snapshot" else stream[place // 2][1]))
    book, have, kept = BookSync(), set[int](), list[tuple[int, ...]]()
    for _, what in sent:
        if saved:
            book = BookSync.load(book.save())
        if isinstance(what, int):
            if book.snapshot(what).step is Step.APPLY:
                have = set(range(1, what + 1))
                for change in kept:
                    if book.applies(change[1]):
                        have |= set(range(change[0], change[1] + 1))
            if not book.needs_snapshot:
                kept = []
        else:
            step = book.diff(*what).step
            assert step in (Step.APPLY, Step.BUFFER, Step.STALE, Step.GAP)
            if step is Step.APPLY:
                have |= set(range(what[0], what[1] + 1))
            elif step is Step.STALE:
                assert book.needs_snapshot or set(range(what[0], what[1] + 1)) <= have
            elif step is Step.GAP:
                kept = [what]
            else:
                kept.append(what)
        if book.state == SYNCED:
            assert have == set(range(1, max(have) + 1))
            assert book.last_id is not None and max(have) >= book.last_id
