"""Resolved events of a Slippi replay to rows of ``game.input`` and ``game.state``.

A field that the replay's version does not have is null, which the size of the event tells.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from ...pipeline.columns import ColumnLayout
from ...pipeline.context import BadRecord
from ...pipeline.memory import BufferPool
from ...pipeline.source import Decoded
from . import _slippi_kernels as kernels
from ._slippi_format import EVENTS, FIRST_FRAME, FRAME_NS, TABLES
from ._slippi_frames import Resolved

__all__ = ["Rows", "decode_resolved", "dropped_of"]

#: Where each field ends in its event: an event that is shorter has it not.
_ENDS = {
    "input": {
        "seed": 0x0B, "action_state": 0x0D, "stick_x": 0x1D, "stick_y": 0x21, "c_x": 0x25, "c_y": 0x29, "buttons": 0x31,
        "buttons_phys": 0x33, "trigger_l": 0x37, "trigger_r": 0x3B,
    },
    "state": {
        "character": 0x08, "action_state": 0x0A, "x": 0x0E, "y": 0x12, "facing": 0x16, "percent": 0x1A, "shield": 0x1E,
        "stocks": 0x22, "airborne": 0x30,
    },
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Rows:
    """How rows are made: the table, its columns, the event's bytes, when the first frame was, and the match's id."""

    table: str
    columns: ColumnLayout
    size: int
    start_ns: int
    match: pa.Array
    path: str


def decode_resolved(resolved: Resolved, how: Rows, pool: BufferPool, recv_ns: Any = None) -> Decoded:
    """Rows, bad records and counted drops of what has been resolved. Pure.

    `recv_ns` is the capture time, of all rows or of each; None: event time.
    """
    batches = [_batch(resolved, how, pool, recv_ns)] if len(resolved.rows) else []
    bad = [
        BadRecord(f"{how.path}, offset {event.offset}", "slippi.event", event.error, event.data, event.seq)
        for event in resolved.bad
    ]
    return Decoded(batches, bad, dropped_of(resolved, how.table))


def dropped_of(resolved: Resolved, table: str) -> dict[str, int]:
    """Events that are no rows of `table`, by reason."""
    dropped = {
        f"not in game.{table}: {EVENTS.get(code, f'event 0x{code:02x}')}": int(resolved.counts[code])
        for code in np.flatnonzero(resolved.counts).tolist()
        if code != TABLES[table]
    }
    dropped |= {"superseded by rollback": resolved.superseded} if resolved.superseded else {}
    dropped |= {"sent again after the frame was final": resolved.late} if resolved.late else {}
    return dropped


def _batch(resolved: Resolved, how: Rows, pool: BufferPool, recv_ns: Any) -> pa.RecordBatch:
    count = len(resolved.rows)
    block: Any = how.columns.take(pool, count)
    follower = np.empty(count, np.bool_)
    airborne = np.empty(count, np.bool_)
    common = (resolved.rows, how.start_ns, FRAME_NS, FIRST_FRAME, block["ts_event"], block["frame"], block["player"])
    if how.table == "input":
        names = ("stick_x", "stick_y", "c_x", "c_y", "trigger_l", "trigger_r")
        sticks = tuple(block[name].view(np.uint32) for name in names)
        others = (block["buttons"], block["buttons_phys"], block["action_state"], block["seed"])
        kernels.decode_input(*common, follower, sticks, *others)
    else:
        floats = tuple(block[name].view(np.uint32) for name in ("x", "y", "percent", "shield"))
        others = (block["character"], block["action_state"], block["facing"], block["stocks"])
        kernels.decode_state(*common, follower, floats, *others, airborne)
    block["seq"][:] = resolved.seqs
    block["match_id"][:] = 0
    columns = {"follower": _bits(follower, None)}
    absent = np.zeros(count, np.bool_)
    missing = {name: absent for name, end in _ENDS[how.table].items() if end > how.size}
    if how.table == "state":
        columns["airborne"] = _bits(airborne, missing.pop("airborne", None))
    if recv_ns is not None:
        block["ts_recv"][:] = recv_ns
    else:
        block["ts_recv"][:] = block["ts_event"]
    batch: pa.RecordBatch = block.batch(count, dictionaries={"match_id": how.match}, columns=columns, valid=missing)
    return batch


def _bits(values: npt.NDArray[np.bool_], valid: npt.NDArray[np.bool_] | None) -> pa.Array:
    mask = None if valid is None else pa.py_buffer(np.packbits(valid, bitorder="little"))
    data = pa.py_buffer(np.packbits(values, bitorder="little"))
    return pa.Array.from_buffers(pa.bool_(), len(values), [mask, data])
