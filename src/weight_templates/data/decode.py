"""The bytes of an image file as eight-bit colours, by rules that hold whatever the file's own depth is.

- **Orientation**: a photograph is turned as its EXIF entry says, as Hugging Face's `datasets` does.
- **12 and 16 bits**: the highest eight of them, both of colours and of greys, so that the type's largest value is white.
- **32-bit integers and floating point**: the type does not tell the range that is in use. It is taken as the smallest
  that holds all values of the image: 0 … 1 (floating point only), 0 … 255, 0 … 65,535, or all of the integer type. Its
  upper end is white.
- **Signed integers** have half of the range. Negative values are refused, and values that are not finite.
- **Palettes** become the colours that they stand for, CMYK and YCbCr RGB.
- **Transparency** shows white behind the image, as a page does.
- Of several frames, the first.
"""

import contextlib
import io
import re
import threading
import warnings

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageOps, UnidentifiedImageError

from .limits import POINTER, words


FORMATS = ("AVIF", "BMP", "GIF", "JPEG", "JPEG2000", "MPO", "PNG", "PPM", "TIFF", "WEBP")
"""What is decoded, in Pillow's names. Some of its other formats start programs."""
LARGEST = 3 * 89_478_485
"""Bytes that one image may take decoded, three a pixel: as many pixels as Pillow opens without a warning."""
ORIENTATION = 0x0112
# TIFF's tags, and the values of theirs that matter here.
BITS, INTERPRETATION, SAMPLES = 258, 262, 339
WHITE_IS_ZERO, SIGNED = 0, 2

# Pillow refuses twice this number of pixels and only warns of more than it. Here the warning is an error.
warnings.filterwarnings("error", category=Image.DecompressionBombWarning)
_one_large = threading.Lock()
"""Held while a large image is decoded: threads together must not take a multiple of `LARGEST`."""


class Undecodable(Exception):
    """Bytes that are no image, or one that is not taken; the message says why."""


def decode(content: bytes) -> UInt8[np.ndarray, "h w 3"]:
    """The pixels of an encoded image; raises Undecodable, from the header alone for an image that is too large."""
    try:
        with Image.open(io.BytesIO(content), formats=_formats()) as file:
            size = 3 * file.width * file.height
            if size > LARGEST:
                raise Undecodable(_too_large(size))
            with _one_large if size > LARGEST // 4 else contextlib.nullcontext():
                return _colours(_upright(file))
    except Undecodable:
        raise
    except UnidentifiedImageError:  # whose message has a memory address
        raise Undecodable(_unknown(content)) from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        pixels = re.search(r"\d+", str(error))
        raise Undecodable(_too_large(3 * int(pixels[0])) if pixels else str(error)) from None
    except Exception as error:  # Pillow raises OSError, SyntaxError, ValueError, zlib's, … as the damage will have it
        raise Undecodable(" ".join(str(error).split())) from None


def _formats() -> tuple[str, ...]:
    Image.init()
    return tuple(name for name in FORMATS if name in Image.OPEN)  # a Pillow may lack AVIF


def _too_large(size: int) -> str:
    return f"its {size // 3:,} pixels would take {words(size)}, and {words(LARGEST)} is the most for an image"


def _unknown(content: bytes) -> str:
    if not content:
        return "it is empty"
    if content.startswith(POINTER):
        return "it is a pointer of Git LFS, not the image: run git lfs pull"
    return "it is no image of a known format"


def _upright(file: Image.Image) -> Image.Image:
    try:
        turned = file.getexif().get(ORIENTATION, 1) in range(2, 9)
    except Exception:  # an EXIF entry that does not parse says nothing about the pixels
        turned = False
    return ImageOps.exif_transpose(file) if turned else file


def _colours(file: Image.Image) -> UInt8[np.ndarray, "h w 3"]:
    tags = getattr(file, "tag_v2", {})
    signed = tags.get(SAMPLES, (1,))[0] == SIGNED
    if file.mode == "F":
        grey = _from_floats(np.asarray(file))
    elif file.mode.startswith("I"):
        grey = _from_integers(np.asarray(file), int(tags.get(BITS, (16,))[0]), signed)  # all but TIFF's have 16
    elif signed:
        raise Undecodable("its samples are signed integers of 8 bits")
    elif file.mode in ("LA", "PA", "RGBA", "La", "RGBa") or "transparency" in file.info:
        seen = file.convert("RGBA")
        return np.asarray(Image.alpha_composite(Image.new("RGBA", seen.size, "white"), seen).convert("RGB"))
    else:
        return np.asarray(file.convert("RGB"))
    if tags.get(INTERPRETATION) == WHITE_IS_ZERO:  # Pillow inverts eight bits only
        grey = 255 - grey
    return np.repeat(grey[..., None], 3, axis=2)


def _from_floats(values: np.ndarray) -> UInt8[np.ndarray, "h w"]:
    least, most = float(values.min()), float(values.max())
    if not (np.isfinite(least) and np.isfinite(most)):  # a NaN is the least and the most
        raise Undecodable("it has values that are not finite")
    white = next((white for white in (1, 2**8 - 1, 2**16 - 1) if most <= white), None)
    if least < 0 or white is None:
        raise Undecodable(f"its values, {least:g} to {most:g}, are not between 0 and 65,535")
    return np.round(values.astype(np.float64) * (255 / white)).astype(np.uint8)


def _from_integers(values: np.ndarray, bits: int, signed: bool) -> UInt8[np.ndarray, "h w"]:
    if bits == 32 and not signed:
        values = values.view(np.uint32)  # Pillow has signed ones only
    if values.min() < 0:
        raise Undecodable(f"it has negative values, down to {values.min()}")
    used = bits - signed
    if bits == 32:
        used = next(width for width in (8, 16, used) if values.max() < 2**width)
    return (values >> (used - 8)).astype(np.uint8)
