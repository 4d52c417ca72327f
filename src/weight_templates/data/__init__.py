"""Images: where they come from, how they are augmented, and how they reach the device."""

from .augment import augment_on_device, augment_on_host, denormalize, evaluation_view, normalize
from .feed import Batch, Feed, Loaded, Resident, Split, Streamed, ahead, feed_of, held_out_views, load, split
from .sources import CorruptImage, Encoded, Source, open_source
from .synthetic import Scene, Synthetic


__all__ = [
    "Batch",
    "CorruptImage",
    "Encoded",
    "Feed",
    "Loaded",
    "Resident",
    "Scene",
    "Source",
    "Split",
    "Streamed",
    "Synthetic",
    "ahead",
    "augment_on_device",
    "augment_on_host",
    "denormalize",
    "evaluation_view",
    "feed_of",
    "held_out_views",
    "load",
    "normalize",
    "open_source",
    "split",
]
