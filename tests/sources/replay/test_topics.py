"""Bags served topic by topic: the live source of a topic gives the rows of the file; radar packets go out one by one."""

from __future__ import annotations

import socket
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from live_feeds import beside, follow, free_port, until_bound
from penstock import sources
from penstock.pipeline.columns import as_numpy
from penstock.pipeline.context import Context
from penstock.pipeline.errors import FormatError
from penstock.sources.driving._radar_packets import nebula_packets
from penstock.sources.live._recorded_topics import channels_at
from penstock.sources.live.arrival import Arrival
from penstock.sources.live.feed import Live
from penstock.sources.live.radar_packets import live_radar
from penstock.sources.live.raw_messages import RawMessages
from penstock.sources.live.topic_messages import TopicMessages, live_topic
from penstock.sources.replay.formats import playable_of
from penstock.sources.replay.serving import replay
from penstock.sources.replay.topics import in_order

BAGS = [
    "driving/rosbag1/example.bag",
    "driving/rosbag1/example-unsorted-chunks.bag",
    "driving/rosbag1/no-messages.bag",
    "driving/rosbag2_conformance/sqlite3/talker.db3",
    "driving/rosbag2_conformance/sqlite3/topics_and_services.db3",
    "driving/rosbag2_conformance/sqlite3/wbag_0.db3",
    "driving/rosbag2_conformance/mcap/wbag_0.mcap",
    "driving/rosbag2_conformance/mcap/cdr_test_0.mcap",
    "driving/nebula_radar_ros2/srr520",
]


def rows_of_file(path: Path, topic: str) -> tuple[Any, list[Any]]:
    """Rows, and the messages that do not decode."""
    table, bad, _ = follow(sources.open(path, topic=topic))
    return table, [record for record in bad if record.operation.endswith(".decode")]


def as_fed(codec: TopicMessages, messages: list[Any]) -> Any:
    """The rows that a live source makes of `messages`."""
    session = codec.open(Context("topic"), "tcp://test", None)
    framed = session.take([Arrival(m.ts_ns, m.data, 0, m.channel) for m in messages], 0)
    return session.decode(framed.payload, 0)


@pytest.mark.parametrize("name", BAGS)
def test_a_live_topic_gives_the_rows_of_the_bag(recordings: Any, name: str) -> None:
    path = recordings(str(Path(name).parent)) / Path(name).name
    topics = sources.open(path).topics()
    recording = playable_of(str(path), topic=list(topics)) if topics else playable_of(str(path))
    if "nebula" in name:  # as packets by itself; here as the messages that the bag has
        from penstock.sources.replay.topics import _of_rosbag2

        messages = list(_of_rosbag2(str(path), dict(recording.topics), {}))
    else:
        messages = list(recording.messages())
    assert len(messages) == sum(info.messages for info in topics.values())
    for topic, info in topics.items():
        want, bad = rows_of_file(path, topic)
        decoded = as_fed(TopicMessages.like(path, topic), messages)
        assert sum(batch.num_rows for batch in decoded.batches) == want.num_rows == info.messages - len(bad)
        assert [(one.seq, one.error, one.data) for one in decoded.bad] == [
            (one.seq, one.error, one.data) for one in bad
        ]
        for batch in decoded.batches:
            for column in batch.schema.names:
                assert batch[column].equals(want[column].combine_chunks()), (topic, column)


@pytest.mark.parametrize(
    ("name", "topic", "scheme"),
    [
        ("driving/rosbag1/example-bz2.bag", "/turtle1/pose", "tcp"),
        ("driving/rosbag2_conformance/sqlite3/wbag_0.db3", "DDD", "ws"),
        ("driving/rosbag2_conformance/sqlite3/wbag_0.db3", "AAA", "udp"),
    ],
)
def test_a_bag_is_served_to_the_rows_of_one_topic(recordings: Any, name: str, topic: str, scheme: str) -> None:
    path = recordings(str(Path(name).parent)) / Path(name).name
    port = free_port(socket.SOCK_DGRAM) if scheme == "udp" else 0
    opened, where = threading.Event(), []

    def at(address: str) -> None:
        where.append(address)
        opened.set()

    def serve() -> Any:
        if port:
            until_bound(port)
        return replay(str(path), f"{scheme}://127.0.0.1:{port}", speed=0 if not port else 5, opened=at, topic=topic)

    want, _ = rows_of_file(path, topic)
    with beside(serve):
        assert port or opened.wait(20.0)
        url = f"udp://127.0.0.1:{port}" if port else where[0]
        spec = live_topic(url, topic, like=path, reconnect="0s", most=want.num_rows if port else None)
        got, bad, _ = follow(spec)
    assert not bad and got.cast(want.schema).equals(want)


def test_split_bags_are_one_recording_in_time_order(recordings: Any) -> None:
    folder = recordings("driving/rosbag2_conformance") / "mcap"
    recording = playable_of(f"{folder}/multiple_files_*.mcap")
    messages = list(recording.messages())
    assert len(messages) == 1324 + 1324 + 529
    times = [message.ts_ns for message in messages]
    assert times == sorted(times)
    assert dict(recording.topics) == {"/chatter": messages[0].channel}


@pytest.mark.parametrize(("sensor", "count"), [("ars548", 2), ("srr520", 97)])
def test_radar_packets_go_out_as_the_sensor_sent_them(recordings: Any, sensor: str, count: int) -> None:
    bag = recordings("driving/nebula_radar_ros2") / sensor
    (topic,) = sources.open(bag).topics()
    raw, _ = rows_of_file(bag, topic)
    want = [packet for data in raw["data"].to_pylist() for packet in nebula_packets(data)[1]]
    assert len(want) == count
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as receiver:
        receiver.bind(("127.0.0.1", 0))
        receiver.settimeout(10.0)
        url = f"udp://127.0.0.1:{receiver.getsockname()[1]}"
        report = replay(str(bag), url, speed=20, stamped=False)
        assert report.messages == count and report.skipped == {}
        assert [receiver.recv(65_535) for _ in range(count)] == [packet.data for packet in want]
    messages = list(playable_of(str(bag)).messages())
    assert [message.ts_ns for message in messages] == [
        time
        for time, data in zip(as_numpy(raw["ts_recv"].combine_chunks()).tolist(), raw["data"].to_pylist(), strict=True)
        for _ in nebula_packets(data)[1]
    ]


def test_topics_keep_their_channels_over_http_plain_or_not(recordings: Any, tmp_path: Path) -> None:
    bag = recordings("driving/rosbag1") / "example.bag"
    name = max(channels_at(str(bag)), key=lambda topic: channels_at(str(bag))[topic])
    want = [message for message in playable_of(str(bag)).messages() if message.channel == channels_at(str(bag))[name]]
    assert want and want[0].channel > 0
    for stamped in (True, False):
        port = free_port()
        recorded = str(tmp_path / f"{stamped}.mcap")
        spec = Live(f"http://127.0.0.1:{port}/x", RawMessages(), most=len(want), record=recorded)

        def send(port: int = port, stamped: bool = stamped) -> Any:
            while True:  # what listens may not yet
                try:
                    return replay(str(bag), f"http://127.0.0.1:{port}/x", speed=0, topic=name, stamped=stamped)
                except ConnectionRefusedError:
                    threading.Event().wait(0.02)

        with beside(send):
            got, _, _ = follow(spec)
        assert set(got["channel"].to_pylist()) == {want[0].channel}
        assert got["data"].to_pylist() == [message.data for message in want]
        assert f"/line/0/{want[0].channel}" in sources.Mcap(recorded).topics()


@pytest.mark.parametrize("sensor", ["ars548", "srr520"])
def test_a_live_radar_gives_the_rows_of_the_bag(recordings: Any, sensor: str) -> None:
    bag = recordings("driving/nebula_radar_ros2") / sensor
    (topic,) = sources.open(bag).topics()
    source = sources.Ars548(bag) if sensor == "ars548" else sources.Srr520(bag)
    want, _, _ = follow(source)
    opened, where = threading.Event(), []

    def at(address: str) -> None:
        where.append(address)
        opened.set()

    with beside(lambda: replay(str(bag), "tcp://127.0.0.1:0", speed=0, opened=at)):
        assert opened.wait(20.0)
        got, _, _ = follow(
            live_radar(where[0], sensor, topic=topic, frame_id=want["frame_id"][0].as_py(), reconnect="0s")
        )
    assert got.num_rows == want.num_rows > 0
    for column in want.schema.names:
        assert got[column].combine_chunks().equals(want[column].combine_chunks()), column


def test_messages_are_sent_by_time_but_never_before_one_of_their_own_topic() -> None:
    times, topics = np.array([5, 3, 9, 4, 1]), np.array([0, 0, 1, 1, 2])
    order = in_order(times, topics).tolist()
    assert order == [4, 0, 1, 2, 3]


def test_a_topic_that_is_not_there_is_named_with_those_that_are(recordings: Any) -> None:
    path = recordings("driving/rosbag1") / "example.bag"
    with pytest.raises(FormatError, match=r"no topic '/nothing'.*/tf_static"):
        playable_of(str(path), topic=["/tf", "/nothing"])
    with pytest.raises(FormatError, match="no topic"):
        TopicMessages.like(path, "/nothing")
    chosen = playable_of(str(path), topic=["/tf_static", "/rosout"])
    assert len(list(chosen.messages())) == 11 and len(chosen.topics) == 2
