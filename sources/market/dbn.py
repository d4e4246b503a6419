"""Databento DBN files of versions 1 to 3 and legacy DBZ, plain or packed, every schema.

    day = sources.Dbn("glbx-mdp3-20240105.mbo.dbn.zst")
    ps.read(day).map(...)

Records have fixed sizes, so that finding them costs next to nothing; they go to columns in one pass while they are in
cache, and unpacking the file is what takes the time.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import pyarrow as pa

from ...pipeline.context import BadRecord, Context
from ...pipeline.errors import FormatError, GraphError
from ...pipeline.schema import describe
from ...pipeline.source import Decoded, Position, SourceReader, SourceSpec, Split
from ..storage.stored import PathLike, base_name, location, stored_size
from ..storage.unpack import BytesFeed
from ._dbn_file import Opened, has_header, is_dbz, look, open_records
from ._dbn_layout import LATEST, SCHEMAS
from ._dbn_tables import schema_of

__all__ = ["Dbn", "inspect_dbn", "is_dbn", "open_dbn"]

_SMALL = 1 << 17


@dataclass(frozen=True, init=False)
class Dbn(SourceSpec):
    """One schema of a Databento DBN file.

    Parameters
    ----------
    path
        The file.
    schema
        Which records: ``mbo``, ``mbp-1``, ``tbbo``, ``mbp-10``, ``trades``, ``bbo-1s``, ``bbo-1m``, ``cmbp-1``, ``tcbbo``,
        ``cbbo-1s``, ``cbbo-1m``, ``ohlcv-1s`` .. ``ohlcv-1d``, ``ohlcv-eod``, ``definition``, ``statistics``, ``status``,
        ``imbalance``, ``error``, ``system``, ``symbol-mapping``. None: what the header says. A live capture, which mixes
        them, and a fragment without a header need it.
    version, ts_out
        For a fragment only: the version (1 to 3) of the file it was cut from, and whether its records end in the time at
        which they were sent.

    Records of other types are counted as dropped, ``not in mbo: system``. Older records come out in the columns of
    version 3. Prices are int64 of 1e-9, null where undefined; times likewise. `ts_event` is that of the record's header
    and `ts_recv` the capture server's; where one is undefined, it is the other. `seq` is the number of the record among
    all in the file. `symbol` is what the header maps the instrument to on that day (UTC, by `ts_recv`), in a live capture
    what the last symbol mapping record said, else ``?<instrument_id>``. Letters are ASCII codes; `side` is 1 for bid, -1
    for ask, 0 for none. `mbo` gives ``market.l3`` with the action as `msg_type` and DBN's own flag bits, `trades`
    ``market.trade``, schemas with one level ``market.bbo`` with the trade's columns behind, `mbp-10` `levels`: ten structs
    a row. Text that is not UTF-8 has U+FFFD in its place.

    A record of a wrong length, bytes between records, a cut last record, a side that is none, and a time beyond the year
    2262 are bad records with their offset (in the unpacked content). Raises GraphError for wrong arguments; `schema` and
    `open` raise FormatError for an empty file, one of another format, or one that needs an argument.
    Spec: databento/dbn; schema: formats, section 6, item 4.
    """

    path: PathLike
    only: str | None
    version: int | None
    ts_out: bool

    format: ClassVar[str] = "dbn"

    def __init__(
        self, path: PathLike, *, schema: str | None = None, version: int | None = None, ts_out: bool = False
    ) -> None:
        if schema is not None and schema not in SCHEMAS:
            raise GraphError(f"DBN has no schema {schema!r}", expected=", ".join(sorted(SCHEMAS)))
        if version is not None and version not in range(1, LATEST + 1):
            raise GraphError(f"{version=} of DBN cannot be read", expected=f"1 to {LATEST}")
        if version is not None and schema is None:
            raise GraphError("a DBN fragment does not say what it holds: give Dbn(path, schema=..., version=...)")
        fields = {"path": location(path), "only": schema, "version": version, "ts_out": ts_out}
        for name, value in fields.items():
            object.__setattr__(self, name, value)

    @property
    def dbn_schema(self) -> str:
        """The DBN schema that is read. Raises FormatError if neither the file nor the user names one."""
        return self._known()[1]

    @property
    def schema(self) -> pa.Schema:
        opened, name = self._known()
        return schema_of(name, base_name(self.path), ts_out=opened.metadata.ts_out)

    @property
    def name(self) -> str:
        return base_name(self.path) + (f":{self.only}" if self.only else "")

    def _known(self) -> tuple[Opened, str]:
        opened = look(str(self.path), self.version, ts_out=self.ts_out)
        name = self.only or opened.metadata.schema
        if name is None:
            raise FormatError(
                f"{self.path} is a live capture of mixed records: name the ones to read, as in Dbn(path, schema='mbo'). "
                "`penstock inspect` lists what it holds"
            )
        return opened, name

    def open(self, context: Context, split: Split | None = None, position: Position | None = None) -> SourceReader:
        from ._dbn_decode import Decoder
        from ._dbn_orders import OrderReader
        from ._dbn_reader import DbnReader

        opened, name = self._known()
        detail = split.detail if split is not None else {}
        reader = OrderReader if name == "mbo" and not opened.metadata.ts_out else DbnReader
        return reader(
            open_records(str(self.path), opened),
            path=str(self.path),
            metadata=opened.metadata,
            decoder=Decoder(name, opened.metadata, base_name(self.path)),
            context=context,
            position=position if position is not None else detail,
            end=detail.get("end"),
        )

    def retry(self, record: BadRecord) -> Decoded | None:
        """Decode the bytes of a record again; None for a damaged packed stream. A live capture's symbols are not known."""
        from dataclasses import replace

        from ._dbn_decode import Decoder
        from ._dbn_reader import DbnReader

        if record.operation == "dbn.read" or not record.data:
            return None
        opened, name = self._known()
        reader = DbnReader(
            BytesFeed(record.data),
            path=str(self.path),
            metadata=replace(opened.metadata, size=0),
            decoder=Decoder(name, opened.metadata, base_name(self.path)),
            context=Context("retry"),
            position={"seq": record.seq or 0},
            end=None,
        )
        decoded = [reader.decode(block) for block in reader.blocks()]
        batches = [batch for part in decoded for batch in part.batches]
        bad = [wrong for part in decoded for wrong in part.bad]
        return Decoded(batches, bad) if batches or bad else None

    def splits(self, wanted: int) -> Sequence[Split]:
        """Up to `wanted` parts of about equal size, at record boundaries found by walking the file; one if it is packed."""
        opened = look(str(self.path), self.version, ts_out=self.ts_out)
        size = stored_size(self.path)
        if opened.compression != "none" or wanted < 2 or size < _SMALL:
            return super().splits(wanted)
        from ...pipeline.memory import BufferPool
        from ._dbn_reader import Framer

        feed = open_records(str(self.path), opened)
        try:
            framer = Framer(feed, opened.metadata, BufferPool())
            starts: list[dict[str, Any]] = [{"offset": framer.offset, "seq": 0, "mapped": 0}]
            for part in range(1, wanted):
                for _ in framer.pieces(until=size * part // wanted):
                    pass
                here = {"offset": framer.offset, "seq": framer.seq, "mapped": framer.mapped_until}
                if starts[-1]["offset"] < here["offset"] < size:
                    starts.append(here)
        finally:
            feed.close()
        ends = [start["offset"] for start in starts[1:]] + [None]
        parts = zip(starts, ends, strict=True)
        return tuple(Split(i, len(starts), {**start, "end": end}) for i, (start, end) in enumerate(parts))

    @property
    def block_bound(self) -> int:
        """A read buffer, its offsets, and rows: at most three times the bytes of their records."""
        return (3 << 20) * 6


def is_dbn(head: bytes) -> bool:
    """Whether a file that begins with `head` (unpacked) is DBN, or legacy DBZ. Fragments without a header are not known."""
    return has_header(head) or is_dbz(head)


def open_dbn(path: PathLike, **options: Any) -> Dbn:
    """The file as a source; `options` are those of `Dbn`. Raises FormatError for a live capture if no `schema` is given."""
    spec = Dbn(path, **options)
    _ = spec.dbn_schema
    return spec


def inspect_dbn(path: PathLike, *, version: int | None = None, ts_out: bool = False) -> dict[str, Any]:
    """What a DBN file holds, found by walking its records without decoding: plain values for `penstock inspect`.

    ``format``, ``compression``, ``messages`` (bad ones included), ``types`` (record type to messages), ``bad``, ``symbols``
    (mapped ones), ``time_range`` of the event times, ``schema`` (None for mixed records), ``error`` (for a damaged packed
    stream), ``metadata``. Raises FormatError as `Dbn.open` does.
    """
    import numpy as np

    from ...pipeline.memory import BufferPool
    from . import _dbn_frame_kernels as kernels
    from ._dbn_layout import rtype_name
    from ._dbn_metadata import plain
    from ._dbn_reader import Framer

    path = location(path)
    opened = look(path, version, ts_out=ts_out)
    feed = open_records(path, opened)
    counts, span, bad = np.zeros(256, np.int64), np.array([(1 << 63) - 1, -1], np.int64), 0
    try:
        framer = Framer(feed, opened.metadata, BufferPool())
        for _, piece in framer.pieces():
            kernels.survey(piece.data, piece.offsets, piece.count, counts, span)
            bad += len(piece.bad)
    finally:
        feed.close()
    found = opened.metadata
    time_range = {"ns": span.tolist(), "utc": [_iso(time) for time in span.tolist()]} if span[1] >= 0 else None
    return {
        "format": "Databento DBZ" if opened.dbz else f"Databento DBN, version {found.version}",
        "compression": opened.compression,
        "messages": framer.seq,
        "types": {rtype_name(code): {"messages": int(counts[code])} for code in np.flatnonzero(counts).tolist()},
        "bad": bad,
        "symbols": len(framer.symbols.dictionary),
        "time_range": time_range,
        "schema": describe(schema_of(found.schema, "", ts_out=found.ts_out)) if found.schema else None,
        "options": None if found.schema else "schema='mbo'",
        "hint": None if found.schema else "schema= says which of its records to read",
        "error": feed.error,
        "metadata": plain(found),
    }


def _iso(ns: int) -> str:
    seconds, rest = divmod(ns, 10**9)
    return dt.datetime.fromtimestamp(seconds, dt.UTC).strftime("%Y-%m-%dT%H:%M:%S.") + f"{rest:09d}Z"
