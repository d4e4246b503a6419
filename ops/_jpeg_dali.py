"""The same operator on NVIDIA DALI's CPU pipeline.

DALI fails a whole batch for one bad image and its pipeline is unusable afterwards. So headers are checked before, and
after a failure the pipeline is built again and the rows of that batch are decoded one by one.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ..pipeline.context import Context
from ..pipeline.errors import MissingExtraError
from ._jpeg_decode import ImageError, check_header
from ._jpeg_rows import Encoded, RowDecoder, codec_of

if TYPE_CHECKING:
    from .image import DecodeImage

__all__ = ["DaliDecoder"]

_MOST_ROWS = 64


class DaliDecoder:
    """Decodes batches of JPEGs with DALI; other codecs go to `others`. Thread-safe: one batch at a time."""

    def __init__(self, spec: DecodeImage, others: RowDecoder, context: Context) -> None:
        try:
            import nvidia.dali as dali
        except ImportError:
            raise MissingExtraError('DecodeImage(backend="dali")', "nvidia-dali-cuda130", "gpu") from None
        self._dali: Any = dali
        self._spec, self._others, self._context = spec, others, context
        self._lock = threading.Lock()
        self._pipeline: Any = None

    def decode(self, images: Sequence[Encoded], rows: npt.NDArray[Any]) -> dict[int, str]:
        """Fill `rows`; the error of each image that could not be decoded, by its index."""
        failed: dict[int, str] = {}
        jpegs: list[int] = []
        for index, image in enumerate(images):
            try:
                if codec_of(image) == "jpeg" and image.data is not None:
                    check_header(image.data, self._spec.max_pixels)
                    jpegs.append(index)
                else:
                    self._others.decode(image, rows[index])
            except ImageError as error:
                failed[index] = str(error)
        with self._lock:
            for start in range(0, len(jpegs), _MOST_ROWS):
                self._decode_part(images, jpegs[start : start + _MOST_ROWS], rows, failed)
        return failed

    def close(self) -> None:
        self._pipeline = None

    def _decode_part(
        self, images: Sequence[Encoded], part: Sequence[int], rows: npt.NDArray[Any], failed: dict[int, str]
    ) -> None:
        try:
            decoded = self._run([images[index].data for index in part])
        except RuntimeError:
            self._pipeline = None
            if len(part) == 1:
                failed[part[0]] = "JPEG: DALI failed to decode it"
                return
            for index in part:
                self._decode_part(images, [index], rows, failed)
            return
        for position, index in enumerate(part):
            rows[index] = decoded[position]
        self._context.copied(decoded.nbytes)

    def _run(self, encoded: list[npt.NDArray[np.uint8] | None]) -> npt.NDArray[Any]:
        if self._pipeline is None:
            self._pipeline = self._build()
        self._pipeline.feed_input("encoded", encoded)
        (result,) = self._pipeline.run()
        return np.asarray(result.as_tensor())

    def _build(self) -> Any:
        spec, fn, types = self._spec, self._dali.fn, self._dali.types
        pipeline = self._dali.Pipeline(
            batch_size=_MOST_ROWS,
            num_threads=max(1, self._context.parallelism),
            device_id=None,
            prefetch_queue_depth=1,
        )
        with pipeline:
            encoded = fn.external_source(name="encoded", device="cpu", dtype=types.UINT8, ndim=1)
            pixels = fn.decoders.image(encoded, device="cpu", output_type=types.RGB, adjust_orientation=False)
            pixels = fn.resize(
                pixels,
                resize_x=spec.width,
                resize_y=spec.height,
                interp_type=types.INTERP_LINEAR,
                antialias=False,
            )
            if spec.dtype == "float32":
                pixels = fn.crop_mirror_normalize(
                    pixels,
                    dtype=types.FLOAT,
                    output_layout=spec.layout.upper(),
                    mean=[255 * value for value in spec.mean or (0.0, 0.0, 0.0)],
                    std=[255 * value for value in spec.std or (1.0, 1.0, 1.0)],
                )
            elif spec.layout == "chw":
                pixels = fn.transpose(pixels, perm=[2, 0, 1])
            pipeline.set_outputs(pixels)
        pipeline.build()
        return pipeline
