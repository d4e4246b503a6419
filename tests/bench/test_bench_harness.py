"""The bench harness: fair turns, ratios within a repeat, peers that are missing or break."""

from __future__ import annotations

import json
import platform
import struct
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture
def harness(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """`bench.harness` with a clock that contenders move on themselves."""
    monkeypatch.syspath_prepend(str(REPOSITORY))
    import bench.harness as module

    module.now = 0.0  # type: ignore[attr-defined]
    monkeypatch.setattr(module.time, "perf_counter", lambda: module.now)  # type: ignore[attr-defined]
    return module


def _case(harness: Any, contenders: list[Any]) -> Any:
    return harness.Case("frames", "Frames", "frame", "Rules.", contenders)


def test_contenders_take_turns_and_ratios_are_taken_within_a_repeat(harness: Any) -> None:
    order: list[str] = []

    def contender(name: str, seconds: list[float], units: int, *, ours: bool = False) -> Any:
        left = iter(seconds)

        def run() -> int:
            order.append(name)
            harness.now += next(left)
            return units

        return harness.Contender(name, run, ours=ours)

    ours = contender("ours", [99, 1, 2, 4], 40, ours=True)
    case = _case(harness, [ours, contender("peer", [99, 4, 8, 2], 20)])
    outcomes = harness.measure(case, 3)
    assert order == ["ours", "peer"] * 4
    assert outcomes[0].rates == [40, 20, 10]
    assert outcomes[1].rates == [5, 2.5, 10]
    assert harness.ratios(*outcomes) == [8, 8, 1]
    assert "8.00x (1.00 to 8.00)" in harness.table(case, outcomes)


def test_missing_and_broken_peers_are_listed_and_the_others_are_measured(harness: Any, tmp_path: Path) -> None:
    def works() -> int:
        harness.now += 1
        return 7

    def breaks() -> int:
        raise ValueError("cannot read /home/someone/secret.mcap: broken")

    def waits() -> int:
        raise harness.Pending("the runner")

    case = _case(
        harness,
        [
            harness.Contender("ours", works, ours=True),
            harness.Contender("absent", works, needs=("no_such_module_here",), install="pip install absent"),
            harness.Contender("broken", breaks),
            harness.Contender("later", waits),
            harness.Contender("peer", works),
        ],
    )
    outcomes = harness.measure(case, 2)
    harness.write(tmp_path, case, outcomes, quick=True)
    text = (tmp_path / "frames.md").read_text() + (tmp_path / "frames.json").read_text()
    assert "not installed: pip install absent" in text
    assert "failed: ValueError: cannot read ... broken" in text
    assert "not yet: the runner" in text
    assert "secret" not in text
    assert platform.node() not in text.replace("-", " ").split()
    data = json.loads((tmp_path / "frames.json").read_text())
    assert data["ratios"] == [{"ours": "ours", "peer": "peer", "median": 1.0, "least": 1.0, "most": 1.0}]
    assert data["machine"]["cores"] >= 1
    assert data["quick"] is True


def test_a_repeated_market_day_closes_its_orders_and_numbers_them_anew(
    harness: Any, tmp_path: Path, recordings: Any
) -> None:
    recordings("market/itch50")
    from bench.recordings import market

    path, messages = market(tmp_path, 40_000, "short")
    data, at, count = path.read_bytes(), 0, 0
    live: set[int] = set()
    while at < len(data):
        (length,) = struct.unpack_from(">H", data, at)
        kind, body = chr(data[at + 2]), data[at + 2 : at + 2 + length]
        if kind in "AF":
            (reference,) = struct.unpack_from(">Q", body, 11)
            assert reference not in live
            live.add(reference)
        elif kind == "D":
            live.discard(struct.unpack_from(">Q", body, 11)[0])
        elif kind == "U":
            old, new = struct.unpack_from(">QQ", body, 11)
            if old in live:
                live.remove(old)
                live.add(new)
        assert not (kind == "S" and body[-1:] == b"C")
        at += 2 + length
        count += 1
    assert count == messages
    assert 20_000 < messages < 80_000
