"""The last known state at a moment: each left row with the newest right row that is not after it, key by key.

Right rows wait in time order. Once every left row that can still come is at or after them, only the last of each key is
kept (the *base*); the few rows behind that horizon are searched by (key, rank in time). What is held is therefore one
row a key and the time between the two streams. When rows that nobody needs keep too many batches alive, the live ones
are copied together, which is also what a snapshot holds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pyarrow as pa

from ..pipeline.columns import event_ns
from ..pipeline.context import Context
from ..pipeline.duration import nanoseconds
from ..pipeline.errors import GraphError, StateLimitError
from ..pipeline.operator import END_OF_TIME, NO_TIME, Operator, OperatorSpec, State
from ..pipeline.partition import Partitioned
from ..pipeline.registry import supplies
from ._key_codes import KeyCodes, key_kind
from ._pending import PendingRows, TimeIndex
from ._rows import Gatherer, Ints, RowStore, is_sorted
from .sync import right_names

__all__ = ["JoinAsof"]

_LEAST_HELD = 4096


@supplies("join_asof")
@dataclass(frozen=True)
class JoinAsof(OperatorSpec):
    """Join each row of input 0 with the last row of input 1 whose event time is not after it.

    `by` are key columns of both sides (text, bytes, integers, booleans, or dictionaries of them), matched by value; a
    null key matches nothing. Of equal right times the row that came last counts. With `tolerance_ns` (ns, or a text
    such as ``"1s"``) an older right row does not. Rows leave in the order in which the left rows came.

    Columns: the left's, then the right's without `by`: ``right_ts_event``, ``right_ts_recv``, ``right_seq`` (with
    `prefix`), the others under their own names, prefixed where the left has that name. ``how="left"`` keeps a left row
    without a match, with nulls, and counts it under ``"no match, kept with nulls"``; ``"inner"`` drops it, counted under
    ``"no match"``. StateLimitError if more than `state_limit` bytes wait.
    """

    by: tuple[str, ...] = ()
    tolerance_ns: int | None = None
    how: str = "left"
    prefix: str = "right_"
    state_limit: int = 64 << 20
    kind: ClassVar[str] = "join_asof"
    event_time: ClassVar[bool] = True

    def __post_init__(self) -> None:
        object.__setattr__(self, "by", (self.by,) if isinstance(self.by, str) else tuple(self.by))
        if self.tolerance_ns is not None:
            object.__setattr__(self, "tolerance_ns", nanoseconds(self.tolerance_ns))
        if self.how not in ("left", "inner"):
            raise ValueError(f"how={self.how!r} must be 'left' or 'inner'")
        if not self.prefix:
            raise ValueError("prefix must not be empty: both sides have a column 'ts_event'")
        if self.state_limit <= 0:
            raise ValueError(f"{self.state_limit=} must be positive; it is the bytes that may wait")

    def output_schema(self, *inputs: pa.Schema) -> pa.Schema:
        """See the class. Raises GraphError for a key that is missing or of another kind on one side."""
        if len(inputs) != 2:
            raise GraphError("an as-of join has two inputs", expected=2, got=len(inputs))
        left, right = inputs
        for name in self.by:
            kinds = []
            for side, schema in (("left", left), ("right", right)):
                if schema.get_field_index(name) < 0:
                    raise GraphError(f"the {side} input has no key column {name!r}", expected=name, got=schema.names)
                kinds.append(key_kind(name, schema.field(name).type))
            if kinds[0] != kinds[1]:
                raise GraphError(f"key column {name!r} differs in kind", expected=kinds[0], got=kinds[1])
        names = right_names("join", left, right, self.prefix, leave_out=self.by)
        fields = []
        for field, name in zip(right, names, strict=True):
            if field.name not in self.by:
                fields.append(field.with_name(name).with_nullable(field.nullable or self.how == "left"))
        return pa.schema([*left, *fields], metadata=left.metadata)

    def open(self, context: Context, *inputs: pa.Schema) -> Operator:
        return _JoinAsof(self, context, self.output_schema(*inputs), inputs[1])

    def state_bound(self, *inputs: pa.Schema) -> int:
        return self.state_limit

    def partitioned(self, *inputs: pa.Schema) -> Partitioned | None:
        """None: left rows leave in the order in which they came, whatever their key.

        A row waits behind an earlier one of another key, which a part would not see; and how far a batch or a watermark
        lets rows leave depends on both inputs, so what parts emit for it cannot be put in order on its own.
        """
        return None

    def cause(self) -> str:
        return "sync"


class _JoinAsof(Operator):
    def __init__(self, spec: JoinAsof, context: Context, schema: pa.Schema, right: pa.Schema) -> None:
        self._spec, self._context, self._schema = spec, context, schema
        nullable = pa.schema([field.with_nullable(True) for field in right], metadata=right.metadata)
        self._right_schema = nullable if spec.how == "left" else right
        self._carried = [index for index, name in enumerate(right.names) if name not in spec.by]
        self._watermarks = [NO_TIME, NO_TIME]
        self._left = PendingRows()
        self._gatherer = Gatherer(context)
        self._reset()

    def _reset(self) -> None:
        self._keys = KeyCodes(self._spec.by)
        self._right = RowStore(self._gatherer, self._right_schema)
        self._times = TimeIndex()  # tag: key code
        self._base_position = np.empty(0, np.int64)  # by key code; -1 where there is none
        self._base_ts = np.empty(0, np.int64)
        self._due = _LEAST_HELD

    def process(self, batch: pa.RecordBatch, port: int = 0) -> Sequence[pa.RecordBatch]:
        if not batch.num_rows:
            return ()
        if port == 0:
            self._left.append(batch)
        else:
            self._hold(batch)
        return self._settle()

    def advance(self, watermark: int, port: int = 0) -> Sequence[pa.RecordBatch]:
        self._watermarks[port] = watermark
        return self._settle()

    def _hold(self, batch: pa.RecordBatch) -> None:
        codes = self._keys.codes(batch, learn=True)
        positions = self._right.append(batch)
        keyed = codes >= 0
        if keyed.all():
            self._times.insert(event_ns(batch), positions, codes)
        else:
            self._right.release(positions[~keyed])
            self._times.insert(event_ns(batch)[keyed], positions[keyed], codes[keyed])
        grown = self._keys.count - len(self._base_ts)
        if grown > 0:
            grown = max(grown, len(self._base_ts))
            self._base_position = np.append(self._base_position, np.full(grown, -1, np.int64))
            self._base_ts = np.append(self._base_ts, np.zeros(grown, np.int64))

    def _settle(self) -> list[pa.RecordBatch]:
        done: list[pa.RecordBatch] = []
        watermark = self._watermarks[1]
        while self._left.rows and watermark != NO_TIME:
            batch, times = self._left.head()
            start = self._left.offset
            waits = times[start:] >= watermark
            count = int(waits.argmax()) if watermark != END_OF_TIME and waits.any() else len(waits)
            if count:
                rows = batch if count == batch.num_rows else batch.slice(start, count)
                done += self._emit(rows, self._last(rows, times[start : start + count]))
                self._left.take(count)
            if start + count < batch.num_rows:
                break
        self._fold()
        if self._right.rows_held > self._due:
            self._compact()
        self._account()
        return done

    def _last(self, rows: pa.RecordBatch, times: Ints) -> Ints:
        """Position of the right row of each left row, -1 where there is none."""
        codes = self._keys.codes(rows, learn=False)
        known = codes >= 0
        slots = np.where(known, codes, 0)
        if not len(self._base_ts):
            return np.full(len(times), -1, np.int64)
        found = np.where(known, self._base_position[slots], -1)
        found_ts = self._base_ts[slots]
        window = int(np.searchsorted(self._times.ts, times.max(), "right"))
        if window:
            width = window + 1
            ranked = self._times.tag[:window] * width + np.arange(window)
            order = np.arange(window) if is_sorted(ranked) else np.argsort(ranked)
            upto = np.searchsorted(self._times.ts[:window], times, "right")
            place = np.searchsorted(ranked[order], slots * width + upto, "left") - 1
            row = order[np.maximum(place, 0)]
            hit = known & (place >= 0) & (self._times.tag[row] == codes)
            hit &= (found < 0) | (self._times.ts[row] >= found_ts)  # a row may come after a newer one was folded
            found = np.where(hit, self._times.position[row], found)
            found_ts = np.where(hit, self._times.ts[row], found_ts)
        if self._spec.tolerance_ns is not None:
            reach = np.uint64(min(self._spec.tolerance_ns, (1 << 64) - 1))
            found = np.where((times - found_ts).view(np.uint64) <= reach, found, -1)
        return found

    def _emit(self, rows: pa.RecordBatch, found: Ints) -> list[pa.RecordBatch]:
        matched = found >= 0
        lost = len(found) - int(np.count_nonzero(matched))
        if lost and self._spec.how == "left":
            self._context.note("no match, kept with nulls", lost)
        elif lost:
            self._context.drop("no match", lost)
            kept = np.flatnonzero(matched)
            if not len(kept):
                return []
            rows, found = self._gatherer.select(rows, kept), found[kept]
        taken = self._right.take(found)
        columns = [*rows.columns, *(taken.column(index) for index in self._carried)]
        return [pa.RecordBatch.from_arrays(columns, schema=self._schema)]

    def _fold(self) -> None:
        """Keep only the last row of each key among those at or before every left row that can still come."""
        oldest = min(self._watermarks[0], self._left.oldest())
        if oldest == NO_TIME:
            return
        if oldest == END_OF_TIME:
            self._reset()
            return
        count = int(np.searchsorted(self._times.ts, oldest, "right"))
        if not count:
            return
        codes, positions = self._times.tag[:count], self._times.position[:count]
        touched, from_end = np.unique(codes[::-1], return_index=True)
        last = count - 1 - from_end
        before = self._base_position[touched]
        newer = (before < 0) | (self._times.ts[last] >= self._base_ts[touched])
        touched, last, before = touched[newer], last[newer], before[newer]
        outdated = np.ones(count, np.bool_)
        outdated[last] = False
        self._right.release(np.concatenate([before[before >= 0], positions[outdated]]))
        self._base_position[touched] = positions[last]
        self._base_ts[touched] = self._times.ts[last]
        self._times.drop_front(count)

    def _live(self) -> Ints:
        """Positions of the rows that are still needed, in order of (event time, arrival)."""
        oldest = min(self._watermarks[0], self._left.oldest())
        codes = np.flatnonzero(self._base_position >= 0)
        if self._spec.tolerance_ns is not None and oldest != NO_TIME:
            horizon = max(NO_TIME, oldest - self._spec.tolerance_ns)
            codes = codes[self._base_ts[codes] >= horizon]
        base = self._base_position[codes]
        return np.concatenate([base[np.lexsort((base, self._base_ts[codes]))], self._times.position])

    def _compact(self) -> None:
        live = self._right.take(self._live())
        self._reset()
        self._hold(live)
        self._fold()
        self._due = max(_LEAST_HELD, 2 * live.num_rows)

    def _account(self) -> None:
        held = self._left.nbytes + self._right.nbytes + self._base_ts.nbytes * 2
        self._context.metrics.state_bytes = held
        if held > self._spec.state_limit:
            raise StateLimitError(
                f"step {self._context.step!r} holds {held} bytes ({self._left.rows} left rows that wait for the right "
                f"input, {self._keys.count} keys, {len(self._times)} right rows ahead of the left), more than "
                f"state_limit={self._spec.state_limit}: read the input that is behind faster, give a tolerance so that "
                "old keys are forgotten, drop columns of the right input, or raise state_limit"
            )

    def watermark(self) -> int:
        return min(self._watermarks[0], self._left.oldest())

    def snapshot(self) -> State:
        return {
            "watermarks": list(self._watermarks),
            "left": self._left.batches(),
            "right": self._right.take(self._live()),
        }

    def restore(self, state: State) -> None:
        self._watermarks = list(state["watermarks"])
        for batch in state["left"]:
            self._left.append(batch)
        if state["right"].num_rows:
            self._hold(state["right"])
        self._fold()
        self._account()
