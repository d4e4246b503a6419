"""Records that were put aside, read again where they stand in the recording: it may have been mended, or its decoder.

What a quarantined record holds is often not enough: a mouse sample has its time from all those before it, a picture of a
video hangs on others. Such sources go by the place that the record names, in the recording as it is now. A place in another
recording is none of theirs, so of several parts only the one that put a record aside reads it again.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import closing

import numpy as np
import pyarrow as pa

from ...pipeline.columns import as_numpy
from ...pipeline.context import BadRecord
from ...pipeline.source import Decoded, SourceReader
from .stored import PathLike, location

__all__ = ["number_behind", "picked", "reread", "rest_of_place"]


def rest_of_place(record: BadRecord, path: PathLike) -> str | None:
    """What a record's place says behind the recording `path`; None if it is in another one.

    >>> rest_of_place(BadRecord("a.pcap, offset 40", "pcap.frame", "cut", b""), "a.pcap")
    'offset 40'
    """
    text = location(path)
    if record.place == text:
        return ""
    return record.place[len(text) + 2 :] if record.place.startswith(f"{text}, ") else None


def number_behind(word: str, rest: str | None) -> int | None:
    """The number behind `word` in what `rest_of_place` gave.

    >>> number_behind("offset", "offset 40")
    40
    """
    found = re.search(rf"\b{word} (\d{{1,18}})\b", rest or "")
    return None if found is None else int(found[1])


def reread(reader: SourceReader, seqs: Mapping[int, int]) -> Decoded | None:
    """The rows and bad records that `reader` numbers as the keys of `seqs`, numbered as its values; closes `reader`.

    None if it has none of them.
    """
    rows: list[pa.RecordBatch] = []
    bad: list[BadRecord] = []
    with closing(reader):
        for block in reader.blocks():
            if any(block.first_seq <= seq < block.first_seq + max(1, block.records) for seq in seqs):
                found = picked(reader.decode(block), seqs)
                rows += found.batches
                bad += found.bad
                if sum(batch.num_rows for batch in rows) + len(bad) >= len(seqs):
                    break
    return Decoded(rows, bad) if rows or bad else None


def picked(decoded: Decoded, seqs: Mapping[int, int]) -> Decoded:
    """What of `decoded` is numbered as the keys of `seqs`; rows are numbered as its values."""
    rows = []
    for batch in decoded.batches:
        numbers = as_numpy(batch.column("seq"))
        here = np.flatnonzero(np.isin(numbers, np.array(list(seqs), np.uint64)))
        if len(here):
            given = pa.array([seqs[int(numbers[row])] for row in here], pa.uint64())
            rows.append(batch.take(pa.array(here)).set_column(2, batch.schema.field("seq"), given))
    return Decoded(rows, [record for record in decoded.bad if record.seq in seqs])
