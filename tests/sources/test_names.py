"""Sources are found before they are imported: by completion, and by a name that is almost right."""

from __future__ import annotations

import subprocess
import sys

import pytest
from penstock import sources


def test_names_that_are_not_imported_yet_are_listed() -> None:
    code = "import penstock; from penstock import sources; print(*dir(sources)); print(*dir(penstock))"
    told = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.splitlines()
    assert set(sources.__all__) <= set(told[0].split())
    assert {"models", "ops", "sinks", "sources"} <= set(told[1].split())


@pytest.mark.parametrize(
    ("name", "meant"), [("ZeroMq", "Zmq"), ("mcap", "Mcap"), ("live_ich", "live_itch"), ("NdJson", "Ndjson")]
)
def test_a_misspelt_name_is_told_what_was_meant(name: str, meant: str) -> None:
    with pytest.raises(AttributeError, match=f"'{name}'; did you mean '{meant}'"):
        getattr(sources, name)


def test_a_name_like_none_is_refused_without_a_guess() -> None:
    with pytest.raises(AttributeError, match=r"no attribute 'qqqqqq'$"):
        sources.qqqqqq  # noqa: B018
