"""One encoded image to one row of a tensor column: choose the decoder by codec, then resize or store."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ._jpeg_decode import ImageError, check_header, decode_jpeg, decoded_size
from ._resize_kernels import axis_weights, resize_pixels, store_pixels

__all__ = ["Encoded", "RowDecoder", "codec_of"]

_PNG = b"\x89PNG\r\n\x1a\n"
_RAW_CHANNELS = {"raw_rgb8": 3, "raw_bgr8": 3, "raw_mono8": 1}


@dataclass(frozen=True, slots=True)
class Encoded:
    """An encoded image: its bytes (None for a null), the codec if a column says so, the size that raw pixels need."""

    data: npt.NDArray[np.uint8] | None
    codec: str | None = None
    height: int | None = None
    width: int | None = None


def codec_of(image: Encoded) -> str:
    """The codec as stated, else by the first bytes. Raises ImageError for a null and for bytes of neither JPEG nor PNG."""
    if image.data is None:
        raise ImageError("the image is null")
    if image.codec is not None and image.codec != "unknown":
        return image.codec
    if image.data[:2].tobytes() == b"\xff\xd8":
        return "jpeg"
    if image.data[:8].tobytes() == _PNG:
        return "png"
    raise ImageError(
        f"{len(image.data)} bytes that are neither JPEG nor PNG, and no codec is given that says what they are"
    )


class RowDecoder:
    """Decodes into rows of shape ``(height, width, 3)``, or ``(3, height, width)`` if `planar`; thread-safe.

    A pixel becomes ``value * scale[c] + bias[c]``; `exact` says that this is the identity (uint8).
    """

    def __init__(
        self,
        height: int,
        width: int,
        *,
        planar: bool,
        exact: bool,
        scale: Sequence[float],
        bias: Sequence[float],
        max_pixels: int,
    ) -> None:
        self.height, self.width, self.max_pixels = height, width, max_pixels
        self._in_place = exact and not planar
        self._scale = np.asarray(scale, np.float32)
        self._bias = np.asarray(bias, np.float32)
        self._steps = (width, 1, height * width) if planar else (width * 3, 3, 1)
        self._decoders: dict[str, Callable[[Encoded, npt.NDArray[np.uint8]], npt.NDArray[np.uint8] | None]] = {
            "jpeg": self._jpeg,
            "png": self._png,
            **dict.fromkeys(_RAW_CHANNELS, self._raw),
        }

    def decode(self, image: Encoded, row: npt.NDArray[Any]) -> None:
        """Fill `row`. Raises ImageError; the row is undefined then."""
        codec = codec_of(image)
        decoder = self._decoders.get(codec)
        if decoder is None:
            raise ImageError(f"codec {codec!r} is not a still image that is decoded here: {', '.join(self._decoders)}")
        flat = row.reshape(-1)
        pixels = decoder(image, flat)
        if pixels is None:
            return
        if pixels.shape[0] == self.height and pixels.shape[1] == self.width:
            store_pixels(pixels, self._scale, self._bias, self._steps, flat)
            return
        top, down = axis_weights(pixels.shape[0], self.height)
        left, across = axis_weights(pixels.shape[1], self.width)
        resize_pixels(pixels, top, down, left, across, self._scale, self._bias, self._steps, flat)

    def _jpeg(self, image: Encoded, flat: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8] | None:
        data = _bytes_of(image)
        size = check_header(data, self.max_pixels)
        scaled = decoded_size(*size, self.height, self.width)
        if self._in_place and scaled == (self.height, self.width):
            decode_jpeg(data, size, scaled, flat)
            return None
        return decode_jpeg(data, size, scaled)

    def _png(self, image: Encoded, flat: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        try:
            from PIL import Image
        except ImportError:
            raise ImageError("PNG needs the package 'pillow': pip install pillow") from None
        try:
            with Image.open(io.BytesIO(_bytes_of(image).tobytes()), formats=["PNG"]) as opened:
                self._check_size(opened.height, opened.width)
                if opened.mode.startswith("I"):
                    raise ImageError(f"PNG of mode {opened.mode!r}: only 8 bits a channel are decoded")
                return np.ascontiguousarray(opened.convert("RGB"), np.uint8)
        except ImageError:
            raise
        except Exception as error:  # on hostile bytes Pillow raises whatever its parser stumbles on
            raise ImageError(f"PNG: {type(error).__name__}: {error}") from None

    def _raw(self, image: Encoded, flat: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        data, height, width = _bytes_of(image), image.height, image.width
        if height is None or width is None or height <= 0 or width <= 0:
            raise ImageError(
                f"raw pixels need their size in the columns 'height' and 'width', got {height} and {width}"
            )
        self._check_size(height, width)
        channels = _RAW_CHANNELS[str(image.codec)]
        if len(data) != height * width * channels:
            raise ImageError(f"{width}x{height} {image.codec} is {height * width * channels} bytes, got {len(data)}")
        pixels = data.reshape(height, width, channels)
        if image.codec == "raw_rgb8":
            return pixels
        return np.ascontiguousarray(pixels[:, :, ::-1] if channels == 3 else np.repeat(pixels, 3, axis=2))

    def _check_size(self, height: int, width: int) -> None:
        if height * width > self.max_pixels:
            raise ImageError(f"the header says {width}x{height} pixels, more than max_pixels={self.max_pixels}")


def _bytes_of(image: Encoded) -> npt.NDArray[np.uint8]:
    if image.data is None:
        raise ImageError("the image is null")
    return image.data
