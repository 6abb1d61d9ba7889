"""Faces are covered in overlays, also where tracking has gaps."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import pytest
from test_result import empty_row, face_row

from pyfau.cli import main
from pyfau.demo import write_demo_clip
from pyfau.errors import InputError
from pyfau.overlay.hiding import FaceHider, hide_faces
from pyfau.overlay.writer import OverlayWriter

BOX = np.array([60, 40, 120, 110], np.float32)


def noise(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 255, (160, 200, 3), np.uint8)


def detail(image: np.ndarray) -> float:
    """Mean difference of neighbouring pixels inside the box."""
    part = image[40:110, 60:120].astype(float)
    return float(np.abs(np.diff(part, axis=1)).mean())


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
    hider.hide(noise(), [replace(face_row(0), box_xyxy=BOX)])
    for frame in range(1, 91):
        assert detail(hider.hide(noise(frame), [empty_row(frame)])) < 3
    assert detail(hider.hide(noise(91), [empty_row(91)])) > 50


def test_the_covered_area_grows_while_the_face_is_missing() -> None:
    hider = FaceHider()
    first = hider.hide(noise(), [replace(face_row(0), box_xyxy=BOX)])
    later = hider.hide(noise(), [empty_row(20)])
    changed = [int((image != noise()).any(axis=2).sum()) for image in (first, later)]
    assert changed[1] > 1.3 * changed[0]


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
