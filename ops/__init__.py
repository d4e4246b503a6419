"""What happens to data between a source and a model."""

from . import aggregates as agg
from .actions import ActionSequence
from .batch import Batch
from .book import BookFeatures
from .can_signals import CanSignals
from .image import DecodeImage
from .join import JoinAsof
from .merge import Merge
from .radar import PadRadar, RasterRadar
from .radar_fft import RangeDoppler
from .sequence import RollingSequence
from .sync import Sync
from .video import DecodeVideo
from .watermark import Watermark
from .window import Session, Sliding, Tumbling, Window

__all__ = [
    "ActionSequence",
    "Batch",
    "BookFeatures",
    "CanSignals",
    "DecodeImage",
    "DecodeVideo",
    "JoinAsof",
    "Merge",
    "PadRadar",
    "RangeDoppler",
    "RasterRadar",
    "RollingSequence",
    "Session",
    "Sliding",
    "Sync",
    "Tumbling",
    "Watermark",
    "Window",
    "agg",
]
