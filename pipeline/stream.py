"""The language: a `Stream` is an immutable description of rows; every word gives a new one.

Nothing runs while a stream is described, but everything is checked: schemas are derived step by step, so a wrong column
is an error on the line that wrote it.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from .duration import Duration, nanoseconds
from .errors import GraphError
from .executor import ModelSpec
from .functions import FilterRows, FlatMap, MapBatch, MapColumns, View
from .graph import MAIN, Port, Step, StepOptions
from .hop import Infer, Prefetch
from .names import names_in
from .operator import OperatorSpec
from .parallelism import Parallelism, between, demanded, positive
from .registry import supplied
from .schema import check_event_schema, describe
from .sink import SinkSpec
from .site import calling_site
from .source import SourceSpec

if TYPE_CHECKING:
    import pyarrow.compute as pc

    from ._torch_dataset import TorchDataset
    from .flow import Flow

__all__ = ["Stream", "read"]


def read(
    source: SourceSpec,
    *,
    lateness: Duration | None = None,
    parallelism: int | None = None,
    resources: Mapping[str, float] | None = None,
    name: str | None = None,
) -> Stream:
    """Start a stream at `source`.

    `lateness` is how far behind the newest event time seen a row may be and still count for windows, joins and sync
    (default: what the source says of itself); `parallelism` how many blocks are decoded at once, on a Ray cluster how many
    processes read. `resources` (here and below) is what each process of the step needs there, such as ``{"CPU": 1}``.
    """
    site = calling_site()
    if not isinstance(source, SourceSpec):
        raise GraphError(
            f"not a source{_to_choose(source)}",
            stage="read",
            where=str(site),
            expected="a source spec",
            got=type(source).__name__,
        )
    try:
        schema = source.schema
    except GraphError as error:
        raise _located(error, "read", site) from error
    if problem := check_event_schema(schema):
        raise GraphError(f"the source's {problem}", stage="read", where=str(site), got=describe(schema))
    late = None if lateness is None else nanoseconds(lateness)
    options = StepOptions(name, positive(parallelism, "parallelism"), late, demanded(resources))
    return Stream(Port(Step("read", source, (), schema, site, options)))


class Stream:
    """Rows in order, with a schema and perhaps a key. Made by `read`; immutable."""

    __slots__ = ("_port", "_split_by_key", "keys")

    def __init__(self, port: Port, keys: tuple[str, ...] = (), split_by_key: int | None = None) -> None:
        self._port = port
        self.keys = keys
        self._split_by_key = split_by_key

    @property
    def schema(self) -> pa.Schema:
        """The schema of every batch of this stream."""
        return self._port.schema

    @property
    def port(self) -> Port:
        """The step and output this stream stands for."""
        return self._port

    def apply(
        self,
        spec: OperatorSpec,
        *others: Stream,
        parallelism: Parallelism | None = None,
        resources: Mapping[str, float] | None = None,
        name: str | None = None,
    ) -> Stream:
        """Run any operator on this stream (and `others`, for operators with several inputs).

        `parallelism` (here and in `map`, `filter` and `flat_map`) is how many batches a step without state may work on at
        once, the rows staying in order; on a Ray cluster, how many processes do so. ``(1, 8)`` leaves the number to the
        cluster runner, which adds processes while the step is the bottleneck and takes them away when they idle (see
        `penstock.pipeline.cluster.autoscale`); elsewhere it means 8 threads, or as many as there are cores. Raises
        GraphError if the least is above the most, or if the step has state.
        """
        site = calling_site()
        if not isinstance(spec, OperatorSpec):
            raise GraphError(
                "not an operator",
                stage=name or "apply",
                where=str(site),
                expected="an operator spec",
                got=type(spec).__name__,
            )
        if self.keys and getattr(spec, "keys", None) == ():
            keyed: Any = spec
            spec = dataclasses.replace(keyed, keys=self.keys)
        ports = (self._port, *(other._port for other in others))
        try:
            schema = spec.output_schema(*[port.schema for port in ports])
        except (GraphError, ValueError, TypeError) as error:
            raise _located(error, name or spec.kind, site) from error
        if problem := check_event_schema(schema):
            raise GraphError(problem, stage=name or spec.kind, where=str(site), got=describe(schema))
        least, many = between(parallelism, stateless=spec.stateless)
        if many is None and self._split_by_key and spec.partitioned(*[port.schema for port in ports]) is not None:
            many = self._split_by_key
        step = Step(spec.kind, spec, ports, schema, site, StepOptions(name, many, None, demanded(resources), least))
        return Stream(Port(step), tuple(key for key in self.keys if key in schema.names), self._split_by_key)

    def map(
        self,
        function: Callable[..., Any] | OperatorSpec,
        *,
        inputs: str | Sequence[str] = (),
        outputs: Mapping[str, pa.DataType] | None = None,
        view: View = "numpy",
        schema: pa.Schema | None = None,
        parallelism: Parallelism | None = None,
        resources: Mapping[str, float] | None = None,
        name: str | None = None,
    ) -> Stream:
        """Transform rows one by one.

        ``map(f)`` calls ``f(batch) -> batch`` with the same number of rows; ``map(f, inputs=["bid", "ask"],
        outputs={"mid": pa.float64()})`` calls ``f(bid, ask)`` on zero-copy numpy (or ``view="torch"``) columns and sets
        the columns it returns; ``map(operator)`` is `apply`. `schema` is needed only if `f` cannot run on no rows.
        """
        spec: OperatorSpec
        if isinstance(function, OperatorSpec):
            spec = function
        elif not callable(function):
            raise GraphError("map takes a function or an operator", stage=name, where=str(calling_site()), got=function)
        elif outputs is not None or inputs:
            spec = MapColumns(function, names_in(inputs), tuple((outputs or {}).items()), view)
        else:
            spec = MapBatch(function, schema)
        return self.apply(spec, parallelism=parallelism, resources=resources, name=name)

    def filter(
        self,
        condition: Callable[..., Any] | pc.Expression,
        *,
        inputs: str | Sequence[str] = (),
        view: View = "numpy",
        parallelism: Parallelism | None = None,
        name: str | None = None,
    ) -> Stream:
        """Keep the rows for which `condition` holds: ``pc.field("size") > 0``, or a function giving a boolean mask."""
        return self.apply(FilterRows(condition, names_in(inputs), view), parallelism=parallelism, name=name)

    def flat_map(
        self,
        function: Callable[[pa.RecordBatch], Any],
        *,
        schema: pa.Schema | None = None,
        parallelism: Parallelism | None = None,
        name: str | None = None,
    ) -> Stream:
        """Give none, one or many rows for each: ``function(batch)`` returns a batch or an iterable of batches."""
        return self.apply(FlatMap(function, schema), parallelism=parallelism, name=name)

    def key_by(self, *columns: str, parallelism: int | None = None) -> Stream:
        """Declare the key that windows and other keyed operators behind this use.

        `parallelism`: on a Ray cluster, divide each of them by key among so many processes.
        """
        if not columns:
            raise GraphError("key_by needs at least one column", stage="key_by", where=str(calling_site()))
        for column in columns:
            if column not in self.schema.names:
                raise GraphError(
                    f"no column {column!r}",
                    stage="key_by",
                    where=str(calling_site()),
                    expected=self.schema.names,
                    got=column,
                )
        return Stream(self._port, tuple(columns), positive(parallelism, "parallelism"))

    def watermark(self, lateness: Duration, *, name: str | None = None) -> Stream:
        """Say how far out of order rows may come; later ones leave and are on ``.late``.

        Steps that need event time get such a gate by themselves right behind the source; write it to choose the
        lateness elsewhere or to use the late rows.
        """
        return self.apply(supplied("watermark")(nanoseconds(lateness)), name=name)

    def window(
        self, assigner: Any, aggregates: Mapping[str, Any] | None = None, *, name: str | None = None, **more: Any
    ) -> Stream:
        """Aggregate rows of the same key and window: ``.window(Tumbling("1s"), volume=agg.sum("size"))``.

        One row comes out for each key and window when the watermark passes the window's end.
        """
        try:
            spec = supplied("window")(assigner, {**(aggregates or {}), **more})
        except (GraphError, ValueError, TypeError) as error:
            raise _located(error, name or "window", calling_site()) from error
        return self.apply(spec, name=name)

    def sync(self, other: Stream, *, tolerance: Duration, prefix: str = "right_", name: str | None = None) -> Stream:
        """Put the nearest row of `other` in event time beside each row, if one is within `tolerance`.

        Rows without a partner are counted by reason and are on ``.side("unmatched")``.
        """
        return self.apply(supplied("sync")(nanoseconds(tolerance), prefix=prefix), other, name=name)

    def join_asof(
        self,
        other: Stream,
        *,
        by: str | Sequence[str] = (),
        tolerance: Duration | None = None,
        how: str = "left",
        prefix: str = "right_",
        name: str | None = None,
    ) -> Stream:
        """Put the last row of `other` at or before each row's event time beside it, for equal `by` columns."""
        keys = (by,) if isinstance(by, str) else tuple(by)
        limit = None if tolerance is None else nanoseconds(tolerance)
        spec = supplied("join_asof")(by=keys or self.keys, tolerance_ns=limit, how=how, prefix=prefix)
        return self.apply(spec, other, name=name)

    def merge(self, *others: Stream, name: str | None = None) -> Stream:
        """One stream of the rows of all, in event-time order. All must have the same schema."""
        return self.apply(supplied("merge")(), *others, name=name)

    def batch(
        self,
        rows: int,
        *,
        max_bytes: int | None = None,
        max_age: Duration | None = None,
        name: str | None = None,
    ) -> Stream:
        """Form batches of `rows` rows; fewer where `max_bytes` or `max_age` (event time) would be exceeded."""
        age = None if max_age is None else nanoseconds(max_age)
        try:
            spec = supplied("batch")(rows, max_bytes=max_bytes, max_age_ns=age)
        except (GraphError, ValueError, TypeError) as error:
            raise _located(error, name or "batch", calling_site()) from error
        return self.apply(spec, name=name)

    def prefetch(self, depth: int = 2, *, name: str | None = None) -> Stream:
        """Prepare up to `depth` batches ahead of the consumer, in memory allocated once (page-locked with a GPU)."""
        try:
            spec = Prefetch(depth)
        except ValueError as error:
            raise _located(error, name or "prefetch", calling_site()) from error
        return self.apply(spec, name=name)

    def infer(
        self,
        model: ModelSpec,
        *,
        inputs: Mapping[str, str] | None = None,
        keep: str | Sequence[str] = (),
        resources: Mapping[str, float] | None = None,
        name: str | None = None,
    ) -> Stream:
        """Run `model` on every batch and add its outputs as columns.

        `inputs` maps the model's input names to columns where they differ. The columns the model consumed leave the
        stream unless named in `keep` (which costs a copy). On a Ray cluster the model gets a GPU where there are some;
        `resources` such as ``{"GPU": 0.5}`` says otherwise.
        """
        site = calling_site()
        if not isinstance(model, ModelSpec):
            raise GraphError(
                "not a model", stage=name or "infer", where=str(site), expected="models.load(...)", got=model
            )
        rows = _batch_rows(self._port)
        if rows is None:
            raise GraphError(
                "infer needs batches of a known size; put .batch(rows) before it",
                stage=name or "infer",
                where=str(site),
            )
        stream = self if isinstance(self._port.step.spec, Prefetch) else self.prefetch()
        return stream.apply(
            Infer(model, rows, tuple((inputs or {}).items()), names_in(keep)), resources=resources, name=name
        )

    def side(self, output: str) -> Stream:
        """A side output of the last step by name, such as ``unmatched`` of `sync`."""
        port = Port(self._port.step, output)
        try:
            port.schema  # noqa: B018 - checks that the output exists
        except GraphError as error:
            raise _located(error, self._port.step.kind, calling_site()) from error
        return Stream(port)

    @property
    def late(self) -> Stream:
        """The rows that came too late for the last step (`watermark` or `window`)."""
        return self.side("late")

    @property
    def unmatched(self) -> Stream:
        """The rows for which the last step (`sync`) found no partner."""
        return self.side("unmatched")

    def write(self, sink: SinkSpec, *, name: str | None = None) -> Flow:
        """End the stream in `sink`; what comes out can be run."""
        from .flow import Flow

        site = calling_site()
        if not isinstance(sink, SinkSpec):
            raise GraphError("not a sink", stage=name or "write", where=str(site), expected="a sink spec", got=sink)
        try:
            sink.check(self.schema)
        except (GraphError, ValueError, TypeError) as error:
            raise _located(error, name or "write", site) from error
        return Flow((Step("write", sink, (self._port,), self.schema, site, StepOptions(name=name)),))

    def explain(self, format: str = "text") -> str:
        """The plan of this stream with an iterator at its end; see `Flow.explain`."""
        from .flow import Flow
        from .iterate import delivery_step

        return Flow((delivery_step(self._port),)).explain(format)

    def __iter__(self) -> Iterator[pa.RecordBatch]:
        """Run on this machine and give the batches; leaving the loop stops the run."""
        from .iterate import iterate

        return iterate(self._port)

    def iterate(self, **options: Any) -> Iterator[pa.RecordBatch]:
        """Like ``for batch in stream``, with the options of `Flow.run`."""
        from .iterate import iterate

        return iterate(self._port, **options)

    def to_torch(self, columns: str | Sequence[str] | None = None, **options: Any) -> TorchDataset:
        """A ``torch.utils.data.IterableDataset`` of dicts of tensors, for use in place of a DataLoader."""
        from ._torch_dataset import to_torch

        return to_torch(self._port, columns, options)

    def __repr__(self) -> str:
        return f"Stream({self._port.step.kind}: {describe(self.schema)})"


def _to_choose(given: object) -> str:
    """How what is no source becomes one."""
    if isinstance(given, (str, os.PathLike)):
        return f": open it first, read(sources.open({os.fspath(given)!r}))"
    part = next((word for word in ("topic", "table", "channel") if callable(getattr(given, word, None))), None)
    return "" if part is None else f": choose a {part} of it with .{part}(NAME); penstock inspect names them"


def _located(error: Exception, stage: str | None, site: Any) -> GraphError:
    if isinstance(error, GraphError) and error.where is not None:
        return error
    message = error.args[0] if isinstance(error, GraphError) else f"{error}"
    return GraphError(str(message), stage=stage, where=str(site))


def _batch_rows(port: Port) -> int | None:
    """The batch size that holds at `port`: from the last `batch` step, if only row-wise steps follow it."""
    step = port.step
    while port.output == MAIN and isinstance(step.spec, OperatorSpec):
        if step.kind == "batch":
            return int(step.spec.rows)  # type: ignore[attr-defined]
        if not (step.spec.stateless or isinstance(step.spec, Prefetch)) or isinstance(step.spec, FlatMap):
            return None
        port = step.inputs[0]
        step = port.step
    return None
