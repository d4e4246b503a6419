"""Replay: how well a recording keeps its own pace through a socket, and whether everything arrives."""

from __future__ import annotations

import contextlib
import gzip
import json
import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

from .harness import Case, Contender
from .recordings import real

__all__ = ["case"]

_REAL = "market/binance_ws_raw/usdm_btcusdt_20240808.gz"
_RATE = 5_000
_ROUNDS = 2
_RULES = (
    "A recorded feed (Binance USD-M, 272 messages a second) at the speed that makes it 5,000 messages a second, with its "
    "own gaps, for 32 s, by `penstock replay` in a process of its own over TCP, UDP and WebSocket on loopback to one live "
    "source in another process that turns the messages into rows. Pacing error: when the call that sent a message came "
    "back, less when the message was due, on an absolute schedule. Lost: messages sent less rows and bad records that the "
    "receiver counted."
)
#: Decodes a sample first, so that it does not compile while packets come; then follows the URL that it reads.
_RECEIVER = """
import gzip, sys
from penstock import sources
from penstock.pipeline.context import Context
from penstock.sources.live.arrival import Arrival

file, most, seconds = sys.argv[1:]
def feed(url):
    limits = {"most": int(most), "duration": f"{seconds}s"} if url.startswith("udp:") else {}
    return sources.live_crypto("binance-usdm", ["BTCUSDT"], table="trade", url=url, reconnect="0s", **limits)
codec = feed("tcp://127.0.0.1:1").codec
with open(file, "rb") as lines:
    sample = [Arrival(1, line.split(b" ", 1)[1]) for line, _ in zip(lines, range(2000))]
session = codec.open(Context("warm"), "warm", None)
session.decode(session.take(sample, 0).payload, 0)
print("warm", flush=True)
reader = feed(sys.stdin.readline().strip()).open(Context("bench"))
records = 0
for block in reader.blocks():
    reader.decode(block)
    records += block.records
reader.close()
print(records, flush=True)
"""


def case(scratch: Path, *, quick: bool) -> Case:
    file, messages, span_s = _lines(scratch, 5_000 if quick else 80_000)
    contenders = []
    for scheme in ("tcp", "udp", "ws"):
        last: dict[str, float] = {}

        def run(scheme: str = scheme, last: dict[str, float] = last) -> int:
            last.clear()
            last.update(_served(file, scheme, messages * _ROUNDS, _RATE * span_s / messages))
            return int(last.pop("messages"))

        contenders.append(
            Contender(f"penstock {scheme}", run, ours=scheme == "tcp", values=lambda last=last: dict(last))
        )
    return Case("replay", "Replay at the recorded pace", "message", _RULES, contenders, rates=False)


def _lines(scratch: Path, count: int) -> tuple[Path, int, float]:
    """The first lines of the real recording, or made-up ones, how many they are, and the seconds that they took."""
    target = scratch / "feed.jsonl"
    found = real(_REAL)
    stamps: list[int] = []
    with contextlib.ExitStack() as stack:
        out = stack.enter_context(target.open("wb"))
        lines = stack.enter_context(gzip.open(found)) if found is not None else (_made_up(n) for n in range(count))
        for line, _ in zip(lines, range(count), strict=False):
            out.write(line)
            stamps.append(int(line.split(b" ", 1)[0]))
    return target, len(stamps), (stamps[-1] - stamps[0]) / 1e9


def _made_up(n: int) -> bytes:
    now = 1_700_000_000_000 + 4 * n
    text = {"e": "aggTrade", "E": now, "T": now, "s": "BTCUSDT", "a": n, "p": "1.5", "q": "2", "m": False}
    return b"%d %s\n" % (now * 10**6, json.dumps(text).encode())


def _served(file: Path, scheme: str, messages: int, speed: float) -> dict[str, float]:
    """One replay to a receiver in another process: messages, pacing in us, what was lost."""
    seconds = messages / _RATE + 20
    receiver = _process("-c", _RECEIVER, str(file), str(messages), str(seconds))
    sender = None
    try:
        _line_of(receiver, "warm")
        port = _free_port() if scheme == "udp" else 0
        if port:
            _follow(receiver, f"udp://127.0.0.1:{port}")
            _until_bound(port)
        options = ["--speed", repr(speed), "--loop", str(_ROUNDS), "--json", "--quiet"]
        sender = _process("-m", "penstock.cli", "replay", str(file), "--to", f"{scheme}://127.0.0.1:{port}", *options)
        if not port:
            _follow(receiver, _line_of(sender, f"{scheme}://", errors=True).split(": ")[0])
        report = json.loads(sender.communicate(timeout=3 * seconds)[0])
        received = int(receiver.communicate(timeout=3 * seconds)[0])
    finally:
        for process in (receiver, sender):
            if process is not None and process.poll() is None:
                process.kill()
                process.wait()
    pacing = {f"pacing {key.replace('_us', '')} us": value for key, value in report["pacing"].items()}
    rate = report["messages"] / report["elapsed_s"]
    lost = float(report["messages"] - received)
    return {"messages": report["messages"], **pacing, "messages a second": rate, "lost": lost}


def _process(*arguments: str) -> subprocess.Popen[str]:
    pipe = subprocess.PIPE
    return subprocess.Popen([sys.executable, *arguments], stdin=pipe, stdout=pipe, stderr=pipe, text=True)


def _follow(receiver: subprocess.Popen[str], url: str) -> None:
    stdin: Any = receiver.stdin
    stdin.write(f"{url}\n")
    stdin.flush()


def _line_of(process: subprocess.Popen[str], begins: str, *, errors: bool = False) -> str:
    """The next line that begins so."""
    stream: Any = process.stderr if errors else process.stdout
    for line in stream:
        if line.startswith(begins):
            return str(line).strip()
    raise RuntimeError(f"the process ended with {process.wait()}: {process.communicate()[1]}")


def _free_port() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def _until_bound(port: int) -> None:
    """Wait until somebody receives on a UDP port; a second where the system does not tell."""
    pause, known = threading.Event(), Path("/proc/net/udp")
    if not known.exists():
        pause.wait(1.0)
        return
    for _ in range(6_000):
        if any(line.split()[1].endswith(f":{port:04X}") for line in known.read_text().splitlines()[1:]):
            return
        pause.wait(0.01)
    raise RuntimeError(f"nobody has bound the port {port}")
