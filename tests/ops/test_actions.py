"""Action sequences against a plain reading of the rules, row by row, and on a real recording."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from operator_harness import assert_boundaries_do_not_matter, assert_restorable, event_times, events, run_operator
from penstock.ops.actions import ActionSequence, action_bucket
from penstock.pipeline.context import Context
from penstock.pipeline.errors import GraphError, StateLimitError
from penstock.sources.text.ndjson import game_events

QUICK = settings(max_examples=80, deadline=None)
NAMES = ["Move", "Attack", "Build", "Übung", ""]


def game(times: list[int], rows: list[tuple[Any, ...]], first_seq: int = 0) -> pa.RecordBatch:
    match, player, action, x, y = ([row[i] for row in rows] for i in range(5))
    return events(
        times,
        first_seq=first_seq,
        match_id=pa.array(match, pa.utf8()).dictionary_encode().cast(pa.dictionary(pa.int32(), pa.utf8())),
        player=pa.array(player, pa.int16()),
        type=pa.array(action, pa.utf8()).dictionary_encode().cast(pa.dictionary(pa.int16(), pa.utf8())),
        x=pa.array(x, pa.float32()),
        y=pa.array(y, pa.float32()),
    )


@st.composite
def games(draw: st.DrawFn) -> pa.RecordBatch:
    times = draw(event_times(most=60, spread=3_000_000_000))
    place = st.none() | st.floats(-100, 100, width=32)
    row = st.tuples(
        st.sampled_from(["a", "b"]), st.sampled_from([-1, 0, 1, 7, None]), st.sampled_from([*NAMES, None]), place, place
    )
    return game(times, draw(st.lists(row, min_size=len(times), max_size=len(times))))


def reference(spec: ActionSequence, batch: pa.RecordBatch) -> tuple[list[dict[str, Any]], dict[str, int]]:
    """The documented rules, one event after the other, with lists."""
    players: dict[Any, dict[str, Any]] = {}
    out, dropped = [], {"no player": 0, "between sequences": 0}
    times = batch["ts_event"].cast(pa.int64()).to_pylist()
    columns = zip(*(batch[name].to_pylist() for name in ("seq", "match_id", "player", "type", "x", "y")), strict=True)
    for now, (seq, match, player, action, x, y) in zip(times, columns, strict=True):
        if player is None or player < 0:
            dropped["no player"] += 1
            continue
        state = players.setdefault((match, player), {"at": now, "place": [np.float32(0), np.float32(0)], "past": []})
        for axis, value in enumerate((x, y)):
            if value is not None:
                state["place"][axis] = np.float32(value / spec.scale[axis])
        gap = np.float32((now - state["at"]) / 1e9)
        state["at"] = now
        state["past"].append((spec.token(action or ""), [gap, *state["place"]]))
        if len(state["past"]) % spec.every:
            dropped["between sequences"] += 1
            continue
        last = state["past"][-spec.length :]
        pad = spec.length - len(last)
        tokens = [0] * pad + [token for token, _ in last]
        context = [[0.0] * 3] * pad + [[float(v) for v in c] for _, c in last]
        out.append(
            {
                "ts": now,
                "seq": seq,
                "match_id": match,
                "player": player,
                "tokens": tokens,
                "context": context,
                "length": len(last),
            }
        )
    return out, {reason: count for reason, count in dropped.items() if count}


def rows_of(table: pa.Table, length: int) -> list[dict[str, Any]]:
    table = table.combine_chunks()
    out = []
    for i in range(table.num_rows):
        row = {name: table[name][i].as_py() for name in ("seq", "match_id", "player", "length")}
        row["ts"] = table["ts_event"].cast(pa.int64())[i].as_py()
        row["tokens"] = table["tokens"].chunk(0).storage[i].as_py()
        row["context"] = np.array(table["context"].chunk(0).storage[i].as_py()).reshape(length, 3).tolist()
        out.append(row)
    return out


SPECS = st.builds(
    ActionSequence,
    length=st.sampled_from([1, 2, 5]),
    every=st.sampled_from([1, 2, 3]),
    vocabulary=st.sampled_from([("Move", "Build"), 256, 2]),
    scale=st.sampled_from([(1.0, 1.0), (3.0, -0.5)]),
)


@QUICK
@given(SPECS, games())
def test_sequences_are_what_the_rules_say(spec: ActionSequence, batch: pa.RecordBatch) -> None:
    result = run_operator(spec, batch)
    want, dropped = reference(spec, batch)
    assert rows_of(result.rows, spec.length) == want
    assert result.dropped == dropped


@QUICK
@given(SPECS, games(), st.data())
def test_batch_boundaries_do_not_matter(spec: ActionSequence, batch: pa.RecordBatch, data: st.DataObject) -> None:
    assert_boundaries_do_not_matter(spec, batch, data=data)


@settings(max_examples=25, deadline=None)
@given(SPECS, games())
def test_a_restored_operator_goes_on_exactly(spec: ActionSequence, batch: pa.RecordBatch) -> None:
    assert_restorable(spec, batch, sizes=7)


def test_tokens_belong_to_names_and_not_to_dictionary_indices() -> None:
    spec = ActionSequence(length=2, vocabulary=("Move", "Attack"))
    first = game([0], [("a", 0, "Move", None, None)])
    second = game([10], [("a", 0, "Attack", None, None)], 1)
    third = game([20, 30], [("a", 0, "Jump", None, None), ("a", 0, "Move", None, None)], 2)
    rows = rows_of(run_operator(spec, [first, second, third]).rows, 2)
    assert [row["tokens"] for row in rows] == [[0, 1], [1, 2], [2, 3], [3, 1]]
    assert spec.tokens_used == 4


def test_buckets_are_fnv_1a_and_never_the_padding() -> None:
    assert action_bucket("", 1 << 64) == 0xCBF29CE484222325
    assert action_bucket("foobar", 1 << 64) == 0x85944171F73967E8
    spec = ActionSequence(vocabulary=16)
    assert {spec.token(f"action {n}") for n in range(1_000)} == set(range(1, 16))


def test_strings_and_other_keys_work_too() -> None:
    batch = events(
        [0, 1_500_000_000, 2_000_000_000],
        who=pa.array(["ann", "", "ann"]),
        what=pa.array(["a", "b", "b"]),
        px=pa.array([10, 20, None], pa.int32()),
        py=pa.array([1, 1, 1], pa.int32()),
    )
    spec = ActionSequence(
        length=3, vocabulary=("a", "b"), key=("who",), action="what", position=("px", "py"), scale=(10.0, 2.0)
    )
    result = run_operator(spec, batch)
    assert result.dropped == {"no player": 1}
    (batch,) = result.batches
    assert batch["tokens"].storage.to_pylist() == [[0, 0, 1], [0, 1, 2]]
    assert batch["context"].storage.to_pylist()[1] == [0, 0, 0, 0, 1, 0.5, 2, 1, 0.5]


def test_long_input_comes_out_in_batches_of_bounded_size() -> None:
    count = 20_000
    rows = [("a", n % 3, "Move", 1.0, 2.0) for n in range(count)]
    result = run_operator(ActionSequence(length=64, every=1), game(list(range(count)), rows))
    assert sum(result.sizes) == count
    assert max(batch.nbytes for batch in result.batches) < 5 << 20


def test_too_many_players_are_an_error() -> None:
    rows = [("a", n, "Move", None, None) for n in range(9)]
    with pytest.raises(StateLimitError, match="max_players=8"):
        run_operator(ActionSequence(max_players=8), game(list(range(9)), rows))


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"length": 0}, "length must be at least 1"),
        ({"every": 0}, "every must be at least 1"),
        ({"vocabulary": 1}, "leaves no token"),
        ({"vocabulary": ()}, "at least one name"),
        ({"vocabulary": ("a", "a")}, "each only once"),
        ({"scale": (0.0, 1.0)}, "scale"),
        ({"key": ()}, "needs a key"),
        ({"key": ("length",)}, "name of another output column"),
    ],
)
def test_wrong_arguments_are_refused(options: dict[str, Any], says: str) -> None:
    with pytest.raises(GraphError, match=says):
        ActionSequence(**options)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"action": "player"}, "strings"),
        ({"action": "nope"}, "no column 'nope'"),
        ({"position": ("x", "type")}, "floats or"),
    ],
)
def test_wrong_columns_are_refused_when_the_graph_is_built(options: dict[str, Any], says: str) -> None:
    with pytest.raises(GraphError, match=says):
        ActionSequence(**options).output_schema(game([], []).schema)


def test_every_event_of_a_real_recording_is_accounted_for(recordings: Callable[[str], Path]) -> None:
    path = recordings("games/derived_sc2_events") / "5.0.0.80949_Ocrucius_vs_Rairden.ndjson.gz"
    source = game_events(path, block_bytes=300_000)
    reader = source.open(Context("read"))
    batches = [batch for block in reader.blocks() for batch in reader.decode(block).batches]
    reader.close()
    spec = ActionSequence(length=64, every=8)
    result = run_operator(spec, batches)
    players = np.concatenate([batch["player"].to_numpy() for batch in batches])
    counts = [int((players == player).sum()) for player in range(3)]
    assert result.dropped["no player"] == 4_058 == int((players < 0).sum())
    assert result.rows.num_rows == sum(count // 8 for count in counts)
    assert result.rows.num_rows + sum(result.dropped.values()) == 18_233
    whole = pa.Table.from_batches(batches).combine_chunks().to_batches()[0]
    want, _ = reference(spec, whole)
    assert rows_of(result.rows, 64) == want
