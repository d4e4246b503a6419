"""Replay: how well a recording keeps its own pace through a socket, and whether everything arrives."""

from __future__ import annotations

import gzip
import json
import threading
from pathlib import Path
from typing import Any

from .harness import Case, Contender
from .recordings import real

__all__ = ["case"]

_REAL = "market/binance_ws_raw/usdm_btcusdt_20240808.gz"
_RULES = (
    "A recorded feed (Binance USD-M, 273 messages a second) served over TCP and WebSocket on loopback at 20 times its pace, "
    "about 5,000 messages a second, to one live source in another process that turns them into rows. Pacing error: when a "
    "message was sent, less when it was due, on an absolute schedule. Lost: messages sent less rows and bad records."
)
_SPEED = 20.0


def case(scratch: Path, *, quick: bool) -> Case:
    file = _lines(scratch, 5_000 if quick else 30_000)
    contenders = []
    for scheme in ("tcp", "ws"):
        last: dict[str, float] = {}

        def run(scheme: str = scheme, last: dict[str, float] = last) -> int:
            last.clear()
            last.update(_served(file, scheme))
            return int(last.pop("messages"))

        contenders.append(
            Contender(f"penstock {scheme}", run, ours=scheme == "tcp", values=lambda last=last: dict(last))
        )
    return Case("replay", "Replay at the recorded pace", "message", _RULES, contenders, rates=False)


def _lines(scratch: Path, count: int) -> Path:
    """The first lines of the real recording, or made-up ones with its gaps."""
    target = scratch / "feed.jsonl"
    found = real(_REAL)
    with target.open("wb") as out:
        if found is not None:
            with gzip.open(found) as file:
                for line, _ in zip(file, range(count), strict=False):
                    out.write(line)
        else:
            for n in range(count):
                now = 1_700_000_000_000 + 4 * n
                text = {"e": "aggTrade", "E": now, "T": now, "s": "BTCUSDT", "a": n, "p": "1.5", "q": "2", "m": False}
                out.write(b"%d %s\n" % (now * 10**6, json.dumps(text).encode()))
    return target


def _served(file: Path, scheme: str) -> dict[str, float]:
    """One replay to a receiver in another process: messages, pacing in us, what was lost."""
    import subprocess
    import sys

    from penstock.sources.replay import replay

    opened = threading.Event()
    where: list[str] = []
    report: list[Any] = []

    def serve() -> None:
        def at(address: str) -> None:
            where.append(address)
            opened.set()

        report.append(replay(str(file), f"{scheme}://127.0.0.1:0", speed=_SPEED, opened=at))

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    opened.wait(30)
    code = (
        "import sys\n"
        "from penstock import sources\n"
        "from penstock.pipeline.context import Context\n"
        "spec = sources.live_crypto('binance-usdm', ['BTCUSDT'], table='trade', url=sys.argv[1], reconnect='0s')\n"
        "reader = spec.open(Context('bench'))\n"
        "print(sum(block.records for block in reader.blocks() if reader.decode(block) is not None))\n"
        "reader.close()\n"
    )
    done = subprocess.run([sys.executable, "-c", code, where[0]], check=True, capture_output=True, text=True)
    thread.join(30)
    sent = report[0]
    pacing = {f"pacing {key.replace('_us', '')} us": value for key, value in sent.pacing.items()}
    rate = sent.messages / sent.elapsed_s
    return {"messages": sent.messages, **pacing, "messages a second": rate, "lost": sent.messages - int(done.stdout)}
