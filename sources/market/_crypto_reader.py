"""A recorder file in blocks of whole lines, decoded as they are framed, with every byte accounted for.

The lines of a recording depend on those before them: names get their numbers in order, and a gap in a book shows between two
messages. So lines are decoded in order while the file is framed, which the scanner does faster than any file unpacks, and
`decode` only hands out what was made.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from ...pipeline.context import BadRecord, Context
from ...pipeline.errors import FormatError
from ...pipeline.memory import Lease
from ...pipeline.source import Block, Decoded, Position, SourceReader
from ..storage.feed import Feed
from ..text._ndjson_lines import count_records
from ..text._ndjson_simd import PADDING
from ._crypto_decode import LineDecoder, Lines, Made
from ._crypto_rows import address

__all__ = ["MOST_RECORDS", "CryptoReader"]

#: Records of a block at most.
MOST_RECORDS = 65_536
#: Bytes of a line that is too long that are kept for quarantine.
_KEPT = 65_536
_BOM = b"\xef\xbb\xbf"


class CryptoReader(SourceReader):
    """An open recorder file. `decoder` was made from what `position` saved."""

    def __init__(
        self,
        feed: Feed,
        decoder: LineDecoder,
        context: Context,
        *,
        path: str,
        file: str,
        position: Position | None,
        block_bytes: int,
        max_line: int,
    ) -> None:
        self._feed, self._pool, self._path, self._file = feed, context.pool, path, file
        start = position or {"offset": 0, "seq": 0, "line": 1}
        self._offset, self._seq, self._line = int(start["offset"]), int(start["seq"]), int(start["line"])
        if self._offset:
            feed.seek(self._offset)
        self._decoder = decoder
        self._block_bytes, self._max_line = block_bytes, max_line
        self._whole = position is None
        self._index = 0

    def close(self) -> None:
        self._feed.close()

    def decode(self, block: Block) -> Decoded:
        """What the block's lines became; see `SourceReader.decode`."""
        made: Made = block.payload
        return Decoded(made.batches, made.bad, made.dropped)

    def blocks(self) -> Iterator[Block]:
        """Frame and decode the file; see `SourceReader.blocks`. Raises FormatError if it is empty."""
        carry, ended, fresh, found, want = b"", False, self._offset == 0, False, self._block_bytes
        while carry or not ended:
            size = len(carry) if ended else max(want, len(carry))
            lease = self._pool.take(size + PADDING)
            data = _view(lease, size + PADDING)
            data[: len(carry)] = np.frombuffer(carry, np.uint8)
            have = len(carry) + self._feed.fill(memoryview(data)[len(carry) : size])  # type: ignore[arg-type]
            ended = ended or have < size
            if fresh and have >= 3 and data[:3].tobytes() == _BOM:
                data[: have - 3] = data[3:have].copy()
                self._offset += 3
                have -= 3
            fresh = False
            cut = have if ended else _after_last_newline(data, have)
            if cut == 0 and have <= self._max_line:
                carry, want = data[:have].tobytes(), min(2 * have, self._max_line + self._block_bytes)
                continue
            want = self._block_bytes
            cut = cut or have
            tail = data[cut:have].tobytes()
            data[cut : cut + PADDING] = 0
            base = address(data)
            records, lines, stop, long = count_records(base, base + cut, MOST_RECORDS, self._max_line)
            found = found or bool(records) or bool(long)
            if long and stop == base:
                block, carry, ended = self._skip_line(data[:cut].tobytes() + tail, ended)
                yield block
                continue
            carry, cut = data[int(stop) - base : cut].tobytes() + tail, int(stop) - base
            data[cut : cut + PADDING] = 0
            text = Lines(lease, cut, self._offset, self._line, self._seq, int(records))
            self._offset += cut
            self._seq += int(records)
            self._line += int(lines)
            if records:
                yield self._block(text.seq, text.records, cut, self._decoder.decode(text))
        if self._feed.error is not None:
            place = f"{self._file}, byte {self._offset} of its text"
            bad = BadRecord(place, "crypto.unpack", self._feed.error, b"")
            yield self._block(self._seq, 0, 0, Made(bad=[bad]))
        elif self._whole and not found:
            raise FormatError(f"{self._path} is empty: it holds no recorder line")

    def _skip_line(self, text: bytes, ended: bool) -> tuple[Block, bytes, bool]:
        """Step over a line that is too long: its block, what was read behind it, and whether the file has ended."""
        kept, length, newline = b"", 0, text.find(b"\n")
        chunk = memoryview(bytearray(self._block_bytes))
        while newline < 0 and not ended:
            kept += text[: _KEPT - len(kept)]
            length += len(text)
            got = self._feed.fill(chunk)
            text, ended = bytes(chunk[:got]), got < len(chunk)
            newline = text.find(b"\n")
        line = text if newline < 0 else text[:newline]
        kept += line[: _KEPT - len(kept)]
        length += len(line)
        behind = text[newline + 1 :] if newline >= 0 else b""
        place = f"{self._file}, line {self._line}, byte {self._offset}"
        error = f"a line of {length} bytes, more than max_line={self._max_line}; its first {len(kept)} bytes are kept"
        bad = BadRecord(place, "crypto.frame", error, kept, self._seq)
        self._offset += length + (newline >= 0)
        self._seq += 1
        self._line += newline >= 0
        return self._block(self._seq - 1, 1, length, Made(bad=[bad])), behind, ended

    def _block(self, first: int, records: int, nbytes: int, made: Made) -> Block:
        after: dict[str, Any] = {"offset": self._offset, "seq": self._seq, "line": self._line, **self._decoder.save()}
        self._index += 1
        return Block(self._index - 1, first, records, nbytes, after, made)


def _view(lease: Lease, size: int) -> npt.NDArray[np.uint8]:
    return lease.array(np.uint8, size)  # type: ignore[return-value]


def _after_last_newline(data: npt.NDArray[np.uint8], have: int) -> int:
    """The position behind the last newline of ``data[:have]``, 0 if there is none."""
    stop, step = have, 4096
    while stop > 0:
        start = max(0, stop - step)
        found = data[start:stop].tobytes().rfind(b"\n")
        if found >= 0:
            return start + found + 1
        stop, step = start, step * 4
    return 0
