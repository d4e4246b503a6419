"""What a file of ticks holds, for `penstock inspect`: by reading it."""

from __future__ import annotations

import datetime as dt
from typing import Any

import pyarrow as pa

from ...pipeline.columns import as_numpy
from ...pipeline.context import Context
from ...pipeline.source import SourceSpec
from ..storage.unpack import head_of

__all__ = ["survey"]


def survey(spec: SourceSpec, kind: str) -> dict[str, Any]:
    """``compression``, ``messages`` (bad ones included), ``types``, ``bad``, ``symbols``, ``time_range``, ``error``."""
    path: Any = spec.path  # type: ignore[attr-defined]
    reader = spec.open(Context("inspect"))
    messages = bad = 0
    least, greatest, error = None, None, None
    symbols: set[str] = set()
    left_out: dict[str, int] = {}
    try:
        for block in reader.blocks():
            messages += block.records
            decoded = reader.decode(block)
            for why, count in decoded.dropped.items():
                left_out[why] = left_out.get(why, 0) + count
            bad += sum(record.seq is not None for record in decoded.bad)
            error = next((record.error for record in decoded.bad if record.seq is None), error)
            for batch in decoded.batches:
                times = as_numpy(batch.column("ts_event"))
                low, high = int(times.min()), int(times.max())
                least, greatest = min(low, least or low), max(high, greatest or high)
                if "symbol" in batch.schema.names:
                    symbols.update(_names(batch.column("symbol")))
    finally:
        reader.close()
    span = None if least is None or greatest is None else [least, greatest]
    return {
        "compression": head_of(path, 1)[1],
        "messages": messages,
        "types": {kind: {"messages": messages - bad - sum(left_out.values())}},
        "bad": bad,
        "symbols": len(symbols),
        "time_range": None if span is None else {"ns": span, "utc": [_iso(time) for time in span]},
        "error": error,
        **({"left_out": left_out} if left_out else {}),
    }


def _names(column: pa.Array) -> list[Any]:
    """The values of a column of names, which a file may have as a dictionary or not."""
    return list((column.dictionary if pa.types.is_dictionary(column.type) else column.unique()).to_pylist())


def _iso(ns: int) -> str:
    seconds, rest = divmod(ns, 10**9)
    day = dt.datetime(1970, 1, 1, tzinfo=dt.UTC) + dt.timedelta(seconds=seconds)
    return day.strftime("%Y-%m-%dT%H:%M:%S.") + f"{rest:09d}Z"
