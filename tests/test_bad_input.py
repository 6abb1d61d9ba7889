"""What is missing, damaged, strange or extreme: one clear error, or a normal result."""

from __future__ import annotations

import math
import os
import wave
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from made import write_clip
from PIL import Image

from pyfau import AUDetector, AUResult, AURow
from pyfau.demo import demo_frames
from pyfau.errors import InputError, MediaError, OptionError, PyfauError
from pyfau.video import read_video


@pytest.fixture(scope="module")
def detector() -> AUDetector:
    return AUDetector(device="cpu")


@pytest.fixture(scope="module")
def face() -> np.ndarray:
    """(240, 320, 3), one face, upright."""
    return cv2.resize(demo_frames()[0], (320, 240), interpolation=cv2.INTER_AREA)


@pytest.fixture(scope="module")
def blank() -> np.ndarray:
    return np.full((240, 320, 3), 90, np.uint8)


def check(rows: Iterable[AURow], frames: Sequence[int] | None = None) -> list[AURow]:
    """Every row is a face with scores or the note that there is none, in order, and every frame is
    there.
    """
    rows = list(rows)
    seen: dict[int, list[AURow]] = {}
    for row in rows:
        seen.setdefault(row.frame, []).append(row)
        assert row.scores.shape == row.active.shape == (len(row.aus),)
        if row.success:
            assert row.face_id is not None
            assert 0 <= row.confidence <= 1
            assert np.isfinite(row.box_xyxy).all()
            assert np.isfinite(row.landmarks).all()
            assert bool(((row.scores >= 0) & (row.scores <= 1)).all())
        else:
            assert row.face_id is None
            assert row.confidence == 0
            assert np.isnan(row.box_xyxy).all()
            assert np.isnan(row.scores).all()
            assert not row.active.any()
    assert [row.frame for row in rows] == sorted(row.frame for row in rows)
    if frames is not None:
        assert list(seen) == list(frames)
    for together in seen.values():
        ids = [row.face_id for row in together]
        assert len(set(ids)) == len(ids)
        assert ids == [None] or None not in ids
    return rows


def successes(rows: Iterable[AURow]) -> list[int]:
    return [row.frame for row in rows if row.success]


def ids(rows: Iterable[AURow]) -> set[int | None]:
    return {row.face_id for row in rows if row.success}


def jpeg(rgb: np.ndarray) -> bytes:
    return bytes(cv2.imencode(".jpg", np.ascontiguousarray(rgb[:, :, ::-1]))[1])


# Files


def missing(folder: Path) -> Path:
    return folder / "gone.mp4"


def empty_folder(folder: Path) -> Path:
    (folder / "nothing").mkdir()
    return folder / "nothing"


def zero_bytes(folder: Path) -> Path:
    (folder / "zero.mp4").touch()
    return folder / "zero.mp4"


def text(folder: Path) -> Path:
    (folder / "text.mp4").write_text("Dear diary,\n" * 100)
    return folder / "text.mp4"


def noise(folder: Path) -> Path:
    (folder / "noise.mp4").write_bytes(np.random.default_rng(0).bytes(20000))
    return folder / "noise.mp4"


def sound(folder: Path) -> Path:
    with wave.open(str(folder / "sound.wav"), "wb") as file:
        file.setparams((1, 2, 8000, 0, "NONE", ""))
        file.writeframes(np.sin(np.arange(16000) / 5).astype(np.int16).tobytes())
    return folder / "sound.wav"


def renamed_sound(folder: Path) -> Path:
    return sound(folder).rename(folder / "sound.mp4")


def without_index(folder: Path) -> Path:
    """An .mp4 as a recorder leaves it that loses power: the table of frames, which comes last, is
    missing.
    """
    path = write_clip(
        folder / "cut.mp4", [np.full((48, 64, 3), 9 * k, np.uint8) for k in range(20)]
    )
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    return path


def dangling_link(folder: Path) -> Path:
    (folder / "link.mp4").symlink_to(folder / "target.mp4")
    return folder / "link.mp4"


@pytest.mark.parametrize("entry", ["detect_video", "iter_video", "iter_frames"])
@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (missing, "no such file"),
        (empty_folder, "folder"),
        (zero_bytes, r"is empty \(0 bytes\)"),
        (text, "not a video file"),
        (noise, "not a video file|no frame of it"),
        (sound, "not a video file"),
        (renamed_sound, "not a video file"),
        (without_index, "not a video file|no frame of it"),
        (dangling_link, "not a regular file|no such file"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_files_that_are_no_video(
    detector: AUDetector, tmp_path: Path, make: Callable[[Path], Path], reason: str, entry: str
) -> None:
    path = make(tmp_path)
    with pytest.raises(MediaError, match=reason) as caught:
        list(getattr(detector, entry)(path))
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (missing, "no such file"),
        (empty_folder, "no images or videos"),
        (zero_bytes, r"is empty \(0 bytes\)"),
        (text, "not an image"),
        (noise, "not an image"),
        (sound, "not an image"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_files_that_are_no_image(
    detector: AUDetector, tmp_path: Path, make: Callable[[Path], Path], reason: str
) -> None:
    path = make(tmp_path)
    with pytest.raises(MediaError, match=reason) as caught:
        detector.detect_images(path)
    assert str(path) in str(caught.value)
    if not path.is_dir():
        with pytest.raises(MediaError, match=reason) as caught:
            detector.detect_image(path)
        assert str(path) in str(caught.value)
        with pytest.raises(MediaError, match=reason) as caught:
            detector.detect_images([path, path])
        assert str(path) in str(caught.value)


def test_nothing_is_left_behind_by_an_input_that_cannot_be_opened(
    detector: AUDetector, tmp_path: Path
) -> None:
    path = text(tmp_path)
    with pytest.raises(MediaError):
        detector.detect_video(path, save=tmp_path / "out.csv", overlay=tmp_path / "overlay.mp4")
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_a_truncated_video_gives_the_frames_that_are_left(
    detector: AUDetector, media: Path, tmp_path: Path
) -> None:
    data = (media / "WolfgangLanger_Pexels.mp4").read_bytes()
    path = tmp_path / "cut.mp4"
    path.write_bytes(data[: len(data) // 6])
    result = detector.detect_video(path, save=tmp_path / "cut.csv")
    assert 10 < len(result) < 400
    check(result, range(len(result)))
    assert [
        w for w in result.warnings if "announces 472 frames" in w and f"holds {len(result)}" in w
    ]
    assert AUResult.read_csv(tmp_path / "cut.csv").warnings == result.warnings
    half = tmp_path / "half.mp4"
    data = (media / "single_face.mp4").read_bytes()
    half.write_bytes(data[: len(data) // 2])
    with pytest.raises(MediaError, match="not a video file") as caught:  # its index comes last
        detector.detect_video(half)
    assert str(half) in str(caught.value)


def test_a_truncated_avi(detector: AUDetector, face: np.ndarray, tmp_path: Path) -> None:
    path = write_clip(tmp_path / "cut.avi", [face] * 30, codec="MJPG")
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])
    result = detector.detect_video(path)
    assert 10 <= len(result) < 30
    check(result, range(len(result)))
    assert successes(result) == list(range(len(result)))
    assert "truncated" in " ".join(result.warnings)


def test_damage_in_the_middle_of_a_video(detector: AUDetector, media: Path, tmp_path: Path) -> None:
    data = bytearray((media / "single_face.mp4").read_bytes())
    middle = len(data) // 3
    data[middle : middle + 3000] = np.random.default_rng(0).bytes(3000)
    path = tmp_path / "scratched.mp4"
    path.write_bytes(data)
    result = detector.detect_video(path)
    rows = check(result)
    assert len(rows) >= 10
    assert len(rows) == 72 or result.warnings


@pytest.mark.parametrize("value", [None, 3, 2.5, [], np.zeros((2, 8, 8, 3), np.uint8), b"clip.mp4"])
@pytest.mark.parametrize("entry", ["detect_video", "iter_video"])
def test_values_that_are_no_path(detector: AUDetector, entry: str, value: Any) -> None:
    with pytest.raises(InputError, match=type(value).__name__):
        getattr(detector, entry)(value)


@pytest.mark.parametrize("value", [None, 3, 2.5, [], {}, object(), b"x.png", [None], [3], [[]]])
def test_values_that_are_no_images(detector: AUDetector, value: Any) -> None:
    for entry in ("detect_images", "detect_image", "detect_frames"):
        with pytest.raises(InputError):
            getattr(detector, entry)(value)


@pytest.mark.parametrize(
    "entry", ["detect_video", "detect_image", "detect_images", "iter_video", "iter_frames"]
)
def test_names_that_are_too_long(detector: AUDetector, entry: str) -> None:
    with pytest.raises(MediaError, match="n" * 300):
        getattr(detector, entry)("n" * 300 + ".png")


def test_names_with_zeros_inside(detector: AUDetector) -> None:
    for entry in ("detect_video", "detect_image", "detect_images", "iter_video", "iter_frames"):
        with pytest.raises(MediaError):
            getattr(detector, entry)("a\0b.png")


# Images among others


def test_a_torn_image_among_good_ones(
    detector: AUDetector, face: np.ndarray, tmp_path: Path
) -> None:
    folder = tmp_path / "walk"
    folder.mkdir()
    for k in range(4):
        (folder / f"{k}.jpg").write_bytes(jpeg(face))
    torn = folder / "1.jpg"
    torn.write_bytes(jpeg(face)[:2000])
    result = detector.detect_images(folder, fps=10, save=tmp_path / "out.csv")
    rows = check(result, [0, 2, 3])
    assert successes(rows) == [0, 2, 3]
    assert ids(rows) == {0}
    assert [row.time_s for row in rows] == pytest.approx([0, 0.2, 0.3])
    assert [failure.source for failure in result.failures] == [str(torn)]
    assert result.failures[0].error
    with pytest.raises(MediaError) as caught:
        detector.detect_image(torn)
    assert str(torn) in str(caught.value)
    stored = AUResult.read_csv(tmp_path / "out.csv")
    assert stored.failures == result.failures
    for path in folder.iterdir():
        path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(MediaError, match="no image could be read") as caught:
        detector.detect_images(folder)
    assert str(folder / "0.jpg") in str(caught.value)


def test_kinds_of_images_are_read_alike(
    detector: AUDetector, face: np.ndarray, tmp_path: Path
) -> None:
    grey = cv2.cvtColor(face, cv2.COLOR_RGB2GRAY)
    opaque = np.dstack([face, np.full(face.shape[:2], 255, np.uint8)])
    hidden = np.dstack([face, np.zeros(face.shape[:2], np.uint8)])
    wide = grey.astype(np.uint16) * 257
    turned = Image.Exif()
    turned[0x0112] = 6  # to be turned clockwise
    Image.fromarray(face).save(tmp_path / "plain.png")
    Image.fromarray(opaque).save(tmp_path / "opaque.png")
    Image.fromarray(hidden).save(tmp_path / "hidden.png")
    Image.fromarray(grey).save(tmp_path / "grey.png")
    Image.fromarray(wide).save(tmp_path / "wide.png")
    Image.fromarray(np.rot90(face).copy()).save(tmp_path / "turned.png", exif=turned)
    scores = {}
    for path in tmp_path.iterdir():
        result = detector.detect_image(path)
        check(result, [0])
        assert result[0].file == str(path)
        if result[0].success:
            scores[path.stem] = result.scores[0]
    assert scores.keys() == {
        "plain",
        "opaque",
        "grey",
        "wide",
        "turned",
    }  # what is hidden shows no face
    for one, other in (("plain", "opaque"), ("plain", "turned"), ("grey", "wide")):
        assert np.allclose(scores[one], scores[other], atol=1e-6)
    assert np.abs(scores["plain"] - scores["grey"]).max() > 1e-4
    for array, name in (
        (opaque, "plain"),
        (grey, "grey"),
        (wide, "grey"),
        (grey[:, :, None], "grey"),
    ):
        assert np.allclose(detector.detect_image(array).scores[0], scores[name], atol=1e-6)
    assert np.allclose(
        detector.detect_image(Image.fromarray(grey)).scores[0], scores["grey"], atol=1e-6
    )
    assert np.allclose(
        detector.detect_image(face / np.float32(255)).scores[0], scores["plain"], atol=1e-6
    )


def test_real_images(detector: AUDetector, media: Path) -> None:
    assert len(successes(check(detector.detect_image(media / "multi_face.jpg"), [0]))) == 5
    assert len(successes(check(detector.detect_image(media / "single_face.jpg"), [0]))) == 1
    check(detector.detect_image(media / "Image_with_alpha.png"), [0])
    rows = check(
        detector.detect_images(sorted(media.glob("*.[jp][pn]g")), independent=True), [0, 1, 2]
    )
    assert {Path(row.file or "").name for row in rows} == {
        "Image_with_alpha.png",
        "multi_face.jpg",
        "single_face.jpg",
    }
    assert len(ids(rows)) == len(successes(rows))  # every face has an id of its own


# Arrays

BAD_ARRAYS = {
    "signed": np.zeros((8, 8, 3), np.int64),
    "32 bit": np.zeros((8, 8, 3), np.uint32),
    "bool": np.zeros((8, 8, 3), bool),
    "complex": np.zeros((8, 8, 3), np.complex64),
    "text": np.array([["a", "b"]]),
    "objects": np.array([[None, None]]),
    "two channels": np.zeros((8, 8, 2), np.uint8),
    "channels first": np.zeros((3, 8, 8), np.uint8),
    "one row of numbers": np.zeros(8, np.uint8),
    "several images": np.zeros((2, 8, 8, 3), np.uint8),
    "no rows": np.zeros((0, 8, 3), np.uint8),
    "no columns": np.zeros((8, 0, 3), np.uint8),
    "negative": np.full((8, 8, 3), -0.5),
    "over one": np.full((8, 8, 3), 255.0),
    "NaN": np.full((8, 8, 3), np.nan),
    "one NaN": np.where(np.arange(192).reshape(8, 8, 3) == 77, np.nan, 0.5),
    "infinite": np.full((8, 8, 3), np.inf, np.float32),
    "ragged": [[1, 2], [3]],
    "None": None,
    "a path": "image.png",
    "a number": 5,
}


@pytest.mark.parametrize("name", BAD_ARRAYS)
def test_arrays_that_are_no_image(
    detector: AUDetector, face: np.ndarray, tmp_path: Path, name: str
) -> None:
    bad = BAD_ARRAYS[name]
    if not isinstance(bad, str):  # a path is right for detect_image
        with pytest.raises(InputError, match=r"image: .*got|expected .*got"):
            detector.detect_image(bad)
    with pytest.raises(InputError, match=r"^frame 2: .*got") as caught:
        detector.detect_frames([face, face, bad, face], save=tmp_path / "out.csv")
    partial = caught.value.partial_result
    assert partial is not None
    assert successes(check(partial, [0, 1])) == [0, 1]
    stored = AUResult.read_csv(tmp_path / "out.csv")
    assert list(stored.frames) == [0, 1]
    assert "incomplete" in " ".join(stored.warnings)


def test_a_stream_goes_on_after_what_is_no_image(detector: AUDetector, face: np.ndarray) -> None:
    frames = [np.roll(face, 2 * k, axis=1) for k in range(12)]

    def run(disturbed: bool) -> list[AURow]:
        stream, rows = detector.stream(fps=10), []
        for frame in frames:
            if disturbed:
                for bad in BAD_ARRAYS.values():
                    with pytest.raises(InputError):
                        stream.push(bad)
            rows += stream.push(frame)
        return rows + stream.flush()

    plain, disturbed = check(run(False), range(12)), check(run(True), range(12))
    assert successes(plain) == list(range(12))
    for one, other in zip(plain, disturbed, strict=True):
        assert (one.frame, one.time_s, one.face_id) == (other.frame, other.time_s, other.face_id)
        assert np.array_equal(one.scores, other.scores)


def test_a_stream_without_frames(detector: AUDetector) -> None:
    stream = detector.stream()
    assert stream.flush() == []
    stream.reset()
    assert stream.flush() == []
    for fps in (0, -1, math.nan, math.inf):
        with pytest.raises(OptionError, match="fps must be a positive number"):
            detector.stream(fps=fps)


def test_a_generator_that_fails_keeps_its_own_error(
    detector: AUDetector, face: np.ndarray, tmp_path: Path
) -> None:
    def frames() -> Iterator[np.ndarray]:
        yield face
        raise ConnectionError("the other end is gone")

    with pytest.raises(ConnectionError, match="the other end is gone"):
        detector.detect_frames(frames(), save=tmp_path / "out.csv")
    assert list(AUResult.read_csv(tmp_path / "out.csv").frames) == [0]


# Frames of changing size


def test_images_of_another_size_are_another_scene(
    detector: AUDetector, face: np.ndarray, tmp_path: Path
) -> None:
    small = cv2.resize(face, (200, 150), interpolation=cv2.INTER_AREA)
    sequence = [face] * 4 + [small] * 3 + [face] * 2
    rows = check(detector.detect_frames(sequence), range(9))
    assert [row.face_id for row in rows] == [0] * 4 + [1] * 3 + [2] * 2
    for k, image in enumerate(sequence):
        Image.fromarray(image).save(tmp_path / f"{k}.png")
    result = detector.detect_images(tmp_path, overlay=tmp_path / "out" / "overlay.mp4")
    for row, other in zip(check(result, range(9)), rows, strict=True):
        assert np.allclose(row.scores, other.scores, atol=1e-6)
    with read_video(tmp_path / "out" / "overlay.mp4") as drawn:
        assert [frame.rgb.shape for frame in drawn] == [face.shape] * 9


def test_a_video_whose_frames_change_size(
    detector: AUDetector, face: np.ndarray, tmp_path: Path
) -> None:
    small = cv2.resize(face, (200, 150), interpolation=cv2.INTER_AREA)
    path = tmp_path / "changing.mjpeg"  # images one after the other, which FFmpeg reads as video
    path.write_bytes(b"".join(jpeg(image) for image in [face] * 5 + [small] * 4))
    rows = check(detector.detect_video(path), range(9))
    assert successes(rows) == list(range(9))


# Sizes


@pytest.mark.parametrize(
    "shape", [(1, 1), (1, 4000), (4000, 1), (2, 3), (13, 19), (11, 500), (20, 20)]
)
def test_tiny_images_are_frames_without_a_face(
    detector: AUDetector, shape: tuple[int, int]
) -> None:
    image = np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)
    for result in (detector.detect_image(image), detector.detect_frames([image])):
        assert len(result) == 1
        assert not check(result, [0])[0].success
    assert not check(detector.detect_frames([image] * 20), range(20))[19].success


def test_tiny_images_in_files(detector: AUDetector, tmp_path: Path) -> None:
    for name in ("a.png", "a.jpg", "a.bmp"):
        Image.new("RGB", (1, 1), (200, 10, 10)).save(tmp_path / name)
    rows = check(
        detector.detect_images(tmp_path, save=tmp_path / "a.csv", overlay=tmp_path / "a.mp4"),
        [0, 1, 2],
    )
    assert successes(rows) == []


def test_an_8k_image(detector: AUDetector, face: np.ndarray) -> None:
    image = np.full((4320, 7680, 3), 90, np.uint8)
    assert not check(detector.detect_image(image), [0])[0].success
    near = cv2.resize(face, (2560, 1920), interpolation=cv2.INTER_LINEAR)
    image[1200:3120, 4000:6560] = near
    rows = check(detector.detect_image(image), [0])
    assert len(successes(rows)) == 1
    x1, y1, x2, y2 = rows[0].box_xyxy
    assert 4000 < x1 < x2 < 6560
    assert 1200 < y1 < y2 < 3120
    plain = detector.detect_image(near)[0]
    assert np.allclose(rows[0].box_xyxy - [4000, 1200, 4000, 1200], plain.box_xyxy, atol=40)


# Faces that are there, or not


def test_no_face_anywhere(detector: AUDetector, blank: np.ndarray, tmp_path: Path) -> None:
    result = detector.detect_frames(
        [blank] * 40, fps=20, save=tmp_path / "out.csv", overlay=tmp_path / "out.mp4"
    )
    assert successes(check(result, range(40))) == []
    assert ids(result) == set()
    assert result.strongest(3) == []
    table = AUResult.read_csv(tmp_path / "out.csv").to_dataframe()
    assert len(table) == 40
    assert table[list(detector.aus)].isna().all(axis=None)
    assert table["face_id"].isna().all()
    with read_video(tmp_path / "out.mp4") as drawn:
        assert sum(1 for _ in drawn) == 40


@pytest.mark.parametrize("window", ["continuous", "clips"])
@pytest.mark.parametrize(("before", "after"), [(10, 30), (0, 5), (5, 0), (0, 0)])
def test_one_face_for_three_frames(
    face: np.ndarray, blank: np.ndarray, before: int, after: int, window: str
) -> None:
    detector = AUDetector(device="cpu", window=window, batch_size=4)
    rows = check(
        detector.detect_frames([blank] * before + [face] * 3 + [blank] * after),
        range(before + 3 + after),
    )
    assert successes(rows) == [before, before + 1, before + 2]
    assert len(ids(rows)) == 1
    alone = detector.detect_frames([face] * 3)
    assert len(alone) == 3
    for row, own in zip((row for row in rows if row.success), alone, strict=True):
        assert np.abs(row.scores - own.scores).max() <= 1e-5


def frames_of(
    path: Path, start: int, stop: int, size: tuple[int, int] | None = None
) -> list[np.ndarray]:
    images = []
    with read_video(path) as reader:
        for frame in reader:
            if frame.index >= stop:
                break
            if frame.index >= start:
                images.append(
                    cv2.resize(frame.rgb, size, interpolation=cv2.INTER_AREA) if size else frame.rgb
                )
    return images


def test_two_clips_side_by_side_keep_two_ids(detector: AUDetector, media: Path) -> None:
    left = frames_of(media / "single_face.mp4", 0, 24, (320, 180))
    right = frames_of(media / "WolfgangLanger_Pexels.mp4", 0, 24, (320, 180))
    result = detector.detect_frames(np.hstack(pair) for pair in zip(left, right, strict=True))
    rows = check(result, range(24))
    assert len(rows) == 48
    sides = {row.face_id: {bool(np.mean(row.box_xyxy[[0, 2]]) > 320)} for row in rows[:2]}
    assert len(sides) == 2
    assert sorted(side for seen in sides.values() for side in seen) == [False, True]
    for row in rows:
        assert {bool(np.mean(row.box_xyxy[[0, 2]]) > 320)} == sides[row.face_id]
    # Nothing of a neighbour gets into the scores.
    alone = detector.detect_frames([np.hstack([image, np.zeros_like(image)]) for image in left])
    own = np.array([row.scores for row in rows if sides[row.face_id] == {False}])
    assert np.abs(own - alone.scores).mean() < 0.02


def test_a_face_that_leaves_and_one_that_comes(detector: AUDetector, media: Path) -> None:
    rows = check(detector.detect_frames(frames_of(media / "face_noface.mov", 58, 96)), range(38))
    assert {0, 5, 8} <= set(successes(rows)) <= set(range(76 - 58))
    assert ids(rows) == {0}
    rows = check(detector.detect_frames(frames_of(media / "noface_face.mov", 80, 118)), range(38))
    assert set(range(100 - 80, 38)) <= set(successes(rows)) <= set(range(94 - 80, 38))
    assert ids(rows) == {0}


def test_a_hand_over_the_face(detector: AUDetector, media: Path) -> None:
    rows = check(
        detector.detect_frames(frames_of(media / "WolfgangLanger_Pexels.mp4", 40, 200)), range(160)
    )
    seen = [row.face_id for row in rows if row.success]
    assert len(seen) >= 0.9 * 160
    assert seen.count(seen[0]) >= 0.9 * len(seen)
    assert len(set(seen)) <= 3


# Whatever comes


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_small_arrays_of_any_shape_give_normal_results(
    detector: AUDetector, data: st.DataObject
) -> None:
    side = st.integers(1, 40)
    images = data.draw(
        st.lists(
            st.tuples(side, side, st.sampled_from([(), (1,), (3,), (4,)])).flatmap(
                lambda s: arrays(
                    np.uint8,
                    (s[0], s[1], *s[2]),
                    elements=st.integers(0, 255),
                    fill=st.integers(0, 255),
                )
            ),
            min_size=1,
            max_size=4,
        )
    )
    check(detector.detect_frames(images), range(len(images)))
    check(detector.detect_image(images[0]), [0])


@pytest.fixture(scope="module")
def aligned() -> AUDetector:
    return AUDetector(device="cpu", aligner="aligned", batch_size=2)


@settings(
    max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    shapes=st.lists(st.tuples(st.integers(1, 40), st.integers(1, 40)), min_size=1, max_size=5),
    seed=st.integers(0, 2**32 - 1),
)
def test_small_arrays_that_are_said_to_be_faces(
    aligned: AUDetector, shapes: list[tuple[int, int]], seed: int
) -> None:
    rng = np.random.default_rng(seed)
    images = [rng.integers(0, 256, (*shape, 3), dtype=np.uint8) for shape in shapes]
    rows = check(aligned.detect_frames(images), range(len(images)))
    assert successes(rows) == list(range(len(images)))


JUNK = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=5)
    | st.binary(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=2)
    ),
    max_leaves=12,
)


@settings(
    max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(junk=JUNK)
def test_anything_else_gives_errors_of_the_family(detector: AUDetector, junk: Any) -> None:
    stream = detector.stream()
    for take in (
        detector.detect_frames,
        detector.detect_image,
        detector.detect_images,
        stream.push,
    ):
        try:
            rows = take(junk)
        except PyfauError:
            continue
        check(rows)


@pytest.mark.skipif(os.name != "posix", reason="needs a pipe that is a file")
def test_a_pipe_is_not_waited_for(detector: AUDetector, tmp_path: Path) -> None:
    path = tmp_path / "pipe.mp4"
    os.mkfifo(path)
    with pytest.raises(MediaError, match="not a regular file") as caught:
        detector.detect_video(path)
    assert str(path) in str(caught.value)
