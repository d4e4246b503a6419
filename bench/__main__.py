"""``python -m bench [CASE ...] [--repeats N] [--quick] [--out FOLDER]``, from the repository root.

Cases: frames, ticks, events, overhead, starvation, memory (default: these), and on Ray: ray-data, ray-overhead, ray-scaling,
ray-latency, which start Rays of their own and want the machine to themselves. Inputs are the real recordings of
``$PENSTOCK_DATA`` (or ``../shared/data``) repeated to a useful length, or generated ones where there are none.
"""

from __future__ import annotations

import argparse
import importlib
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

from .harness import Case, measure, table, write

CASES = (
    "frames",
    "ticks",
    "events",
    "dbn",
    "crypto",
    "bags",
    "messages",
    "slippi",
    "replay",
    "overhead",
    "starvation",
    "memory",
)
#: Cases by the module that has them.
RAY_CASES = {
    "ray-data": "cluster_data",
    "ray-overhead": "cluster_overhead",
    "ray-scaling": "cluster_scaling",
    "ray-latency": "cluster_latency",
}


def main(arguments: list[str] | None = None) -> int:
    """Measure, print tables, write results. Returns 1 if a Penstock side could not be measured."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__.splitlines()[0])
    parser.add_argument("cases", nargs="*", metavar="CASE", help=f"any of {', '.join([*CASES, *RAY_CASES])}")
    parser.add_argument("--repeats", type=int, default=5, help="interleaved repeats that count (default 5)")
    parser.add_argument("--quick", action="store_true", help="small inputs: does it run; not for quoting")
    parser.add_argument(
        "--out", type=Path, default=Path("bench/results"), help="where results go (default bench/results)"
    )
    parser.add_argument(
        "--only", default="", help="only contenders whose name holds this text, and Penstock where there are rates"
    )
    chosen = parser.parse_args(arguments)
    if unknown := [case for case in chosen.cases if case not in (*CASES, *RAY_CASES)]:
        parser.error(f"no case {unknown[0]!r}; there are {', '.join([*CASES, *RAY_CASES])}")
    if chosen.repeats < 1:
        parser.error("--repeats must be at least 1")
    complete = True
    for name in chosen.cases or CASES:
        with tempfile.TemporaryDirectory(prefix="penstock-bench-") as scratch:
            module = importlib.import_module(f"{__package__}.{RAY_CASES.get(name, name)}")
            case: Case = module.case(Path(scratch), quick=chosen.quick)
            if chosen.only:
                named = [c for c in case.contenders if chosen.only.lower() in c.name.lower() or (c.ours and case.rates)]
                case = replace(case, contenders=named)
            outcomes = measure(case, chosen.repeats, say=_progress)
        _progress("")
        print(f"\n{table(case, outcomes)}\n", flush=True)
        write(chosen.out, case, outcomes, quick=chosen.quick)
        complete &= all(not outcome.problem for outcome in outcomes if outcome.contender.ours)
    return 0 if complete else 1


def _progress(text: str) -> None:
    if sys.stderr.isatty():
        print(f"\r\033[K{text[:110]}", end="", file=sys.stderr, flush=True)


if __name__ == "__main__":
    raise SystemExit(main())
