"""Penstock on Ray against Ray Data: read, decode, batch, a torch model, on the same Ray of one node."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pyarrow as pa

from .cluster_inputs import FILES, Work, arrow_batches, frame_works, tick_works
from .cluster_session import CORES, CPUS, STORE, Arrivals, MemoryWatch, fresh_ray, in_child, now
from .cluster_work import (
    FRAME_ROWS,
    SIDE,
    TICK_ROWS,
    Model,
    decode_arrow,
    decode_numpy,
    features,
    features_numpy,
    jpeg_rows,
    model_of,
    notional,
    notional_numpy,
)
from .harness import Case, Contender

__all__ = ["case"]

MODEL_CPU = 0.5

_RULES = (
    f"Each side has a process and a Ray of one node of its own ({CPUS} CPUs, {STORE // 1_000_000} MB of object store), "
    "started outside the time, and runs a short input of the same kind first, also outside the time. 'whole' is from the "
    "call to the last row in the driver: planning, starting the processes of the run, loading the model are inside; "
    "'steady' is from the first third of the rows to the last. first_s: from the call to the first row; first_started_s: "
    "from when the model was loaded (both sides read while it loads). memory_mib: peak of the private resident memory of "
    "the driver and all workers plus the object store in use. Every ratio above 1 is in Penstock's favour. Both sides give "
    "the same number of rows, and the same sum of model outputs where the decoder is the same. The frames' model looks at "
    "every 49th pixel, so that it takes no core from decoding, as on a GPU; 'cnn' is the same work with a small "
    "convolutional network on the CPU. Penstock's rows come in order; Ray Data's need not. Penstock reads with "
    f"{CORES} processes; a decoder of its own runs in the process of the model, with as many threads. Ray Data decides for "
    f"itself. It gets the JSON lines in {FILES} files, Penstock in one."
)


def case(scratch: Path, *, quick: bool) -> Case:
    frames, ticks = (442, 100_000) if quick else (4_000, 2_000_000)
    works = [*frame_works(scratch, frames), *tick_works(scratch, ticks)]
    contenders = []
    for work in works:
        last: dict[str, float] = {}

        def run(work: Work = work, last: dict[str, float] = last) -> int:
            last.clear()
            last.update(compare(work))
            return work.rows

        contenders.append(
            Contender(work.name, run, ours=True, needs=("ray", "pandas", "torch"), values=lambda v=last: dict(v))
        )
    return Case("ray-data", "Against Ray Data on one node", "row", _RULES, contenders, rates=False)


def compare(work: Work) -> dict[str, float]:
    """Both sides of a case, one after the other, each in a process of its own."""
    ours: dict[str, float] = in_child(_measure, work, "penstock")
    theirs: dict[str, float] = in_child(_measure, work, work.peer)
    for side in (ours, theirs):
        if side["rows"] != work.rows or not math.isfinite(side["checksum"]):
            raise ValueError(f"{work.name}: {side['rows']:.0f} rows of {work.rows} arrived, sum {side['checksum']}")
    difference = abs(ours["checksum"] - theirs["checksum"]) / max(abs(theirs["checksum"]), 1e-9)
    if work.same and difference > 1e-3:
        raise ValueError(f"{work.name}: the model outputs differ, sums {ours['checksum']} and {theirs['checksum']}")
    return {
        "whole ratio": ours["whole"] / theirs["whole"],
        "steady ratio": ours["steady"] / theirs["steady"],
        "first ratio": theirs["first_s"] / ours["first_s"],
        "first_started ratio": theirs["first_started_s"] / ours["first_started_s"],
        "memory ratio": theirs["memory_mib"] / ours["memory_mib"],
        "outputs differ by": difference,
        **{f"penstock {key}": value for key, value in ours.items() if key not in ("rows", "checksum")},
        **{f"Ray Data {key}": value for key, value in theirs.items() if key not in ("rows", "checksum")},
    }


def _measure(work: Work, how: str) -> dict[str, float]:
    side = _SIDES[how]
    with fresh_ray():
        side(work, work.short)
        with MemoryWatch() as memory:
            arrivals, started = side(work, work.input)
        numbers = arrivals.numbers()
        return {**numbers, "first_started_s": max(1e-3, numbers["first_s"] - started), **memory.numbers()}


def with_penstock(work: Work, given: str) -> tuple[Arrivals, float]:
    """The flow of a case on the Ray that is there; when its processes were ready, in seconds from the call."""
    from penstock import sinks

    arrivals = Arrivals("logits" if work.kind.startswith("frames") else "score")
    flow = _stream(work, given).infer(model_of(work.kind)).write(sinks.Callback(arrivals))
    report = flow.run(ray="auto")
    if work.input == given and report["cluster"]["spilled_bytes"]:
        raise ValueError(f"{report['cluster']['spilled_bytes']} bytes were spilled")
    return arrivals, arrivals.times[0][0] / 1e9 - report["first_batch_s"]


def _stream(work: Work, given: str) -> Any:
    import penstock as ps
    from penstock import ops, sources

    if work.kind.startswith("frames"):
        camera = ps.read(sources.Mcap(given).topic(work.topic), parallelism=CORES)
        if work.same:
            return camera.map(decode_arrow).batch(FRAME_ROWS)
        return camera.map(ops.DecodeImage(SIDE, SIDE)).batch(FRAME_ROWS)
    if work.peer == "from_arrow, ticks":
        source: Any = sources.Rows(tuple(arrow_batches(given)), rows_per_batch=TICK_ROWS)
    else:
        source = sources.Ndjson(Path(given) / "all.ndjson", columns={"price": "price:float32", "size": "size:float32"})
    ticks = ps.read(source, parallelism=CORES).batch(TICK_ROWS)
    ticks = ticks.map(notional, inputs=["price", "size"], outputs={"notional": pa.float32()})
    inputs, tensor = ["price", "size", "notional"], pa.fixed_shape_tensor(pa.float32(), [4])
    return ticks.map(features, inputs=inputs, outputs={"features": tensor})


def with_ray_data(
    read: Callable[[Any, str], Any], stages: Iterable[Any]
) -> Callable[[Work, str], tuple[Arrivals, float]]:
    """A data set from `read` through `stages` into the model, an actor; rows are iterated in the driver."""

    def run(work: Work, given: str) -> tuple[Arrivals, float]:
        import ray

        ray.data.DataContext.get_current().enable_progress_bars = False
        logging.getLogger("ray.data").setLevel(logging.ERROR)
        rows = FRAME_ROWS if work.kind.startswith("frames") else TICK_ROWS
        began, ready = now(), 0
        arrivals = Arrivals("logits" if work.kind.startswith("frames") else "score")
        data = read(ray.data, given)
        for stage in stages:
            data = data.map_batches(stage, batch_size=rows, batch_format="numpy")
        # a share of a CPU of its own keeps Ray Data from running the decoder inside the model's actor
        data = data.map_batches(
            Model, fn_constructor_args=(work.kind, rows), batch_size=rows, batch_format="numpy",
            compute=ray.data.ActorPoolStrategy(size=1), num_cpus=MODEL_CPU,
        )  # fmt: skip
        for batch in data.iter_batches(batch_size=None, batch_format="numpy"):
            arrivals(batch)
            ready = int(batch["ready"][0])
        return arrivals, (ready - began) / 1e9

    return run


def _read_jpegs(data: Any, given: str) -> Any:
    encoded = jpeg_rows(given)
    blocks = [encoded[start : start + FRAME_ROWS] for start in range(0, len(encoded), FRAME_ROWS)]
    return data.from_arrow([pa.table({"data": pa.array(block, pa.large_binary())}) for block in blocks])


def _read_folder(data: Any, given: str) -> Any:
    return data.read_images(Path(given).with_suffix("").as_posix(), size=(SIDE, SIDE), mode="RGB")


def _read_lines(data: Any, given: str) -> Any:
    return data.read_json([(Path(given) / f"part{part:02}.jsonl").as_posix() for part in range(FILES)])


def _read_batches(data: Any, given: str) -> Any:
    return data.from_arrow([pa.Table.from_batches([batch]) for batch in arrow_batches(given)])


_SIDES: dict[str, Callable[[Work, str], tuple[Arrivals, float]]] = {
    "penstock": with_penstock,
    "from_arrow": with_ray_data(_read_jpegs, [decode_numpy]),
    "read_mcap": with_ray_data(lambda data, given: data.read_mcap(given, include_metadata=False), [decode_numpy]),
    "read_images": with_ray_data(_read_folder, []),
    "read_json": with_ray_data(_read_lines, [notional_numpy, features_numpy]),
    "from_arrow, ticks": with_ray_data(_read_batches, [notional_numpy, features_numpy]),
}
