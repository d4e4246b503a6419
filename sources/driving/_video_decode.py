"""The pictures of a stream in display order, by one decoder, and what happens where a packet is damaged.

The decoder's own threads are used, and a damaged packet then shows some packets late, or only by a picture that never
comes. So at the first sign of damage decoding starts again from the last restart point with one thread, which names the
packet: it is bad, what follows up to the next key packet is lost, and there a new decoder begins. Rows are thus the same
with any number of threads.

Packets are tagged with their number in place of their pts, so that a picture says which packet it came from.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from ...pipeline.errors import FormatError
from ...pipeline.source import Position
from ._video_demux import Demuxer, av_library
from ._video_format import entry_of, is_leading
from ._video_gaps import Gaps
from ._video_packets import number_in

__all__ = ["NO_PICTURE", "Bad", "Lost", "Picture", "Pictures", "State"]

AFTER_DAMAGE = "packets between a damaged one and the next key frame"
NO_PICTURE = "packets that no picture came of"
#: A decoder sees at least so many packets before the next one takes over at a key packet.
RUN_PACKETS = 64


@dataclass(slots=True)
class Sent:
    """A packet on its way through the decoder. `entry`: decoding may begin afresh at it."""

    number: int
    pts: int | None
    pos: int | None
    entry: bool


@dataclass(slots=True)
class Picture:
    """A decoded picture and the packet it came from; `lost` packets in front of it gave none."""

    sent: Sent
    frame: Any
    lost: int = 0


@dataclass(slots=True)
class Lost:
    """`count` packets without a picture."""

    reason: str
    count: int


@dataclass(slots=True)
class Bad:
    """A packet that cannot be decoded (`packet` is a string if it cannot be read) and those that went down with it."""

    number: int
    packet: Any
    error: str
    lost: int = 0


@dataclass
class State:
    """Where decoding stands.

    `key` is the packet to start from, `last` the one whose picture came out last (-1: none since), `awaiting` whether
    the next key packet is looked for, `start` where the run began that `key` is in.
    """

    key: int = 0
    start: int = 0
    pos: int | None = None
    pts: int | None = None
    last: int = -1
    awaiting: bool = False
    seq: int = 0

    def save(self) -> dict[str, Any]:
        found = {"packet": self.key, "last": self.last, "awaiting": self.awaiting, "seq": self.seq, "start": self.start}
        return found if self.pos is None else {**found, "pos": self.pos, "pts": self.pts}

    def restart_at(self, key: int, pos: int | None = None, pts: int | None = None, *, awaiting: bool = False) -> None:
        """Begin a run at packet `key`; nothing of what follows has been given."""
        self.key, self.pos, self.pts, self.last, self.awaiting = key, pos, pts, -1, awaiting
        self.start = key

    @classmethod
    def load(cls, position: Position, path: str) -> State:
        last = position.get("last", -1)
        if not isinstance(last, int):
            raise FormatError(f"{path}: a position of a video has a count 'last', got {last!r}")
        return cls(
            key=number_in(position, "packet", path),
            start=number_in(position, "start", path),
            pos=position.get("pos"),
            pts=position.get("pts"),
            last=last,
            awaiting=bool(position.get("awaiting", False)),
            seq=number_in(position, "seq", path),
        )


class _DamageSeen(Exception):
    """A decoder with several threads met damage."""


@dataclass
class Pictures:
    """What comes out of a stream, one event after the other; `state` is the position behind the last one."""

    path: str
    container: str
    state: State
    threads: int
    conceal: bool
    _open: Demuxer | None = field(default=None, repr=False)

    def events(self) -> Iterator[Picture | Lost | Bad]:
        """Every packet is told of once. The position in `state` is that behind the event given last."""
        careful = False
        while True:
            try:
                yield from self._run(careful)
                return
            except _DamageSeen:
                careful = True

    def close(self) -> None:
        """Release the file."""
        if self._open is not None:
            self._open.close()
            self._open = None

    def _run(self, careful: bool) -> Iterator[Picture | Lost | Bad]:
        self.close()
        demuxer = self._open = Demuxer(self.path, self.container)
        state = self.state
        run = None if state.awaiting else _Run(demuxer, state, self._threads(careful), self.conceal)
        read = state.key
        for number, packet in demuxer.packets(state.key, pos=state.pos, pts=state.pts):
            read = number + 1
            wrong = packet if isinstance(packet, str) else None
            if wrong is None and packet.is_corrupt and not self.conceal:
                wrong = "it is cut or damaged, as the container says"
            if run is None and wrong is None:
                if not packet.is_keyframe:
                    state.restart_at(number + 1, awaiting=True)
                    state.seq += 1
                    yield Lost(AFTER_DAMAGE, 1)
                    continue
                state.restart_at(number, packet.pos, packet.pts)
                run = _Run(demuxer, state, self._threads(False), self.conceal)
            if run is not None and wrong is None and run.ends_before(number, packet):
                yield from run.end()
                left = len(run.sent) + run.leading
                state.restart_at(number, packet.pos, packet.pts)
                state.seq += left
                if left:
                    yield Lost(NO_PICTURE, left)
                run = _Run(demuxer, state, self._threads(False), self.conceal)
            if run is not None and wrong is None:
                pictures, wrong = run.decode(number, packet)
                yield from pictures
            if wrong is not None:
                if run is not None:
                    yield from run.end(but=number)
                    run.sent.pop(number, None)
                lost, run = len(run.sent) + run.leading if run is not None else 0, None
                state.restart_at(number + 1, awaiting=True)
                state.seq += 1 + lost
                yield Bad(number, packet, wrong, lost)
        if run is not None:
            yield from run.end()
        left = len(run.sent) + run.leading if run is not None else 0
        missing = max(0, demuxer.info.packets - read)
        if left or missing:
            state.restart_at(read + missing, awaiting=True)
            state.seq += left + missing
        if missing:
            error = f"the file ends here, {missing} of its {demuxer.info.packets} packets are missing"
            yield Bad(read, error, error, left + missing - 1)
        elif left:
            yield Lost(NO_PICTURE, left)

    def _threads(self, careful: bool) -> int:
        return 1 if careful else self.threads


class _Run:
    """One decoder, from the packet ``state.key`` on; pictures up to ``state.last`` have been given already."""

    def __init__(self, demuxer: Demuxer, state: State, threads: int, conceal: bool) -> None:
        av, self._info = av_library(), demuxer.info
        # a decoder that could not be opened is an unknown one to version 19
        self._errors, self._threads = (av.FFmpegError, ValueError), threads
        self._state, self._skip_to = state, state.last
        self.sent: dict[int, Sent] = {}
        self.leading = 0
        self._counts_leading = state.last < 0
        self._leads, self._held = False, list[Any]()
        self._gaps = Gaps(self._info) if self._info.codec == "h264" and not conceal else None
        self._decoder = decoder = av.CodecContext.create(self._info.decoder, "r")
        if self._info.extradata:
            decoder.extradata = self._info.extradata
        if not conceal:
            decoder.options = {"err_detect": "explode"}
        decoder.thread_type = "NONE" if threads == 1 else "AUTO"
        decoder.thread_count = threads

    def ends_before(self, number: int, packet: Any) -> bool:
        """Whether a new decoder should begin at `packet`: runs are short and begin where nothing before them matters.

        What a decoder makes of damage depends on all that it has seen. With runs that do not depend on where reading
        began, a resumed reading gives the same as one that was never interrupted.
        """
        if number - self._state.start < RUN_PACKETS or not packet.is_keyframe:
            return False
        return entry_of(bytes(packet), self._info.codec, self._info.sets.length_size) == "closed"

    def decode(self, number: int, packet: Any) -> tuple[Iterator[Picture], str | None]:
        """The pictures that are ready, and what is wrong with the packet or missing in front of it.

        Raises _DamageSeen if threads hide which packet it is.
        """
        codec, size = self._info.codec, self._info.sets.length_size
        data = bytes(packet) if codec == "h265" or self._gaps is not None else b""
        if self._gaps is not None and (missing := self._gaps.before(data)):
            return iter(()), missing
        entry = codec == "h265" and packet.is_keyframe and entry_of(data, codec, size) == "open"
        if not self.sent and number == self._state.key:
            self._leads = entry
        elif self._leads and is_leading(data, codec, size):
            self.leading += self._counts_leading
            return iter(()), None
        else:
            self._leads = False
        pts = packet.pts
        self.sent[number] = Sent(number, pts, packet.pos, entry)
        packet.pts, packet.dts = number, None
        try:
            self._held += self._decoder.decode(packet)
        except self._errors as error:
            if self._threads != 1:
                raise _DamageSeen from None
            return iter(()), f"{self._info.decoder}: {getattr(error, 'strerror', None) or error}"
        finally:
            packet.pts = pts
        return iter(()) if self._leads else self._shown(-1), None

    def end(self, but: int = -1) -> Iterator[Picture]:
        """The pictures that the decoder still holds, without that of packet `but`."""
        try:
            self._held += self._decoder.decode(None)
        except self._errors:
            if self._threads != 1:
                raise _DamageSeen from None
        if self._threads != 1 and len(self.sent) - (but in self.sent) > sum(
            frame.pts in self.sent for frame in self._held
        ):
            raise _DamageSeen
        return self._shown(but)

    def _shown(self, but: int) -> Iterator[Picture]:
        frames, self._held = self._held, []
        state = self._state
        for frame in frames:
            packet = self.sent.get(frame.pts) if frame.pts is not None else None
            if packet is None or packet.number == but:
                continue
            del self.sent[packet.number]
            if self._skip_to >= 0:
                self._skip_to = -1 if packet.number == self._skip_to else self._skip_to
                continue
            lost = 0
            if packet.entry:
                before = [number for number in self.sent if number < packet.number]
                if before and self._threads != 1:
                    raise _DamageSeen
                for number in before:
                    del self.sent[number]
                lost, self.leading = len(before) + self.leading, 0
                state.key, state.pos, state.pts = packet.number, packet.pos, packet.pts
            state.last = packet.number
            state.seq += 1 + lost
            yield Picture(packet, frame, lost)
