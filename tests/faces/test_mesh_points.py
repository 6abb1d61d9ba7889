"""`AUDetector(landmarks=True)`: the landmark network on the faces of every aligner."""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import pytest

from pyfau import AUDetector, AUResult, draw_overlay, read_result
from pyfau.cli import main
from pyfau.faces.crop import crop_face
from pyfau.faces.mesh import MeshAligner, MeshPoints
from pyfau.faces.mtcnn import MTCNNAligner
from pyfau.media.images import read_image
from pyfau.media.readers import read_video
from pyfau.overlay.writer import OverlayWriter
from pyfau.types import Face, FloatArray, UInt8Array

FRAMES = 12


@pytest.fixture(scope="module")
def teacher() -> dict[str, FloatArray]:
    """MediaPipe's 68 points, by the name of the image."""
    with np.load(Path(__file__).parents[1] / "data" / "parity" / "mesh_points.npz") as stored:
        return dict(stored)


@pytest.fixture(scope="module")
def detector() -> AUDetector:
    return AUDetector(device="cpu", landmarks=True)


@pytest.fixture(scope="module")
def frames(media: Path) -> list[UInt8Array]:
    with read_video(media / "single_face.mp4") as reader:
        return [frame.rgb for frame in reader][:FRAMES]


@pytest.fixture(scope="module")
def result(detector: AUDetector, frames: list[UInt8Array]) -> AUResult:
    return detector.detect_frames(frames, fps=25)


def error(points: FloatArray, truth: FloatArray) -> float:
    """Mean distance in percent of the distance between the eyes."""
    eyes = np.linalg.norm(truth[42:48].mean(axis=0) - truth[36:42].mean(axis=0))
    return float(100 * np.linalg.norm(points - truth, axis=1).mean() / eyes)


def landmarks(result: AUResult) -> FloatArray:
    assert result.landmarks is not None
    return result.landmarks


class OwnAligner:
    """An aligner of a user: it has five landmarks and nothing else."""

    def __init__(self) -> None:
        self._mtcnn = MTCNNAligner()

    def detect(self, rgb: UInt8Array) -> list[Face]:
        return self._mtcnn.detect(rgb)

    def refine(self, rgb: UInt8Array, boxes: Sequence[FloatArray]) -> list[Face]:
        return self._mtcnn.refine(rgb, boxes)


@pytest.mark.parametrize("aligner", ["mtcnn", "mesh", OwnAligner()])
def test_points_agree_with_the_teacher(
    media: Path, teacher: dict[str, FloatArray], aligner: str
) -> None:
    detector = AUDetector(device="cpu", aligner=aligner, landmarks=True)
    assert detector.has_landmarks
    assert detector.settings()["landmarks"] is True
    result = detector.detect_image(media / "single_face.jpg")
    [points] = landmarks(result)
    assert error(points, teacher["single_face.jpg"]) < 6
    assert result.irises is not None
    left, right = result.irises[0]
    assert np.linalg.norm(left - points[36:42].mean(axis=0)) < np.ptp(points[36:42, 0]) / 2
    assert np.linalg.norm(right - points[42:48].mean(axis=0)) < np.ptp(points[42:48, 0]) / 2
    assert result.eye_openness is not None
    assert (result.eye_openness > 0.5).all()


def test_aligned_crops_have_points(media: Path, teacher: dict[str, FloatArray]) -> None:
    rgb = read_image(media / "single_face.jpg")
    detector = AUDetector(device="cpu", aligner="aligned", landmarks=True)
    [face] = MTCNNAligner().detect(rgb)
    config = detector.model.config
    crop = crop_face(rgb, face.landmarks, config.template, 224)
    result = detector.detect_image(crop)
    [points] = landmarks(result)
    assert np.isfinite(points).all()
    # The same points, moved into the crop.
    plain = AUDetector(device="cpu", landmarks=True).detect_image(rgb)
    matrix, _ = cv2.estimateAffinePartial2D(landmarks(plain)[0], points)
    moved = landmarks(plain)[0] @ matrix[:, :2].T + matrix[:, 2]
    assert error(points, moved) < 3


def test_the_mesh_aligner_gives_the_points_it_has(frames: list[UInt8Array]) -> None:
    detector = AUDetector(device="cpu", aligner="mesh", landmarks=True)
    assert isinstance(detector._options.aligner, MeshAligner)
    assert detector._options.points is detector._options.aligner.points
    own = detector.detect_frames(frames[:3])
    faces = detector._options.aligner.follow(frames[0], detector._options.aligner.detect(frames[0]))
    assert faces[0].mesh is not None
    np.testing.assert_allclose(landmarks(own)[0], faces[0].mesh.points, atol=1)


def test_several_faces_each_have_their_own(detector: AUDetector, media: Path) -> None:
    result = detector.detect_image(media / "multi_face.jpg")
    assert len(result) == 5
    for row in result:
        assert row.mesh is not None
        left, top, right, bottom = row.box_xyxy
        x, y = row.mesh.points[17:].mean(axis=0)
        assert left < x < right
        assert top < y < bottom


def test_frames_without_a_face(detector: AUDetector, media: Path) -> None:
    with read_video(media / "no_face.mp4") as reader:
        dark = [frame.rgb for frame in reader][:4]
    result = detector.detect_frames(dark)
    assert landmarks(result).shape == (4, 68, 2)
    assert np.isnan(landmarks(result)).all()
    assert result[0].mesh is not None


def test_no_points_where_the_network_sees_no_face(media: Path) -> None:
    rgb = read_image(media / "single_face.jpg")
    [face] = MTCNNAligner().detect(rgb)
    points = MeshPoints()
    seen = points.locate([points.cut(rgb, face), points.cut(rgb * 0 + 90, face)])
    assert np.isfinite(seen[0].points).all()
    assert np.isnan(seen[1].points).all()
    assert points.locate([]) == []


def test_all_ways_give_the_same_points(
    detector: AUDetector, frames: list[UInt8Array], result: AUResult
) -> None:
    stream = detector.stream(fps=25)
    streamed = [row for frame in frames for row in stream.push(frame)] + stream.flush()
    prompt = detector.stream(fps=25, latency=0)
    at_once = [row for frame in frames for row in prompt.push(frame)]
    for rows in (streamed, at_once, list(detector.iter_frames(frames))):
        points = np.stack([row.mesh.points for row in rows if row.mesh is not None])
        np.testing.assert_allclose(points, landmarks(result), atol=1e-2)


def test_scores_do_not_depend_on_the_option(frames: list[UInt8Array], result: AUResult) -> None:
    plain = AUDetector(device="cpu").detect_frames(frames, fps=25)
    assert plain.landmarks is None
    assert plain[0].mesh is None
    assert plain.metadata["landmarks"] is False
    np.testing.assert_array_equal(plain.scores, result.scores)
    np.testing.assert_array_equal(plain.measures, result.measures)


def test_a_pickled_detector_has_the_option(detector: AUDetector, media: Path) -> None:
    copy = pickle.loads(pickle.dumps(detector))
    assert copy.has_landmarks
    image = media / "single_face.jpg"
    np.testing.assert_array_equal(
        copy.detect_image(image).landmarks, detector.detect_image(image).landmarks
    )


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
def test_the_command_line_writes_them(media: Path, tmp_path: Path, suffix: str) -> None:
    out = tmp_path / f"face{suffix}"
    image = str(media / "single_face.jpg")
    assert main(["detect", image, "-o", str(out), "--landmarks", "--quiet"]) == 0
    table = read_result(out)
    assert table.metadata["landmarks"] is True
    assert np.isfinite(landmarks(table)).all()
    assert {"x_67", "iris_left_x", "eye_openness_right"} <= set(table.to_dataframe().columns)


def test_resume_scores_again_for_landmarks(
    media: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def skipped(*options: str) -> bool:
        arguments = [str(media / "single_face.jpg"), "-o", str(tmp_path / "out"), "--quiet"]
        assert main(["detect", *arguments, "--resume", *options]) == 0
        return "done already" in capsys.readouterr().out

    assert not skipped()
    assert not skipped("--landmarks")
    assert skipped("--landmarks")
    assert not skipped()


def test_overlays_show_the_points(frames: list[UInt8Array], result: AUResult) -> None:
    shown = draw_overlay(frames[0], [result[0]])
    hidden = draw_overlay(frames[0], [result[0]], landmarks=False)
    np.testing.assert_array_equal(result.draw(frames[0]), shown)
    np.testing.assert_array_equal(result.draw(frames[0], landmarks=False), hidden)
    points = landmarks(result)[0]
    x, y = np.rint(points[6]).astype(int)  # the jaw, where no other landmark and no box is
    assert shown[y, x].min() > 180
    assert hidden[y, x].max() < 180
    assert result.irises is not None
    x, y = np.rint(result.irises[0, 0]).astype(int)
    red, green, blue = shown[y, x].astype(int)
    assert min(red, green) > blue + 60  # the irises are yellow


def test_a_video_shows_them_and_an_anonymous_one_does_not(
    frames: list[UInt8Array], result: AUResult, tmp_path: Path
) -> None:
    images = {}
    for name, options in {
        "shown": {},
        "hidden": {"landmarks": False},
        "covered": {"anonymise": True},
        "covered without": {"anonymise": True, "landmarks": False},
    }.items():
        path = tmp_path / f"{name}.mp4"
        with OverlayWriter(path, 25, **options) as writer:
            writer.write(frames[0], [result[0]], 0.0)
        with read_video(path) as reader:
            images[name] = next(iter(reader)).rgb
    assert np.abs(images["shown"].astype(int) - images["hidden"]).max() > 60
    np.testing.assert_array_equal(images["covered"], images["covered without"])
