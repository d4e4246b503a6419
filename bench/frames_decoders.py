"""How long one JPEG frame takes from bytes to a normalised float32 tensor, by each way to decode it.

    python bench/frames_decoders.py [--mcap FILE] [--target 224] [--repeats 7] [--json OUT]

One thread, processor time (so that a busy machine disturbs less), repeats interleaved, medians. Two inputs: the camera of
a recorded drive (960x540) where there is one, and generated 1600x900 frames. Every path ends with the same tensor up to
its way of resampling: ``[3, target, target]``, ``(value / 255 - mean) / std``. Paths whose package is missing are left out.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from penstock.ops.image import DecodeImage
from penstock.pipeline.context import Context

__all__ = ["generated_frames", "measure", "recorded_frames"]

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
DRIVE = "driving/derived_drive/drive_mcap/drive_mcap.mcap"
ROWS = 32

#: Decodes all frames it is given.
Path_ = Callable[[Sequence[bytes]], Any]


def recorded_frames(file: Path) -> list[bytes]:
    """The JPEGs of every ``sensor_msgs/CompressedImage`` in an MCAP file."""
    from mcap.reader import make_reader

    with file.open("rb") as stream:
        messages = [
            message.data
            for schema, _, message in make_reader(stream).iter_messages()
            if schema is not None and schema.name.endswith("CompressedImage")
        ]
    return [data[data.find(b"\xff\xd8\xff") :] for data in messages]


def generated_frames(count: int, height: int = 900, width: int = 1600) -> list[bytes]:
    """Road-like frames: gradients, boxes and sensor noise, JPEG quality 90, 4:2:0, about as large as a camera writes."""
    import simplejpeg

    y, x = np.mgrid[:height, :width].astype(np.float32)
    base = np.stack([110 + 60 * np.sin(x / 190 + c) + 50 * (y / height) for c in range(3)], 2)
    frames = []
    for index in range(count):
        rng = np.random.default_rng(index)
        image = base + rng.normal(0, 2, (height, width, 1)).astype(np.float32)
        for _ in range(12):
            top, left = rng.integers(0, height - 120), rng.integers(0, width - 200)
            image[top : top + 100, left : left + 180] += rng.uniform(-80, 80, 3).astype(np.float32)
        frames.append(simplejpeg.encode_jpeg(np.clip(image, 0, 255).astype(np.uint8), 90, "RGB", "420"))
    return frames


def penstock_path(target: int, backend: Any) -> Path_:
    spec = DecodeImage(target, target, dtype="float32", layout="chw", mean=MEAN, std=STD, backend=backend)
    schema = _batch([]).schema
    operator = spec.open(Context("bench", parallelism=1), schema)

    def run(frames: Sequence[bytes]) -> Any:
        for start in range(0, len(frames), ROWS):
            (out,) = operator.process(_batch(frames[start : start + ROWS]))
        return out

    return run


def opencv_path(target: int, flag: str) -> Path_:
    import cv2

    cv2.setNumThreads(1)
    finish, mode = _torch_normalise(), getattr(cv2, flag)

    def one(data: bytes) -> Any:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), mode)
        return finish(cv2.resize(cv2.cvtColor(image, cv2.COLOR_BGR2RGB), (target, target)))

    return lambda frames: [one(data) for data in frames]


def pillow_path(target: int, draft: bool) -> Path_:
    from PIL import Image

    finish = _torch_normalise()

    def one(data: bytes) -> Any:
        image = Image.open(io.BytesIO(data))
        if draft:
            image.draft("RGB", (target, target))
        return finish(np.array(image.convert("RGB").resize((target, target), Image.Resampling.BILINEAR)))

    return lambda frames: [one(data) for data in frames]


def paths(target: int) -> dict[str, Path_]:
    """Every way that can run here, by name; the first is what `DecodeImage` does by itself."""
    makers: dict[str, Callable[[], Path_]] = {
        "penstock": lambda: penstock_path(target, "auto"),
        "penstock, DALI backend": lambda: penstock_path(target, "dali"),
        "OpenCV": lambda: opencv_path(target, "IMREAD_COLOR"),
        "OpenCV, half-size decode": lambda: opencv_path(target, "IMREAD_REDUCED_COLOR_2"),
        "Pillow": lambda: pillow_path(target, False),
        "Pillow, draft": lambda: pillow_path(target, True),
    }
    found: dict[str, Path_] = {}
    for name, make in makers.items():
        try:
            found[name] = make()
        except ImportError as error:
            print(f"left out: {name} ({error})")
        except Exception as error:
            if type(error).__name__ != "MissingExtraError":
                raise
            print(f"left out: {name} ({error})")
    return found


def measure(frames: Sequence[bytes], *, target: int = 224, repeats: int = 7) -> dict[str, float]:
    """Median processor time in ms a frame of each path, interleaved."""
    ways = paths(target)
    for run in ways.values():
        run(frames[:ROWS])
    times: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(repeats):
        for name, run in ways.items():
            started = time.process_time()
            run(frames)
            times[name].append((time.process_time() - started) * 1e3 / len(frames))
    return {name: statistics.median(found) for name, found in times.items()}


def table(title: str, result: Mapping[str, float]) -> str:
    """A Markdown table of `measure`."""
    own = result["penstock"]
    rows = [f"| {name} | {ms:.2f} | {1e3 / ms:.0f} | {ms / own:.2f} |" for name, ms in result.items()]
    return "\n".join(
        [f"{title}\n", "| way | ms a frame | frames/s a core | times penstock |", "|---|--:|--:|--:|", *rows]
    )


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--mcap", type=Path, help="a recording with a camera (default: the shared drive)")
    arguments.add_argument("--target", type=int, default=224)
    arguments.add_argument("--repeats", type=int, default=7)
    arguments.add_argument("--json", type=Path, help="also write the figures here")
    given = arguments.parse_args()
    root = os.environ.get("PENSTOCK_DATA")
    data = Path(root) if root else Path(__file__).resolve().parent.parent.parent / "shared" / "data"
    recording = given.mcap or data / DRIVE
    inputs = {"generated 1600x900": generated_frames(48)}
    if recording.is_file():
        inputs = {"recorded drive": recorded_frames(recording)[:96], **inputs}
    results = {name: measure(frames, target=given.target, repeats=given.repeats) for name, frames in inputs.items()}
    for name, result in results.items():
        size = sum(map(len, inputs[name])) // len(inputs[name]) // 1000
        title = f"\n{name} to {given.target}x{given.target} float32, {len(inputs[name])} frames of {size} kB"
        print(table(title, result))
    if given.json:
        given.json.write_text(json.dumps(results, indent=2))


def _batch(frames: Sequence[bytes]) -> pa.RecordBatch:
    times = pa.array(np.arange(len(frames), dtype=np.int64)).cast(pa.timestamp("ns", tz="UTC"))
    seq = pa.array(np.arange(len(frames), dtype=np.uint64))
    return pa.record_batch(
        {"ts_event": times, "ts_recv": times, "seq": seq, "data": pa.array(list(frames), pa.large_binary())}
    )


def _torch_normalise() -> Callable[[Any], Any]:
    import torch

    torch.set_num_threads(1)
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (MEAN, STD))
    return lambda image: torch.from_numpy(image).permute(2, 0, 1).contiguous().float().div_(255).sub_(mean).div_(std)


if __name__ == "__main__":
    main()
