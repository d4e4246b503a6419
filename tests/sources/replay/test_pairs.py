"""Replays into what takes them on the same address: recorders and live sources, with no option that says how."""

from __future__ import annotations

import re
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from live_feeds import beside, follow, free_port, lines_of, until_bound, write_lines
from penstock import sources
from penstock.pipeline.clock import RealClock
from penstock.pipeline.errors import GraphError
from penstock.pipeline.source import SourceSpec
from penstock.sources.live.feed import Live
from penstock.sources.live.raw_messages import RawMessages
from penstock.sources.replay.message import Message, Playable
from penstock.sources.replay.outlet import outlet_to
from penstock.sources.replay.schedule import Schedule
from penstock.sources.replay.serving import replay, serve


def served(path: Path, to: str, spec_of: Callable[[str], SourceSpec], **options: Any) -> tuple[Any, Any]:
    """What a source makes of the replay of `path`, which is served: rows and bad records."""
    opened, where = threading.Event(), list[str]()

    def at(address: str) -> None:
        where.append(address)
        opened.set()

    with beside(lambda: replay(str(path), to, speed=0, opened=at, **options)):
        assert opened.wait(10.0)
        table, bad, _ = follow(spec_of(where[0]))
    return table, bad


def test_a_recorder_takes_the_lines_of_a_replay_without_being_told_of_them(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "lines.ndjson", 50)
    recorded = tmp_path / "rx.mcap"
    table, bad = served(
        path, "tcp://127.0.0.1:0", lambda url: Live(url, RawMessages(), record=str(recorded), reconnect="0s")
    )
    assert bad == []
    assert table["data"].to_pylist() == lines_of(50)
    assert table["ts_recv"].cast("int64").to_pylist() == [10**18 + n * 1_000_000 for n in range(50)]
    again = follow(sources.Recording(recorded))[0]
    assert again["data"].to_pylist() == lines_of(50)


@pytest.mark.parametrize("scheme", ["tcp", "ws"])
def test_an_itch_file_served_comes_back_with_its_rows_and_its_date(
    recordings: Any, tmp_path: Path, scheme: str
) -> None:
    path = recordings("market/itch50") / "ex20101224.TEST_ITCH_50.prefixed.itch"
    want = follow(sources.Itch(path))[0]
    recorded = tmp_path / "day.mcap"
    got, bad = served(
        path, f"{scheme}://127.0.0.1:0", lambda url: sources.live_itch(url, record=str(recorded), reconnect="0s")
    )
    again = follow(sources.Recording(recorded, sources.MoldPackets()))[0]
    assert bad == [] and got.num_rows == want.num_rows > 1000
    for column in want.schema.names:
        expected = want[column].combine_chunks()
        assert got[column].combine_chunks().equals(expected), column
        assert again[column].combine_chunks().equals(expected), column


@pytest.mark.parametrize("kind", ["tcp", "ws"])
def test_a_replay_says_that_its_receiver_has_left_and_goes_on_with_the_next(kind: str) -> None:
    left, noticed, stop = threading.Event(), threading.Event(), threading.Event()
    told: list[str] = []

    def messages() -> Iterator[Message]:
        for n in range(64):
            yield Message(n, b"x" * 100)
        assert left.wait(10)
        for n in range(640):
            yield Message(64 + n, b"y" * 4096)

    playable = Playable(messages)
    outlet = outlet_to(f"{kind}://127.0.0.1:0", playable, RealClock(), stop, stamped=True)

    def tell(line: str) -> None:
        told.append(line)
        noticed.set()

    outlet.told = tell

    def send() -> Any:
        outlet.ready(1)
        try:
            return serve(playable, outlet, Schedule(RealClock(), stop, speed=0), RealClock(), stop, speed=0)
        finally:
            outlet.close()

    with beside(send) as sent:
        assert follow(Live(outlet.address, RawMessages(), most=64))[0].num_rows == 64
        left.set()
        assert noticed.wait(10)
        table = follow(Live(outlet.address, RawMessages(), reconnect="0s"))[0]
    assert sent[0].messages == 704 and not sent[0].stopped
    assert set(table["data"].to_pylist()) == {b"y" * 4096}
    (line,) = told
    assert re.fullmatch(r"the receiver left after \d+ messages; waiting for another", line)


def _has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as sock:
            sock.bind(("::1", 0))
    except OSError:
        return False
    return True


def _group_interface() -> tuple[int, str]:
    """Number and name of an interface to which IPv6 groups have a route; 0 if there is none."""
    for number, name in socket.if_nameindex() if _has_ipv6() else ():
        with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as sock:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_HOPS, 0)
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_IF, number)
            try:
                sock.connect(("ff0e::114", 9, 0, number))
                sock.send(b"")
            except OSError:
                continue
            return number, name
    return 0, ""


ipv6 = pytest.mark.skipif(not _has_ipv6(), reason="this machine has no IPv6 address ::1")
NUMBER, NAME = _group_interface()
ipv6_groups = pytest.mark.skipif(not NUMBER, reason="this machine has no route for IPv6 multicast")


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1",
        "239.255.7.14",
        "239.255.7.14?interface=lo",
        pytest.param("[::1]", marks=ipv6),
        pytest.param("[ff0e::114]", marks=ipv6_groups),
        pytest.param(f"[ff0e::114]?interface={NAME}", marks=ipv6_groups),
        pytest.param(f"[ff02::114]?interface={NUMBER}", marks=ipv6_groups),
    ],
)
def test_datagrams_reach_who_has_the_same_address(tmp_path: Path, host: str) -> None:
    path = write_lines(tmp_path / "lines.ndjson", 20)
    port = free_port(socket.SOCK_DGRAM)
    host, _, options = host.partition("?")
    url = f"udp://{host}:{port}" + (f"?{options}" if options else "")

    def send() -> Any:
        until_bound(port)
        return replay(str(path), url, speed=50)

    with beside(send):
        table, bad, _ = follow(Live(url, RawMessages(), most=20, duration="10s"))
    assert bad == [] and table["data"].to_pylist() == lines_of(20)


@ipv6
@pytest.mark.parametrize("scheme", ["tcp", "ws"])
def test_servers_listen_on_ipv6(tmp_path: Path, scheme: str) -> None:
    path = write_lines(tmp_path / "lines.ndjson", 5)
    table, bad = served(path, f"{scheme}://[::1]:0", lambda url: Live(url, RawMessages(), reconnect="0s"))
    assert bad == [] and table["data"].to_pylist() == lines_of(5)


@ipv6
def test_posts_are_taken_on_ipv6(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "lines.ndjson", 5)
    url = f"http://[::1]:{free_port()}/x?token=1"

    def send() -> Any:
        while True:  # what listens may not yet
            try:
                return replay(str(path), url, speed=0)
            except ConnectionRefusedError:
                threading.Event().wait(0.02)

    with beside(send):
        assert follow(Live(url, RawMessages(), most=5, duration="10s"))[0]["data"].to_pylist() == lines_of(5)


@pytest.mark.parametrize("url", ["udp://239.1.1.1:9?iface=lo", "tcp://127.0.0.1:9?frame=lines", "tcp://h:9?framing="])
def test_an_option_that_an_address_does_not_have_is_refused_and_those_it_has_are_named(url: str) -> None:
    known = "interface=" if url.startswith("udp") else "framing=" if "frame" in url else "lines"
    with pytest.raises(GraphError, match=rf"no (option|framing).*({known}|lines)"):
        Live(url, RawMessages())


@pytest.mark.parametrize(
    "place",
    [
        "127.0.0.1:{port}?interface=eth77",
        "239.255.7.15:{port}?interface=eth77",
        "239.255.7.15:{port}?interface=203.0.113.77",
        pytest.param("[ff0e::114]:{port}?interface=eth77", marks=ipv6),
    ],
)
def test_an_interface_that_is_not_there_is_named_with_those_that_are(tmp_path: Path, place: str) -> None:
    path = write_lines(tmp_path / "lines.ndjson", 5)
    url = "udp://" + place.format(port=free_port(socket.SOCK_DGRAM))
    wrong = url.partition("interface=")[2]
    told = rf"no interface .*{wrong}" + ("'; this machine has .*lo" if wrong == "eth77" else "")
    with pytest.raises(OSError, match=f"cannot receive on udp://.*: {told}"):
        follow(Live(url, RawMessages()))
    with pytest.raises(OSError, match=f"cannot send to udp://.*: {told}"):
        replay(str(path), url, speed=0)
    with pytest.raises(GraphError, match=r"no option 'iface'.*interface="):
        replay(str(path), url.replace("interface", "iface"), speed=0)
