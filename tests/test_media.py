"""Real clips, asserted on what is to be seen in them (tests/data/README.md)."""

from __future__ import annotations

import functools
from itertools import islice
from pathlib import Path

import cv2
import numpy as np
import pytest

from pyfau import AUDetector, AUResult
from pyfau.faces import crop, mtcnn
from pyfau.faces.halves import halves_of
from pyfau.faces.mtcnn import MTCNNAligner
from pyfau.video import read_image, read_video

NUMBER_OF_AUS = 20


@pytest.fixture(scope="module")
def detector() -> AUDetector:
    return AUDetector(device="cpu")


@pytest.fixture(scope="module")
def crying_woman(detector: AUDetector, media: Path) -> AUResult:
    return detector.detect_video(media / "WolfgangLanger_Pexels.mp4")


@pytest.fixture(scope="module")
def smiling_man(detector: AUDetector, media: Path) -> AUResult:
    return detector.detect_video(media / "single_face.mp4")


def score(result: AUResult, au: str) -> np.ndarray:
    return result.scores[:, result.aus.index(au)]


def active(result: AUResult, au: str) -> np.ndarray:
    return np.array([row.active[result.aus.index(au)] for row in result])


def blendshape(media: Path, clip: str, *names: str) -> np.ndarray:
    with np.load(media / "reference.npz") as reference:
        known = list(reference["names"])
        return reference[clip][:, [known.index(name) for name in names]].mean(axis=1)


def test_one_row_a_frame_and_one_face_throughout(
    crying_woman: AUResult, smiling_man: AUResult
) -> None:
    for result, frames, fps in ((crying_woman, 472, 23.976), (smiling_man, 72, 30.0)):
        assert list(result.frames) == list(range(frames))
        assert result.face_id_column == [0] * frames
        assert result.scores.shape == (frames, NUMBER_OF_AUS)
        assert np.isfinite(result.scores).all()
        assert result.metadata["fps"] == pytest.approx(fps, abs=0.01)


def test_the_smile_fires_and_the_neutral_face_does_not(smiling_man: AUResult) -> None:
    smile, parted = score(smiling_man, "AU12"), score(smiling_man, "AU25")
    assert smile[30:].mean() > smile[:10].mean() + 0.3
    assert parted[30:].mean() > parted[:10].mean() + 0.2
    assert active(smiling_man, "AU12")[30:].mean() > 0.95
    assert active(smiling_man, "AU12")[:10].mean() < 0.2
    assert active(smiling_man, "AU25")[30:].mean() > 0.9
    assert active(smiling_man, "AU25")[:10].mean() < 0.2


def test_crying_draws_the_brows_together_and_the_smile_comes_after(crying_woman: AUResult) -> None:
    brow, smile = score(crying_woman, "AU04"), score(crying_woman, "AU12")
    # She begins to cry at about frame 30, with her eyes closed from the start.
    assert brow[40:160].mean() > 1.2 * brow[:40].mean()
    assert brow[40:160].mean() > 3 * brow[160:240].mean()
    assert brow[40:160].mean() > 3 * brow[240:].mean()  # in the smile
    assert active(crying_woman, "AU04")[240:].mean() < 0.05
    assert smile[300:440].mean() > smile[60:200].mean() + 0.3
    assert active(crying_woman, "AU12")[300:440].mean() > 0.9
    assert active(crying_woman, "AU25")[300:440].mean() > 0.9
    assert active(crying_woman, "AU25")[:60].mean() < 0.1


@pytest.mark.parametrize(
    ("au", "names", "least"),
    [
        ("AU04", ("browDownLeft", "browDownRight"), 0.6),
        # A hand covers her mouth while she cries, where no tracker's mouth means much. mdhr-lite 10
        # has 0.796.
        ("AU12", ("mouthSmileLeft", "mouthSmileRight"), 0.75),
        ("AU43", ("eyeBlinkLeft", "eyeBlinkRight"), 0.9),
    ],
)
def test_scores_follow_an_independent_tracker(
    crying_woman: AUResult, media: Path, au: str, names: tuple[str, ...], least: float
) -> None:
    """A person whom the model never saw; MediaPipe's blendshapes are no ground truth, but they are
    independent.
    """
    reference = blendshape(media, "wolfgang", *names)
    found = score(crying_woman, au)
    assert np.corrcoef(found, reference)[0, 1] > least


def test_frames_without_a_face_are_rows_without_scores(detector: AUDetector, media: Path) -> None:
    result = detector.detect_video(media / "face_noface.mov")
    assert list(result.frames) == list(range(169))
    rows = list(result)
    assert all(row.success for row in rows[:68])
    assert not any(row.success for row in rows[76:])
    for row in rows[76:]:
        assert row.face_id is None
        assert np.isnan(row.scores).all()
        assert not row.active.any()
    nothing = detector.detect_video(media / "no_face.mp4")
    assert len(nothing) > 90
    assert not any(row.success for row in nothing)


def test_a_smile_in_a_image(detector: AUDetector, media: Path) -> None:
    (row,) = detector.detect_image(media / "single_face.jpg")
    assert row["AU12"] > 0.5
    five = detector.detect_image(media / "multi_face.jpg")
    assert len(five) == 5
    assert score(five, "AU12").min() > 0.4


def test_clips_and_continuous_windows_agree_on_what_is_seen(
    media: Path, smiling_man: AUResult
) -> None:
    clips = AUDetector(device="cpu", window="clips").detect_video(media / "single_face.mp4")
    assert len(clips) == 72
    assert np.corrcoef(score(clips, "AU12"), score(smiling_man, "AU12"))[0, 1] > 0.9


@pytest.mark.parametrize("clip", ["single_face.mp4", "WolfgangLanger_Pexels.mp4"])
def test_the_crop_jitters_by_at_most_half_a_pixel(
    media: Path, clip: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1] / "benchmarks"))
    import crop_jitter

    with read_video(media / clip) as reader:
        frames = [frame.rgb for frame in reader]
    landmarks, _ = crop_jitter.track(MTCNNAligner(), frames)
    median, _ = crop_jitter.jitter(landmarks)
    assert 0.01 < median <= 0.5


def test_a_still_face_stands_still(detector: AUDetector, media: Path) -> None:
    """A repeated image is no motion: after the tracker has settled, landmarks and scores do not
    move at all.
    """
    rows = list(detector.detect_frames([read_image(media / "single_face.jpg")] * 40))
    assert np.abs(rows[10].landmarks - rows[-1].landmarks).max() < 0.05
    for row in rows[25:]:
        assert np.array_equal(row.landmarks, rows[-1].landmarks)
        assert np.allclose(row.scores, rows[-1].scores, atol=1e-5)


def test_faster_shrinking_changes_the_scores_no_more_than_noise_does(
    detector: AUDetector, media: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Against averaging exact areas, on a face of 560 pixels.

    One level of noise changes scores by 0.001 and 0.01.
    """
    with read_video(media / "WolfgangLanger_Pexels.mp4") as reader:
        frames = [
            cv2.resize(frame.rgb, (1280, 720), interpolation=cv2.INTER_CUBIC)
            for frame in islice(reader, 60)
        ]
    fast = detector.detect_frames(frames)
    exact = functools.partial(crop.warp, spare=1 << 30)
    monkeypatch.setattr(mtcnn, "warp", exact)
    monkeypatch.setattr(
        crop, "cut", lambda image, *rest: exact(halves_of(image).rgb, rest[0][None], rest[1])[0]
    )
    change = np.abs(detector.detect_frames(frames).scores - fast.scores)
    assert 0 < change.mean() < 0.01
    assert np.quantile(change, 0.99) < 0.1


@pytest.mark.parametrize("batch_size", [1, 7])
def test_scoring_beside_the_search_changes_nothing(
    media: Path, smiling_man: AUResult, batch_size: int
) -> None:
    detector = AUDetector(device="cpu", batch_size=batch_size)
    result = detector.detect_video(media / "single_face.mp4")
    assert list(result.frames) == list(smiling_man.frames)
    np.testing.assert_allclose(result.scores, smiling_man.scores, atol=1e-4)
