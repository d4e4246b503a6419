"""Durations: what people write, as whole nanoseconds."""

from __future__ import annotations

import doctest
from datetime import timedelta
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st
from penstock.pipeline import duration as module
from penstock.pipeline.duration import nanoseconds, readable_duration

UNITS = {"ns": 1, "us": 10**3, "ms": 10**6, "s": 10**9, "m": 60 * 10**9, "min": 60 * 10**9, "h": 3600 * 10**9}


@given(st.integers(0, 10**9), st.integers(0, 999_999), st.sampled_from(sorted(UNITS)))
def test_a_decimal_number_and_a_unit_are_exact_or_refused(whole: int, millionths: int, unit: str) -> None:
    text = f"{whole}.{millionths:06}{unit}"
    exact = (whole + Fraction(millionths, 10**6)) * UNITS[unit]
    if exact.denominator == 1:
        assert nanoseconds(text) == exact
    else:
        with pytest.raises(ValueError, match="finer than a nanosecond"):
            nanoseconds(text)


@given(st.timedeltas(min_value=timedelta(0)))
def test_a_timedelta_is_exact_to_its_microsecond(value: timedelta) -> None:
    assert nanoseconds(value) == value // timedelta(microseconds=1) * 1000


@given(st.integers(0, 2**63))
def test_what_is_shown_reads_back(value: int) -> None:
    assert nanoseconds(readable_duration(value)) == value
    assert nanoseconds(value) == value


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0ns"),
        (999, "999ns"),
        (50_000_000, "50ms"),
        (1_500_000, "1500us"),
        (60 * 10**9, "1min"),
        (2 * 3600 * 10**9, "2h"),
    ],
)
def test_the_largest_exact_unit_is_shown(value: int, text: str) -> None:
    assert readable_duration(value) == text


@pytest.mark.parametrize(
    "text", ["", "5", "ms", "5 parsecs", "-5ms", "5ms5", "1e3ms", ".5s", "5.s", "\uff15ms", "1,5s"]
)
def test_other_texts_are_refused_with_an_example_of_a_right_one(text: str) -> None:
    with pytest.raises(ValueError, match="write a number and one of ns, us, ms"):
        nanoseconds(text)


@pytest.mark.parametrize("value", [-1, timedelta(microseconds=-1)])
def test_negative_durations_are_refused(value: int | timedelta) -> None:
    with pytest.raises(ValueError, match="not negative"):
        nanoseconds(value)


@pytest.mark.parametrize("value", [True, 1.5, None])
def test_other_types_are_refused(value: object) -> None:
    with pytest.raises(ValueError, match="write for example '50ms'"):
        nanoseconds(value)  # type: ignore[arg-type]


def test_spaces_around_number_and_unit_are_fine() -> None:
    assert nanoseconds("  50 ms ") == 50_000_000


def test_the_examples_in_the_docstrings_hold() -> None:
    assert doctest.testmod(module).failed == 0
