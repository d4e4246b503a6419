"""Mistakes that a newcomer makes are answered with what to write in their place."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from penstock import read, sources
from penstock.cli import main
from penstock.pipeline.errors import GraphError, RunError
from penstock.sources.memory import Rows
from streams import SCHEMA, recording, source

BROKERS: dict[str, Callable[[Any], Any]] = {
    "Kafka": lambda codec: sources.Kafka("host:9092", "topic", codec),
    "RedisStream": lambda codec: sources.RedisStream("redis://host", "stream", codec),
    "Zmq": lambda codec: sources.Zmq("tcp://127.0.0.1:9", codec),
    "Live": lambda codec: sources.Live("tcp://127.0.0.1:9", codec),
    "Recording": lambda codec: sources.Recording("day.mcap", codec),
}


@pytest.mark.parametrize("broker", BROKERS)
def test_a_source_where_a_codec_belongs_is_to_be_wrapped(broker: str) -> None:
    with pytest.raises(GraphError, match=rf"^{broker} .* wrap it, as in sources\.JsonMessages\(.*got Ndjson"):
        BROKERS[broker](sources.game_events("m"))
    with pytest.raises(GraphError, match=r"a codec, such as .* got SlippiEvents itself, not an object of it"):
        BROKERS[broker](sources.SlippiEvents)


def test_a_recording_of_topics_is_told_from_a_source() -> None:
    for given, word in (
        (sources.Mcap("a.mcap"), "topic"),
        (sources.NuScenes("a"), "channel"),
        (sources.Comma2k19("a"), "table"),
    ):
        with pytest.raises(
            GraphError, match=rf"choose a {word} of it with \.{word}\(NAME\); penstock inspect names them"
        ):
            read(given)  # type: ignore[arg-type]
    with pytest.raises(GraphError, match=r"open it first, read\(sources\.open\('drive\.mcap'\)\)"):
        read(Path("drive.mcap"))  # type: ignore[arg-type]


def test_a_column_with_nulls_is_named_with_the_step_that_made_them() -> None:
    pytest.importorskip("torch")
    right = recording(2, 5).rename_columns([*SCHEMA.names[:3], "other", "weight", "value"])
    joined = source(recording(1, 50), 50).join_asof(read(Rows(right)))
    with pytest.raises(RunError) as caught:
        list(joined.to_torch(["price", "value"]))
    told = str(caught.value)
    assert re.search(
        r"^step 'to_torch': column 'value' has \d+ nulls? in \d+ rows, .* of step 'join_asof', test_hints", told
    )
    kept = joined.filter(pc.field("value").is_valid())
    values = [value for batch in kept.to_torch(["price", "value"]) for value in batch["value"].tolist()]
    assert values and None not in values


def test_a_function_of_a_column_with_nulls_is_told_its_name(caplog: pytest.LogCaptureFixture) -> None:
    table = recording(1, 4).set_column(5, "price", pa.array([1.0, None, 2.0, 3.0]))
    doubled = source(table, 4).map(lambda price: price, inputs="price", outputs={"twice": pa.float64()})
    assert sum(batch.num_rows for batch in doubled) == 3
    assert "column 'price' has 1 null in 1 rows, and so no view: leave such rows out" in caplog.text


def test_a_wrong_duration_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = str(tmp_path / "x.mcap")
    assert main(["record", "tcp://127.0.0.1:9", "--out", out, "--for", "banana"]) == 1
    assert capsys.readouterr().err.startswith("penstock: 'banana' is not a duration")


def test_a_session_without_a_date_is_told_what_to_write_where(tmp_path: Path) -> None:
    with pytest.raises(GraphError, match=r"date='2019-01-30' \(on the command line --date 2019-01-30\)"):
        sources.Itch(tmp_path / "session.itch")
