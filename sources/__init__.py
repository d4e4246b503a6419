"""Where data comes in.

A source is imported when it is first used: each brings its own decoder.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .brokers.kafka import Kafka
    from .brokers.redis_stream import RedisStream
    from .brokers.zeromq import Zmq
    from .dispatch import open_source as open
    from .driving.adc import Adc
    from .driving.ars548 import Ars548
    from .driving.asc import Asc
    from .driving.blf import Blf
    from .driving.candump import Candump
    from .driving.comma2k19 import Comma2k19
    from .driving.kitti import Kitti
    from .driving.mcap import Mcap
    from .driving.nuscenes import NuScenes
    from .driving.rosbag1 import Rosbag1
    from .driving.rosbag2 import Rosbag2
    from .driving.srr520 import Srr520
    from .driving.trc import Trc
    from .driving.video import Video
    from .file_sets import Files, files
    from .formats import FORMATS
    from .games.json_array import JsonArray
    from .games.osu import Osr
    from .games.sc2 import Sc2Replay
    from .games.slippi import Slippi, SlippiTail
    from .inspection import inspect
    from .live.adc_packets import AdcPackets, live_adc
    from .live.can_lines import CanLines, live_can
    from .live.crypto_messages import CryptoMessages, live_crypto
    from .live.feed import Live
    from .live.game_states import GameStates, live_gsi
    from .live.itch_packets import MoldPackets, live_itch
    from .live.json_messages import JsonMessages, live_events, live_ndjson
    from .live.radar_packets import RadarPackets, live_radar
    from .live.raw_messages import RawMessages
    from .live.slippi_events import SlippiEvents, live_slippi
    from .live.topic_messages import TopicMessages, live_topic
    from .market.binance_csv import BinanceCsv
    from .market.crypto import CryptoRaw
    from .market.dbn import Dbn
    from .market.iex import Iex
    from .market.itch import Itch
    from .market.lobster import Lobster
    from .market.mold import MoldItch
    from .market.parquet_ticks import ParquetTicks
    from .market.tardis import Tardis
    from .memory import Rows
    from .network.pcap import Pcap
    from .replay.recording import Recording
    from .text.ndjson import Ndjson, game_events

__all__ = [
    "FORMATS",
    "Adc",
    "AdcPackets",
    "Ars548",
    "Asc",
    "BinanceCsv",
    "Blf",
    "CanLines",
    "Candump",
    "Comma2k19",
    "CryptoMessages",
    "CryptoRaw",
    "Dbn",
    "Files",
    "GameStates",
    "Iex",
    "Itch",
    "JsonArray",
    "JsonMessages",
    "Kafka",
    "Kitti",
    "Live",
    "Lobster",
    "Mcap",
    "MoldItch",
    "MoldPackets",
    "Ndjson",
    "NuScenes",
    "Osr",
    "ParquetTicks",
    "Pcap",
    "RadarPackets",
    "RawMessages",
    "Recording",
    "RedisStream",
    "Rosbag1",
    "Rosbag2",
    "Rows",
    "Sc2Replay",
    "Slippi",
    "SlippiEvents",
    "SlippiTail",
    "Srr520",
    "Tardis",
    "TopicMessages",
    "Trc",
    "Video",
    "Zmq",
    "files",
    "game_events",
    "inspect",
    "live_adc",
    "live_can",
    "live_crypto",
    "live_events",
    "live_gsi",
    "live_itch",
    "live_ndjson",
    "live_radar",
    "live_slippi",
    "live_topic",
    "open",
]

#: Modules by the names they offer here.
_MODULES = {
    "brokers.kafka": ("Kafka",),
    "brokers.redis_stream": ("RedisStream",),
    "brokers.zeromq": ("Zmq",),
    "dispatch": ("open",),
    "driving.adc": ("Adc",),
    "driving.ars548": ("Ars548",),
    "driving.asc": ("Asc",),
    "driving.blf": ("Blf",),
    "driving.candump": ("Candump",),
    "driving.comma2k19": ("Comma2k19",),
    "driving.kitti": ("Kitti",),
    "driving.mcap": ("Mcap",),
    "driving.nuscenes": ("NuScenes",),
    "driving.rosbag1": ("Rosbag1",),
    "driving.rosbag2": ("Rosbag2",),
    "driving.srr520": ("Srr520",),
    "driving.trc": ("Trc",),
    "driving.video": ("Video",),
    "file_sets": ("Files", "files"),
    "formats": ("FORMATS",),
    "games.json_array": ("JsonArray",),
    "games.osu": ("Osr",),
    "games.sc2": ("Sc2Replay",),
    "games.slippi": ("Slippi", "SlippiTail"),
    "inspection": ("inspect",),
    "live.adc_packets": ("AdcPackets", "live_adc"),
    "live.can_lines": ("CanLines", "live_can"),
    "live.crypto_messages": ("CryptoMessages", "live_crypto"),
    "live.feed": ("Live",),
    "live.game_states": ("GameStates", "live_gsi"),
    "live.itch_packets": ("MoldPackets", "live_itch"),
    "live.json_messages": ("JsonMessages", "live_events", "live_ndjson"),
    "live.radar_packets": ("RadarPackets", "live_radar"),
    "live.raw_messages": ("RawMessages",),
    "live.slippi_events": ("SlippiEvents", "live_slippi"),
    "live.topic_messages": ("TopicMessages", "live_topic"),
    "market.binance_csv": ("BinanceCsv",),
    "market.crypto": ("CryptoRaw",),
    "market.dbn": ("Dbn",),
    "market.iex": ("Iex",),
    "market.itch": ("Itch",),
    "market.lobster": ("Lobster",),
    "market.mold": ("MoldItch",),
    "market.parquet_ticks": ("ParquetTicks",),
    "market.tardis": ("Tardis",),
    "memory": ("Rows",),
    "network.pcap": ("Pcap",),
    "replay.recording": ("Recording",),
    "text.ndjson": ("Ndjson", "game_events"),
}
_PLACES = {name: module for module, names in _MODULES.items() for name in names}


def __getattr__(name: str) -> Any:
    place = _PLACES.get(name)
    if place is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}{_hint(name)}")
    found = getattr(import_module(f".{place}", __name__), "open_source" if name == "open" else name)
    globals()[name] = found  # a module of the same name does not stand before it
    return found


def __dir__() -> list[str]:
    """Also the names that are not imported yet, for tab completion."""
    return sorted({*globals(), *__all__})


def _hint(name: str) -> str:
    if name.startswith("_"):
        return ""
    from difflib import get_close_matches

    lowered = {known.lower(): known for known in __all__}
    near = get_close_matches(name.lower(), lowered, n=1)
    return f"; did you mean {lowered[near[0]]!r}?" if near else ""
