"""What each player did last: sequences of actions for a policy model, from ``game.event`` rows.

events.apply(ops.ActionSequence(length=64, every=8))
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from ..pipeline.columns import ColumnBlock, ColumnLayout, as_numpy, event_ns
from ..pipeline.context import Context
from ..pipeline.errors import GraphError, StateLimitError
from ..pipeline.names import names_in
from ..pipeline.operator import Operator, OperatorSpec, State
from ..pipeline.partition import Partitioned, RowByRow, partition_of
from ..pipeline.schema import EVENT_FIELDS, check_event_schema, tensor_type
from .keys import KeyIndex, check_key_type

__all__ = ["ActionSequence", "action_bucket"]

#: Bytes of an output batch at most (but one row at least).
_BATCH = 4 << 20
_OUTPUTS = ("tokens", "context", "length")


def action_bucket(action: str, buckets: int) -> int:
    """A number in ``[0, buckets)`` for an action's name, the same everywhere: 64-bit FNV-1a of its UTF-8."""
    value = 0xCBF29CE484222325
    for byte in action.encode():
        value = ((value ^ byte) * 0x100000001B3) & 0xFFFFFFFFFFFFFFFF
    return value % buckets


@dataclass(frozen=True)
class ActionSequence(OperatorSpec):
    """The last `length` actions of a player, this event's included, at every `every`-th event of that player.

    Output, behind the event columns and the `key` columns of the event:

    * ``tokens``: int32 ``[length]``, oldest action first, 0 in front where the player has acted less often.
    * ``context``: float32 ``[length, 3]``: seconds since the player's event before (0 for the first), x and y divided by
      `scale`. A null position repeats the player's last one (0, 0 before any). 0 where the token is 0.
    * ``length``: int32, how many tokens are real.

    `vocabulary` is a tuple of action names, which get the tokens 1, 2, ... while any other name gets the next one; or a
    number of tokens: then a name's token is 1 + its FNV-1a hash modulo one less, so names may share a token. Either way
    tokens are below `tokens_used` and depend on names alone. A null action is the empty name.

    `key` tells players apart; its last column is the player. Events without one (below 0, null or empty) are counted as
    dropped, ``no player``; with ``every > 1`` the events that give no row are counted as ``between sequences``. More than
    `max_players` different keys raise StateLimitError. `action` is the column of names, a dictionary or strings.
    """

    length: int = 32
    vocabulary: tuple[str, ...] | int = 256
    every: int = 1
    key: tuple[str, ...] = ("match_id", "player")
    action: str = "type"
    position: tuple[str, str] = ("x", "y")
    scale: tuple[float, float] = (1.0, 1.0)
    max_players: int = 16_384

    kind: ClassVar[str] = "actions"

    def __post_init__(self) -> None:
        key = (self.key,) if isinstance(self.key, str) else tuple(self.key)
        object.__setattr__(self, "key", key)
        if not isinstance(self.vocabulary, int):
            object.__setattr__(self, "vocabulary", names_in(self.vocabulary))
        for name in ("length", "every", "max_players"):
            if getattr(self, name) < 1:
                raise GraphError(f"ActionSequence: {name} must be at least 1, got {getattr(self, name)}")
        if not key:
            raise GraphError("ActionSequence needs a key, for example key=('match_id', 'player')")
        if isinstance(self.vocabulary, int):
            if self.vocabulary < 2:
                raise GraphError(f"ActionSequence: vocabulary={self.vocabulary} leaves no token beside the padding")
        elif len(set(self.vocabulary)) != len(self.vocabulary) or not self.vocabulary:
            raise GraphError("ActionSequence: vocabulary needs at least one name, and each only once")
        if len(self.scale) != 2 or any(not math.isfinite(part) or part == 0 for part in self.scale):
            raise GraphError(
                "ActionSequence: scale is what x and y are divided by", expected="two numbers", got=self.scale
            )
        if taken := sorted({*key} & {*_OUTPUTS, *(field.name for field in EVENT_FIELDS)}):
            raise GraphError(f"ActionSequence: key column {taken[0]!r} has the name of another output column")

    @property
    def tokens_used(self) -> int:
        """One more than the greatest token: what a model's vocabulary must hold."""
        return self.vocabulary if isinstance(self.vocabulary, int) else len(self.vocabulary) + 2

    def token(self, action: str) -> int:
        """The token of an action's name."""
        if isinstance(self.vocabulary, int):
            return 1 + action_bucket(action, self.vocabulary - 1)
        return 1 + (self.vocabulary.index(action) if action in self.vocabulary else len(self.vocabulary))

    def output_schema(self, *inputs: pa.Schema) -> pa.Schema:
        (schema,) = inputs
        if (problem := check_event_schema(schema)) is not None:
            raise GraphError(f"ActionSequence: {problem}")
        for name in (*self.key, self.action, *self.position):
            if schema.get_field_index(name) < 0:
                raise GraphError(f"ActionSequence: no column {name!r}", expected="one of the input's", got=schema.names)
        for name in self.key:
            check_key_type(name, schema.field(name).type)
        kind = schema.field(self.action).type
        value = kind.value_type if pa.types.is_dictionary(kind) else kind
        if not (pa.types.is_string(value) or pa.types.is_large_string(value)):
            raise GraphError(
                f"ActionSequence: column {self.action!r}", expected="strings or a dictionary of them", got=kind
            )
        for name in self.position:
            kind = schema.field(name).type
            if not (pa.types.is_floating(kind) or pa.types.is_integer(kind)):
                raise GraphError(f"ActionSequence: column {name!r}", expected="floats or integers", got=kind)
        fields = [
            *EVENT_FIELDS,
            *(schema.field(name) for name in self.key),
            pa.field("tokens", tensor_type(pa.int32(), (self.length,)), nullable=False),
            pa.field("context", tensor_type(pa.float32(), (self.length, 3)), nullable=False),
            pa.field("length", pa.int32(), nullable=False),
        ]
        return pa.schema(fields, metadata=schema.metadata)

    def open(self, context: Context, *inputs: pa.Schema) -> Operator:
        return _Players(self, context, *inputs)

    def state_bound(self, *inputs: pa.Schema) -> int:
        # rings grow by doubling, old and new at once; keys as text take a few hundred bytes
        return self.max_players * (2 * (16 * self.length + 24) + 512)

    def partitioned(self, *inputs: pa.Schema) -> Partitioned | None:
        """By the key columns; rows without a player go to some part, which drops them. None if a position is `seq`."""
        if "seq" in (self.action, *self.position):
            return None
        return _Divided(self.key, self.output_schema(*inputs))


class _Players(Operator):
    def __init__(self, spec: ActionSequence, context: Context, schema: pa.Schema) -> None:
        from . import _actions_kernels

        self._follow = _actions_kernels.follow
        self._spec, self._context = spec, context
        self._columns = ColumnLayout(spec.output_schema(schema))
        self._keys = KeyIndex([schema.field(name).type for name in spec.key])
        self._tokens: dict[str | None, int] = {}
        self._scale = np.array(spec.scale, np.float64)
        self._at_once = max(1, _BATCH // (16 * spec.length + 64))
        self._players = 0
        self._rings(0)

    def _rings(self, room: int) -> None:
        length = self._spec.length
        self._ring_tokens = np.zeros((room, length), np.int32)
        self._ring_context = np.zeros((room, length, 3), np.float32)
        self._seen = np.zeros(room, np.int64)
        self._last_time = np.zeros(room, np.int64)
        self._last_position = np.zeros((room, 2), np.float32)

    def process(self, batch: pa.RecordBatch, port: int = 0) -> Sequence[pa.RecordBatch]:
        spec = self._spec
        playing = _has_player(batch.column(spec.key[-1]))
        self._context.drop("no player", batch.num_rows - int(playing.sum()))
        if not playing.all():
            batch = batch.filter(pa.array(playing))
        if batch.num_rows == 0:
            return ()
        players = self._keys.ids([batch.column(name) for name in spec.key])
        self._make_room()
        actions = self._action_tokens(batch.column(spec.action))
        positions = np.empty((2, batch.num_rows), np.float64)
        present = np.ones((2, batch.num_rows), np.bool_)
        for axis, name in enumerate(spec.position):
            column = batch.column(name)
            if column.null_count:
                present[axis] = column.is_valid().to_numpy(zero_copy_only=False)
                column = pc.fill_null(column, pa.scalar(0, column.type))
            positions[axis] = as_numpy(column)
        batches = []
        at = 0
        while at < batch.num_rows:
            block = self._columns.take(self._context.pool, min(self._at_once, batch.num_rows - at))
            rows = np.empty(block.rows, np.int64)
            at, made = self._follow(
                at,
                players,
                actions,
                event_ns(batch),
                positions,
                present,
                self._scale,
                spec.every,
                self._ring_tokens,
                self._ring_context,
                self._seen,
                self._last_time,
                self._last_position,
                block["tokens"],
                block["context"],
                block["length"],
                rows,
            )
            if made:
                batches.append(self._emit(batch, block, rows[:made]))
        self._context.drop("between sequences", batch.num_rows - sum(one.num_rows for one in batches))
        return batches

    def _emit(self, batch: pa.RecordBatch, block: ColumnBlock, rows: npt.NDArray[np.int64]) -> pa.RecordBatch:
        for field in EVENT_FIELDS:
            np.take(as_numpy(batch.column(field.name)), rows, out=block[field.name][: len(rows)])
        taken = pa.array(rows)
        keys = {name: batch.column(name).take(taken) for name in self._spec.key}
        return block.batch(len(rows), columns=keys)

    def _action_tokens(self, column: pa.Array) -> npt.NDArray[np.int32]:
        if not pa.types.is_dictionary(column.type):
            column = column.dictionary_encode()
        names: list[str | None] = [*column.dictionary.to_pylist(), None]
        for name in names:
            if name not in self._tokens:
                if len(self._tokens) > 65_536:
                    self._tokens.clear()
                self._tokens[name] = self._spec.token(name or "")
        tokens = np.array([self._tokens[name] for name in names], np.int32)
        indices = column.indices
        if indices.null_count:
            indices = pc.fill_null(indices.cast(pa.int64()), len(names) - 1)
        found: npt.NDArray[np.int32] = tokens[as_numpy(indices)]
        return found

    def _make_room(self) -> None:
        self._players, most = len(self._keys), self._spec.max_players
        if self._players > most:
            raise StateLimitError(
                f"{self._context.step}: more than max_players={most} different {self._spec.key}; raise it if memory allows"
            )
        if self._players > len(self._seen):
            old = self._state()
            self._rings(min(most, max(16, 2 * self._players)))
            for name, array in old.items():
                getattr(self, f"_{name}")[: len(array)] = array
        arrays = self._state(whole=True).values()
        self._context.metrics.state_bytes = self._keys.nbytes + sum(array.nbytes for array in arrays)

    def _state(self, *, whole: bool = False) -> dict[str, npt.NDArray[Any]]:
        names = ("ring_tokens", "ring_context", "seen", "last_time", "last_position")
        count = len(self._seen) if whole else min(self._players, len(self._seen))
        return {name: getattr(self, f"_{name}")[:count] for name in names}

    def snapshot(self) -> State:
        return {"players": self._keys.snapshot(), **{name: array.copy() for name, array in self._state().items()}}

    def restore(self, state: State) -> None:
        self._keys.restore(state["players"])
        self._players = len(self._keys)
        self._rings(self._players)
        for name, array in self._state().items():
            array[:] = state[name]


class _Divided(RowByRow):
    """Rings by player."""

    def split(self, state: Mapping[str, Any], parts: int) -> Sequence[Mapping[str, Any]]:
        part_of_player = partition_of(state["players"]["keys"].columns, parts)
        return [_picked(state, np.flatnonzero(part_of_player == part)) for part in range(parts)]

    def join(self, states: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
        players = [state["players"]["keys"] for state in states]
        index = KeyIndex([column.type for column in players[0].columns])
        ids = np.concatenate([index.ids(batch.columns) for batch in players])
        arrays = {name: np.concatenate([state[name] for state in states]) for name in states[0] if name != "players"}
        by_value = np.lexsort(tuple(reversed(index.order(ids))))
        return _picked({"players": index.snapshot(), **arrays}, by_value)


def _picked(state: Mapping[str, Any], slots: npt.NDArray[np.int64]) -> dict[str, Any]:
    arrays = {name: array[slots] for name, array in state.items() if name != "players"}
    return {"players": {"keys": state["players"]["keys"].take(pa.array(slots))}, **arrays}


def _has_player(column: pa.Array) -> npt.NDArray[np.bool_]:
    """Whether each row names a player: not null, not below 0, not empty."""
    kind = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
    if pa.types.is_integer(kind):
        named = pc.greater_equal(column.cast(kind), pa.scalar(0, kind))
    elif pa.types.is_string(kind) or pa.types.is_large_string(kind):
        named = pc.not_equal(column.cast(kind), pa.scalar("", kind))
    else:
        named = column.is_valid()
    return np.asarray(pc.fill_null(named, False).to_numpy(zero_copy_only=False), np.bool_)
