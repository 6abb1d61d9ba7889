"""Faces are covered in overlays, also where tracking has gaps."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from test_result import empty_row, face_row

from pyfau import AUDetector
from pyfau.cli import main
from pyfau.demo import write_demo_clip
from pyfau.errors import InputError
from pyfau.overlay import hiding
from pyfau.overlay.hiding import DelayedHider, FaceHider, hide_faces
from pyfau.overlay.writer import OverlayWriter
from pyfau.types import AURow

MEDIA = Path(__file__).parents[1] / "data" / "media"
BOX = np.array([60, 40, 120, 110], np.float32)


def noise(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 255, (160, 200, 3), np.uint8)


def detail(image: np.ndarray) -> float:
    """Mean difference of neighbouring pixels inside the box."""
    part = image[40:110, 60:120].astype(float)
    return float(np.abs(np.diff(part, axis=1)).mean())


def covered(hider: FaceHider, image: np.ndarray, rows: list[AURow]) -> np.ndarray:
    """The next frame with its faces covered."""
    return hide_faces(image, hider.boxes(image, rows))


def test_a_face_loses_its_detail_and_the_rest_stays() -> None:
    image = noise()
    hidden = hide_faces(image, [BOX])
    assert detail(image) > 50
    assert detail(hidden) < 3
    np.testing.assert_array_equal(hidden[:, 150:], image[:, 150:])
    np.testing.assert_array_equal(image, noise())  # the input stays as it is
    # Forehead, ears and chin outside the box are covered as well.
    assert np.abs(hidden[20:39, 60:120].astype(int) - image[20:39, 60:120]).mean() > 20


def test_few_colours_are_left() -> None:
    part = hide_faces(noise(), [BOX])[16:134, 39:141]
    # Linear between at most 6 x 6 colours: few numbers describe it.
    ranks = [np.linalg.matrix_rank(part[..., i].astype(float) - 128, tol=60) for i in range(3)]
    assert max(ranks) <= 6


@pytest.mark.parametrize(
    "box",
    [[-50, -50, 20, 20], [190, 150, 400, 400], [500, 500, 600, 600], [10, 10, 10, 10], [0] * 4],
)
def test_boxes_at_the_edge_and_outside(box: list[float]) -> None:
    assert hide_faces(noise(), [np.array(box, np.float32)]).shape == (160, 200, 3)


def test_rows_without_a_box_and_bad_images() -> None:
    np.testing.assert_array_equal(hide_faces(noise(), [np.full(4, np.nan, np.float32)]), noise())
    with pytest.raises(InputError, match="expected a uint8"):
        hide_faces(noise().astype(float), [BOX])  # type: ignore[arg-type]


def test_the_last_place_of_a_missing_face_stays_covered() -> None:
    hider = FaceHider()
    covered(hider, noise(), [replace(face_row(0), box_xyxy=BOX)])
    for frame in range(1, 91):
        assert detail(covered(hider, noise(frame), [empty_row(frame)])) < 3
    assert detail(covered(hider, noise(91), [empty_row(91)])) > 50


def test_the_covered_area_grows_while_the_face_is_missing() -> None:
    hider = FaceHider()
    first = covered(hider, noise(), [replace(face_row(0), box_xyxy=BOX)])
    later = covered(hider, noise(), [empty_row(20)])
    changed = [int((image != noise()).any(axis=2).sum()) for image in (first, later)]
    assert changed[1] > 1.3 * changed[0]


def shown(hider: DelayedHider, frames: list[list[AURow]]) -> list[bool]:
    """For each frame, whether the place of the face can be seen."""
    images = []
    for index, rows in enumerate(frames):
        images += [frame.hidden() for frame in hider.push(noise(index), rows)]
    images += [frame.hidden() for frame in hider.finish()]
    assert len(images) == len(frames)
    return [detail(image) > 50 for image in images]


def face(frame: int, face_id: int = 0) -> AURow:
    return replace(face_row(frame), box_xyxy=BOX, face_id=face_id)


def test_the_place_of_a_newcomer_is_covered_before_it_is_found() -> None:
    frames = [[empty_row(i)] for i in range(30)] + [[face(i)] for i in range(30, 35)]
    assert shown(DelayedHider(), frames) == [True] * 15 + [False] * 20


def test_a_face_that_returns_is_covered_before_it_is_found_again() -> None:
    away = BOX + np.array([120, 0, 120, 0], np.float32)  # outside the image, where it was before
    frames = [[replace(face(i), box_xyxy=away)] for i in range(30)]
    frames += [[empty_row(30)], [face(31)]]
    assert shown(DelayedHider(), frames)[16:] == [False] * 16


def test_faces_without_rows_are_searched_every_fifth_frame() -> None:
    searched: list[int] = []

    def find(rgb: np.ndarray) -> list[np.ndarray]:
        index = next(i for i in range(200) if np.array_equal(rgb, noise(i)))
        searched.append(index)
        return [BOX] if 22 <= index < 40 else []

    frames = [[empty_row(i)] for i in range(140)]
    found = shown(DelayedHider(find), frames)
    assert searched == list(range(0, 140, 5))
    # The search of frame 25 finds it first, and that of frame 35 last.
    assert [i for i, seen in enumerate(found) if not seen] == list(range(10, 126))


def test_a_face_that_gets_rows_is_not_held_at_its_old_place() -> None:
    away = BOX + np.array([0, 300, 0, 300], np.float32)
    frames = [[empty_row(i)] for i in range(6)] + [[face(6)]]
    frames += [[replace(face(i), box_xyxy=away)] for i in range(7, 30)]
    hider = DelayedHider(lambda rgb: [BOX] if np.array_equal(rgb, noise(5)) else [])
    assert shown(hider, frames)[7:] == [True] * 23


def test_another_image_size_is_another_scene() -> None:
    hider = DelayedHider()
    small = np.zeros((80, 100, 3), np.uint8)
    done = [*hider.push(noise(0), [face(0)]), *hider.push(small, [face(1, 1)])]
    assert [frame.rgb.shape for frame in done] == [(160, 200, 3)]
    assert len(done[0].boxes) == 1
    assert [frame.rgb.shape for frame in hider.finish()] == [(80, 100, 3)]


def test_few_large_images_are_held(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hiding, "_MOST_HELD_BYTES", 2 * noise().nbytes)
    hider = DelayedHider()
    done = [len(list(hider.push(noise(i), [empty_row(i)]))) for i in range(5)]
    assert done == [0, 0, 1, 1, 1]


def test_everybody_is_covered_although_one_face_is_scored(tmp_path: Path) -> None:
    """The second person comes late, and `max_faces` keeps it out of the table."""
    portrait = cv2.cvtColor(cv2.imread(str(MEDIA / "single_face.jpg")), cv2.COLOR_BGR2RGB)
    portrait = cv2.resize(portrait, (300, 300))
    alone = np.full((300, 600, 3), 120, np.uint8)
    alone[:, :300] = portrait
    both = alone.copy()
    both[:, 300:] = portrait[:, ::-1]
    path = tmp_path / "covered.mp4"
    detector = AUDetector(anonymise=True, max_faces=1)
    result = detector.detect_frames([alone] * 7 + [both] * 10, fps=25, overlay=path)
    left, top, right, bottom = result[0].box_xyxy.round().astype(int)
    place = np.s_[top:bottom, 600 - right : 600 - left]
    with av.open(str(path)) as file:
        images = [frame.to_ndarray(format="rgb24") for frame in file.decode(video=0)]
    assert len(images) == 17
    for image in images[7:]:
        assert np.abs(image[place].astype(int) - both[place]).mean() > 10
    photo = tmp_path / "covered.png"
    detector.detect_image(both, overlay=photo)
    image = cv2.cvtColor(cv2.imread(str(photo)), cv2.COLOR_BGR2RGB)
    assert np.abs(image[place].astype(int) - both[place]).mean() > 10


def test_a_video_is_covered(tmp_path: Path) -> None:
    path = tmp_path / "covered.mp4"
    row = replace(face_row(0), box_xyxy=BOX, active=np.zeros(4, bool))
    with OverlayWriter(path, 25, anonymise=True) as writer:
        for frame in range(5):
            writer.write(noise(), [replace(row, frame=frame)] if frame != 2 else [empty_row(2)])
    with av.open(str(path)) as file:
        images = [frame.to_ndarray(format="rgb24") for frame in file.decode(video=0)]
    assert len(images) == 5
    for image in images:
        inner = image[70:90, 75:105].astype(float)
        assert np.abs(np.diff(inner, axis=1)).mean() < 6


def test_the_command_needs_an_overlay_to_cover(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["detect", str(MEDIA / "single_face.jpg"), "-o", str(tmp_path / "a.csv")]
    assert main([*command, "--anonymise"]) == 1
    assert "add --overlay" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_the_command_covers_and_resume_notices(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    clip = write_demo_clip(tmp_path / "clip.mp4")
    table, overlay = tmp_path / "clip.csv", tmp_path / "overlay.mp4"
    command = ["detect", str(clip), "-o", str(table), "--overlay", str(overlay), "--quiet"]
    assert main(command) == 0
    assert "anonymised_overlay" not in json.loads(Path(f"{table}.json").read_text())
    assert main([*command, "--resume"]) == 0
    assert "done already" in capsys.readouterr().out
    # An overlay that shows faces is not taken for one that hides them.
    assert main([*command, "--resume", "--anonymise"]) == 0
    assert "done already" not in capsys.readouterr().out
    assert json.loads(Path(f"{table}.json").read_text())["anonymised_overlay"] is True
    assert main([*command, "--resume", "--anonymise"]) == 0
    assert "done already" in capsys.readouterr().out
