"""Images to learn from."""

import dataclasses
from typing import Annotated, Literal

from tyro.conf import arg

from ..errors import UserError
from .run import LATER


@dataclasses.dataclass(frozen=True)
class DataOptions:
    """Images to learn from."""

    source: Annotated[str, arg(name="")] = "synthetic"
    """`synthetic`; a folder of images (plain, or one folder per class); a Parquet file or a folder of them in the
    Hugging Face image layout; an .npz file with `images`, and perhaps `labels` and `classes`; WebDataset's .tar files;
    `NAME:FOLDER`, one of SWEET's downstream sets as its authors distribute it, NAME being
    flowers102, cub200, cars196, cifar10, cifar100, food101 or inat2019; `hub:OWNER/NAME`, any Hugging Face data set; or
    `NAME` alone, a downstream set from there (extra: hub). A folder with the name of a set is ./NAME."""
    split: str = "train"
    """Split to read where the source has several; the downstream sets have train and test."""
    count: int | None = None
    """Images of the synthetic source (default 4096), or at most so many of any other."""
    label: str | None = dataclasses.field(default=None, metadata=LATER)
    """Column of the labels of Parquet or hub data; default label, labels or fine_label, or the only one whose classes the
    file names. In .tar files the ending of the members with labels, or their entry in JSON; default cls, and label."""
    on_corrupt: Literal["refuse", "skip"] = "refuse"
    """An image that does not decode: refuse to start, or leave it out. Both name its path."""
    resident_mb: int = 2048
    """Sets of equal-sized images below this many MB of pixels live on the device; others stream from the disk."""
    threads: int | None = None
    """Decoding threads; default one per core. Their number changes no result."""

    def check(self) -> None:
        """Raises UserError where a number is out of range."""
        if self.count is not None and self.count < 1:
            raise UserError(f"--data.count {self.count} leaves no image; give a positive number.")
        if self.threads is not None and self.threads < 1:
            raise UserError(f"--data.threads {self.threads} is not positive.")
        if self.resident_mb < 0:
            raise UserError(f"--data.resident-mb {self.resident_mb} is negative.")
