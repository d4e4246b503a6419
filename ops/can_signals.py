"""CAN frames to signals: the rows of one message of a DBC file as a table with a column a signal.

Frames are ``can.frame`` rows (FORMATS section 6), from a bag, a log (candump, .asc, BLF, TRC) or a data set::

    frames = ps.read(sources.Candump("drive.log"))
    frames.apply(ops.CanSignals("car.dbc", "WheelSpeeds")).write(sinks.Parquet("wheels/"))

Several messages of one stream: `CanSignals.all` gives one operator a message, to be applied to the same stream each::

    for name, signals in ops.CanSignals.all("car.dbc").items():
        frames.apply(signals).write(sinks.Parquet(f"signals/{name}/"))
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass, field
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from ..pipeline.columns import ColumnLayout, as_numpy
from ..pipeline.context import BadRecord, Context
from ..pipeline.errors import GraphError
from ..pipeline.operator import Operator, OperatorSpec
from ..pipeline.schema import EVENT_FIELDS
from ._can_dbc import MessageLayout, SignalLayout, messages_of, names

__all__ = ["CanSignals"]

_INPUT = {"can_id": pa.uint32(), "ext": pa.bool_(), "len": pa.uint8()}
#: Bits of `can_id` that mark remote and error frames.
_MARKS = 0x60000000
#: What is compared of a J1939 identifier: data pages and PF, and the group extension where PF says that there is one.
_PDU1, _PDU2 = 0x03FF0000, 0x03FFFF00


@dataclass(frozen=True)
class CanSignals(OperatorSpec):
    """Decode the signals of one CAN message.

    `dbc` is a DBC file (path or fsspec URL, or its text), or one in KCD, SYM 6.0 or ARXML, told by its content; `message` is
    a name or identifier in it. What is wrong in a DBC beside its signals' bits (names that begin with a digit, statements
    about signals that are gone, 29-bit identifiers that are not marked as such) does not matter. In: ``can.frame`` rows.
    Out, for each frame of the message: the three event columns and one float64 column a signal, in the file's order of
    bits, ``raw * scale + offset``; null where a multiplexed signal is not in the frame (also where no signal has the
    selector's value). A signal named like an event column becomes ``<message>_<signal>``. With `labels`, each signal with a
    value table is followed by ``<signal>_label``, dictionary<int16, utf8>, null where the table has no entry.
    The units are in the schema's metadata, ``penstock.units``.

    Frames of other identifiers, and of other buses if `bus` is given, are counted as dropped; so are remote and error
    frames. `id_mask` selects the bits of the identifier that must agree; `j1939` stands for the mask of a parameter group,
    whatever its priority and source address. A frame that is shorter than a signal it should hold is a bad record
    (operation ``can.decode``).

    Needs the package ``cantools`` where the graph is built. Raises GraphError for a file that cannot be read or parsed, an
    unknown message, a signal of more than 64 bits, and a stream without the columns of ``can.frame`` or with fewer data
    bytes than the message needs; MissingExtraError without cantools.
    """

    dbc: str | os.PathLike[str]
    message: str | int
    _: KW_ONLY
    bus: int | None = None
    labels: bool = False
    j1939: bool = False
    id_mask: int | None = None
    layout: MessageLayout = field(init=False, repr=False)

    kind: ClassVar[str] = "can_signals"
    stateless: ClassVar[bool] = True

    def __post_init__(self) -> None:
        object.__setattr__(self, "dbc", os.fspath(self.dbc))
        if self.bus is not None and not 0 <= self.bus <= 255:
            raise GraphError("bus must be from 0 to 255", got=self.bus)
        if self.id_mask is not None and not 0 < self.id_mask <= 0x1FFFFFFF:
            raise GraphError("id_mask must have bits among the 29 of an identifier", got=self.id_mask)
        if self.id_mask is not None and self.j1939:
            raise GraphError("give j1939 or id_mask, not both")
        found = messages_of(self.dbc)
        wanted = [m for m in found if self.message in (m.name, m.can_id)]
        if not wanted:
            raise GraphError(f"the DBC file has no message {self.message!r}; it has {names(found)}")
        if wanted[0].problem:
            raise GraphError(wanted[0].problem)
        if not wanted[0].signals:
            raise GraphError(f"message {wanted[0].name!r} has no signals")
        if self.j1939 and not wanted[0].ext:
            raise GraphError(f"message {wanted[0].name!r} has an 11-bit identifier: that is not J1939")
        object.__setattr__(self, "layout", wanted[0])

    @classmethod
    def all(cls, dbc: str | os.PathLike[str], **options: Any) -> dict[str, CanSignals]:
        """One operator for each message of `dbc` that has signals, by its name; `options` as for one.

        Messages that no single frame can hold (those of transport protocols, of impossible identifiers) are left out.
        """
        return {m.name: cls(dbc, m.name, **options) for m in messages_of(dbc) if m.signals}

    @property
    def mask(self) -> int:
        """The bits of an identifier that are compared."""
        if self.id_mask is not None:
            return self.id_mask
        if self.j1939:
            return _PDU1 if (self.layout.can_id >> 16) & 0xFF < 240 else _PDU2
        return 0x1FFFFFFF

    def column_of(self, signal: str) -> str:
        """The name of a signal's column."""
        return f"{self.layout.name}_{signal}" if signal in {f.name for f in EVENT_FIELDS} else signal

    def output_schema(self, *inputs: pa.Schema) -> pa.Schema:
        schema = inputs[0]
        for name, kind in _INPUT.items():
            if name not in schema.names or schema.field(name).type != kind:
                raise GraphError(f"no column {name!r} of CAN frames", expected=f"{name}: {kind}", got=schema.names)
        data = schema.field("data").type if "data" in schema.names else None
        if data is None or not pa.types.is_fixed_size_binary(data):
            raise GraphError("no column 'data' of CAN frames", expected="fixed_size_binary[8] or [64]", got=data)
        if data.byte_width < self.layout.need:
            raise GraphError(
                f"message {self.layout.name!r} needs {self.layout.need} bytes of data; read the log with CAN FD frames",
                expected=f"fixed_size_binary[{64}]",
                got=data,
            )
        if self.bus is not None and "bus" not in schema.names:
            raise GraphError("bus is given, but the frames have no column 'bus'", got=schema.names)
        fields = list(EVENT_FIELDS)
        for signal in self.layout.signals:
            name = self.column_of(signal.name)
            fields.append(pa.field(name, pa.float64()))
            if self.labels and signal.labels:
                fields.append(pa.field(f"{name}_label", pa.dictionary(pa.int16(), pa.utf8())))
        seen = [f.name for f in fields]
        twice = next((name for name in seen if seen.count(name) > 1), None)
        if twice is not None:
            raise GraphError(f"message {self.layout.name!r} would give two columns {twice!r}")
        units = ", ".join(f"{self.column_of(s.name)}: {s.unit}" for s in self.layout.signals if s.unit)
        told = {"penstock.table": f"can.{self.layout.name}", "penstock.units": units}
        kept = {key.decode(): value.decode() for key, value in (schema.metadata or {}).items()}
        return pa.schema(fields, metadata={**kept, **told})

    def open(self, context: Context, *inputs: pa.Schema) -> Operator:
        return _Signals(self, context, self.output_schema(*inputs))

    def cause(self) -> str:
        return "decode"


class _Signals(Operator):
    def __init__(self, spec: CanSignals, context: Context, schema: pa.Schema) -> None:
        self._spec, self._context, self._columns = spec, context, ColumnLayout(schema)
        signals = spec.layout.signals
        self._order = np.array(spec.layout.order, np.int64)
        self._places = np.zeros((len(signals), 8), np.int64)
        ranges: list[tuple[int, int]] = []
        for k, s in enumerate(signals):
            ranges += s.ranges
            self._places[k] = s.first, s.step, s.shift, s.length, s.kind == "s", s.need, s.parent, len(ranges)
        self._ranges = np.array(ranges, np.int64).reshape(-1, 2)
        self._labels = {s.name: pa.array([text for _, text in s.labels], pa.utf8()) for s in signals if s.labels}

    def process(self, batch: pa.RecordBatch, port: int = 0) -> Sequence[pa.RecordBatch]:
        rows = self._select(batch)
        if not len(rows):
            return ()
        from ._can_kernels import raw_values

        data, sizes = _values(batch, "data"), _values(batch, "len")
        sizes = np.where(sizes <= data.shape[1], sizes, 0)
        shape = (len(self._places), len(rows))
        raw, present, status = np.empty(shape, np.int64), np.empty(shape, np.uint8), np.empty(len(rows), np.uint8)

        def work(start: int, stop: int) -> None:
            raw_values(data, sizes, rows, start, stop, self._order, self._places, self._ranges, raw, present, status)

        self._context.map_rows(work, len(rows), least=8192)
        if status.any():
            for i in rows[status != 0].tolist():
                self._context.quarantine(self._bad(batch, i))
            good = status == 0
            rows, raw, present = rows[good], raw[:, good], present[:, good]
        return (self._table(batch, rows, raw, present.astype(np.bool_)),) if len(rows) else ()

    def _select(self, batch: pa.RecordBatch) -> npt.NDArray[np.int64]:
        """The rows of the message; the others are counted."""
        spec = self._spec
        ids = _values(batch, "can_id")
        ext = pc.fill_null(batch.column("ext"), False).to_numpy(zero_copy_only=False)
        hit = ((ids ^ np.uint32(spec.layout.can_id)) & np.uint32(spec.mask) == 0) & (ext == spec.layout.ext)
        for name in ("can_id", "len", "data"):
            if batch.column(name).null_count:
                hit &= batch.column(name).is_valid().to_numpy(zero_copy_only=False)
        self._context.drop("other CAN id", len(ids) - int(hit.sum()))
        marked = hit & (ids & np.uint32(_MARKS) != 0)
        if marked.any():
            self._context.drop("remote or error CAN frame", int(marked.sum()))
            hit &= ~marked
        if spec.bus is not None:
            here = hit & (_values(batch, "bus") == spec.bus)
            self._context.drop("other CAN bus", int(hit.sum()) - int(here.sum()))
            hit = here
        return np.flatnonzero(hit)

    def _table(
        self, batch: pa.RecordBatch, rows: npt.NDArray[Any], raw: npt.NDArray[Any], present: npt.NDArray[Any]
    ) -> pa.RecordBatch:
        out = self._columns.take(self._context.pool, len(rows))
        for event in EVENT_FIELDS:
            out[event.name][:] = as_numpy(batch.column(event.name))[rows]
        valid: dict[str, npt.NDArray[np.bool_]] = {}
        dictionaries: dict[str, pa.Array] = {}
        for k, signal in enumerate(self._spec.layout.signals):
            name = self._spec.column_of(signal.name)
            _physical(raw[k], signal, out[name])
            if not present[k].all():
                valid[name] = present[k]
            if self._spec.labels and signal.labels:
                label = f"{name}_label"
                out[label][:], known = _codes(raw[k], signal)
                valid[label] = known & present[k]
                dictionaries[label] = self._labels[signal.name]
        return out.batch(len(rows), dictionaries=dictionaries, valid=valid)

    def _bad(self, batch: pa.RecordBatch, row: int) -> BadRecord:
        layout, size = self._spec.layout, batch.column("len")[row].as_py()
        seq = batch.column("seq")[row].as_py()
        source = (batch.schema.metadata or {}).get(b"penstock.source", b"").decode()
        place = f"{source}, seq {seq}" if source else f"seq {seq}"
        error = f"a frame of {size} bytes ends before a signal of message {layout.name!r} that it should hold"
        return BadRecord(place, "can.decode", error, batch.column("data")[row].as_py()[:size], seq)


def _values(batch: pa.RecordBatch, name: str) -> npt.NDArray[Any]:
    """A column as numpy, zeros where it is null."""
    column = batch.column(name)
    if column.null_count:
        zero = bytes(column.type.byte_width) if pa.types.is_fixed_size_binary(column.type) else 0
        column = pc.fill_null(column, pa.scalar(zero, column.type))
    return as_numpy(column)


def _physical(raw: npt.NDArray[np.int64], signal: SignalLayout, out: npt.NDArray[Any]) -> None:
    values: npt.NDArray[Any] = raw
    if signal.kind == "u":
        values = raw.view(np.uint64)
    elif signal.kind == "f":
        integer, real = {16: (np.uint16, np.float16), 32: (np.uint32, np.float32), 64: (np.uint64, np.float64)}[
            signal.length
        ]
        with np.errstate(invalid="ignore"):  # a signalling NaN
            values = raw.astype(integer).view(real).astype(np.float64)
    out[:] = values
    with np.errstate(over="ignore", invalid="ignore"):
        if signal.scale != 1.0:
            out *= signal.scale
        if signal.offset != 0.0:
            out += signal.offset


def _codes(raw: npt.NDArray[np.int64], signal: SignalLayout) -> tuple[npt.NDArray[Any], npt.NDArray[np.bool_]]:
    """The index of each value in the value table, and which are in it."""
    table = np.array([value for value, _ in signal.labels], np.int64)
    at = np.minimum(np.searchsorted(table, raw), len(table) - 1)
    return at, table[at] == raw
