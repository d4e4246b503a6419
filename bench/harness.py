"""How contenders are compared: interleaved repeats, rates, and the ratio to Penstock within each repeat.

A shared machine drifts: two runs a minute apart can differ by a third. So all contenders take turns (A B C, A B C, ...),
the ratio is taken between neighbours of one round, and what is reported is the median of those ratios with their range.
"""

from __future__ import annotations

import gc
import importlib.util
import json
import re
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .machine import describe

__all__ = ["Case", "Contender", "Outcome", "Pending", "measure", "table", "write"]


class Pending(Exception):
    """A contender that cannot run yet; the message says what it waits for."""


@dataclass(frozen=True)
class Contender:
    """One way to do the work of a case.

    `run` does it once and returns how many units (frames, messages, batches) it did. `ours` marks the Penstock sides.
    `needs` are modules that must be importable, `install` the command that brings them. `values` may return further
    numbers of the last run, such as shares, reported as they are.
    """

    name: str
    run: Callable[[], int]
    ours: bool = False
    needs: tuple[str, ...] = ()
    install: str = ""
    values: Callable[[], dict[str, float]] | None = None


@dataclass(frozen=True)
class Case:
    """A comparison: what is done, in which unit, by whom, and what is equal for all of them."""

    name: str
    title: str
    unit: str
    rules: str
    contenders: Sequence[Contender]
    close: Callable[[], None] = field(default=lambda: None)
    #: False where only `values` of the contenders mean something.
    rates: bool = True


@dataclass
class Outcome:
    """What a contender reached: units a second for each repeat, or why there are none."""

    contender: Contender
    rates: list[float] = field(default_factory=list)
    units: int = 0
    problem: str = ""
    values: list[dict[str, float]] = field(default_factory=list)

    @property
    def median(self) -> float:
        """Units a second."""
        return statistics.median(self.rates)


def measure(case: Case, repeats: int, *, say: Callable[[str], None] = lambda _: None) -> list[Outcome]:
    """Run all contenders `repeats` times, interleaved, after one round that is not counted."""
    outcomes = [Outcome(contender, problem=_missing(contender)) for contender in case.contenders]
    try:
        for turn in range(repeats + 1):
            for outcome in outcomes:
                if not outcome.problem:
                    _once(outcome, counted=turn > 0)
                    say(
                        f"{case.name}: {'warm-up' if turn == 0 else f'repeat {turn} of {repeats}'}, {outcome.contender.name}"
                    )
    finally:
        case.close()
    return outcomes


def ratios(ours: Outcome, peer: Outcome) -> list[float]:
    """Our rate over the peer's, repeat by repeat."""
    return [a / b for a, b in zip(ours.rates, peer.rates, strict=True)]


def table(case: Case, outcomes: Sequence[Outcome]) -> str:
    """A Markdown table: medians with ranges, and for each Penstock side how many times the peer it is."""
    if not case.rates:
        return _values_table(case, outcomes)
    ours = [o for o in outcomes if o.contender.ours and not o.problem]
    head = [case.title, f"{_plural(case.unit)}/s", "least to most", f"µs a {case.unit}"]
    head += [f"{o.contender.name} is" for o in ours]
    lines = ["| " + " | ".join(head) + " |", "|---" + "|---:" * (len(head) - 1) + "|"]
    for outcome in outcomes:
        if outcome.problem:
            cells = [outcome.contender.name, outcome.problem, *[""] * (len(head) - 2)]
        else:
            cells = [
                outcome.contender.name,
                _number(outcome.median),
                f"{_number(min(outcome.rates))} to {_number(max(outcome.rates))}",
                _number(1e6 / outcome.median),
            ]
            for our in ours:
                if outcome.contender.ours:
                    cells.append("")
                    continue
                found = ratios(our, outcome)
                cells.append(f"{statistics.median(found):.2f}x ({min(found):.2f} to {max(found):.2f})")
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join([*lines, "", case.rules])


def _values_table(case: Case, outcomes: Sequence[Outcome]) -> str:
    lines = [f"| {case.title} | | median | least to most |", "|---|---|---:|---:|"]
    for outcome in outcomes:
        if outcome.problem:
            lines.append(f"| {outcome.contender.name} | {outcome.problem} | | |")
        for key, median in _medians(outcome).items():
            found = [values[key] for values in outcome.values]
            lines.append(f"| {outcome.contender.name} | {key} | {median:.4g} | {min(found):.4g} to {max(found):.4g} |")
    return "\n".join([*lines, "", case.rules])


def write(folder: Path, case: Case, outcomes: Sequence[Outcome], *, quick: bool) -> None:
    """``<case>.json`` and ``<case>.md`` in `folder`, with the machine described."""
    folder.mkdir(parents=True, exist_ok=True)
    machine = describe()
    ours = [o for o in outcomes if o.contender.ours and not o.problem]
    peers = [o for o in outcomes if not o.contender.ours and not o.problem]
    data = {
        "case": case.name,
        "title": case.title,
        "unit": case.unit,
        "rules": case.rules,
        "quick": quick,
        "machine": machine,
        "contenders": [_entry(outcome, rates=case.rates) for outcome in outcomes],
        "ratios": [_ratio(our, peer) for our in ours for peer in peers],
    }
    (folder / f"{case.name}.json").write_text(json.dumps(data, indent=2) + "\n")
    versions = ", ".join(f"{name} {version}" for name, version in machine["packages"].items())
    measured = (
        f"Measured on {machine['cpu']}, {machine['cores']} cores, {machine['memory_gib']} GiB, {machine['system']}, "
        f"Python {machine['python']}; {versions}."
    )
    repeats = max((len(outcome.rates) for outcome in outcomes), default=0)
    how = f"Medians of {repeats} interleaved repeats; ratios are taken within each repeat." + (
        " Quick run on small inputs: not for quoting." if quick else ""
    )
    (folder / f"{case.name}.md").write_text(f"# {case.title}\n\n{table(case, outcomes)}\n\n{how}\n\n{measured}\n")


def _once(outcome: Outcome, *, counted: bool) -> None:
    contender = outcome.contender
    gc.collect()
    began = time.perf_counter()
    try:
        units = contender.run()
    except Pending as pending:
        outcome.problem = f"not yet: {pending}"
        return
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        # one peer that breaks must not cost the others their numbers; polars panics with a BaseException
        outcome.problem = f"failed: {type(error).__name__}: {_without_paths(str(error))}"
        outcome.rates.clear()
        print(f"{contender.name} {outcome.problem}", file=sys.stderr)
        return
    elapsed = time.perf_counter() - began
    if units <= 0:
        outcome.problem = "failed: did no work"
        return
    outcome.units = units
    if counted:
        outcome.rates.append(units / elapsed)
        if contender.values is not None:
            outcome.values.append(contender.values())


def _missing(contender: Contender) -> str:
    for module in contender.needs:
        try:
            found = importlib.util.find_spec(module)
        except ModuleNotFoundError:
            found = None
        if found is None:
            return f"not installed: {contender.install or f'pip install {module}'}"
    return ""


def _entry(outcome: Outcome, *, rates: bool) -> dict[str, Any]:
    entry: dict[str, Any] = {"name": outcome.contender.name, "ours": outcome.contender.ours}
    if outcome.problem:
        return {**entry, "problem": outcome.problem}
    if rates:
        entry |= {"median_per_s": outcome.median, "rates_per_s": outcome.rates, "units": outcome.units}
    if outcome.values:
        entry |= {"values": _medians(outcome), "all_values": outcome.values}
    return entry


def _ratio(ours: Outcome, peer: Outcome) -> dict[str, Any]:
    found = ratios(ours, peer)
    return {
        "ours": ours.contender.name,
        "peer": peer.contender.name,
        "median": statistics.median(found),
        "least": min(found),
        "most": max(found),
    }


def _medians(outcome: Outcome) -> dict[str, float]:
    return {key: statistics.median(v[key] for v in outcome.values) for key in (outcome.values or [{}])[0]}


def _plural(unit: str) -> str:
    """Of the units used here."""
    return f"{unit}es" if unit.endswith("ch") else f"{unit}s"


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _without_paths(text: str) -> str:
    line = text.strip().splitlines()[0] if text.strip() else ""
    return re.sub(r"/[^\s'\"]+", "...", line)[:160]
