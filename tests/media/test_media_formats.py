"""What pyfau opens, what it refuses, and how much it decodes before it refuses."""

from __future__ import annotations

import os
import struct
import subprocess
import sys
import time
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from clips import write
from PIL import Image

from pyfau.errors import MediaError, OptionError
from pyfau.media.formats import CONTAINERS, IMAGE_FORMATS
from pyfau.media.limits import LIMITS, Limits
from pyfau.video import kind_of, read_frames, read_image, read_images, read_video

ROOT = Path(__file__).parents[2]
CASES = ROOT / "tests" / "data" / "cases"


def gif(width: int, height: int, images: int = 1) -> bytes:
    """A GIF whose blank images take a few bytes each."""
    head = b"GIF89a" + struct.pack("<HH", width, height) + b"\x80\0\0" + b"\0\0\0\xff\xff\xff"
    delay = b"\x21\xf9\x04\0\x0a\0\0\0"
    image = delay + b"\x2c" + struct.pack("<HHHH", 0, 0, 1, 1) + b"\0\x02\x02\x4c\x01\0"
    return head + images * image + b"\x3b"


def png(width: int, height: int) -> bytes:
    """A black PNG that takes few bytes."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        crc = struct.pack(">I", zlib.crc32(kind + data))
        return struct.pack(">I", len(data)) + kind + data + crc

    pack = zlib.compressobj(9)
    row = bytes(1 + 3 * width)
    data = b"".join(pack.compress(row) for _ in range(height)) + pack.flush()
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    parts = chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + parts


def webp(side: int) -> bytes:
    """The header of an animated WebP, which is all that Pillow needs to allocate its pixels."""
    size = (side - 1).to_bytes(3, "little")
    extended = b"VP8X" + struct.pack("<I", 10) + b"\x02\0\0\0" + size + size
    return b"RIFF" + struct.pack("<I", 4 + len(extended)) + b"WEBP" + extended


def pages(path: Path, kind: str, side: int, count: int) -> None:
    blank = [Image.new("L", (side, side), 12 * k) for k in range(count)]
    options: dict[str, Any] = {
        "TIFF": {"compression": "tiff_deflate"},
        "PNG": {"duration": 40},
        "WEBP": {"duration": 40, "lossless": True, "method": 0},
    }[kind]
    blank[0].save(path, kind, save_all=True, append_images=blank[1:], **options)


def test_postscript_is_never_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "bin"
    folder.mkdir()
    called = tmp_path / "called"
    for name in ("gs", "gswin32c", "gswin64c"):
        script = folder / name
        script.write_text(f"#!/bin/sh\ntouch {called}\n")
        script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    for name in ("portrait.jpg", "portrait.png", "portrait.tif"):
        path = tmp_path / name
        path.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\nshowpage\n")
        with pytest.raises(MediaError, match="not an image in a format that pyfau reads"):
            read_image(path)
        with pytest.raises(MediaError, match="not an image"):
            read_frames(path)
        with pytest.raises(MediaError, match="expected a video file"):
            read_video(path)
    assert not called.exists()


@pytest.mark.parametrize(
    "text",
    [
        "ffconcat version 1.0\nfile 'real.mp4'\n",
        "#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:2,\nreal.mp4\n#EXT-X-ENDLIST\n",
        "v=0\no=- 0 0 IN IP4 127.0.0.1\nc=IN IP4 127.0.0.1\nm=video 5004 RTP/AVP 96\n"
        "a=rtpmap:96 H264/90000\n",
        '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static"></MPD>',
        "some words\n" * 200,
    ],
    ids=["ffconcat", "hls", "sdp", "dash", "words"],
)
@pytest.mark.parametrize("suffix", [".mp4", ".txt", ".m3u8"])
def test_text_that_names_other_files_is_refused(tmp_path: Path, text: str, suffix: str) -> None:
    write(tmp_path / "real.mp4", "libx264", count=3)
    path = tmp_path / f"list{suffix}"
    path.write_text(text)
    with pytest.raises(MediaError, match="not a video file in a format that pyfau reads"):
        read_video(path)


def test_formats_of_the_lists_exist() -> None:
    for name in CONTAINERS:
        assert av.format.ContainerFormat(name, "r").is_input
    Image.init()
    assert set(IMAGE_FORMATS) - {"HEIF"} <= set(Image.OPEN)


BOMBS: dict[str, Callable[[Path], object]] = {
    "huge.gif": lambda path: path.write_bytes(gif(65535, 65535)),
    "many.gif": lambda path: path.write_bytes(gif(6000, 6000, 100)),
    "huge.png": lambda path: path.write_bytes(png(13000, 13000)),
    "huge.webp": lambda path: path.write_bytes(webp(16384)),
    "many.webp": lambda path: pages(path, "WEBP", 5000, 20),
    "many.png": lambda path: pages(path, "PNG", 5000, 20),
    "many.tif": lambda path: pages(path, "TIFF", 5000, 20),
}

_READ = """
import resource, sys, time
import pyfau.video as video
from pyfau.errors import MediaError

pages = int(open("/proc/self/statm").read().split()[0])
bound = pages * resource.getpagesize() + 1500 * 2**20
resource.setrlimit(resource.RLIMIT_AS, (bound, bound))
begin = time.process_time()
try:
    count = sum(1 for _ in video.read_frames(sys.argv[1]))
    print("read", count)
except MediaError as error:
    print("MediaError", error)
print(time.process_time() - begin, file=sys.stderr)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="bounds the address space")
@pytest.mark.parametrize("name", BOMBS)
def test_bombs_are_refused_before_they_are_decoded(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    BOMBS[name](path)
    done = subprocess.run(
        [sys.executable, "-c", _READ, str(path)],
        capture_output=True,
        text=True,
        timeout=60,
        cwd=ROOT,
        check=False,
    )
    assert done.stdout.startswith(f"MediaError {path}: "), done.stdout + done.stderr
    assert float(done.stderr) < 5.0


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="bounds the address space")
@pytest.mark.parametrize("mode", ["RGB", "RGBA", "LA", "I;16"])
def test_the_largest_image_fits_into_memory(tmp_path: Path, mode: str) -> None:
    side = int(LIMITS.image_pixels**0.5)
    path = tmp_path / "large.png"
    Image.new(mode, (side, side)).save(path, compress_level=1)
    done = subprocess.run(
        [sys.executable, "-c", _READ, str(path)],
        capture_output=True,
        text=True,
        timeout=60,
        cwd=ROOT,
        check=False,
    )
    assert done.stdout == "read 1\n", done.stdout + done.stderr


def test_raised_limits(tmp_path: Path) -> None:
    Image.new("L", (100, 100)).save(tmp_path / "a.png")
    low = Limits(image_pixels=9_999)
    with pytest.raises(MediaError, match=r"10000 pixels \(100 x 100\): expected at most 9999"):
        read_image(tmp_path / "a.png", limits=low)
    with pytest.raises(MediaError, match="expected at most 9999"):
        read_images(tmp_path / "a.png", limits=low)
    assert read_image(tmp_path / "a.png", limits=low.raised(1.1)).shape == (100, 100, 3)
    assert Limits().raised(2).frame_pixels == 2 * LIMITS.frame_pixels
    for factor in (0, -1, float("nan"), float("inf"), "2"):
        with pytest.raises(OptionError, match="limits"):
            LIMITS.raised(factor)  # type: ignore[arg-type]


def test_limits_of_video(tmp_path: Path) -> None:
    path = write(tmp_path / "a.mp4", "libx264", count=3)
    with pytest.raises(MediaError, match=r"a\.mp4: a frame of the video has 36864 pixels"):
        read_video(path, limits=Limits(frame_pixels=36_863))
    assert len(list(read_video(path, limits=Limits(frame_pixels=36_864)))) == 3


def test_limits_of_animations(tmp_path: Path) -> None:
    path = tmp_path / "a.gif"
    path.write_bytes(gif(100, 100, 20))
    with pytest.raises(MediaError, match="an animation of more than 19 images"):
        read_video(path, limits=Limits(animation_pixels=199_999))
    with pytest.raises(MediaError, match="an animation of more than 19 images"):
        read_video(path, limits=Limits(animation_frames=19))
    assert len(list(read_video(path, limits=Limits(animation_pixels=200_000)))) == 20
    pages(tmp_path / "a.webp", "WEBP", 100, 5)
    with pytest.raises(MediaError, match="5 images with 50000 pixels together"):
        read_images(tmp_path / "a.webp", limits=Limits(animation_pixels=49_999))


# Several images in a file


@pytest.mark.parametrize(
    ("name", "kind"), [("a.webp", "WEBP"), ("a.png", "PNG"), ("a.avif", "AVIF")]
)
def test_animated_images_are_video(tmp_path: Path, name: str, kind: str) -> None:
    images = [Image.new("RGB", (32, 24), (40 * k, 0, 0)) for k in range(5)]
    durations = [100, 300, 40, 40, 40]
    path = tmp_path / name
    images[0].save(path, kind, save_all=True, append_images=images[1:], duration=durations)
    for reader in (read_frames(path), read_video(path), read_images(path)):
        frames = list(reader)
        assert reader.kind == "video"
        assert [f.index for f in frames] == [0, 1, 2, 3, 4]
        times = [f.time_s for f in frames]
        assert times == pytest.approx([0.0, 0.1, 0.4, 0.44, 0.48], abs=2e-3)
        assert [int(f.rgb[0, 0, 0]) for f in frames] == pytest.approx([0, 40, 80, 120, 160], abs=8)
        assert not reader.warnings
    with pytest.raises(OptionError, match="has its own clock"):
        read_images(path, fps=10)


def test_pages_of_a_tiff_are_images(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    pages(path, "TIFF", 20, 4)
    reader = read_frames(path, fps=10)
    frames = list(reader)
    assert reader.kind == "images"
    assert [int(f.rgb[0, 0, 0]) for f in frames] == [0, 12, 24, 36]
    assert [f.time_s for f in frames] == pytest.approx([0.0, 0.1, 0.2, 0.3])
    assert {f.file for f in frames} == {str(path)}


def test_of_several_files_the_first_images_are_read(tmp_path: Path) -> None:
    pages(tmp_path / "a.tif", "TIFF", 20, 4)
    Image.new("L", (20, 20), 9).save(tmp_path / "b.png")
    reader = read_frames(tmp_path)
    assert [int(f.rgb[0, 0, 0]) for f in reader] == [0, 9]
    assert reader.warnings == [f"{tmp_path / 'a.tif'}: the file holds 4 images; the first is read"]
    said: list[str] = []
    read_image(tmp_path / "a.tif", warnings=said)
    assert said == ["the file holds 4 images; the first is read"]


def test_damaged_animation_ends_with_a_warning(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    noise = np.random.default_rng(0).integers(0, 256, (6, 64, 64, 3), np.uint8)
    images = [Image.fromarray(image) for image in noise]
    images[0].save(path, save_all=True, append_images=images[1:], duration=40)
    raw = path.read_bytes()
    path.write_bytes(raw[: len(raw) // 2])
    reader = read_video(path)
    frames = list(reader)
    assert 1 <= len(frames) < 6
    assert "reading ends there" in reader.warnings[0]


# Messages


def test_nothing_reaches_the_terminal(tmp_path: Path) -> None:
    """Damaged files of both kinds, in a process of their own, with Python's default settings."""
    clip = bytearray(write(tmp_path / "a.mp4", "libx264").read_bytes())
    middle = len(clip) // 3
    clip[middle : middle + 500] = bytes(500)
    (tmp_path / "damaged.mp4").write_bytes(clip)
    exif = Image.Exif()
    exif[0x0112] = 1
    image = tmp_path / "exif.jpg"
    Image.new("RGB", (50, 40)).save(image, exif=exif.tobytes()[:-9])
    code = f"""
from pyfau.video import read_video, read_images
reader = read_video({str(tmp_path / "damaged.mp4")!r})
frames = list(reader)
assert frames and reader.warnings
images = read_images([{str(image)!r}])
assert len(list(images)) == 1
print(len(images.warnings))
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "1\n"


def test_warnings_of_pillow_are_counted_per_file(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 1
    paths = [tmp_path / f"{k}.jpg" for k in range(2)]
    for path in paths:
        Image.new("RGB", (50, 40)).save(path, exif=exif.tobytes()[:-9])
    limit = Image.MAX_IMAGE_PIXELS
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        reader = read_images(paths)
        assert len(list(reader)) == 2
    assert len(reader.warnings) == 2
    assert reader.warnings[0].startswith(f"{paths[0]}: the decoder gave ")
    assert limit == Image.MAX_IMAGE_PIXELS


# HEIC


def test_heic_without_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    with pytest.raises(MediaError, match=r"photo\.heic: a HEIC image.*pip install 'pyfau\[heic\]'"):
        read_image(CASES / "photo.heic")


def test_heic() -> None:
    pytest.importorskip("pillow_heif")
    rgb = read_image(CASES / "photo.heic")
    other = read_image(CASES / "photo.avif")
    assert rgb.shape == other.shape
    assert np.corrcoef(rgb.ravel(), other.ravel())[0, 1] > 0.99


def test_reading_is_soon_refused(tmp_path: Path) -> None:
    """The size in the header is enough."""
    path = tmp_path / "huge.webp"
    path.write_bytes(webp(16384))
    begin = time.process_time()
    with pytest.raises(MediaError, match="268435456 pixels"):
        read_image(path)
    assert time.process_time() - begin < 1.0  # the decoder takes several seconds


def test_what_a_image_file_holds(tmp_path: Path) -> None:
    pages(tmp_path / "a.tif", "TIFF", 20, 2)
    pages(tmp_path / "a.webp", "WEBP", 20, 2)
    Image.new("L", (20, 20)).save(tmp_path / "a.png")
    assert kind_of(tmp_path / "a.tif") == "images"
    assert kind_of(tmp_path / "a.webp", Limits(animation_pixels=1)) == "video"
    assert kind_of(tmp_path / "a.png") == kind_of(tmp_path / "none.png") == "image"
