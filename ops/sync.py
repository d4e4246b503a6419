"""Nearest-in-time partners: one camera frame, the radar scan closest to it.

A left row is decided once no right row that can still come could be nearer: when the right watermark has reached the
row's time plus the distance of its best candidate. A right row is forgotten once a later one is at or before every left
row that can still come (that one is nearer to all of them), or once it is out of everybody's tolerance. So what is held
is the time between the two streams' watermarks, not the recording.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from ..pipeline.columns import event_ns
from ..pipeline.context import Context
from ..pipeline.duration import nanoseconds, readable_duration
from ..pipeline.errors import GraphError, StateLimitError
from ..pipeline.operator import END_OF_TIME, NO_TIME, Operator, OperatorSpec, State
from ..pipeline.registry import supplies
from ..pipeline.schema import EVENT_FIELDS, check_event_schema
from ._pending import PendingRows, TimeIndex
from ._rows import Gatherer, Ints, RowStore

__all__ = ["Sync", "right_names"]

_MAX = np.uint64((1 << 64) - 1)
_LEAST_LOOK = 1024


@supplies("sync")
@dataclass(frozen=True)
class Sync(OperatorSpec):
    """Join each row of input 0 with the row of input 1 nearest in event time, at most `tolerance_ns` away.

    Ties go to the earlier right row, of equal times to the one that came first. Rows leave in the order in which the
    left rows came. Columns: the left's; ``right_ts_event``, ``right_ts_recv``, ``right_seq`` (with `prefix`); the right's
    others under their own names, with `prefix` where the left has that name; ``dt_ns`` (int64, right time minus left).

    Every row is accounted for: unmatched left rows are counted under ``"no partner within 50ms"`` or ``"other stream
    empty"`` and go to the side output ``"unmatched"``; right rows that no left row took are counted under ``"partner
    never used"``. A right row may serve several left rows. StateLimitError if more than `state_limit` bytes wait.
    """

    tolerance_ns: int
    prefix: str = "right_"
    state_limit: int = 64 << 20
    kind: ClassVar[str] = "sync"
    event_time: ClassVar[bool] = True

    def __post_init__(self) -> None:
        object.__setattr__(self, "tolerance_ns", nanoseconds(self.tolerance_ns))
        if not self.prefix:
            raise ValueError("prefix must not be empty: both sides have a column 'ts_event'")
        if self.state_limit <= 0:
            raise ValueError(f"{self.state_limit=} must be positive; it is the bytes that may wait")

    def output_schema(self, *inputs: pa.Schema) -> pa.Schema:
        """See the class. Raises GraphError if a name is on both sides even with the prefix."""
        if len(inputs) != 2:
            raise GraphError("a sync has two inputs", expected=2, got=len(inputs))
        left, right = inputs
        names = right_names("sync", left, right, self.prefix)
        fields = [field.with_name(name) for field, name in zip(right, names, strict=True)]
        distance = "dt_ns" if "dt_ns" not in {*left.names, *names} else f"{self.prefix}dt_ns"
        if distance in {*left.names, *names}:
            raise GraphError(f"column {distance!r} exists already; give the sync another prefix", got=self.prefix)
        fields.append(pa.field(distance, pa.int64(), nullable=False))
        return pa.schema([*left, *fields], metadata=left.metadata)

    def side_outputs(self, *inputs: pa.Schema) -> Mapping[str, pa.Schema]:
        """``"unmatched"``: the left rows without a partner, in the order they came."""
        return {"unmatched": inputs[0]}

    def open(self, context: Context, *inputs: pa.Schema) -> Operator:
        return _Sync(self, context, self.output_schema(*inputs), inputs[1])

    def state_bound(self, *inputs: pa.Schema) -> int:
        return self.state_limit

    def passes_row_work(self) -> bool:
        return True

    def cause(self) -> str:
        return "sync"


def right_names(what: str, left: pa.Schema, right: pa.Schema, prefix: str, leave_out: Sequence[str] = ()) -> list[str]:
    """The output names of the right's columns: event columns always prefixed, others where the left has the name.

    Columns in `leave_out` do not come out and keep their names. Raises GraphError for a side without event columns and
    for a name that is taken even so.
    """
    for side, schema in (("left", left), ("right", right)):
        if (problem := check_event_schema(schema)) is not None:
            raise GraphError(f"a {what} needs event time: {side} input: {problem}")
    taken = set(left.names)
    event = {field.name for field in EVENT_FIELDS}
    own = {name for name in right.names if name not in taken and name not in event}
    names = []
    for name in right.names:
        if name in leave_out or name in own:
            names.append(name)
            continue
        names.append(prefix + name)
        if names[-1] in taken or names[-1] in own:
            raise GraphError(
                f"column {names[-1]!r} of the right input of the {what} exists already; give another prefix", got=prefix
            )
    return names


class _Sync(Operator):
    def __init__(self, spec: Sync, context: Context, schema: pa.Schema, right: pa.Schema) -> None:
        self._spec, self._context, self._schema, self._right_schema = spec, context, schema, right
        self._reason = f"no partner within {readable_duration(spec.tolerance_ns)}"
        self._reach = np.uint64(min(spec.tolerance_ns, (1 << 64) - 2))  # below the distance of "no candidate"
        self._watermarks = [NO_TIME, NO_TIME]
        self._left = PendingRows()
        self._gatherer = Gatherer(context)
        self._right = RowStore(self._gatherer, right)
        self._times = TimeIndex()  # tag: 1 once the row was taken
        self._right_seen = False
        self._unexplained = 0  # unmatched while the right stream has not had a row: empty, or only late to begin

    def process(self, batch: pa.RecordBatch, port: int = 0) -> Sequence[pa.RecordBatch]:
        if not batch.num_rows:
            return ()
        if port == 0:
            self._left.append(batch)
        else:
            self._times.insert(event_ns(batch), self._right.append(batch), 0)
            self._right_seen = True
            self._context.drop(self._reason, self._unexplained)
            self._unexplained = 0
        return self._settle()

    def advance(self, watermark: int, port: int = 0) -> Sequence[pa.RecordBatch]:
        self._watermarks[port] = watermark
        return self._settle()

    def _settle(self) -> list[pa.RecordBatch]:
        done: list[pa.RecordBatch] = []
        while self._left.rows:
            batch, times = self._left.head()
            start = self._left.offset
            partners, distances = self._decide(times[start:])
            count = len(partners)
            if count:
                done += self._emit(batch, start, partners, distances)
                self._left.take(count)
            if start + count < batch.num_rows:
                break
        self._forget()
        self._account()
        return done

    def _decide(self, times: Ints) -> tuple[Ints, Ints]:
        """Partner (position, or -1 for none) and right minus left of the leading rows that are decided."""
        partners, distances = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
        start, look = 0, _LEAST_LOOK
        while start < len(times) and times[start] <= self._watermarks[1]:
            some = times[start : start + look]
            chosen, distance = self._nearest(some)
            found = distance <= self._reach
            decided = self._decided(some, np.where(found, distance, self._reach), found)
            count = len(some) if decided.all() else int(decided.argmin())
            chosen, found = chosen[:count], found[:count]
            self._times.tag[chosen[found]] = 1
            partner, apart = np.full(count, -1, np.int64), np.zeros(count, np.int64)
            partner[found] = self._times.position[chosen[found]]
            apart[found] = self._times.ts[chosen[found]] - some[:count][found]
            partners.append(partner)
            distances.append(apart)
            if count < len(some):
                break
            start, look = start + count, 2 * look
        return np.concatenate(partners), np.concatenate(distances)

    def _nearest(self, times: Ints) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.uint64]]:
        """Place in the time index of the best candidate of each row and its distance (all ones where there is none)."""
        known = self._times.ts
        if not len(known):
            return np.zeros(len(times), np.intp), np.full(len(times), _MAX)
        after = np.searchsorted(known, times, "left")
        before = np.maximum(after - 1, 0)
        if (known[before] == known[np.maximum(before - 1, 0)]).any():  # of equal times, the first
            before = np.searchsorted(known, known[before], "left")
        # Differences of ordered int64 are exact as uint64, even over the whole range.
        ahead = (known[np.minimum(after, len(known) - 1)] - times).view(np.uint64)
        ahead = np.where(after < len(known), ahead, _MAX)
        behind = np.where(after > 0, (times - known[before]).view(np.uint64), _MAX)
        earlier = (behind <= ahead) & (after > 0)
        return np.where(earlier, before, np.minimum(after, len(known) - 1)), np.where(earlier, behind, ahead)

    def _decided(
        self, times: Ints, reach: npt.NDArray[np.uint64], found: npt.NDArray[np.bool_]
    ) -> npt.NDArray[np.bool_]:
        watermark = self._watermarks[1]
        if watermark == END_OF_TIME:
            return np.ones(len(times), np.bool_)
        if watermark == NO_TIME:
            return np.zeros(len(times), np.bool_)
        passed = (np.int64(watermark) - times).view(np.uint64)
        return (times <= watermark) & np.where(found, passed >= reach, passed > reach)

    def _emit(self, batch: pa.RecordBatch, start: int, partners: Ints, distances: Ints) -> list[pa.RecordBatch]:
        rows = batch if len(partners) == batch.num_rows else batch.slice(start, len(partners))
        matched = partners >= 0
        if not matched.all():
            alone = np.flatnonzero(~matched)
            self._context.side("unmatched", self._gatherer.select(rows, alone))
            if self._right_seen:
                self._context.drop(self._reason, len(alone))
            else:
                self._unexplained += len(alone)
            kept = np.flatnonzero(matched)
            if not len(kept):
                return []
            rows, partners, distances = self._gatherer.select(rows, kept), partners[kept], distances[kept]
        taken = self._right.take(partners)
        columns = [*rows.columns, *taken.columns, pa.array(distances)]
        return [pa.RecordBatch.from_arrays(columns, schema=self._schema)]

    def _forget(self) -> None:
        """Release right rows that no pending or future left row can be nearest to."""
        oldest = min(self._watermarks[0], self._left.oldest())
        known = self._times.ts
        if not len(known) or oldest == NO_TIME:
            return
        if oldest == END_OF_TIME:
            count = len(known)
        else:
            count = int(np.searchsorted(known, max(NO_TIME, oldest - self._spec.tolerance_ns), "left"))
            better = int(np.searchsorted(known, oldest, "right"))
            if better:
                count = max(count, int(np.searchsorted(known, known[better - 1], "left")))
        if count:
            self._context.drop("partner never used", count - int(self._times.tag[:count].sum()))
            self._right.release(self._times.position[:count])
            self._times.drop_front(count)

    def _account(self) -> None:
        held = self._left.nbytes + self._right.nbytes
        self._context.metrics.state_bytes = held
        if held > self._spec.state_limit:
            slow = "right" if self._left.nbytes > self._right.nbytes else "left"
            raise StateLimitError(
                f"step {self._context.step!r} holds {held} bytes ({self._left.rows} left rows, {len(self._times)} right "
                f"rows), more than state_limit={self._spec.state_limit}: the {slow} input is behind; read it faster, "
                "lower its lateness or the tolerance, or raise state_limit"
            )

    def watermark(self) -> int:
        return min(self._watermarks[0], self._left.oldest())

    def finish(self) -> Sequence[pa.RecordBatch]:
        self._context.drop("other stream empty", self._unexplained)
        self._unexplained = 0
        return ()

    def snapshot(self) -> State:
        return {
            "watermarks": list(self._watermarks),
            "left": self._left.batches(),
            "right": self._right.take(self._times.position),
            "taken": self._times.tag.astype(np.bool_),
            "right_seen": self._right_seen,
            "unexplained": self._unexplained,
        }

    def restore(self, state: State) -> None:
        self._watermarks = list(state["watermarks"])
        for batch in state["left"]:
            self._left.append(batch)
        right = state["right"]
        self._times.insert(event_ns(right), self._right.append(right), np.asarray(state["taken"], np.int64))
        self._right_seen, self._unexplained = state["right_seen"], state["unexplained"]
        self._account()
