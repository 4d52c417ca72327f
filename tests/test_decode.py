"""Pixels of image files of every depth, against hand-made values and what Pillow makes of the same colours."""

import contextlib
import io
import os
import struct
import threading
import tracemalloc
import zlib

import numpy as np
import pytest
from PIL import Image

from weight_templates.data import decode as decoding
from weight_templates.data import limits
from weight_templates.data.decode import Undecodable, decode


RAMP = np.arange(65536, dtype=np.uint16).reshape(256, 256)
GREY = np.repeat(np.arange(256, dtype=np.uint8), 256).reshape(256, 256)
"""What a ramp over all of a range is in eight bits: 256 values of each, mean 127.5."""


def saved(array, kind, **options):
    out = io.BytesIO()
    image = array if isinstance(array, Image.Image) else Image.fromarray(array)
    image.save(out, kind, **options)
    return out.getvalue()


def tiff(values, bits, samples=1, interpretation=1):
    """A TIFF of one row, written by hand; `samples` is its tag 339: 1 unsigned, 2 signed, 3 floating point."""
    content = values.tobytes()
    tags = [
        *((256, values.size), (257, 1), (258, bits), (259, 1), (262, interpretation)),
        *((273, 122), (277, 1), (279, len(content)), (339, samples)),
    ]
    entries = b"".join(struct.pack("<HHIHH", tag, 3, 1, value, 0) for tag, value in tags)
    return struct.pack("<2sHIH", b"II", 42, 8, len(tags)) + entries + bytes(4) + content


def png(width, height, depth, colour, rows):
    """A PNG, written by hand."""

    def chunk(kind, content):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows, 9)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


# Depth


@pytest.mark.parametrize(
    "content",
    [
        saved(RAMP, "PNG"),
        saved(RAMP, "TIFF"),
        saved(Image.fromarray(RAMP.astype(np.int32)), "PPM"),  # 16 bits in a portable grey map
        saved(Image.fromarray(RAMP.astype(np.int32)), "TIFF"),
        saved(Image.fromarray(RAMP.astype(np.int32) << 15), "TIFF"),
        saved((RAMP / np.float32(65535)), "TIFF"),
        saved(RAMP.astype(np.float32), "TIFF"),
        saved(GREY.astype(np.float32), "TIFF"),
        saved(Image.fromarray(GREY.astype(np.int32)), "TIFF"),
        saved(GREY, "PNG"),
    ],
    ids=["16 png", "16 tiff", "16 pgm", "32 of 65535", "32", "float to 1", "to 65535", "to 255", "32 of 255", "8"],
)
def test_a_ramp_is_a_ramp_at_every_depth(content):
    found = decode(content)
    assert found.shape == (256, 256, 3)
    assert abs(found.astype(int) - GREY[..., None]).max() <= 1  # floating point rounds, integers keep the high byte
    assert abs(found.mean() - 127.5) < 0.6


def test_integers_keep_their_high_byte():
    """As Pillow does for colours of 16 bits: the three ways to write one grey agree."""
    values = np.array([0, 1, 255, 256, 257, 32767, 32768, 65279, 65280, 65535], np.uint16)
    by_hand = [0, 0, 0, 1, 1, 127, 128, 254, 255, 255]
    grey = b"\0" + values.astype(">u2").tobytes()
    colours = b"\0" + np.repeat(values, 3).astype(">u2").tobytes()
    for content in (png(10, 1, 16, 0, grey), png(10, 1, 16, 2, colours), tiff(values, 16)):
        np.testing.assert_array_equal(decode(content)[0], np.repeat(by_hand, 3).reshape(10, 3))
    np.testing.assert_array_equal(decode(tiff(values, 16, interpretation=0))[0, :, 0], 255 - np.array(by_hand))


def test_unsigned_and_signed_ranges():
    top = np.array([0, 2**31, 2**32 - 1], np.uint32)
    assert decode(tiff(top, 32))[0, :, 0].tolist() == [0, 128, 255]
    assert decode(tiff(np.array([0, 2**30, 2**31 - 1], np.int32), 32, 2))[0, :, 0].tolist() == [0, 128, 255]
    assert decode(tiff(np.array([0, 2**14, 2**15 - 1], np.int16), 16, 2))[0, :, 0].tolist() == [0, 128, 255]
    # A dark picture of 16 bits stays dark: its type tells the range.
    assert decode(tiff(np.array([0, 255, 200], np.uint16), 16))[0, :, 0].tolist() == [0, 0, 0]


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (tiff(np.array([5, -3], np.int16), 16, 2), "negative values, down to -3"),
        (tiff(np.array([5, -3], np.int8), 8, 2), "signed integers of 8 bits"),
        (tiff(np.array([0.5, np.nan], np.float32), 32, 3), "not finite"),
        (tiff(np.array([0.5, np.inf], np.float32), 32, 3), "not finite"),
        (tiff(np.array([-0.5, 1], np.float32), 32, 3), "-0.5 to 1, are not between"),
        (tiff(np.array([0, 1e6], np.float32), 32, 3), r"0 to 1e\+06, are not between"),
        (b"", "it is empty"),
        (b"hello, world", "no image of a known format"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n", "pointer of Git LFS.*git lfs pull"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "no image of a known format"),
        (saved(GREY, "PNG")[:-30], "truncated"),
    ],
)
def test_what_has_no_rule_is_refused(content, why):
    with pytest.raises(Undecodable, match=why) as error:
        decode(content)
    assert "0x" not in str(error.value)


# Colour


def test_palettes_and_other_modes_are_as_pillow_converts_them(rng):
    image = Image.fromarray(rng.integers(0, 256, (9, 7, 3), dtype=np.uint8))
    for mode, kind in (("P", "PNG"), ("P", "GIF"), ("1", "PNG"), ("L", "PNG"), ("CMYK", "TIFF"), ("YCbCr", "TIFF")):
        converted = image.convert(mode)
        np.testing.assert_array_equal(decode(saved(converted, kind)), converted.convert("RGB"))


def test_transparency_shows_white(rng):
    """c α + 255 (1 - α), worked out here; opaque images keep every bit."""
    colours = rng.integers(0, 256, (9, 7, 4), dtype=np.uint8)
    colours[0, 0] = 0, 0, 0, 0
    colours[0, 1] = 10, 20, 30, 255
    alpha = colours[..., 3:] / 255
    expected = colours[..., :3] * alpha + 255 * (1 - alpha)
    for found in (decode(saved(colours, "PNG")), decode(saved(colours, "TIFF"))):
        assert abs(found - expected).max() <= 1
        assert found[0, 0].tolist() == [255, 255, 255]
        assert found[0, 1].tolist() == [10, 20, 30]
    colours[..., 3] = 255
    np.testing.assert_array_equal(decode(saved(colours, "PNG")), colours[..., :3])
    palette = Image.fromarray(np.array([[0, 1, 2]], np.uint8), "L").convert("P")
    palette.putpalette([10, 20, 30, 40, 50, 60, 70, 80, 90])
    for transparency in (1, bytes([255, 0, 255])):
        found = decode(saved(palette, "PNG", transparency=transparency))
        assert found.tolist() == [[[10, 20, 30], [255, 255, 255], [70, 80, 90]]]


def test_an_exif_entry_that_does_not_parse_turns_nothing(rng):
    array = rng.integers(0, 256, (6, 9, 3), dtype=np.uint8)
    for exif in (b"Exif\0\0MM\0*garbage", b"Exif\0\0II*\0\xff\xff\xff\xff"):
        np.testing.assert_array_equal(decode(saved(array, "PNG", exif=exif)), array)


# Size


@pytest.mark.parametrize(("width", "height"), [(13300, 13300), (20000, 20000), (2**28, 2**28), (1, 89_478_486)])
def test_large_images_are_refused_from_their_header(width, height):
    content = png(width, height, 8, 2, b"")
    tracemalloc.start()
    with pytest.raises(Undecodable, match=rf"its {width * height:,} pixels would take .*B, and 268 MB is the most"):
        decode(content)
    assert tracemalloc.get_traced_memory()[1] < 1e6
    tracemalloc.stop()


def test_the_largest_image_there_may_be(monkeypatch):
    monkeypatch.setattr(decoding, "LARGEST", 300)
    assert decode(saved(GREY[:10, :10], "PNG")).shape == (10, 10, 3)
    with pytest.raises(Undecodable, match="its 110 pixels would take 330 bytes, and 300 bytes is the most"):
        decode(saved(GREY[:11, :10], "PNG"))


@pytest.mark.parametrize(("largest", "together"), [(10**9, 2), (5 * 10**5, 1)])
def test_large_images_are_decoded_one_at_a_time(monkeypatch, largest, together):
    """Two threads meet in the middle of decoding if the images are small for the limit, and not if they are large."""
    meeting, met, colours = threading.Barrier(2, timeout=0.5), [], decoding._colours

    def watched(file):
        with contextlib.suppress(threading.BrokenBarrierError):
            meeting.wait()
            met.append(1)
        return colours(file)

    monkeypatch.setattr(decoding, "_colours", watched)
    monkeypatch.setattr(decoding, "LARGEST", largest)
    threads = [threading.Thread(target=decode, args=(saved(GREY, "PNG"),)) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(met) == (2 if together == 2 else 0)


# Limits


def test_only_regular_files_are_opened(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", tmp_path, "/dev/zero"):
        with pytest.raises(OSError, match="no regular file"):
            limits.read_regular(path)
    (tmp_path / "file").write_bytes(b"12345")
    assert limits.read_regular(tmp_path / "file") == b"12345"
    with pytest.raises(OSError, match="its file has 5 bytes, and 4 bytes is the most"):
        limits.read_regular(tmp_path / "file", 4)


def test_memory_is_what_the_machine_says():
    assert 0 < limits.available() <= os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    assert [limits.words(size) for size in (0, 999, 1000, 1_500_000, 268_435_458, 3 * 10**12)] == [
        *("0 bytes", "999 bytes", "1 kB", "1.5 MB", "268 MB", "3 TB"),
    ]
