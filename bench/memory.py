"""Memory: the same pipeline on a recording and on one ten times as long."""

from __future__ import annotations

import multiprocessing
from pathlib import Path
from typing import Any

from .harness import Case, Contender

__all__ = ["case"]

TIMES = 10

_RULES = (
    f"Each domain's decoding, event-time and keyed steps into batches, on a generated recording and on one {TIMES} times as "
    "long, each in a process of its own. data_mib: peak of Arrow memory, reused buffers and slots, for the long one; "
    "data_ratio: long over short; rss_growth_mib: peak resident memory above that at the start of the run, for the long "
    "one; rss_ratio: peak resident memory, long over short; bound_mib: what explain printed before the run."
)


def case(scratch: Path, *, quick: bool) -> Case:
    short = 0.2 if quick else 2.0
    contenders = []
    for domain in ("drive", "market", "game"):
        last: dict[str, float] = {}

        def run(domain: str = domain, last: dict[str, float] = last) -> int:
            last.clear()
            last.update(_compare(domain, scratch, short))
            return 1

        contenders.append(Contender(f"penstock {domain}", run, ours=True, values=lambda last=last: dict(last)))
    return Case("memory", f"Recording {TIMES} times as long", "run", _RULES, contenders, rates=False)


def _compare(domain: str, scratch: Path, short: float) -> dict[str, float]:
    with multiprocessing.get_context("spawn").Pool(1, maxtasksperchild=1) as pool:
        brief = pool.apply(_peaks, (domain, scratch, short))
        long = pool.apply(_peaks, (domain, scratch, short * TIMES))
    mib = 1 << 20
    return {
        "data_mib": long["peak_data_bytes"] / mib,
        "data_ratio": long["peak_data_bytes"] / brief["peak_data_bytes"],
        "rss_growth_mib": (long["peak_rss_bytes"] - long["start_rss_bytes"]) / mib,
        "rss_ratio": long["peak_rss_bytes"] / brief["peak_rss_bytes"],
        "bound_mib": long["bound_bytes"] / mib,
    }


def _peaks(domain: str, scratch: Path, size: float) -> dict[str, Any]:
    """The memory figures of one run, in the process that calls it."""
    from penstock.demos.run import DOMAINS, record

    file = scratch / f"{size:g}" / DOMAINS[domain][1]
    if not file.exists():
        file.parent.mkdir(exist_ok=True)
        record(domain, file, size, 0)
    # once before, so that compiled kernels and libraries are in memory already
    small = scratch / "warm" / DOMAINS[domain][1]
    if not small.exists():
        small.parent.mkdir(exist_ok=True)
        record(domain, small, 0.05, 0)
    _flow(domain, small).run()
    memory: dict[str, Any] = _flow(domain, file).run()["memory"]
    return memory


def _flow(domain: str, file: Path) -> Any:
    import penstock as ps
    from penstock import models, ops, sinks, sources

    if domain == "drive":
        drive = sources.Mcap(file)
        camera = ps.read(drive.topic("/camera/front/image_raw/compressed")).map(ops.DecodeImage(224, 224))
        radar = ps.read(drive.topic("/radar/front/points")).map(ops.PadRadar(max_points=64))
        stream = camera.sync(radar, tolerance="50ms").batch(32).prefetch(3)
        image = {"image": models.TensorSpec(ops.DecodeImage(224, 224).tensor.value_type, (224, 224, 3))}
        return stream.infer(models.Simulator(service_time="5ms", inputs=image)).write(sinks.Null())
    if domain == "market":
        books = ps.read(sources.Itch(file)).apply(ops.BookFeatures())
        columns = ("mid", "spread", "imbalance", "volume")
        return books.map(ops.RollingSequence(columns=columns, length=64, every=16)).batch(64).write(sinks.Null())
    events = ps.read(sources.game_events(file))
    return events.map(ops.ActionSequence(length=64)).batch(64).write(sinks.Null())
