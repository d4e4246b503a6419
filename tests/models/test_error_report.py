"""The error report against values worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
from penstock.models import ErrorReport
from penstock.models.error_report import error_report


def _given(**outputs: list[float]) -> object:
    return lambda inputs: {name: np.array(values, np.float32) for name, values in outputs.items()}


def _report(one: object, two: object, rows: int) -> ErrorReport:
    return error_report(one, two, [({}, rows)])  # type: ignore[arg-type]


def test_the_error_is_the_norm_of_the_difference_over_that_of_the_original() -> None:
    report = _report(_given(a=[3.0, 4.0], b=[1.0, 1.0]), _given(a=[3.0, 4.5], b=[1.0, 1.0]), 2)
    assert report.relative_l2["a"] == pytest.approx(0.5 / 5.0)
    assert report.relative_l2["b"] == 0.0
    assert report.largest == {"a": 0.5, "b": 0.0}
    assert report.worst == pytest.approx(0.1)


def test_padding_rows_do_not_count() -> None:
    report = _report(_given(a=[1.0, 1.0]), _given(a=[1.0, 99.0]), 1)
    assert (report.relative_l2["a"], report.rows) == (0.0, 1)


def test_batches_add_up() -> None:
    batches = [({"x": np.array([float(i)])}, 1) for i in (3, 4)]
    report = error_report(lambda x: x, lambda x: {"x": x["x"] * 1.1}, batches)
    assert report.relative_l2["x"] == pytest.approx(0.1)
    assert report.rows == 2


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_value_that_is_no_longer_finite_is_an_infinite_error(value: float) -> None:
    assert _report(_given(a=[1.0]), _given(a=[value]), 1).worst == math.inf


@pytest.mark.parametrize("value", [math.nan, math.inf, 0.0])
def test_equal_values_have_no_error_even_where_they_are_not_finite(value: float) -> None:
    assert _report(_given(a=[value, 2.0]), _given(a=[value, 2.0]), 2).worst == 0.0


def test_anything_against_zero_is_an_infinite_error() -> None:
    assert _report(_given(a=[0.0]), _given(a=[1e-9]), 1).worst == math.inf


def test_different_outputs_and_no_rows_are_refused() -> None:
    with pytest.raises(ValueError, match="outputs differ"):
        _report(_given(a=[1.0]), _given(b=[1.0]), 1)
    with pytest.raises(ValueError, match="at least one row"):
        error_report(lambda x: x, lambda x: x, [])
