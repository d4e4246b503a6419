"""Live topics of a vehicle: a served recording gives the rows of the file, modality by modality."""

from __future__ import annotations

import threading
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from live_feeds import beside
from penstock import read, sinks, sources
from penstock.pipeline.context import Context
from penstock.pipeline.errors import FormatError
from penstock.pipeline.source import SourceSpec
from penstock.sources.live.arrival import Arrival
from penstock.sources.live.topic_messages import TopicMessages, live_topic
from penstock.sources.replay.formats import playable_of
from penstock.sources.replay.serving import replay


def digest(spec: SourceSpec, path: Path) -> tuple[str, int]:
    report = read(spec).write(sinks.ArrowIpc(path, overwrite=True)).run(runner="inline")
    return str(next(iter(report.digests.values()))), report.rows


@pytest.fixture
def drive(recordings: Any) -> Path:
    return Path(recordings("driving/derived_drive")) / "drive_mcap" / "drive_mcap.mcap"


def test_served_topics_give_the_rows_of_the_file(drive: Path, tmp_path: Path) -> None:
    topics = [topic for topic in sources.Mcap(drive).topics() if "can" not in topic][:3]
    where: list[str] = []
    opened = threading.Event()

    def opened_at(address: str) -> None:
        where.append(address)
        opened.set()

    def serve() -> Any:
        return replay(str(drive), "tcp://127.0.0.1:0", speed=0, receivers=len(topics), opened=opened_at)

    got: dict[str, tuple[str, int]] = {}

    def receive(topic: str) -> None:
        spec = live_topic(where[0], topic, like=drive, reconnect="0s")
        got[topic] = digest(spec, tmp_path / f"live{topics.index(topic)}.arrow")

    with beside(serve):
        assert opened.wait(20.0)
        threads = [threading.Thread(target=receive, args=(topic,)) for topic in topics]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
    assert got == {topic: digest(sources.Mcap(drive).topic(topic), tmp_path / "file.arrow") for topic in topics}
    assert all(rows > 100 for _, rows in got.values())


def test_every_message_of_the_file_is_served_in_its_order(drive: Path) -> None:
    messages = list(playable_of(str(drive)).messages())
    counts = Counter(message.channel for message in messages)
    topics = sources.Mcap(drive).topics()
    assert sum(counts.values()) == 21_297 == sum(info.messages for info in topics.values())
    assert sorted(counts.values()) == sorted(info.messages for info in topics.values())
    times = [message.ts_ns for message in messages]
    assert times == sorted(times)


def test_bytes_that_are_no_message_are_bad_records_and_other_channels_are_counted(drive: Path) -> None:
    topic = next(topic for topic, info in sources.Mcap(drive).topics().items() if info.type == "sensor_msgs/msg/Imu")
    codec = TopicMessages.like(drive, topic)
    sound = next(m for m in playable_of(str(drive)).messages() if m.channel == codec.channel)
    session = codec.open(Context("topic"), "tcp://test", None)
    arrivals = [
        Arrival(5, sound.data, 0, codec.channel),
        Arrival(6, sound.data[:30], 0, codec.channel),
        Arrival(7, b"", 0, codec.channel),
        Arrival(8, sound.data, 0, codec.channel + 1),
        Arrival(9, sound.data, 0, codec.channel),
    ]
    framed = session.take(arrivals, 100)
    decoded = session.decode(framed.payload, 100)
    assert framed.records == 4 and framed.dropped == {"of other topics": 1}
    assert decoded.batches[0]["seq"].to_pylist() == [100, 103]
    assert [record.seq for record in decoded.bad] == [101, 102]
    assert decoded.bad[0].data == sound.data[:30]


def test_a_topic_that_the_recording_lacks_is_named_with_those_it_has(drive: Path) -> None:
    with pytest.raises(FormatError, match="/nothing"):
        live_topic("tcp://127.0.0.1:1", "/nothing", like=drive)
