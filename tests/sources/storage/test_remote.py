"""What is wrong with a URL is said in one line, and within a time."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest
from live_feeds import free_port
from penstock.cli import main
from penstock.sources.storage import _remote
from penstock.sources.storage.listing import is_pattern
from penstock.sources.storage.stored import open_stored


@pytest.fixture
def silent() -> Iterator[str]:
    """A server that takes connections and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}/x.slp"


class Refuses(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_error(int(self.path[1:4]))

    do_HEAD = do_GET

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture(scope="module")
def refusing() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Refuses) as server:
        thread = Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


def test_a_server_that_is_not_there_is_said_to_refuse(capsys: pytest.CaptureFixture[str]) -> None:
    url = f"http://127.0.0.1:{free_port()}/x"
    with pytest.raises(ConnectionRefusedError, match=f"^{url}: connection refused"):
        open_stored(url)
    assert main(["inspect", url]) == 1
    assert capsys.readouterr().err.startswith(f"penstock: {url}: connection refused")


def test_a_server_that_says_nothing_is_waited_for_only_so_long(silent: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_remote, "PATIENCE", 0.2)
    with pytest.raises(TimeoutError, match=rf"^{silent}: the server did not answer within 0.2 s$"):
        open_stored(silent)


@pytest.mark.parametrize(
    ("status", "kind"), [(404, FileNotFoundError), (403, PermissionError), (500, OSError), (410, FileNotFoundError)]
)
def test_what_a_server_answers_is_told(refusing: str, status: int, kind: type[OSError]) -> None:
    with pytest.raises(kind, match=rf"^{refusing}/{status}: the server answers {status} \w+"):
        open_stored(f"{refusing}/{status}")


def test_a_query_is_no_wildcard(tmp_path: Path) -> None:
    assert not is_pattern("https://host/day.gz?signature=a")
    assert is_pattern("https://host/*.gz?signature=a") and is_pattern("s3://days/day?.gz") and is_pattern("day?.gz")
