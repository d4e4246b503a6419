"""Events: NDJSON of a game to Arrow columns."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa

from .harness import Case, Contender
from .recordings import game

__all__ = ["case"]

_RULES = (
    "Eight of up to 27 members of each line, from a file in the page cache, to Arrow columns of the same types for all "
    "(time as ns, text as utf8); the other members are ignored. Each peer in its fastest form: pyarrow and polars read the "
    "file themselves on all cores, msgspec decodes into a typed Struct."
)
_SCHEMA = pa.schema(
    [
        ("ts_ns", pa.int64()), ("frame", pa.int32()), ("event", pa.utf8()), ("pid", pa.int32()), ("x", pa.float32()),
        ("y", pa.float32()), ("unit_id", pa.int64()), ("ability_name", pa.utf8()),
    ]
)  # fmt: skip
_COLUMNS = {
    "frame": "frame:int32", "event": "event:utf8", "pid": "pid:int32", "x": "x:float32", "y": "y:float32",
    "unit_id": "unit_id:int64", "ability_name": "ability_name:utf8",
}  # fmt: skip


def case(scratch: Path, *, quick: bool) -> Case:
    file, events = game(scratch, 40_000 if quick else 1_200_000)
    contenders = [
        Contender("penstock, one thread", lambda: penstock_events(file, events, threads=1), ours=True),
        Contender("penstock, all cores", lambda: penstock_events(file, events, threads=None), ours=True),
        Contender("pyarrow.json", lambda: with_pyarrow(file, events)),
        Contender("polars", lambda: with_polars(file, events), needs=("polars",), install="pip install polars"),
        Contender("msgspec", lambda: with_msgspec(file, events), needs=("msgspec",), install="pip install msgspec"),
    ]
    return Case("events", "NDJSON events to Arrow", "event", _RULES, contenders)


def penstock_events(file: Path, events: int, *, threads: int | None) -> int:
    """The whole file through the source, batch by batch."""
    from penstock.pipeline import read
    from penstock.sources.text.ndjson import Ndjson

    options: dict[str, Any] = {"runner": "inline"} if threads == 1 else {"runner": "local", "parallelism": threads}
    rows = 0
    for batch in read(Ndjson(file, columns=_COLUMNS, time="ts_ns", time_unit="ns")).iterate(**options):
        rows += batch.num_rows
    return _whole(rows, events)


def with_pyarrow(file: Path, events: int) -> int:
    import pyarrow.json as json

    options = json.ParseOptions(explicit_schema=_SCHEMA, unexpected_field_behavior="ignore")
    found = json.read_json(file, read_options=json.ReadOptions(block_size=8 << 20), parse_options=options)
    return _whole(found.num_rows, events, found.schema)


def with_polars(file: Path, events: int) -> int:
    import polars as pl

    kinds = {"int64": pl.Int64, "int32": pl.Int32, "float": pl.Float32, "string": pl.String}
    frame = pl.read_ndjson(file, schema={field.name: kinds[str(field.type)] for field in _SCHEMA})
    found = frame.to_arrow()
    return _whole(found.num_rows, events)


def with_msgspec(file: Path, events: int) -> int:
    import msgspec

    kinds = {"int64": int, "int32": int, "float": float, "string": str}
    fields = [(field.name, kinds[str(field.type)] | None, None) for field in _SCHEMA]
    event = msgspec.defstruct("Event", fields, gc=False)
    decoded = msgspec.json.Decoder(event).decode_lines(file.read_bytes())
    columns = [pa.array([getattr(row, field.name) for row in decoded], field.type) for field in _SCHEMA]
    found = pa.table(columns, schema=_SCHEMA)
    return _whole(found.num_rows, events, found.schema)


def _whole(rows: int, events: int, schema: pa.Schema = _SCHEMA) -> int:
    if rows != events or not schema.equals(_SCHEMA):
        raise ValueError(f"{rows} rows of {events}, {schema=}")
    return events
