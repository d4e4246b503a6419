"""An open capture whose packets are the rows."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from ...pipeline.columns import ColumnBlock, ColumnLayout
from ...pipeline.context import BadRecord, Context
from ...pipeline.source import Block, Decoded, Position, SourceReader
from ..storage.feed import Feed
from ..storage.reread import picked
from . import _packet_kernels as packets
from ._pcap_format import CaptureHeader
from ._pcap_framer import PacketFramer, Piece, dissected

__all__ = ["PcapReader"]

#: Columns that are not written by the kernel, or into memory of their own.
_APART = ("ts_recv", "payload", "src_ip6", "dst_ip6")
#: What may lie between the place of a packet's record and its bytes.
_LONGEST_HEAD = 28


class PcapReader(SourceReader):
    """Blocks are pieces of the capture; what packets carry is found out when they are decoded."""

    def __init__(
        self,
        feed: Feed,
        header: CaptureHeader,
        *,
        path: str,
        schema: pa.Schema,
        port: int,
        host: int | bytes,
        context: Context,
        position: Position,
    ) -> None:
        self._feed, self._path, self._schema, self._port, self._host = feed, path, schema, port, host
        self._context = context
        self._framer = PacketFramer(feed, header, context.pool, position)
        self._written = ColumnLayout(pa.schema([field for field in schema if field.name not in _APART]))
        self._none = pa.nulls(0, pa.binary(16))
        self._sixes = ColumnLayout(pa.schema([schema.field(name) for name in ("src_ip6", "dst_ip6")]))

    def blocks(self) -> Iterator[Block]:
        framer = self._framer
        for index, piece in enumerate(framer.pieces()):
            yield Block(index, piece.first, piece.count, piece.nbytes, framer.position, piece)

    def decode(self, block: Block) -> Decoded:
        piece: Piece = block.payload
        found = dissected(piece, port=self._port, host=self._host)
        kept = found.codes == packets.OK
        rows = int(np.count_nonzero(kept))
        batches = []
        if rows:
            total = int(found.lengths[kept].sum())
            columns = self._written.take(self._context.pool, rows)
            offsets_lease = self._context.pool.take(4 * (rows + 1))
            values_lease = self._context.pool.take(total)
            offsets: Any = offsets_lease.array(np.int32, rows + 1)
            values: Any = values_lease.array(np.uint8, total)
            written = [columns[name] for name in self._written.names]
            six = found.heads[kept] >= 0
            both = self._sixes.take(self._context.pool, rows if six.any() else 0)
            gather: Any = packets.gather
            gather(
                piece.data,
                piece.count,
                found.codes,
                found.begins,
                found.lengths,
                piece.times,
                found.sources,
                found.targets,
                found.heads,
                found.source_ports,
                found.target_ports,
                found.vlans,
                block.first_seq,
                *written,
                *(both[name] for name in self._sixes.names),
                offsets,
                values,
            )
            self._context.copied(total)
            buffers = [None, offsets_lease.buffer(0, 4 * (rows + 1)), values_lease.buffer(0, total)]
            payload = pa.Array.from_buffers(pa.binary(), rows, buffers)
            part = columns.batch(rows).columns
            arrays = [part[0], *part, payload, *self._addresses(both, six)]
            batches.append(pa.RecordBatch.from_arrays(arrays, schema=self._schema))
        return Decoded(batches, piece.unsound(self._path, found.codes), piece.dropped(found.codes))

    def _addresses(self, both: ColumnBlock, six: npt.NDArray[np.bool_]) -> list[pa.Array]:
        """The addresses of IPv6, null for packets of IPv4."""
        if not six.any():
            none = self._none if len(self._none) >= len(six) else pa.nulls(len(six), pa.binary(16))
            self._none = none  # one column for all blocks
            return [none.slice(0, len(six))] * 2
        for name in self._sixes.names:
            both[name][~six] = 0
        batch = both.batch(len(six), valid=dict.fromkeys(self._sixes.names, six))
        return list(batch.columns)

    def reread(self, at: int, record: BadRecord) -> Decoded | None:
        """The packet whose record or bytes begin at `at`, numbered as `record`; None if none does, or if it is no row."""
        for block in self.blocks():
            piece: Piece = block.payload
            if piece.base + piece.nbytes < at:
                continue
            decoded = self.decode(block)
            if bad := [found for found in decoded.bad if found.place == record.place]:
                return Decoded((), bad)
            begins = piece.base + piece.ats[: piece.count]
            here = np.flatnonzero((begins >= at) & (begins <= at + _LONGEST_HEAD))
            if len(here):
                return picked(decoded, {piece.first + int(here[0]): record.seq or 0})
        return None

    def close(self) -> None:
        self._feed.close()
