"""Writing a recording, running a domain's pipeline on it, and showing what came out."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.dataset as ds

from ..pipeline import Flow
from ..pipeline.doctor import diagnosis, table
from ..pipeline.progress import ProgressLine
from . import drive, game, market
from .drive_recording import write_drive
from .game_recording import write_game
from .market_recording import write_market

__all__ = ["DOMAINS", "record", "run_demo"]

#: Pipeline of each domain, and the file name of its recording.
DOMAINS: Mapping[str, tuple[Callable[[Path, Path], Flow], str]] = {
    "drive": (drive.pipeline, "drive.mcap"),
    "market": (market.pipeline, "01302019.NASDAQ_ITCH50"),
    "game": (game.pipeline, "game.ndjson"),
}


def record(domain: str, path: Path, size: float, seed: int) -> Mapping[str, Any]:
    """Write a recording of `domain`; `size` 1 is 20 s of driving, a million ticks or 100,000 game events."""
    if domain == "drive":
        return write_drive(path, seconds=20.0 * size, seed=seed)
    if domain == "market":
        return write_market(path, messages=max(1_000, int(1_000_000 * size)), seed=seed)
    return write_game(path, events=max(100, int(100_000 * size)), seed=seed)


def run_demo(
    domain: str, *, size: float, file: Path | None, out: Path | None, seed: int, quiet: bool, options: Mapping[str, Any]
) -> int:
    """The command ``penstock demo``; returns its exit status."""
    folder = out or Path(tempfile.mkdtemp(prefix="penstock-demo-"))
    folder.mkdir(parents=True, exist_ok=True)
    build, name = DOMAINS[domain]
    recording = file or folder / name
    if file is None:
        _say(f"writing {recording} ...")
        counts = record(domain, recording, size, seed)
        _say("  " + ", ".join(f"{key} {value:,}" for key, value in counts.items() if isinstance(value, int)))
    results = folder / "results"
    flow = build(recording, results)
    _say("loading the model and quantizing it on the first batches of this recording ...")
    with ProgressLine(quiet=quiet) as line:
        report = flow.run(progress=line.update, ceiling=True, **options)
    print(diagnosis(report))
    print(f"\nfirst results of {results}\n" + first_rows(results))
    return 0


def first_rows(results: Path, rows: int = 5) -> str:
    """The first rows of a Parquet dataset as a table; tensors show their first numbers."""
    found = ds.dataset(results, format="parquet").head(rows)
    names = [name for name in found.column_names if name != "ts_recv" and not name.startswith("right_")]
    shown = [*names[:2], *names[2:][-6:]]  # when and which row; what came last are the model's outputs
    columns = {name: _values(found[name]) for name in shown}
    return table(shown, [[_cell(columns[name][row]) for name in shown] for row in range(found.num_rows)])


def _values(column: pa.ChunkedArray) -> list[Any]:
    """Python values; times as text, since Python's own end at microseconds."""
    return list((column.cast(pa.string()) if pa.types.is_timestamp(column.type) else column).to_pylist())


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, list):
        return "[" + " ".join(_cell(item) for item in value[:3]) + (" ...]" if len(value) > 3 else "]")
    return str(value)


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
