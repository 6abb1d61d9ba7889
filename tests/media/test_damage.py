"""Damage that FFmpeg and Pillow decode without an error: a warning, and none for whole files."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from clips import numbered, write
from PIL import Image

from pyfau.errors import MediaError
from pyfau.media.damage import count_damaged_gif_images, damage_of_image
from pyfau.media.images import read_image
from pyfau.media.readers import read_frames, read_video

REALTIME = {"deadline": "realtime", "cpu-used": "8", "b": "4M"}
FILES: list[tuple[str, str, str, dict[str, str]]] = [
    ("a.mov", "mjpeg", "yuvj420p", {"q:v": "2"}),
    ("a.avi", "mjpeg", "yuvj420p", {"q:v": "2"}),
    ("ffv1.avi", "ffv1", "yuv420p", {}),
    ("slices.mkv", "ffv1", "yuv422p10le", {"level": "3", "slices": "16", "g": "1"}),
    ("a.gif", "gif", "rgb8", {}),
    ("vp8.mkv", "libvpx", "yuv420p", REALTIME),
    ("vp9.mkv", "libvpx-vp9", "yuv420p", REALTIME),
]


def noisy(count: int, size: tuple[int, int]) -> list[np.ndarray]:
    """Images whose coded data are large."""
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 60, (count, size[1], size[0], 3), np.uint8)
    return [np.asarray(numbered(k, size) // 2 + noise[k], np.uint8) for k in range(count)]


def clip(folder: Path, name: str) -> Path:
    _, codec, pixels, options = next(row for row in FILES if row[0] == name)
    images = noisy(20, (256, 144))
    return write(folder / name, codec, count=20, pixels=pixels, options=options, images=images)


def changed(path: Path, where: float, new: bytes) -> Path:
    """A copy with other bytes in one place."""
    data = bytearray(path.read_bytes())
    start = int(where * len(data))
    data[start : start + len(new)] = new
    copy = path.with_name(f"changed{path.suffix}")
    copy.write_bytes(data)
    return copy


@pytest.mark.parametrize("name", [row[0] for row in FILES])
def test_whole_videos_give_no_warning(tmp_path: Path, name: str) -> None:
    reader = read_video(clip(tmp_path, name))
    assert len(list(reader)) == 20
    assert reader.warnings == []


@pytest.mark.parametrize("where", [0.31, 0.52, 0.76])
@pytest.mark.parametrize("name", [row[0] for row in FILES])
def test_damaged_images_of_a_video_are_announced(tmp_path: Path, name: str, where: float) -> None:
    new = np.random.default_rng(1).bytes(200)
    reader = read_video(changed(clip(tmp_path, name), where, new))
    assert len(list(reader)) >= (11 if name == "a.gif" else 18)
    assert reader.warnings


def test_the_number_of_damaged_frames_of_motion_jpeg(tmp_path: Path) -> None:
    copy = changed(clip(tmp_path, "a.mov"), 0.4, bytes(100))
    reader = read_video(changed(copy, 0.7, bytes(100)))
    frames = list(reader)
    assert [frame.index for frame in frames] == list(range(20))
    np.testing.assert_allclose([frame.time_s for frame in frames], np.arange(20) / 25)
    assert reader.warnings == ["the data of 2 frames are damaged; the images there may be wrong"]


def test_the_number_of_damaged_images_of_a_gif(tmp_path: Path) -> None:
    copy = changed(clip(tmp_path, "a.gif"), 0.5, bytes([255] * 9))
    reader = read_video(copy)
    assert len(list(reader)) == 20
    assert reader.warnings == ["1 images are damaged; parts of them are missing"]


@pytest.mark.parametrize("codec", ["libvpx", "libvpx-vp9"])
def test_lost_sectors_of_webm(tmp_path: Path, codec: str) -> None:
    """This container has no checksums."""
    images = noisy(20, (256, 144))
    path = write(tmp_path / "a.webm", codec, count=20, options=REALTIME, images=images)
    assert not read_video(path).warnings
    reader = read_video(changed(path, 0.5, bytes(1024)))
    list(reader)
    assert any("damaged" in text or "missing" in text for text in reader.warnings)


def test_wrong_checksums_name_the_time(tmp_path: Path) -> None:
    path = write(
        tmp_path / "a.mkv",
        "libx264",
        count=50,
        options={"g": "10", "bf": "0"},
        container={"cluster_time_limit": "400"},
    )
    data = path.read_bytes()
    place = data.find(b"\x1f\x43\xb6\x75", len(data) // 2)
    copy = changed(path, (place - 40) / len(data), b"\x55" * 8)
    reader = read_video(copy)
    assert len(list(reader)) >= 49
    warning = next(text for text in reader.warnings if "checksums" in text)
    start, end = (float(word) for word in warning.split() if word[0].isdigit())
    assert 0.3 < end - start < 0.6
    assert 0.4 < start < 1.6


def flat() -> Image.Image:
    return Image.new("RGB", (2000, 1500), "white")


def photo() -> Image.Image:
    return Image.fromarray(noisy(1, (640, 480))[0])


IMAGES: list[tuple[str, dict[str, Any]]] = [
    ("JPEG", {}),
    ("JPEG", {"optimize": True}),
    ("JPEG", {"progressive": True}),
    ("JPEG", {"restart_marker_blocks": 4}),
    ("PNG", {}),
    ("WEBP", {}),
    ("WEBP", {"lossless": True}),
]


@pytest.mark.parametrize("make", [flat, photo])
@pytest.mark.parametrize(("kind", "options"), IMAGES)
def test_whole_images_give_no_warning(
    tmp_path: Path, kind: str, options: dict[str, Any], make: Callable[[], Image.Image]
) -> None:
    path = tmp_path / "a.bin"
    make().save(path, kind, **options)
    assert damage_of_image(path, kind) == []


@pytest.mark.parametrize(
    ("kind", "options", "new"),
    [
        ("JPEG", {}, bytes(512)),
        ("JPEG", {}, b"\xff\x01\x02"),
        ("JPEG", {"restart_marker_blocks": 4}, b"\xff\xd0\xff\xd5"),
        ("WEBP", {}, bytes(4096)),
    ],
)
def test_damaged_images_give_a_warning(
    tmp_path: Path, kind: str, options: dict[str, Any], new: bytes
) -> None:
    path = tmp_path / f"a.{kind.lower()}"
    photo().save(path, kind, **options)
    warnings: list[str] = []
    read_image(changed(path, 0.5, new), warnings=warnings)
    assert warnings == ["the file is damaged: parts of the image may be wrong"]


def test_the_checksum_of_a_png(tmp_path: Path) -> None:
    """Pillow stops before the end of the coded pixels, where it would see most damage."""
    path = tmp_path / "a.png"
    photo().quantize(64).save(path)
    data = path.read_bytes()
    assert damage_of_image(path, "PNG") == []
    seen = []
    for place in range(len(data) - 400, len(data) - 16):
        warnings: list[str] = []
        copy = changed(path, (place + 0.5) / len(data), bytes([data[place] ^ 1]))
        try:
            read_image(copy, warnings=warnings)
        except MediaError:
            continue
        seen.append(warnings)
    assert seen
    assert all(text == ["the file is damaged: parts of the image may be wrong"] for text in seen)


def test_a_damaged_image_of_an_animation(tmp_path: Path) -> None:
    images = [Image.fromarray(rgb) for rgb in noisy(5, (400, 300))]
    path = tmp_path / "a.webp"
    images[0].save(path, save_all=True, append_images=images[1:], duration=100)
    assert not read_frames(path).warnings
    reader = read_frames(changed(path, 0.5, bytes(2048)))
    assert len(list(reader)) == 5
    assert reader.warnings == ["the file is damaged: parts of the image may be wrong"]


def test_a_folder_names_the_damaged_image(tmp_path: Path) -> None:
    for name in ("1.jpg", "2.jpg"):
        photo().save(tmp_path / name)
    data = bytearray((tmp_path / "2.jpg").read_bytes())
    data[9000:9512] = bytes(512)
    (tmp_path / "2.jpg").write_bytes(data)
    reader = read_frames(tmp_path)
    assert len(list(reader)) == 2
    (warning,) = reader.warnings
    assert warning.startswith(f"{tmp_path / '2.jpg'}: the file is damaged")


def test_images_that_end_without_a_mark_are_whole(tmp_path: Path) -> None:
    """Some cameras write no end into their images."""
    data = io.BytesIO()
    photo().save(data, "JPEG")
    path = tmp_path / "a.jpg"
    path.write_bytes(data.getvalue()[:-2])
    assert damage_of_image(path, "JPEG") == []


def test_a_huge_file_is_not_read_for_a_check(tmp_path: Path) -> None:
    path = tmp_path / "huge.png"
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(path)
    with path.open("r+b") as file:
        file.truncate(8 << 30)  # sparse: zeros after the image
    assert damage_of_image(path, "PNG") == []
    assert count_damaged_gif_images(path) == 0
