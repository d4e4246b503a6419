"""A report through a job's log: it comes back whole, or not at all, and a reader never sees it."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from penstock.pipeline.cluster.report_lines import LogLines, closing_error, from_log, to_lines
from penstock.pipeline.report import Report

values = st.recursive(
    st.none() | st.integers() | st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)
)
log_lines = st.lists(
    st.text(st.characters(codec="utf-8", exclude_characters="\r\n\x0b\x0c\x1c\x1d\x1e\x85\u2028\u2029"))
)


def report(**data: Any) -> Report:
    return Report({"outcome": "completed", "error": None, "stages": {}, "sinks": {}} | data)


@given(st.dictionaries(st.text(), values), log_lines, log_lines)
def test_a_report_comes_back_from_a_log(extra: dict[str, Any], before: list[str], after: list[str]) -> None:
    sent = report(stages=extra)
    log = "".join(f"{line}\n" for line in before) + to_lines(sent) + "".join(f"{line}\n" for line in after)
    found = from_log(log)
    assert found is not None and found.data == sent.data


def large() -> Report:
    return report(stages={f"step {n}": {"rows_in": n * 7919 % 104_729, "place": f"{n * 31:x}"} for n in range(40_000)})


def test_megabytes_come_back_too() -> None:
    text = to_lines(large())
    assert len(text.splitlines()) > 20
    found = from_log(text)
    assert found is not None and found.data == large().data


def test_a_report_that_is_not_whole_is_none() -> None:
    lines = to_lines(large()).splitlines()
    changed = [*lines[:2], lines[2].replace("A", "B", 1), *lines[3:]]
    for broken in (lines[1:], lines[:-1], lines[:3] + lines[4:], changed):
        assert from_log("\n".join(broken)) is None
    assert from_log("") is None


def test_the_last_of_several_counts() -> None:
    found = from_log(to_lines(report(stages={"first": 1})) + to_lines(report(stages={"second": 2})))
    assert found is not None and found["stages"] == {"second": 2}


@given(log_lines, st.data())
def test_a_reader_sees_the_log_without_the_report_however_it_is_cut(lines: list[str], data: st.DataObject) -> None:
    expected = "".join(f"{line}\n" for line in lines)
    log = expected + to_lines(report())
    cuts = sorted(data.draw(st.lists(st.integers(0, len(log)))))
    shown = LogLines()
    pieces = [log[start:end] for start, end in zip([0, *cuts], [*cuts, len(log)], strict=True)]
    assert "".join(shown.feed(piece) for piece in pieces) + shown.end() == expected


def test_the_closing_line_carries_the_error_in_one_line() -> None:
    last = to_lines(report(outcome="failed", error="step 'map': no\n  good")).splitlines()[-1]
    assert closing_error(last) == "failed: step 'map': no good"
    assert closing_error("penstock: something") is None
