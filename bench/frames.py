"""Frames: camera JPEGs in an MCAP file to normalised float32 batches."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ._ray import start_ray, stop_ray
from .harness import Case, Contender
from .recordings import drive

__all__ = ["case"]

SIDE, ROWS, WORKERS = 224, 32, 2
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

_RULES = (
    f"From opening the MCAP file (in the page cache) to the last batch of {ROWS} frames as float32 CHW {SIDE}x{SIDE}, "
    "normalised by mean and standard deviation; an incomplete last batch counts. Peers read the file with the mcap package "
    f"inside the time and hand JPEG bytes on. DataLoader has {WORKERS} worker processes, forked inside the time as it does "
    "for every epoch; DALI and Penstock two threads or all cores; Ray Data all cores, started outside the time. 'reduced' "
    "and 'draft' use the libraries' scaled JPEG decoding, which has to be asked for."
)

Frames = npt.NDArray[np.float32]


def case(scratch: Path, *, quick: bool) -> Case:
    file, topic, frames = drive(scratch, 221 if quick else 1_000)
    cv2, pillow = ("torch", "cv2"), ("torch", "PIL")
    contenders = [
        Contender("penstock", lambda: penstock_frames(file, topic, frames), ours=True),
        Contender(
            "DataLoader, cv2", lambda: loader(file, topic, frames, "cv2"), needs=cv2,
            install="pip install opencv-python-headless",
        ),
        Contender(
            "DataLoader, cv2 reduced", lambda: loader(file, topic, frames, "cv2 reduced"), needs=cv2,
            install="pip install opencv-python-headless",
        ),
        Contender(
            "DataLoader, Pillow", lambda: loader(file, topic, frames, "pillow"), needs=pillow,
            install="pip install pillow",
        ),
        Contender(
            "DataLoader, Pillow draft", lambda: loader(file, topic, frames, "pillow draft"), needs=pillow,
            install="pip install pillow",
        ),
        Contender(
            "DALI, CPU", lambda: dali(file, topic, frames), needs=("nvidia", "nvidia.dali"),
            install="pip install nvidia-dali-cuda120",
        ),
        Contender(
            "Ray Data, cv2", lambda: ray_data(file, topic, frames), needs=("ray", "pandas", "cv2"),
            install="pip install 'ray[data]' opencv-python-headless",
        ),
    ]  # fmt: skip
    return Case("frames", f"MCAP JPEG to float32 {SIDE}x{SIDE} batches", "frame", _RULES, contenders, close=stop_ray)


def penstock_frames(file: Path, topic: str, frames: int) -> int:
    """The page of user code: read, decode, batch."""
    import penstock as ps
    from penstock import ops, sources

    camera = ps.read(sources.Mcap(file).topic(topic))
    decode = ops.DecodeImage(SIDE, SIDE, dtype="float32", layout="chw", mean=MEAN, std=STD)
    return count((batch["image"].to_numpy_ndarray() for batch in camera.map(decode).batch(ROWS)), frames)


def jpegs(file: Path, topic: str) -> list[bytes]:
    """The JPEG of each message of a ``sensor_msgs/CompressedImage`` topic."""
    from mcap.reader import make_reader

    found = []
    with file.open("rb") as stream:
        for _, _, message in make_reader(stream).iter_messages(topics=[topic]):
            found.append(message.data[message.data.index(b"\xff\xd8\xff") :])
    return found


def loader(file: Path, topic: str, frames: int, how: str) -> int:
    """``torch.utils.data.DataLoader`` over the JPEGs of the file."""
    from torch.utils.data import DataLoader

    batches = DataLoader(
        _Decoded(jpegs(file, topic), how), batch_size=ROWS, num_workers=WORKERS, worker_init_fn=_one_thread
    )
    return count((batch.numpy() for batch in batches), frames)


class _Decoded:
    """A map-style data set of normalised frames."""

    def __init__(self, encoded: list[bytes], how: str) -> None:
        self.encoded, self.how = encoded, how

    def __len__(self) -> int:
        return len(self.encoded)

    def __getitem__(self, index: int) -> Any:
        import torch

        return torch.from_numpy(normalised(pixels(self.encoded[index], self.how)))


def _one_thread(_: int) -> None:
    import cv2
    import torch

    cv2.setNumThreads(0)
    torch.set_num_threads(1)


def pixels(data: bytes, how: str) -> npt.NDArray[np.uint8]:
    """One JPEG as RGB ``[side, side, 3]``."""
    if how.startswith("pillow"):
        from PIL import Image

        image = Image.open(io.BytesIO(data))
        if how.endswith("draft"):
            image.draft("RGB", (SIDE, SIDE))
        return np.asarray(image.convert("RGB").resize((SIDE, SIDE), Image.Resampling.BILINEAR))
    import cv2

    flag = cv2.IMREAD_REDUCED_COLOR_2 if how.endswith("reduced") else cv2.IMREAD_COLOR
    image = cv2.imdecode(np.frombuffer(data, np.uint8), flag)
    return cv2.cvtColor(cv2.resize(image, (SIDE, SIDE), interpolation=cv2.INTER_LINEAR), cv2.COLOR_BGR2RGB)


_SCALE = (1.0 / (255.0 * np.array(STD))).astype(np.float32)
_SHIFT = (np.array(MEAN) / np.array(STD)).astype(np.float32)


def normalised(image: npt.NDArray[np.uint8]) -> Frames:
    """``[side, side, 3]`` bytes as ``[3, side, side]`` float32."""
    return np.ascontiguousarray((image * _SCALE - _SHIFT).transpose(2, 0, 1))


def dali(file: Path, topic: str, frames: int) -> int:
    """NVIDIA DALI's CPU pipeline fed by an external source."""
    from nvidia.dali import fn, pipeline_def, types

    encoded = jpegs(file, topic)

    def feed() -> Iterator[list[npt.NDArray[np.uint8]]]:
        for start in range(0, len(encoded), ROWS):
            yield [np.frombuffer(data, np.uint8) for data in encoded[start : start + ROWS]]

    @pipeline_def(batch_size=ROWS, num_threads=WORKERS, device_id=None, prefetch_queue_depth=2)
    def build() -> Any:
        data = fn.external_source(source=feed, cycle=False, dtype=types.UINT8)
        image = fn.decoders.image(data, device="cpu", output_type=types.RGB)
        image = fn.resize(image, resize_x=SIDE, resize_y=SIDE, interp_type=types.INTERP_LINEAR, antialias=False)
        return fn.crop_mirror_normalize(
            image, dtype=types.FLOAT, output_layout="CHW",
            mean=[255 * m for m in MEAN], std=[255 * s for s in STD],
        )  # fmt: skip

    pipeline = build()
    pipeline.build()

    def batches() -> Iterator[Frames]:
        for _ in range(0, len(encoded), ROWS):
            (out,) = pipeline.run()
            yield out.as_array()

    return count(batches(), frames)


def ray_data(file: Path, topic: str, frames: int) -> int:
    """Ray Data: JPEG bytes in blocks, decoded in tasks, iterated as numpy batches."""
    import pyarrow as pa

    ray = start_ray()
    encoded = jpegs(file, topic)
    blocks = [
        pa.table({"data": pa.array(encoded[start : start + ROWS], pa.large_binary())})
        for start in range(0, len(encoded), ROWS)
    ]
    images = ray.data.from_arrow(blocks).map_batches(_decode_block, batch_size=ROWS, batch_format="numpy")
    return count((batch["image"] for batch in images.iter_batches(batch_size=ROWS, batch_format="numpy")), frames)


def _decode_block(batch: dict[str, Any]) -> dict[str, Any]:
    return {"image": np.stack([normalised(pixels(data, "cv2")) for data in batch["data"]])}


def count(batches: Iterable[Frames], frames: int) -> int:
    """Frames in `batches`, of which each must be what was asked for; one value of each frame is read."""
    seen, total = 0, 0.0
    for batch in batches:
        if batch.shape[1:] != (3, SIDE, SIDE) or batch.dtype != np.float32 or len(batch) > ROWS:
            raise ValueError(f"a batch of {batch.shape} {batch.dtype}")
        total += float(batch[:, 1, SIDE // 2, SIDE // 2].sum())
        seen += len(batch)
    if seen != frames or not np.isfinite(total):
        raise ValueError(f"{seen} frames of {frames} arrived")
    return seen
