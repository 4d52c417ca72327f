"""Images: where they come from, how they are augmented, and how they reach the device."""

from .augment import augment_on_device, augment_on_host, denormalize, evaluation_view, normalize
from .feed import (
    Batch,
    Features,
    Feed,
    Loaded,
    Resident,
    Split,
    Streamed,
    ahead,
    evaluation_views,
    feed_of,
    load,
    split,
)
from .sources import CorruptImage, Encoded, Source, open_source
from .synthetic import Scene, Synthetic
from .views import Views, labels_of, test_source, test_split, views_of


__all__ = [
    "Batch",
    "CorruptImage",
    "Encoded",
    "Features",
    "Feed",
    "Loaded",
    "Resident",
    "Scene",
    "Source",
    "Split",
    "Streamed",
    "Synthetic",
    "Views",
    "ahead",
    "augment_on_device",
    "augment_on_host",
    "denormalize",
    "evaluation_view",
    "evaluation_views",
    "feed_of",
    "labels_of",
    "load",
    "normalize",
    "open_source",
    "split",
    "test_source",
    "test_split",
    "views_of",
]
