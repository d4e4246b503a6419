"""Raw radar cubes: what a TI DCA1000 card recorded of a radar's analog-to-digital converters.

::

    radar = Adc("adc_data.bin", chirps=128, samples=256, rx=4, frame_period="50ms", interleave="iiqq")
    ps.read(radar).apply(ops.RangeDoppler())

The file is int16 numbers and nothing else: no header, no time, no sizes. It cannot be told from any other file by its
content, so there is no ``is_adc``, and everything about it must be given as the radar was configured.
"""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass
from typing import Any, ClassVar

import pyarrow as pa

from ...pipeline.context import Context
from ...pipeline.duration import Duration, nanoseconds
from ...pipeline.errors import FormatError, GraphError
from ...pipeline.schema import describe, event_schema, tensor_type
from ...pipeline.source import Position, SourceReader, SourceSpec, Split
from ..storage.stored import PathLike, base_name, location
from ..storage.unpack import head_of, open_feed
from ._video_times import iso_ns, time_range

__all__ = ["INTERLEAVES", "Adc", "inspect_adc", "open_adc"]

#: How numbers are ordered within a chirp.
INTERLEAVES = ("iq_rx_inner", "iiqq", "lanes4")
#: Bytes of a frame that are accepted: 256 MiB are more than any radar's memory holds.
FRAME_LIMIT = 256 << 20


@dataclass(frozen=True)
class Adc(SourceSpec):
    """Frames of a raw recording (``radar.cube``): `frame` uint32 and `cube` int16 ``[chirps, samples, rx, 2]`` (I, Q).

    `interleave` is how the numbers of a chirp are ordered:

    - ``iq_rx_inner``: sample by sample, receiver by receiver, I then Q: as the cube is;
    - ``iiqq``: receiver by receiver, and of each two samples at a time: I I Q Q (xWR16xx, xWR18xx, xWR68xx: two lanes);
    - ``lanes4``: sample by sample the I of four receivers and then their Q (xWR12xx, xWR14xx: four lanes).

    `offset_binary` is for converters that write 0x8000 for zero. Frame n is at `start` (ISO 8601 or ns, else 0) plus n x
    `frame_period`; ``ts_recv`` is the same and ``seq`` the frame. `sample_rate` (Hz), `slope` (Hz/s), `chirp_period` (s),
    `start_frequency` (Hz) and `tx_pattern` go into the schema's metadata (``penstock.sample_rate``, ...) for what follows.

    A cut last frame is a bad record. Raises GraphError for wrong arguments; `open` raises FormatError for an empty file.
    After TI's application report SWRA581 (mmWave radar device ADC raw data capture); schema: formats, section 6, item 9.
    """

    format: ClassVar[str] = "dca1000"

    path: PathLike
    _: KW_ONLY
    chirps: int
    samples: int
    rx: int
    frame_period: Duration
    start: str | int | None = None
    interleave: str = "iiqq"
    offset_binary: bool = False
    sample_rate: float | None = None
    slope: float | None = None
    chirp_period: float | None = None
    start_frequency: float | None = None
    tx_pattern: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "path", location(self.path))
        if min(self.chirps, self.samples, self.rx) <= 0:
            raise GraphError("a cube needs positive sizes", got=(self.chirps, self.samples, self.rx))
        if self.frame_bytes > FRAME_LIMIT:
            raise GraphError(f"a frame of {self.frame_bytes} bytes is beyond the limit of {FRAME_LIMIT}")
        if self.interleave not in INTERLEAVES:
            raise GraphError(f"no interleave {self.interleave!r}; choose one of {', '.join(INTERLEAVES)}")
        if self.interleave == "iiqq" and self.samples % 2:
            raise GraphError("iiqq has samples in pairs, so their number is even", got=self.samples)
        if self.interleave == "lanes4" and self.rx != 4:
            raise GraphError("lanes4 has one lane for each of four receivers", expected="rx=4", got=self.rx)
        period = nanoseconds(self.frame_period)
        if period <= 0:
            raise GraphError("frame_period must be above 0", got=self.frame_period)
        object.__setattr__(self, "frame_period", period)
        if isinstance(self.start, str):
            try:
                object.__setattr__(self, "start", iso_ns(self.start))
            except ValueError as error:
                raise GraphError(f"start: {error}") from None

    @property
    def frame_bytes(self) -> int:
        """Bytes of one frame in the file."""
        return self.chirps * self.samples * self.rx * 4

    @property
    def name(self) -> str:
        return base_name(self.path)

    @property
    def schema(self) -> pa.Schema:
        cube = pa.field("cube", tensor_type(pa.int16(), (self.chirps, self.samples, self.rx, 2)))
        known = {
            "sample_rate": self.sample_rate,
            "slope": self.slope,
            "chirp_period": self.chirp_period,
            "start_frequency": self.start_frequency,
        }
        return event_schema(
            [("frame", pa.uint32()), cube],
            source=self.name,
            format=self.format,
            clock="utc" if self.start is not None else "boot+offset",
            table="radar.cube",
            units="ADC counts",
            interleave=self.interleave,
            offset_binary=str(self.offset_binary).lower(),
            tx_pattern=self.tx_pattern,
            **{key: repr(float(value)) for key, value in known.items() if value is not None},
        )

    def open(self, context: Context, split: Split | None = None, position: Position | None = None) -> SourceReader:
        from ._adc_reader import AdcReader

        if not head_of(self.path, 1)[0]:
            raise FormatError(f"{self.path}: the file is empty (0 bytes)")
        return AdcReader(open_feed(self.path), self, context, position or {})

    @property
    def block_bound(self) -> int:
        """The frames of a block, as they are in the file and as cubes."""
        from ._adc_reader import BLOCK_BYTES

        return 3 * max(BLOCK_BYTES, self.frame_bytes)


def open_adc(path: PathLike, **options: Any) -> Adc:
    """The source of a raw recording. `chirps`, `samples`, `rx` and `frame_period` have to be given."""
    return Adc(path, **options)


def inspect_adc(path: PathLike, **options: Any) -> dict[str, Any]:
    """What a raw recording holds; takes the arguments of `Adc`.

    Keys: ``format``, ``messages`` (whole frames), ``types``, ``schema``, ``time``, ``problem`` (a cut last frame, damage).
    """
    spec = Adc(path, **options)
    feed = open_feed(spec.path)
    size, view = 0, memoryview(bytearray(1 << 20))
    try:
        while count := feed.fill(view):
            size += count
        error = feed.error
    finally:
        feed.close()
    frames, rest = divmod(size, spec.frame_bytes)
    start, period = int(spec.start or 0), nanoseconds(spec.frame_period)
    cut = f"the last {rest} bytes are no whole frame of {spec.frame_bytes}" if rest else None
    return {
        "format": spec.format,
        "messages": frames,
        "types": {"cube": frames},
        "schema": describe(spec.schema),
        "time": time_range(start, start + (frames - 1) * period) if frames else None,
        "problem": error or cut,
    }
