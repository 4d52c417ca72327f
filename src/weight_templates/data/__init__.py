"""Images: where they come from, how they are augmented, and how they reach the device."""

from .arrays import Arrays
from .augment import augment_on_device, augment_on_host, denormalize, evaluation_view, normalize
from .described import Described, described
from .encoded import About, CorruptImage, Encoded, Source
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
from .sources import open_source
from .splits import NoSplit
from .synthetic import Scene, Synthetic
from .views import Views, check_classes, labels_of, test_source, test_split, views_of


__all__ = [
    "About",
    "Arrays",
    "Batch",
    "CorruptImage",
    "Described",
    "Encoded",
    "Features",
    "Feed",
    "Loaded",
    "NoSplit",
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
    "check_classes",
    "denormalize",
    "described",
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
